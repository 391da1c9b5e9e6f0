package masterdb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

const topic = "stoa_test topic\"" // contains quotes: a topic is a name and must be quoted in SQL

var errChanged = errors.New("changed my mind")

// replica stands for one process: a separate DB and the messages that its subscriber
// received.
type replica struct {
	*masterdb.DB
	heard, resyncs chan string
	deaf           func() // stops its listener and waits for its end
}

// newReplica opens url. On PostgreSQL its listener is connected when it returns.
func newReplica(t *testing.T, url string) replica {
	t.Helper()
	r := replica{DB: masterdbtest.Open(t, url), heard: make(chan string, 1000), resyncs: make(chan string, 1000)}
	r.Subscribe(topic, func(payload string) { r.heard <- payload }, func() { r.resyncs <- time.Now().Format(time.RFC3339Nano) })
	r.deaf = listen(t, r.DB)
	if r.Engine == masterdb.Postgres {
		receive(t, r.resyncs)
	}
	return r
}

// listen starts a listener. It returns a function that stops the listener and waits for its
// end.
func listen(t *testing.T, db *masterdb.DB) (stop func()) {
	t.Helper()
	return listenWith(t, db, slog.New(slog.DiscardHandler))
}

func listenWith(t *testing.T, db *masterdb.DB, log *slog.Logger) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { db.ListenQuickly(ctx, log) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// notify sends payloads in one transaction that ends with result.
func (r replica) notify(t *testing.T, result error, payloads ...string) {
	t.Helper()
	err := r.Tx(t.Context(), func(tx *masterdb.Tx) error {
		for _, p := range payloads {
			if err := tx.Notify(topic, p); err != nil {
				return err
			}
		}
		return result
	})
	if !errors.Is(err, result) {
		t.Fatal(err)
	}
}

func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		return ""
	}
}

func nothing(t *testing.T, from <-chan string) {
	t.Helper()
	select {
	case s := <-from:
		t.Fatalf("heard %q", s)
	default:
	}
}

// listeners counts the listening connections to the same database.
func listeners(t *testing.T, db *masterdb.DB) int {
	t.Helper()
	var n int
	testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM pg_stat_activity
		WHERE application_name = $1 AND datname = current_database()`, masterdb.ListenName))
	return n
}

// hangUp ends the listening connections at the server, as soon as there are any.
func hangUp(t *testing.T, db *masterdb.DB) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, "somebody listens", func() bool {
		var ended []bool
		testkit.Must(t, db.Select(t.Context(), &ended, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = $1 AND datname = current_database()`, masterdb.ListenName))
		return len(ended) > 0
	})
}

func postgresURL(t *testing.T) string {
	t.Helper()
	masterdbtest.NeedsPostgres(t)
	return masterdbtest.URL(t, masterdb.Postgres)
}

// TestNotifyIsHeardAtHomeAtOnce checks that the subscribers in the same process have been
// called when Tx returns, on both engines, with and without a listener.
func TestNotifyIsHeardAtHomeAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := replica{DB: db, heard: make(chan string, 10)}
		hear := func(payload string) {
			var n int // the subscriber may use the database, because the transaction has ended
			if err := db.Get(t.Context(), &n, `SELECT 1`); err != nil {
				t.Error(err)
			}
			r.heard <- payload
		}
		db.Subscribe(topic, hear, func() {})
		db.Subscribe("another", func(p string) { t.Errorf("another topic heard %q", p) }, func() {})
		r.notify(t, nil, "one", "two", "one")
		for _, want := range []string{"one", "two"} {
			select {
			case got := <-r.heard:
				if got != want {
					t.Errorf("heard %q, want %q", got, want)
				}
			default:
				t.Fatalf("%q was not heard when Tx returned", want)
			}
		}
		nothing(t, r.heard)
		r.notify(t, errChanged, "rolled back")
		nothing(t, r.heard)

		r.notify(t, nil, strings.Repeat("x", 7999))
		if got := <-r.heard; len(got) != 7999 {
			t.Errorf("heard %d bytes", len(got))
		}
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			return tx.Notify(topic, strings.Repeat("x", 8000))
		})
		if err == nil {
			t.Error("a payload that PostgreSQL would refuse was taken")
		}
		nothing(t, r.heard)
	})
}

// TestNotifyOfARepeatedTransaction checks that a transaction that runs again does not send
// the messages of its first attempt.
func TestNotifyOfARepeatedTransaction(t *testing.T) {
	masterdbtest.NeedsNotifications(t, "the message has to come back from the server; a process skips its own changes in the change log")
	t.Parallel()
	r := newReplica(t, postgresURL(t))
	attempt := 0
	testkit.Must(t, r.Tx(t.Context(), func(tx *masterdb.Tx) error {
		attempt++
		if err := tx.Notify(topic, string(rune('0'+attempt))); err != nil || attempt > 1 {
			return err
		}
		_, err := tx.Exec(t.Context(), `DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$`)
		return err
	}))
	for range 2 { // once in this process, then through the server
		if got := receive(t, r.heard); got != "2" {
			t.Errorf("heard attempt %s", got)
		}
	}
}

func TestNotifyReachesOtherReplicas(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	a, b := newReplica(t, url), newReplica(t, url)
	a.notify(t, errChanged, "rolled back")
	a.notify(t, nil, "first", "")
	a.notify(t, nil, "'; DROP TABLE users; --\nü")
	// One server delivers in the order of commits: the message of the transaction that was
	// rolled back would arrive first.
	for _, want := range []string{"first", "", "'; DROP TABLE users; --\nü"} {
		if got := receive(t, b.heard); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	nothing(t, b.resyncs)
}

// TestListenComesBack checks that the listener reconnects after any loss of its connection.
// It calls resync when it receives notifications again, and not earlier.
func TestListenComesBack(t *testing.T) {
	masterdbtest.NeedsNotifications(t, "the test is of a connection that works, is lost and works again")
	t.Parallel()
	url := postgresURL(t)
	a, b := newReplica(t, url), newReplica(t, url)
	for _, payload := range []string{"once", "twice", "thrice"} {
		testkit.Eventually(t, 30*time.Second, "both hear", func() bool { return !a.MissesNotifications() && !b.MissesNotifications() }) // otherwise there would be only one session to end
		hangUp(t, a.DB)
		receive(t, b.resyncs)
		committing := time.Now()
		a.notify(t, nil, payload)
		for told := false; !told; { // an earlier payload may be delivered again, from the change log
			select {
			case got := <-b.heard:
				told = got == payload
			case at := <-b.resyncs:
				// The resync covers a change that was committed before b listened again
				// only if the resync follows that change.
				resynced, err := time.Parse(time.RFC3339Nano, at)
				testkit.Must(t, err)
				told = resynced.After(committing)
			case <-time.After(30 * time.Second):
				t.Fatalf("%q was not told, nor covered by a resync", payload)
			}
		}
		testkit.Eventually(t, 30*time.Second, "b hears again", func() bool { return !b.MissesNotifications() })
		a.notify(t, nil, payload+" again")
		for receive(t, b.heard) != payload+" again" { // only the message itself is sufficient now
		}
	}
}

// TestListenNoticesASilentServer checks that the listener detects a server that disappears
// without a FIN, which looks like an idle one.
func TestListenNoticesASilentServer(t *testing.T) {
	masterdbtest.NeedsNotifications(t, "the listener has to work before the server disappears")
	t.Parallel()
	direct := postgresURL(t)
	through, freeze := proxy(t, direct)
	a, b := newReplica(t, direct), newReplica(t, through)
	freeze()
	a.notify(t, nil, "into the void")
	receive(t, b.resyncs)
	a.notify(t, nil, "heard again")
	if got := receive(t, b.heard); got != "heard again" {
		t.Errorf("heard %q", got)
	}
}

// proxy returns a URL that leads to the same database through a proxy. freeze stops all
// current connections without closing them.
func proxy(t *testing.T, direct string) (through string, freeze func()) {
	t.Helper()
	u, err := url.Parse(direct)
	testkit.Must(t, err)
	target := u.Host
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	u.Host = l.Addr().String()
	var mu sync.Mutex
	frozen := make(chan struct{})
	relay := func(to io.Writer, from io.Reader, frozen <-chan struct{}) {
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return // not forwarded: neither side learns that the other has closed
			}
			select {
			case <-frozen: // the data is dropped
			default:
				_, _ = to.Write(buf[:n])
			}
		}
	}
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
			t.Cleanup(func() {
				_ = client.Close()
				_ = server.Close()
			})
			mu.Lock()
			until := frozen
			mu.Unlock()
			go relay(server, client, until)
			go relay(client, server, until)
		}
	}()
	return u.String(), func() {
		mu.Lock()
		defer mu.Unlock()
		close(frozen)
		frozen = make(chan struct{})
	}
}

// TestListenOutlivesAPanic checks that a subscriber's panic does not stop the listener.
func TestListenOutlivesAPanic(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	a := newReplica(t, url)
	b := masterdbtest.Open(t, url)
	heard := make(chan string, 10)
	b.Subscribe(topic, func(payload string) {
		heard <- payload
		panic(payload)
	}, func() {
		heard <- "resync"
		panic("resync")
	})
	listen(t, b)
	if got := receive(t, heard); got != "resync" {
		t.Fatalf("heard %q", got)
	}
	for _, payload := range []string{"one", "two"} {
		a.notify(t, nil, payload)
		if got := receive(t, heard); got != payload {
			t.Errorf("heard %q, want %q", got, payload)
		}
	}
}

func TestListenStops(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	watcher := masterdbtest.Open(t, url)
	r := newReplica(t, url)
	if n := listeners(t, watcher); n != 1 {
		t.Fatalf("%d connections listen", n)
	}
	r.deaf() // hangs if the listener does not stop
	gone := time.Now().Add(30 * time.Second)
	for listeners(t, watcher) > 0 { // the server detects the end after a moment
		if time.Now().After(gone) {
			t.Fatal("its connection is still there")
		}
	}
	// The listening connection was not taken from the pool.
	if n := r.Pool().Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections of the pool are in use", n)
	}
}

// TestListenOnSQLite checks that other processes on SQLite receive changes through the
// change log.
func TestListenOnSQLite(t *testing.T) {
	t.Parallel()
	url := masterdbtest.URL(t, masterdb.SQLite)
	a, b := newReplica(t, url), newReplica(t, url)
	a.notify(t, errChanged, "rolled back")
	for i := range 20 { // the first may be sent before b has begun to read
		a.notify(t, nil, "change", fmt.Sprint(i))
	}
	if got := receive(t, b.heard); got != "change" {
		t.Errorf("heard %q", got)
	}
	for receive(t, b.heard) != "19" {
	}
	if b.MissesNotifications() {
		t.Error("a process is deaf on SQLite")
	}
	// A process receives its own changes when it makes them, and not again from the log.
	b.notify(t, nil, "own")
	a.notify(t, nil, "last")
	var heard []string
	for len(heard) == 0 || heard[len(heard)-1] != "last" {
		heard = append(heard, receive(t, b.heard))
	}
	if len(heard) != 2 || heard[0] != "own" {
		t.Errorf("heard %q", heard)
	}
	testkit.Must(t, b.CheckListen(t.Context()))
}

// TestCommandsNotifyServers checks that the servers hear of what a process does that does not
// listen, and that a server tells nobody: it does itself what follows.
func TestCommandsNotifyServers(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			url := masterdbtest.URL(t, engine)
			server, other, command := newReplica(t, url), newReplica(t, url), masterdbtest.Open(t, url)
			tell := func(db *masterdb.DB, payload string) {
				testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
					tx.NotifyServers(topic, payload)
					tx.NotifyServers(topic, payload) // equal messages are one
					return nil
				}))
			}
			testkit.Must(t, server.Tx(t.Context(), func(tx *masterdb.Tx) error { return tx.Notify(topic, "listens") }))
			for _, r := range []replica{server, other} {
				if got := receive(t, r.heard); got != "listens" {
					t.Fatalf("heard %q", got)
				}
			}
			tell(server.DB, "of a server")
			tell(command, "of a command")
			for _, r := range []replica{server, other} {
				got := receive(t, r.heard)
				for got == "listens" { // a message may be heard twice
					got = receive(t, r.heard)
				}
				if got != "of a command" {
					t.Errorf("heard %q", got)
				}
			}
		})
	}
}
