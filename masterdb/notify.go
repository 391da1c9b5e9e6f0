package masterdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// message is what one transaction has to tell under one topic.
type message struct{ topic, payload string }

// subscription is one domain's interest in one topic.
type subscription struct {
	topic  string
	handle func(payload string)
	resync func()
}

// maxPayload is PostgreSQL's limit in bytes (sql-notify.html).
const maxPayload = 7999

// Notify tells the subscribers of topic, in every replica, when tx commits;
// never, if it does not. In this process they have been called when DB.Tx
// returns. The same message twice in one transaction is delivered once.
//
// PostgreSQL lets transactions that notify commit one after the other: this
// is for what changes rarely, not for what every request does. On SQLite
// other processes hear nothing.
func (tx *Tx) Notify(topic, payload string) error {
	if len(payload) > maxPayload {
		return errors.New("masterdb: the payload of a notification is too long")
	}
	if m := (message{topic, payload}); !slices.Contains(tx.messages, m) {
		tx.messages = append(tx.messages, m)
	}
	return nil
}

// tellOthers has PostgreSQL deliver the messages when tx commits.
func (tx *Tx) tellOthers(ctx context.Context) error {
	if len(tx.messages) == 0 {
		return nil
	}
	topics, payloads := make([]string, len(tx.messages)), make([]string, len(tx.messages))
	for i, m := range tx.messages {
		topics[i], payloads[i] = m.topic, m.payload
	}
	_, err := tx.pg.Exec(ctx, `SELECT pg_notify(topic, payload) FROM unnest($1::text[], $2::text[]) AS m (topic, payload)`, topics, payloads)
	return err
}

// Subscribe has handle called with the payload of each message on topic, and
// resync whenever messages may have been missed: after every connection that
// Listen makes. Both must return at once, since they hold up all that comes
// after them; both may be called at the same time from several goroutines,
// and handle again for the same message. Payloads come from whoever can reach
// the database: handle has to check them. Subscribe before Listen.
func (db *DB) Subscribe(topic string, handle func(payload string), resync func()) {
	db.subscribers.Lock()
	defer db.subscribers.Unlock()
	db.subscriptions = append(db.subscriptions, subscription{topic, handle, resync})
}

// subscribed returns the subscriptions to topic, or all for "".
func (db *DB) subscribed(topic string) []subscription {
	db.subscribers.RLock()
	defer db.subscribers.RUnlock()
	var out []subscription
	for _, s := range db.subscriptions {
		if topic == "" || s.topic == topic {
			out = append(out, s)
		}
	}
	return out
}

// tellLocally is for this process, whose own changes must hold at once.
func (db *DB) tellLocally(messages []message) {
	for _, m := range messages {
		for _, s := range db.subscribed(m.topic) {
			s.handle(m.payload)
		}
	}
}

// ListenName is the application_name of the connection that Listen keeps.
const ListenName = "stoa listen"

// listenTimes: a dead connection is noticed after idle + answer at most.
type listenTimes struct {
	idle     time.Duration // without a message for so long, the server is asked whether it is there
	answer   time.Duration // and has so long to answer
	minPause time.Duration // before the first attempt to connect again
	maxPause time.Duration // between later ones
}

// Listen hears what other replicas notify and tells the subscribers, until
// ctx is done. It keeps one connection of its own and makes a new one when
// that is lost. On SQLite there is nothing to hear and it returns at once.
func (db *DB) Listen(ctx context.Context, log *slog.Logger) {
	db.listen(ctx, log, listenTimes{idle: 5 * time.Second, answer: 5 * time.Second, minPause: 100 * time.Millisecond, maxPause: 5 * time.Second})
}

func (db *DB) listen(ctx context.Context, log *slog.Logger, times listenTimes) {
	if db.pool == nil {
		return
	}
	l := &listener{db: db, log: log, listenTimes: times}
	pause := l.minPause
	for {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > l.maxPause {
			pause = l.minPause // that connection was a good one
		}
		log.WarnContext(ctx, "changes by other replicas are not heard at the moment", "retry", pause.String(), "err", err)
		select {
		case <-time.After(pause + rand.N(pause)): //nolint:gosec // not a secret: replicas should not come back in step
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, l.maxPause)
	}
}

// listener is one run of DB.Listen.
type listener struct {
	db  *DB
	log *slog.Logger
	listenTimes
}

// session lives as long as one connection. It returns why that ended.
func (l *listener) session(ctx context.Context) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer l.hangUp(ctx, conn)
	l.log.InfoContext(ctx, "listening for changes by other replicas")
	for _, s := range l.db.subscribed("") {
		l.contain(ctx, s.topic, s.resync)
	}
	for {
		n, err := l.next(ctx, conn)
		if err != nil {
			return err
		}
		if n == nil {
			continue
		}
		for _, s := range l.db.subscribed(n.Channel) {
			l.contain(ctx, s.topic, func() { s.handle(n.Payload) })
		}
	}
}

// connect opens the connection outside the pool, where it would take a place
// for good, and returns when it hears all topics.
func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := l.db.pool.Config().ConnConfig
	cfg.RuntimeParams["application_name"] = ListenName
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout+l.answer)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	for _, s := range l.db.subscribed("") {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{s.topic}.Sanitize()); err != nil {
			l.hangUp(ctx, conn)
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	return conn, nil
}

// next waits for a message. It returns nil when none came for a while and the
// server is there. The question matters: a server that vanished without a
// word, or a router that forgot the connection, looks just like silence.
func (l *listener) next(ctx context.Context, conn *pgx.Conn) (*pgconn.Notification, error) {
	idle, cancel := context.WithTimeout(ctx, l.idle)
	defer cancel()
	n, err := conn.WaitForNotification(idle)
	if err == nil || idle.Err() == nil || ctx.Err() != nil {
		return n, err
	}
	answer, cancel := context.WithTimeout(ctx, l.answer)
	defer cancel()
	return nil, conn.Ping(answer)
}

func (l *listener) hangUp(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// contain keeps one subscriber's panic from making the process deaf.
func (l *listener) contain(ctx context.Context, topic string, fn func()) {
	defer func() {
		if p := recover(); p != nil {
			l.log.ErrorContext(ctx, "a subscriber panicked", "topic", topic, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	fn()
}
