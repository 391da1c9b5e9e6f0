package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// patience is how long a test waits for an expected event.
var patience = masterdbtest.Deadline(time.Minute)

var errTest = errors.New("the handler failed on purpose")

type greet struct{ N int }

func (greet) Kind() string { return "greet" }

// newQueue returns a queue that stops at the end of the test. Its log is printed after a
// failure.
func newQueue(t *testing.T, db *masterdb.DB, opts jobs.Options) *jobs.Queue {
	t.Helper()
	out := &lockedBuffer{}
	q, err := jobs.New(db, slog.New(slog.NewTextHandler(out, nil)), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return q
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs the queue until the end of the test.
func start(t *testing.T, q *jobs.Queue) {
	t.Helper()
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := q.Stop(ctx); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
}

// enqueue adds a job in a transaction that ends with result.
func enqueue(t *testing.T, db *masterdb.DB, q *jobs.Queue, n int, result error) {
	t.Helper()
	err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := q.Enqueue(t.Context(), tx, greet{n}); err != nil {
			t.Error(err)
		}
		return result
	})
	if !errors.Is(err, result) {
		t.Fatal(err)
	}
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

// awaitState polls until the only job is in the given state.
func awaitState(t *testing.T, db *masterdb.DB, want string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		var state string
		if err := db.Get(t.Context(), &state, `SELECT CAST(state AS text) FROM river_job`); err != nil {
			t.Fatal(err)
		}
		if state == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the job is %s, want %s", state, want)
		}
	}
}

func readStats(t *testing.T, db *masterdb.DB) jobs.Stats {
	t.Helper()
	s, err := jobs.ReadStats(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEnqueueFollowsTheTransaction(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		ran := make(chan int, 10)
		jobs.Handle(q, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })
		enqueue(t, db, q, 1, errTest)
		if got := readStats(t, db); got != (jobs.Stats{}) {
			t.Errorf("after a rollback the queue holds %+v", got)
		}
		enqueue(t, db, q, 2, nil)
		if got := readStats(t, db); got != (jobs.Stats{Waiting: 1}) {
			t.Errorf("after a commit the queue holds %+v, want one waiting job", got)
		}
		start(t, q)
		if n := receive(t, ran); n != 2 {
			t.Errorf("job %d ran, it was rolled back", n)
		}
		awaitState(t, db, "completed")
		if len(ran) != 0 {
			t.Error("the job ran twice")
		}
		if got := readStats(t, db); got != (jobs.Stats{}) {
			t.Errorf("at the end the queue holds %+v", got)
		}
	})
}

// TestEnqueueWhileRunning checks that a new job wakes an idle queue.
func TestEnqueueWhileRunning(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		ran := make(chan int)
		jobs.Handle(q, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })
		start(t, q)
		for n := range 3 {
			enqueue(t, db, q, n, nil)
			if got := receive(t, ran); got != n {
				t.Errorf("job %d ran, want %d", got, n)
			}
		}
	})
}

// TestReplicasShareTheWork checks that every job runs once, whichever process fetches it.
func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			const total = 60
			url := masterdbtest.URL(t, engine)
			ran := make(chan int, 2*total)
			for range 2 {
				db := masterdbtest.Open(t, url)
				q := newQueue(t, db, jobs.Options{})
				jobs.Handle(q, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })
				start(t, q)
				for n := range total / 2 {
					enqueue(t, db, q, n, nil)
				}
			}
			times := map[int]int{}
			for range total {
				times[receive(t, ran)]++
			}
			want := map[int]int{}
			for n := range total / 2 {
				want[n] = 2
			}
			if diff := cmp.Diff(want, times); diff != "" {
				t.Errorf("how often each job ran (-want +got):\n%s", diff)
			}
		})
	}
}

// TestErrorIsRetried checks that a job whose handler fails or panics runs again a second
// later.
func TestErrorIsRetried(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"error": func() error { return errTest },
		"panic": func() error { panic("a bug in a handler") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				q := newQueue(t, db, jobs.Options{})
				var attempts atomic.Int32
				jobs.Handle(q, patience, func(context.Context, greet) error {
					if attempts.Add(1) == 1 {
						return fail()
					}
					return nil
				})
				enqueue(t, db, q, 1, nil)
				start(t, q)
				awaitState(t, db, "completed")
				if n := attempts.Load(); n != 2 {
					t.Errorf("%d attempts, want 2", n)
				}
			})
		})
	}
}

func TestStatsCountRetries(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		jobs.Handle(q, patience, func(context.Context, greet) error { return nil })
		enqueue(t, db, q, 1, nil)
		for state, want := range map[string]jobs.Stats{
			"available": {Waiting: 1}, "running": {Waiting: 1}, "scheduled": {Waiting: 1}, "pending": {Waiting: 1},
			"retryable": {Retrying: 1}, "discarded": {Discarded: 1}, "cancelled": {}, "completed": {},
		} {
			err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				var finished *time.Time
				if state == "discarded" || state == "cancelled" || state == "completed" {
					finished = &tx.Now
				}
				_, err := tx.Exec(t.Context(), `UPDATE river_job SET state = '`+state+`', finalized_at = $1`, finished)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, readStats(t, db)); diff != "" {
				t.Errorf("one %s job (-want +got):\n%s", state, diff)
			}
		}
	})
}

func TestCancelIsFinal(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		var attempts atomic.Int32
		jobs.Handle(q, patience, func(context.Context, greet) error {
			attempts.Add(1)
			return jobs.Cancel(errTest)
		})
		enqueue(t, db, q, 1, nil)
		start(t, q)
		awaitState(t, db, "cancelled")
		if n := attempts.Load(); n != 1 {
			t.Errorf("%d attempts, want 1", n)
		}
	})
	if err := jobs.Cancel(errTest); !jobs.IsCancelled(err) || !errors.Is(err, errTest) {
		t.Errorf("Cancel gives %v, which hides its kind or its cause", err)
	}
	if jobs.IsCancelled(errTest) || jobs.IsCancelled(nil) {
		t.Error("IsCancelled is true for another error")
	}
}

func TestHandlerHasATimeout(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		ended := make(chan error, 1)
		jobs.Handle(q, 20*time.Millisecond, func(ctx context.Context, _ greet) error {
			<-ctx.Done()
			ended <- ctx.Err()
			return jobs.Cancel(ctx.Err())
		})
		enqueue(t, db, q, 1, nil)
		start(t, q)
		if err := receive(t, ended); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the handler ended with %v, want its deadline", err)
		}
	})
}

// TestStopWaitsForRunningJobs checks that Stop fails only when its own context ends, and
// succeeds once the job has ended.
func TestStopWaitsForRunningJobs(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{Drain: patience})
		running, release := make(chan struct{}), make(chan struct{})
		var cancelled atomic.Bool
		jobs.Handle(q, patience, func(ctx context.Context, _ greet) error {
			close(running)
			<-release
			cancelled.Store(ctx.Err() != nil)
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		if err := q.Start(ctx); err != nil {
			t.Fatal(err)
		}
		enqueue(t, db, q, 1, nil)
		receive(t, running)
		cancel() // jobs continue after the context of Start

		short, cancelShort := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancelShort()
		if err := q.Stop(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop while a job runs = %v, want its context's end", err)
		}
		close(release)
		long, cancelLong := context.WithTimeout(t.Context(), patience)
		defer cancelLong()
		if err := q.Stop(long); err != nil {
			t.Errorf("Stop after the job = %v", err)
		}
		if cancelled.Load() {
			t.Error("the job's context ended while Stop should have waited")
		}
		awaitState(t, db, "completed")
	})
}

// TestStopCancelsAfterDrain checks that a job that does not end in time is cancelled, that
// Stop returns only after its end, and that the job runs again after the next start.
func TestStopCancelsAfterDrain(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		running := make(chan struct{})
		var ended atomic.Bool
		q := newQueue(t, db, jobs.Options{Drain: 50 * time.Millisecond})
		jobs.Handle(q, patience, func(ctx context.Context, _ greet) error {
			close(running)
			<-ctx.Done()
			ended.Store(true)
			return ctx.Err()
		})
		start(t, q)
		enqueue(t, db, q, 1, nil)
		receive(t, running)
		if err := q.Stop(t.Context()); err != nil || !ended.Load() {
			t.Errorf("Stop = %v, the job has ended: %t", err, ended.Load())
		}

		ran := make(chan int, 1)
		next := newQueue(t, db, jobs.Options{})
		jobs.Handle(next, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })
		start(t, next)
		receive(t, ran)
	})
}

// TestMigrateByManyReplicas checks that several processes can migrate at once. As in
// masterdb, each handle stands for a starting process.
func TestMigrateByManyReplicas(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			const replicas = 6
			url := emptyURL(t, engine)
			var applied [replicas]int
			begin := make(chan struct{})
			var wg sync.WaitGroup
			for i := range applied {
				db := masterdbtest.Open(t, url)
				wg.Go(func() {
					<-begin
					var err error
					if applied[i], err = jobs.Migrate(t.Context(), db); err != nil {
						t.Error(err)
					}
				})
			}
			close(begin)
			wg.Wait()
			workers := 0
			for _, n := range applied {
				if n > 0 {
					workers++
				}
			}
			if workers != 1 {
				t.Errorf("the replicas applied %v migrations, want that one applied all", applied)
			}
		})
	}
}

// emptyURL returns the URL of a database without the queue's tables.
func emptyURL(t *testing.T, engine masterdb.Engine) string {
	t.Helper()
	if engine == masterdb.SQLite {
		return "sqlite:" + filepath.Join(t.TempDir(), "master.db")
	}
	url := masterdbtest.URL(t, engine)
	if _, err := masterdbtest.Open(t, url).Pool().Exec(t.Context(), `DROP SCHEMA public CASCADE; CREATE SCHEMA public`); err != nil {
		t.Fatal(err)
	}
	return url
}

type hasty struct{}

func (hasty) Kind() string               { return "hasty" }
func (hasty) RetryWithin() time.Duration { return time.Millisecond }

// TestRetryWithin checks that RetryWithin limits the delay. Without it four failures would
// delay the next attempts by 1, 16, 81 and 256 seconds.
func TestRetryWithin(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		var attempts atomic.Int32
		done := make(chan struct{})
		jobs.Handle(q, time.Minute, func(context.Context, hasty) error {
			if attempts.Add(1) < 5 {
				return errTest
			}
			close(done)
			return nil
		})
		start(t, q)
		if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error { return q.Enqueue(t.Context(), tx, hasty{}) }); err != nil {
			t.Fatal(err)
		}
		receive(t, done)
	})
}
