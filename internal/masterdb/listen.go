package masterdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ListenName is the application_name of the connection that Listen keeps.
const ListenName = "stoa listen"

// listenTimes holds the durations of a listener. A connection on which no notification
// arrives is detected after echo + 2 × answer. TCP keep-alive detects a lost peer after
// about 12 s.
type listenTimes struct {
	answer   time.Duration // time limit for the server to answer, or to deliver a notification
	echo     time.Duration // time between two echoes
	minPause time.Duration // pause before the first attempt to reconnect
	maxPause time.Duration // maximum pause between later attempts
	poll     time.Duration // time between two reads of the change log
}

// listenState is the state of Listen.
type listenState struct {
	runs   atomic.Bool // Listen runs, or has run
	silent atomic.Bool // Listen runs but receives no notifications
	once   sync.Once
	name   string // identifies this DB in the change log
}

// origin returns the name of this DB in the change log. DB uses it to skip its own changes.
func (s *listenState) origin() string {
	s.once.Do(func() { s.name = rand.Text() })
	return s.name
}

// MissesNotifications reports whether Listen runs and receives no notifications from
// PostgreSQL. Changes are then read from the change log.
func (db *DB) MissesNotifications() bool { return db.listening.silent.Load() }

// Listen passes the notifications of other processes to the subscribers, until ctx is done.
// On PostgreSQL it keeps one connection of its own and reconnects when that is lost. It
// sends a notification to itself every few seconds, because with a pooler or a stuck
// session the connection stays open and delivers nothing. While no notifications arrive,
// and always on SQLite, it reads the change log every second.
func (db *DB) Listen(ctx context.Context, log *slog.Logger) {
	db.listen(ctx, log, listenTimes{
		answer: 2 * time.Second, echo: 5 * time.Second, minPause: 100 * time.Millisecond, maxPause: 5 * time.Second, poll: time.Second,
	})
}

func (db *DB) listen(ctx context.Context, log *slog.Logger, times listenTimes) {
	db.listening.runs.Store(true)
	l := &listener{db: db, log: log, channel: echoChannel(), listenTimes: times}
	if db.pool == nil {
		l.pollSQLite(ctx)
		return
	}
	defer db.listening.silent.Store(false)
	var polling sync.WaitGroup
	polling.Go(func() { l.pollPostgres(ctx) })
	defer polling.Wait()
	l.sessions(ctx)
}

// listener is one run of DB.Listen.
type listener struct {
	db      *DB
	log     *slog.Logger
	channel string // the channel of its echoes
	listenTimes
}

// echoChannel returns a new channel name that differs from every topic.
func echoChannel() string { return "stoa_echo_" + strings.ToLower(rand.Text()) }

// sessions keeps a connection open and reconnects. It logs a loss once, and not each
// attempt to reconnect.
func (l *listener) sessions(ctx context.Context) {
	pause := l.minPause
	for logged := false; ; {
		began := time.Now()
		heard, err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if heard {
			logged = false
		}
		if heard && time.Since(began) > l.maxPause {
			pause = l.minPause // the connection worked
		}
		level := slog.LevelDebug
		if !logged {
			level, logged = slog.LevelWarn, true
		}
		l.log.Log(ctx, level, "notifications of other replicas are not received", "retry", pause.String(), "err", err)
		select {
		case <-time.After(pause + mathrand.N(pause)): //nolint:gosec // not a secret: the jitter keeps replicas from reconnecting at the same time
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, l.maxPause)
	}
}

// errNoNotifications means that a notification did not arrive on a connection that is open.
var errNoNotifications = errors.New("the connection receives no notifications: a pooler that keeps no sessions stands before the server, or the session is stuck")

// session opens a connection and receives notifications until it fails. It returns the
// cause, and whether notifications arrived.
func (l *listener) session(ctx context.Context) (heard bool, err error) {
	defer l.db.listening.silent.Store(true)
	conn, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer l.close(ctx, conn)
	var e echo
	for {
		e.send(ctx, l)
		n, err := l.next(ctx, conn, &e)
		if err != nil {
			return heard, err
		}
		if n == nil {
			continue
		}
		if n.Channel != l.channel {
			l.tell(ctx, n.Channel, n.Payload)
			continue
		}
		if e.received(n.Payload) && !heard {
			heard = true
			l.db.listening.silent.Store(false)
			l.log.InfoContext(ctx, "listening for changes by other replicas")
			l.resync(ctx)
		}
	}
}

func (l *listener) tell(ctx context.Context, topic, payload string) {
	for _, s := range l.db.subscribed(topic) {
		l.contain(ctx, s.topic, func() { s.handle(payload) })
	}
}

func (l *listener) resync(ctx context.Context) {
	for _, s := range l.db.subscribed("") {
		l.contain(ctx, s.topic, s.resync)
	}
}

// connect opens a connection and listens on all topics. The connection is outside the pool,
// because it would occupy a place in the pool permanently.
func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := l.db.sessions.Config().ConnConfig
	cfg.RuntimeParams["application_name"] = ListenName
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout+l.answer)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	topics := []string{l.channel}
	for _, s := range l.db.subscribed("") {
		topics = append(topics, s.topic)
	}
	for _, topic := range topics {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{topic}.Sanitize()); err != nil {
			l.close(ctx, conn)
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	return conn, nil
}

// next waits for a message. It returns nil when none came and the server, as far as is
// known, still answers. A lost server and a dropped NAT entry both look like an idle
// connection; only a missing echo shows the difference.
func (l *listener) next(ctx context.Context, conn *pgx.Conn, e *echo) (*pgconn.Notification, error) {
	waiting, cancel := context.WithTimeout(ctx, e.waitTime(l))
	defer cancel()
	n, err := conn.WaitForNotification(waiting)
	if err == nil || waiting.Err() == nil || ctx.Err() != nil {
		return n, err
	}
	if !e.check && !e.overdue() {
		return nil, nil //nolint:nilnil // no message came
	}
	e.check = false
	answer, cancel := context.WithTimeout(ctx, l.answer)
	defer cancel()
	if err := conn.Ping(answer); err != nil {
		return nil, err
	}
	// Messages that the server sent before its answer were received together with it.
	if n, err := conn.WaitForNotification(waiting); err == nil {
		return n, nil
	}
	if e.overdue() {
		return nil, errNoNotifications
	}
	return nil, nil //nolint:nilnil // no message came
}

// CheckListen checks that a notification arrives on a connection like the one of Listen. It
// does nothing on SQLite.
func (db *DB) CheckListen(ctx context.Context) error {
	if db.pool == nil {
		return nil
	}
	l := &listener{db: db, log: slog.New(slog.DiscardHandler), channel: echoChannel(), listenTimes: listenTimes{answer: 5 * time.Second}}
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer l.close(ctx, conn)
	if _, err := db.pool.Exec(ctx, `SELECT pg_notify($1, '')`, l.channel); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, l.answer)
	defer cancel()
	for {
		n, err := conn.WaitForNotification(waiting)
		if err != nil && ctx.Err() == nil && waiting.Err() != nil {
			return errNoNotifications
		}
		if err != nil || n.Channel == l.channel {
			return err
		}
	}
}

func (l *listener) close(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// contain calls fn and logs a panic, which would otherwise end the listener.
func (l *listener) contain(ctx context.Context, topic string, fn func()) {
	defer func() {
		if p := recover(); p != nil {
			l.log.ErrorContext(ctx, "a subscriber panicked", "topic", topic, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	fn()
}
