package presence

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// member is a process in a test, with a separate connection to the master.
type member struct {
	*Process
	gone chan string
}

// join starts a process on the database at url. It records the ended processes that it
// releases.
func join(t *testing.T, url string, settings ...func(*Process)) member {
	t.Helper()
	m := prepare(t, url, settings...)
	testkit.Must(t, m.Start(t.Context()))
	t.Cleanup(func() { testkit.Must(t, m.Stop(context.Background())) })
	return m
}

func prepare(t *testing.T, url string, settings ...func(*Process)) member {
	t.Helper()
	m := member{New(masterdbtest.Open(t, url), slog.New(slog.DiscardHandler)), make(chan string, 100)}
	for _, set := range settings {
		set(m.Process)
	}
	m.OnProcessEnd(func(_ context.Context, _ *masterdb.Tx, process string) error {
		m.gone <- process
		return nil
	})
	return m
}

// die ends everything that keeps the process present, like a kill.
func (m member) die() {
	m.suspend()
	switch l := m.lock.(type) {
	case *postgresLock:
		l.release(context.Background())
	case *fileLock:
		l.unlock()
	}
}

// suspend stops the process's looks and heartbeats. The process keeps its lock.
func (m member) suspend() {
	m.stop()
	m.running.Wait()
}

func (m member) registered(t *testing.T, name string) bool {
	t.Helper()
	var n int
	testkit.Must(t, m.db.Get(t.Context(), &n, `SELECT count(*) FROM processes WHERE name = $1`, name))
	return n == 1
}

// awaitRemoval waits until the transaction that records an end has committed.
func (m member) awaitRemoval(t *testing.T, name string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); m.registered(t, name); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("a process that ended is still on record")
		}
	}
}

func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-time.After(30 * time.Second):
		t.Fatal("no end is noticed")
		return ""
	}
}

func eachURL(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(t, masterdbtest.URL(t, engine))
		})
	}
}

func postgresURL(t *testing.T) string {
	t.Helper()
	masterdbtest.NeedsPostgres(t)
	return masterdbtest.URL(t, masterdb.Postgres)
}

// TestEndIsReleasedOnce checks that an ended process is released once, within seconds,
// however many processes detect its end.
func TestEndIsReleasedOnce(t *testing.T) {
	t.Parallel()
	eachURL(t, func(t *testing.T, url string) {
		victim := prepare(t, url)
		testkit.Must(t, victim.Start(t.Context()))
		gone := make(chan string, 100)
		others := make([]member, 4)
		for i := range others {
			others[i] = join(t, url, func(p *Process) {
				p.OnProcessEnd(func(_ context.Context, _ *masterdb.Tx, process string) error {
					gone <- process
					return nil
				})
			})
		}
		victim.die()
		start := time.Now()
		if got := receive(t, gone); got != victim.Name() {
			t.Errorf("released %q", got)
		}
		t.Logf("noticed after %v", time.Since(start))
		if d := time.Since(start); d > 8*time.Second {
			t.Errorf("noticed after %v", d)
		}
		others[0].awaitRemoval(t, victim.Name())
		for _, o := range others {
			if !o.registered(t, o.Name()) {
				t.Error("a process that is present is not on record")
			}
		}
		select {
		case again := <-gone:
			t.Errorf("%q is released again", again)
		default:
		}
	})
}

// TestStartReleasesWhatEndedBefore checks that a start releases processes that ended before
// it; on SQLite at once.
func TestStartReleasesWhatEndedBefore(t *testing.T) {
	t.Parallel()
	eachURL(t, func(t *testing.T, url string) {
		victim := prepare(t, url)
		testkit.Must(t, victim.Start(t.Context()))
		victim.die()
		start := time.Now()
		next := join(t, url)
		if next.db.Engine == masterdb.SQLite && len(next.gone) != 1 {
			t.Error("not released when Start returned")
		}
		if got := receive(t, next.gone); got != victim.Name() {
			t.Errorf("released %q", got)
		}
		if d := time.Since(start); d > 8*time.Second {
			t.Errorf("noticed after %v", d)
		}
	})
}

// TestStopReleases checks that Stop releases what the process still owns, without another
// process.
func TestStopReleases(t *testing.T) {
	t.Parallel()
	eachURL(t, func(t *testing.T, url string) {
		other := join(t, url)
		m := prepare(t, url)
		testkit.Must(t, m.Stop(t.Context())) // it was not started
		testkit.Must(t, m.Start(t.Context()))
		testkit.Must(t, m.Stop(t.Context()))
		if got := receive(t, m.gone); got != m.Name() {
			t.Errorf("released %q", got)
		}
		if other.registered(t, m.Name()) {
			t.Error("it is still on record")
		}
		if m.db.Engine == masterdb.SQLite {
			if held, err := m.db.ProcessLocked(t.Context(), m.Name()); held || err != nil {
				t.Errorf("its lock is held: %t, %v", held, err)
			}
		}
	})
}

// TestReleaseIsTriedAgain checks that a failed release is rolled back as a whole and tried
// again.
func TestReleaseIsTriedAgain(t *testing.T) {
	t.Parallel()
	eachURL(t, func(t *testing.T, url string) {
		var attempts atomic.Int64
		other := join(t, url, func(p *Process) {
			p.OnProcessEnd(func(ctx context.Context, tx *masterdb.Tx, process string) error {
				_, err := tx.Exec(ctx, `INSERT INTO change_log (origin, topic, payload, at) VALUES ('', 'test', $1, $2)`, process, tx.Now)
				return err
			})
			p.OnProcessEnd(func(context.Context, *masterdb.Tx, string) error {
				if attempts.Add(1) < 3 {
					return errors.New("not now")
				}
				return nil
			})
		})
		victim := prepare(t, url)
		testkit.Must(t, victim.Start(t.Context()))
		victim.die()
		other.awaitRemoval(t, victim.Name())
		var n int
		testkit.Must(t, other.db.Get(t.Context(), &n, `SELECT count(*) FROM change_log WHERE topic = 'test'`))
		if n != 1 || attempts.Load() != 3 {
			t.Errorf("%d records after %d attempts", n, attempts.Load())
		}
	})
}

// TestRegistrationEndsTheLongPause checks that a process that is alone looks rarely, is
// notified when another process registers, and then detects the end of that process.
func TestRegistrationEndsTheLongPause(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	m := join(t, url, func(p *Process) {
		p.timing.look, p.timing.alone = 200*time.Millisecond, time.Hour
	})
	ctx, cancel := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	listening.Go(func() { m.db.Listen(ctx, slog.New(slog.DiscardHandler)) })
	defer listening.Wait()
	defer cancel()
	victim := prepare(t, url)
	testkit.Must(t, victim.Start(t.Context()))
	victim.die()
	if got := receive(t, m.gone); got != victim.Name() {
		t.Errorf("released %q", got)
	}
}

// endSessions ends all sessions of presence at the server. It returns how many there were.
func endSessions(t *testing.T, db *masterdb.DB) int {
	t.Helper()
	var ended []bool
	testkit.Must(t, db.Select(t.Context(), &ended, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = $1 AND datname = current_database()`, SessionName))
	return len(ended)
}

// TestLostSessionIsNoEnd checks that a process that loses its session repeatedly is not
// declared ended.
func TestLostSessionIsNoEnd(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	watcher := masterdbtest.Open(t, url)
	a, b := join(t, url), join(t, url)
	ended := 0
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		ended += endSessions(t, watcher)
	}
	if ended < 10 {
		t.Errorf("only %d sessions were ended", ended)
	}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		var held int
		testkit.Must(t, watcher.Get(t.Context(), &held, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, uint32(lockClass)))
		if held == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes hold their locks again", held)
		}
	}
	if len(a.gone)+len(b.gone) > 0 {
		t.Error("a process that is present was taken for ended")
	}
}

// TestHeartbeatsReplaceTheSession checks that a process that cannot open a session is not
// declared ended, because it sends its heartbeats through the pool.
func TestHeartbeatsReplaceTheSession(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	observer := join(t, url, func(p *Process) { p.timing.careful = 0 })
	m := prepare(t, url)
	testkit.Must(t, m.Start(t.Context()))
	m.suspend()
	l := m.lock.(*postgresLock)
	l.close(t.Context())
	l.opening = make(chan *pgx.Conn) // never opened
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); <-time.After(500 * time.Millisecond) {
		if _, err := l.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(observer.gone) > 0 {
		t.Error("a process with heartbeats was taken for ended")
	}
	receive(t, observer.gone) // without heartbeats it is declared ended
}

// TestSuspendedProcess checks that a suspended process is declared ended although the
// server keeps its session, and that it registers again when it resumes.
func TestSuspendedProcess(t *testing.T) {
	t.Parallel()
	url := postgresURL(t)
	other := join(t, url, func(p *Process) { p.timing.frozen = 5 * time.Second })
	m := prepare(t, url)
	testkit.Must(t, m.Start(t.Context()))
	m.suspend()
	if got := receive(t, other.gone); got != m.Name() {
		t.Errorf("released %q", got)
	}
	o := newObserver(m.Name(), m.timing)
	deadline := time.Now().Add(30 * time.Second)
	for m.look(t.Context(), o); !other.registered(t, m.Name()); m.look(t.Context(), o) { // a busy server may not answer in time
		if time.Now().After(deadline) {
			t.Fatal("it is not on record again")
		}
	}
	testkit.Must(t, m.Stop(t.Context()))
}
