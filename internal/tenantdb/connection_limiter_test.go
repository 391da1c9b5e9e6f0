package tenantdb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fleet registers n stores, each with a database on the engine's one server.
func (h *testManager) fleet(t testing.TB, engine credential.EngineName, n int) (stores []stoa.StoreID, databases []credential.Credentials) {
	t.Helper()
	for range n {
		store, c := h.store(t), tenantdbtest.Create(t, engine)
		h.save(t, store, c)
		stores, databases = append(stores, store), append(databases, c)
	}
	return stores, databases
}

// census returns a function that asks PostgreSQL how many connections the
// databases have. MariaDB lists a connection for a moment after it has ended,
// so for MariaDB the function returns the manager's own count.
func census(t *testing.T, h *testManager, databases []credential.Credentials) func() int {
	t.Helper()
	if databases[0].Engine == credential.MySQL {
		return func() int { n, _ := h.Connections(databases[0]); return n }
	}
	server := tenantdbtest.Postgres(t)
	var names []string
	for _, c := range databases {
		names = append(names, "'"+c.Database+"'")
	}
	query := `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
		AND datname IN (` + strings.Join(names, ", ") + `)`
	return func() (n int) {
		t.Helper()
		testkit.Must(t, server.QueryRowContext(t.Context(), query).Scan(&n))
		return n
	}
}

// TestConnectionLimit checks that with more stores than connections and many
// concurrent callers, no caller gets an error and the server never has more
// connections than the limit, not even for a moment.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	const limit = 4
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{ConnsPerServer: limit, WaitTimeout: time.Minute, OpenTimeout: time.Minute, StatementTimeout: time.Minute})
			stores, databases := h.fleet(t, engine, 10)
			count := census(t, h, databases)
			var workers sync.WaitGroup
			for w := range 8 {
				workers.Go(func() {
					for i := range 6 {
						l, err := h.Acquire(t.Context(), stores[(w+i*3)%len(stores)])
						if err != nil {
							t.Error(err)
							return
						}
						works(t, l)
						l.Release()
					}
				})
			}
			done := make(chan struct{})
			go func() { defer close(done); workers.Wait() }()
			samples := 0
			for ; ; samples++ {
				if n := count(); n > limit {
					t.Errorf("%d connections on the server, the limit is %d", n, limit)
				}
				select {
				case <-done:
					if samples < 3 {
						t.Errorf("only %d samples", samples)
					}
					if n, _ := h.Connections(databases[0]); n == 0 || n > limit {
						t.Errorf("%d connections counted", n)
					}
					testkit.Must(t, h.Close(t.Context()))
					if n, waiting := h.Connections(databases[0]); n+waiting != 0 || count() != 0 {
						t.Errorf("%d connections are left, %d wait", n, waiting)
					}
					return
				case <-time.After(5 * time.Millisecond): // time between samples
				}
			}
		})
	}
}

// rush has three callers use the store at the same time, and returns when they have left.
func rush(t *testing.T, h *testManager, store stoa.StoreID) {
	t.Helper()
	var releases []func()
	for range 3 {
		releases = append(releases, hold(t, h.lease(t, store)))
	}
	for _, release := range releases {
		release()
	}
}

// hold keeps a connection to the store busy until the returned function is called.
func hold(t *testing.T, l tenantdb.Lease) (release func()) {
	t.Helper()
	inside, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- l.Tx(context.WithoutCancel(t.Context()), func(tx *tenantdb.Tx) error {
			var one int
			if err := tx.Get(context.WithoutCancel(t.Context()), &one, `SELECT 1`); err != nil {
				return err
			}
			close(inside)
			<-end
			return nil
		})
	}()
	select {
	case <-inside:
	case err := <-done:
		t.Fatal(err)
	}
	return func() {
		close(end)
		testkit.Must(t, <-done)
		l.Release()
	}
}

// TestWaitForConnectionInUse checks that a caller waits until its deadline
// while every connection is in use, that this does not count against its store,
// and that the store is served later.
func TestWaitForConnectionInUse(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{ConnsPerServer: 2, OpenTimeout: time.Minute, WaitTimeout: time.Minute, StatementTimeout: time.Minute})
			stores, databases := h.fleet(t, engine, 3)
			first, second := hold(t, h.lease(t, stores[0])), hold(t, h.lease(t, stores[1]))
			for range tenantdb.TripAfter + 1 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
				_, err := h.Acquire(ctx, stores[2])
				checkUnavailable(t, err)
				cancel()
			}
			waiting := h.come(t, 1, t.Context(), stores[2])
			testkit.Eventually(t, testkit.Timeout, "a call waits for a connection", func() bool { _, n := h.Connections(databases[2]); return n == 1 })
			first()
			r := <-waiting
			testkit.Must(t, r.err)
			works(t, r.Lease)
			r.Release()
			second()
		})
	}
}

// TestReclaimIdleConnectionsOfLeasedStore checks that connections that a store
// needed only for a while are reclaimed for another store, although the first
// store is still leased.
func TestReclaimIdleConnectionsOfLeasedStore(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{ConnsPerServer: 3, ConnsPerStore: 3})
			stores, databases := h.fleet(t, engine, 2)
			busy := h.lease(t, stores[0])
			rush(t, h, stores[0])
			if n, _ := h.Connections(databases[0]); n != 3 {
				t.Fatalf("%d connections after a rush of 3", n)
			}
			l := h.lease(t, stores[1])
			works(t, l)
			works(t, busy)
			l.Release()
			busy.Release()
		})
	}
}

// TestConnectionIsMade checks that each engine's driver ends the context of its dial, by
// which the limiter knows that a connection is made.
func TestConnectionIsMade(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			stores, _ := h.fleet(t, engine, 1)
			l := h.lease(t, stores[0])
			defer l.Release()
			release := hold(t, h.lease(t, stores[0]))
			defer release()
			testkit.Eventually(t, testkit.Timeout, "no connection is in the making", func() bool {
				s := h.Stats().Servers
				return len(s) == 1 && s[0].Open > 0 && s[0].Connecting == 0
			})
		})
	}
}

// TestFailedDialReleasesItsConnection checks that a failed dial is no longer
// counted as a connection.
func TestFailedDialReleasesItsConnection(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{ConnsPerServer: 2, Cooldown: time.Millisecond})
	store, c := h.store(t), tenantdbtest.Create(t, servers()[0])
	way := newLink(t, c)
	c.Port = way.port
	h.save(t, store, c)
	way.cut()
	for range 10 {
		_, err := h.Acquire(t.Context(), store)
		checkUnavailable(t, err)
	}
	if n, waiting := h.Connections(c); n+waiting != 0 {
		t.Errorf("%d connections counted, %d wait", n, waiting)
	}
	way.repair(t)
	var l tenantdb.Lease
	var err error
	testkit.Eventually(t, testkit.Timeout, "the store can be used", func() bool {
		l, err = h.Acquire(t.Context(), store)
		return err == nil
	}, &err)
	works(t, l)
	l.Release()
}

// TestServerNeverClosesConnection checks that a server that never closes its
// end cannot use up the limit permanently, and that Close does not wait for it.
func TestServerNeverClosesConnection(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{ConnsPerServer: 2})
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	c := at(t, credential.PostgreSQL, credential.TLSDisable, func(conn net.Conn) {
		_, _ = conn.Write([]byte("E")) // and sends nothing more
		<-end
	})
	for range 3 {
		db, err := h.OpenUnleased(c)
		testkit.Must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := db.Ping(ctx); err == nil {
			t.Error("connected")
		}
		cancel()
		testkit.Must(t, db.Close())
	}
	testkit.Eventually(t, testkit.Timeout, "the connections are returned", func() bool { n, _ := h.Connections(c); return n == 0 })
}

// TestEndlessAnswer checks that an endless answer of a merchant's server does
// not use up the platform's memory.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{StatementTimeout: time.Minute})
			stores, databases := h.fleet(t, engine, 1)
			query := fmt.Sprintf(`SELECT repeat('x', 1000000) AS x FROM generate_series(1, %d)`, 2*screen.MaxAnswer/1_000_000)
			if engine == credential.MySQL {
				query = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150) SELECT repeat('x', 1000000) AS x FROM n`
			}
			l := h.lease(t, stores[0])
			defer l.Release()
			var rows []struct {
				X string `max:"1000000"`
			}
			err := l.Select(t.Context(), &rows, query)
			if !errors.Is(err, screen.ErrAnswerTooLong) {
				t.Errorf("%d rows were read: %v", len(rows), err)
			}
			works(t, l)
			testkit.Eventually(t, testkit.Timeout, "a call waits for a connection", func() bool { n, _ := h.Connections(databases[0]); return n == 1 })
		})
	}
}

// TestStatementDeadline checks that long statements end at their deadline, and
// that their connection ends too.
func TestStatementDeadline(t *testing.T) {
	t.Parallel()
	for engine, query := range map[credential.EngineName]string{
		credential.PostgreSQL: `SELECT 1 FROM pg_sleep(100)`, credential.MySQL: `SELECT SLEEP(100)`,
	} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{StatementTimeout: time.Second})
			stores, _ := h.fleet(t, engine, 1)
			l := h.lease(t, stores[0])
			defer l.Release()
			var n int
			err := l.Get(t.Context(), &n, query)
			checkUnavailable(t, err)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			works(t, l)
		})
	}
}
