package masterdb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// deafProxy returns a URL that leads to the same database through a proxy that understands
// the protocol. While silent is set, the proxy delivers no notifications, like a pooler in
// transaction mode.
func deafProxy(t *testing.T, direct string, silent *atomic.Bool) (through string) {
	t.Helper()
	u, err := url.Parse(direct)
	testkit.Must(t, err)
	target := u.Host
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	u.Host = l.Addr().String()
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(server, client)
				_ = server.Close()
			}()
			go func() {
				_ = relayMessages(client, server, silent)
				_ = client.Close()
				_ = server.Close()
			}()
		}
	}()
	return u.String()
}

// relayMessages forwards the server's messages. Each consists of a type and a length that
// includes itself.
func relayMessages(to io.Writer, from io.Reader, silent *atomic.Bool) error {
	for {
		var head [5]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(from, body); err != nil {
			return err
		}
		if head[0] == 'A' && silent.Load() {
			continue
		}
		if _, err := to.Write(append(head[:], body...)); err != nil {
			return err
		}
	}
}

// record counts the lines of a log that contain a word.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) count(word string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.buf.String(), word)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("in vain: " + what)
		}
	}
}

// TestListenerWithoutNotifications checks that a connection that stays open and delivers no notifications
// is detected, both at its start and later. Meanwhile each change is delivered once from
// the change log, and one line is logged.
func TestListenerWithoutNotifications(t *testing.T) {
	t.Parallel()
	for name, fromStart := range map[string]bool{"from the start": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := postgresURL(t)
			var silent atomic.Bool
			silent.Store(fromStart)
			a := masterdbtest.Open(t, direct)
			b := replica{DB: masterdbtest.Open(t, deafProxy(t, direct, &silent)), heard: make(chan string, 1000), resyncs: make(chan string, 1000)}
			b.Subscribe(topic, func(payload string) { b.heard <- payload }, func() { b.resyncs <- "resync" })
			log := &record{}
			listenWith(t, b.DB, slog.New(slog.NewTextHandler(log, nil)))
			if !fromStart {
				receive(t, b.resyncs)
				if b.MissesNotifications() {
					t.Error("silent although notifications arrive")
				}
				testkit.Must(t, b.CheckListen(t.Context()))
				silent.Store(true)
			}
			receive(t, b.resyncs) // from here on it reads the change log
			if !b.MissesNotifications() {
				t.Error("not silent although no notifications arrive")
			}
			if err := b.CheckListen(t.Context()); err == nil {
				t.Error("the check finds nothing")
			}
			sender := replica{DB: a}
			for _, payload := range []string{"one", "two", "three"} {
				sender.notify(t, nil, payload)
				if got := receive(t, b.heard); got != payload {
					t.Errorf("heard %q, want %q", got, payload)
				}
			}
			nothing(t, b.heard)
			nothing(t, b.resyncs)
			if n := log.count("change log"); n != 1 {
				t.Errorf("the log says %d times that the change log is read", n)
			}
			if n := log.count("notifications of other replicas are not received"); n != 1 {
				t.Errorf("the log says %d times that no notifications are received", n)
			}

			silent.Store(false)
			receive(t, b.resyncs)
			until(t, "it is not silent any more", func() bool { return !b.MissesNotifications() })
			sender.notify(t, nil, "heard again")
			for receive(t, b.heard) != "heard again" {
				t.Error("heard something else")
			}
		})
	}
}

// TestChangeLogOverlaps checks that a message whose transaction commits long after writing
// it is not missed while the change log is read.
func TestChangeLogOverlaps(t *testing.T) {
	t.Parallel()
	direct := postgresURL(t)
	var silent atomic.Bool
	silent.Store(true)
	b := replica{DB: masterdbtest.Open(t, deafProxy(t, direct, &silent)), heard: make(chan string, 1000), resyncs: make(chan string, 1000)}
	b.Subscribe(topic, func(payload string) { b.heard <- payload }, func() { b.resyncs <- "resync" })
	listen(t, b.DB)
	receive(t, b.resyncs)
	a := masterdbtest.Open(t, direct)
	tx, err := a.Pool().Begin(t.Context())
	testkit.Must(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO change_log (origin, topic, payload) VALUES ('another', $1, 'slow')`, topic)
	testkit.Must(t, err)
	replica{DB: a}.notify(t, nil, "fast")
	if got := receive(t, b.heard); got != "fast" {
		t.Errorf("heard %q", got)
	}
	testkit.Must(t, tx.Commit(t.Context()))
	if got := receive(t, b.heard); got != "slow" {
		t.Errorf("heard %q", got)
	}
}

// TestChangeLogExpires checks that notified messages are in the change log, and that only
// its expiry rule deletes them.
func TestChangeLogExpires(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := replica{DB: db}
		r.notify(t, nil, "one", "two", "one")
		r.notify(t, errChanged, "rolled back")
		count := func() (n int) {
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM change_log`))
			return n
		}
		if n := count(); n != 2 {
			t.Errorf("%d changes are logged, want 2", n)
		}
		rules := []masterdb.Expiry{masterdb.ChangeLogExpiry()}
		_, err := db.DeleteExpired(t.Context(), rules)
		testkit.Must(t, err)
		if n := count(); n != 2 {
			t.Errorf("%d recent changes are left, want 2", n)
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE change_log SET at = $1 WHERE payload = 'one'`, tx.Now.Add(-time.Hour))
			return err
		}))
		_, err = db.DeleteExpired(t.Context(), rules)
		testkit.Must(t, err)
		if n := count(); n != 1 {
			t.Errorf("%d changes are left, want 1", n)
		}
	})
}
