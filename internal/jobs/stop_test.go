package jobs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestNoJobBeginsInAStop checks that a job from a fetch that was in progress when the queue
// began to stop does not start here, and is available to another process at once.
func TestNoJobBeginsInAStop(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		ran := make(chan int, 2)
		jobs.Handle(q, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })
		start(t, q)
		enqueue(t, db, q, 1, nil)
		receive(t, ran)
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if tx.ForUpdate() != "" {
				if _, err := tx.Exec(t.Context(), `LOCK TABLE river_job IN ACCESS EXCLUSIVE MODE`); err != nil {
					return err
				}
			}
			if err := q.Enqueue(t.Context(), tx, greet{2}); err != nil {
				return err
			}
			awaitFetch(t, db, tx)
			q.StopFetching()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Stop(t.Context()); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if len(ran) != 0 {
			t.Error("a job began after StopFetching")
		}
		next := newQueue(t, db, jobs.Options{})
		jobs.Handle(next, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })
		begun := time.Now()
		start(t, next)
		if n := receive(t, ran); n != 2 {
			t.Errorf("job %d ran", n)
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("the job was found after %v", took)
		}
	})
}

// awaitFetch returns when each queue has had time to start a fetch, which it does five
// times a second, and a fetch is waiting for the open transaction.
func awaitFetch(t *testing.T, db *masterdb.DB, tx *masterdb.Tx) {
	t.Helper()
	waiting := func() bool {
		if db.Engine == masterdb.SQLite {
			return db.Writer().Stats().InUse > 0
		}
		if _, err := tx.Exec(t.Context(), `SELECT pg_stat_clear_snapshot()`); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := tx.Get(t.Context(), &n, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND wait_event_type = 'Lock' AND query LIKE '%SKIP LOCKED%' AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	begun := time.Now()
	for time.Since(begun) < patience {
		<-time.After(50 * time.Millisecond)
		if waiting() && time.Since(begun) > time.Second {
			return
		}
	}
	t.Fatal("no fetch waits")
}

// TestStopNamesWhatHangs checks that Stop returns when its context ends although a job is
// still running, and that the error names the job.
func TestStopNamesWhatHangs(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{Drain: time.Millisecond})
		running, release := make(chan struct{}), make(chan struct{})
		jobs.Handle(q, patience, func(context.Context, greet) error {
			close(running)
			<-release // ignores its context
			return nil
		})
		start(t, q)
		enqueue(t, db, q, 1, nil)
		receive(t, running)
		if got := q.Running(); got != "greet (1)" {
			t.Errorf("running: %q", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := q.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "greet (1)") {
			t.Errorf("Stop: %v", err)
		}
		close(release)
		if err := q.Stop(t.Context()); err != nil || q.Running() != "" {
			t.Errorf("Stop: %v, running: %q", err, q.Running())
		}
	})
}
