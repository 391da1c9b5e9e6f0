package masterdb_test

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// usesOf returns one call for each way to use a master database.
func usesOf(db *masterdb.DB) map[string]func(ctx context.Context) error {
	var n int
	read := func(ctx context.Context, q masterdb.Querier) error { return q.Get(ctx, &n, `SELECT 1`) }
	return map[string]func(ctx context.Context) error{
		"get":    func(ctx context.Context) error { return read(ctx, db) },
		"select": func(ctx context.Context) error { return db.Select(ctx, new([]int), `SELECT 1`) },
		"tx": func(ctx context.Context) error {
			return db.Tx(ctx, func(tx *masterdb.Tx) error { return read(ctx, tx) })
		},
		"within": func(ctx context.Context) error {
			return db.Within(ctx, func(tx *masterdb.Tx) error { return read(ctx, tx) })
		},
		"snapshot": func(ctx context.Context) error {
			return db.Snapshot(ctx, func(q *masterdb.Tx) error { return read(ctx, q) })
		},
		"ping": db.Ping,
	}
}

// refusedWithin fails the test unless every use fails in time, with platform_unavailable.
func refusedWithin(t *testing.T, db *masterdb.DB, most time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for name, use := range usesOf(db) {
		all.Go(func() {
			begin := time.Now()
			err := use(ctx)
			var known *stoa.Error
			if !asError(err, &known) || known.Code != stoa.PlatformUnavailable || known.RetryAfter <= 0 {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(begin); took > most {
				t.Errorf("%s took %v, want at most %v", name, took, most)
			} else {
				t.Logf("%s: refused after %v", name, took.Round(time.Millisecond))
			}
		})
	}
	all.Wait()
}

// answersWithin fails the test unless every use succeeds again in time.
func answersWithin(t *testing.T, db *masterdb.DB, most time.Duration) {
	t.Helper()
	begin := time.Now()
	for name, use := range usesOf(db) {
		for err := use(t.Context()); err != nil; err = use(t.Context()) {
			if time.Since(begin) > most {
				t.Fatalf("%s: %v after %v", name, err, most)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	t.Logf("everything works after %v", time.Since(begin).Round(time.Millisecond))
}

// TestMasterThatIsAway checks that every kind of call detects a master that refuses
// connections at once, and a silent one within 3 s, and that calls succeed within a second
// after it is back.
func TestMasterThatIsAway(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		if engine != masterdb.Postgres {
			continue
		}
		for name, fault := range map[string]struct {
			begin, end func(r *masterdbtest.Relay)
			notice     time.Duration
		}{
			"silent":  {func(r *masterdbtest.Relay) { r.SetSilent(true) }, func(r *masterdbtest.Relay) { r.SetSilent(false) }, 3500 * time.Millisecond},
			"refuses": {(*masterdbtest.Relay).Refuse, (*masterdbtest.Relay).Listen, time.Second},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r, through := masterdbtest.NewRelay(t, masterdbtest.URL(t, masterdb.Postgres))
				db, err := masterdb.Open(t.Context(), through)
				testkit.Must(t, err)
				defer db.Close()
				var changes sync.Map
				db.OnOutage(func(cause error) { changes.Store(cause != nil, true) })
				answersWithin(t, db, time.Minute)
				for range 2 {
					fault.begin(r)
					refusedWithin(t, db, fault.notice)
					awaitAway(t, db)
					refusedWithin(t, db, 500*time.Millisecond)
					fault.end(r)
					answersWithin(t, db, 10*time.Second)
				}
				for _, away := range []bool{true, false} {
					if _, ok := changes.Load(away); !ok {
						t.Errorf("nobody was told that away is %t", away)
					}
				}
			})
		}
	}
}

func awaitAway(t *testing.T, db *masterdb.DB) {
	t.Helper()
	for begin := time.Now(); !db.IsUnreachable(); <-time.After(10 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("the master is away, and that was not noticed")
		}
	}
}

// TestSlowStatementIsNoOutage checks that the breaker does not abort a slow statement, such
// as one that waits for a lock.
func TestSlowStatementIsNoOutage(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine != masterdb.Postgres {
			t.Skip("SQLite has no server")
		}
		var told error
		db.OnOutage(func(cause error) { told = cause })
		var text string
		testkit.Must(t, db.Get(t.Context(), &text, `SELECT 'done' || pg_sleep(5)::text`))
		if text != "done" || told != nil {
			t.Errorf("%q, outage %v", text, told)
		}
	})
}

// TestConnectionThatIsDead checks that a connection whose session the server has lost, as
// after a failover that the client has not noticed, does not delay its user.
func TestConnectionThatIsDead(t *testing.T) {
	t.Parallel()
	dsn := postgresURL(t)
	r, through := masterdbtest.NewRelay(t, dsn)
	db, err := masterdb.Open(t.Context(), through+"&pool_max_conns=2")
	testkit.Must(t, err)
	defer db.Close()
	var session int
	testkit.Must(t, db.Get(t.Context(), &session, `SELECT pg_backend_pid()`))
	r.Desert()
	begin := time.Now()
	err = db.Get(t.Context(), &session, `SELECT pg_backend_pid()`)
	took := time.Since(begin)
	if took > 10*time.Second {
		t.Errorf("%v after %v", err, took)
	}
	t.Logf("%v after %v", err, took.Round(time.Millisecond))
	answersWithin(t, db, 5*time.Second)
}

// TestHostThatIsSilent checks that a host that does not answer is skipped in favour of the
// other hosts, and that later connections do not wait for it again.
func TestHostThatIsSilent(t *testing.T) {
	t.Parallel()
	dsn := postgresURL(t)
	first, through := masterdbtest.NewRelay(t, dsn)
	u, err := url.Parse(through)
	testkit.Must(t, err)
	second, _ := masterdbtest.NewRelay(t, dsn)
	u.Host = strings.Join([]string{first.Address, second.Address}, ",")
	db, err := masterdb.Open(t.Context(), u.String())
	testkit.Must(t, err)
	defer db.Close()
	first.SetSilent(true)
	begin := time.Now()
	answersWithin(t, db, 10*time.Second)
	t.Logf("the other host answers after %v", time.Since(begin).Round(time.Millisecond))
	db.Pool().Reset()
	begin = time.Now()
	answersWithin(t, db, 10*time.Second)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a new connection takes %v: the silent host was waited for again", took)
	}
}

// TestCloseOfASilentMaster checks that Close does not wait for answers that never come.
func TestCloseOfASilentMaster(t *testing.T) {
	t.Parallel()
	dsn := postgresURL(t)
	r, through := masterdbtest.NewRelay(t, dsn)
	db, err := masterdb.Open(t.Context(), through)
	testkit.Must(t, err)
	var begun sync.WaitGroup
	var all sync.WaitGroup
	for range 4 {
		begun.Add(1)
		all.Go(func() {
			_ = db.Tx(context.Background(), func(tx *masterdb.Tx) error {
				r.Wait()
				begun.Done()
				var n string
				return tx.Get(context.Background(), &n, `SELECT pg_sleep(600)::text`)
			})
		})
	}
	begun.Wait()
	r.SetSilent(true)
	begin := time.Now()
	db.Close()
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("Close took %v", took)
	}
	all.Wait()
}

func asError(err error, target **stoa.Error) bool {
	e, ok := err.(*stoa.Error) //nolint:errorlint // the package returns it unwrapped
	*target = e
	return ok
}
