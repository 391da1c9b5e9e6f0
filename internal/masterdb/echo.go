package masterdb

import (
	"context"
	"crypto/rand"
	"time"
)

// echo is a notification that a listener sends to itself from another session. It shows
// that the connection still receives notifications. Sending from the same session would
// prove nothing: that notification is part of the statement's answer, also where a pooler
// delivers no others. Sending an echo briefly takes the lock under which PostgreSQL commits
// transactions that notify.
type echo struct {
	token string           // the payload that was sent and is awaited; "" when none is
	sent  chan echoOutcome // the result of sending; nil when it is known
	at    time.Time        // when sending began
	due   time.Time        // when the echo must have arrived, once it is sent
	check bool             // sending failed, so the server must be asked whether it still answers
}

type echoOutcome struct {
	at  time.Time
	err error
}

// send sends an echo if one is due.
func (e *echo) send(ctx context.Context, l *listener) {
	if e.sent != nil {
		select {
		case o := <-e.sent:
			e.sent, e.due = nil, o.at.Add(l.answer)
			if o.err != nil { // a failed send says nothing about the listening connection
				e.token, e.check = "", true
				l.log.DebugContext(ctx, "no notification could be sent", "err", o.err)
			}
		default:
			return
		}
	}
	if e.token != "" || !e.at.IsZero() && time.Since(e.at) < l.echo {
		return
	}
	e.token, e.at = rand.Text(), time.Now()
	sent, token := make(chan echoOutcome, 1), e.token
	e.sent = sent
	go func() {
		ctx, cancel := context.WithTimeout(ctx, l.answer)
		defer cancel()
		_, err := l.db.pool.Exec(ctx, `SELECT pg_notify($1, $2)`, l.channel, token)
		sent <- echoOutcome{at: time.Now(), err: err}
	}()
}

// received reports whether payload is the echo that is awaited.
func (e *echo) received(payload string) bool {
	if payload != e.token {
		return false
	}
	e.token = ""
	return true
}

// overdue reports whether the echo was sent and should have arrived.
func (e *echo) overdue() bool { return e.token != "" && e.sent == nil && time.Now().After(e.due) }

// waitTime returns how long to wait for a message: until the echo must have arrived, or
// until the next echo is due.
func (e *echo) waitTime(l *listener) time.Duration {
	switch {
	case e.check:
		return time.Millisecond
	case e.sent != nil:
		return l.answer // sending ends by then
	case e.token != "":
		return max(time.Until(e.due), time.Millisecond)
	default:
		return max(time.Until(e.at.Add(l.echo)), time.Millisecond)
	}
}
