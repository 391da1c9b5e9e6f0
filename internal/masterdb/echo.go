package masterdb

import (
	"context"
	"crypto/rand"
	"time"
)

// echo is a notification that a listener sends to itself, from another session: a
// notification to the own session is part of that statement's answer, also
// where a pooler delivers no others. It shows that the connection lives. Sending
// one briefly takes the lock under which PostgreSQL commits transactions that
// notify.
type echo struct {
	token string           // what was sent and is awaited; "" when nothing is
	sent  chan echoOutcome // how sending went; nil when that is known
	at    time.Time        // when sending began
	due   time.Time        // when it must have arrived, once it is sent
	check bool             // nothing could be sent, so that the server is to be asked whether it is there
}

type echoOutcome struct {
	at  time.Time
	err error
}

// send sends an echo if it is time to.
func (e *echo) send(ctx context.Context, l *listener) {
	if e.sent != nil {
		select {
		case o := <-e.sent:
			e.sent, e.due = nil, o.at.Add(l.answer)
			if o.err != nil { // that nothing could be sent says nothing about this connection
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

// received reports whether a payload is the echo that is awaited.
func (e *echo) received(payload string) bool {
	if payload != e.token {
		return false
	}
	e.token = ""
	return true
}

// overdue reports whether the echo was sent and should have arrived.
func (e *echo) overdue() bool { return e.token != "" && e.sent == nil && time.Now().After(e.due) }

// waitTime returns how long to wait for a message: until the echo must have
// arrived, or the next one is to be sent.
func (e *echo) waitTime(l *listener) time.Duration {
	switch {
	case e.check:
		return time.Millisecond
	case e.sent != nil:
		return l.answer // sending it ends by then
	case e.token != "":
		return max(time.Until(e.due), time.Millisecond)
	default:
		return max(time.Until(e.at.Add(l.echo)), time.Millisecond)
	}
}
