package jobs_test

import (
	"context"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestEvery checks that a periodic job runs when the queue starts, and again after each
// interval.
func TestEvery(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		ran := make(chan int, 100)
		jobs.Handle(q, time.Minute, func(_ context.Context, g greet) error {
			ran <- g.N
			return nil
		})
		jobs.Every(q, time.Second, greet{7})
		start(t, q)
		for range 3 {
			if n := receive(t, ran); n != 7 {
				t.Errorf("ran with %d", n)
			}
		}
	})
}

// TestEveryWaitsForTheLast checks that no periodic job is added while an earlier one is
// running or waiting for a retry.
func TestEveryWaitsForTheLast(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		started, more := make(chan int, 100), make(chan int, 100)
		release := make(chan struct{})
		jobs.Handle(q, time.Minute, func(_ context.Context, g greet) error {
			if g.N == 2 {
				more <- g.N
				return nil
			}
			started <- g.N
			<-release
			return nil
		})
		jobs.Every(q, time.Second, greet{1})
		jobs.Every(q, time.Second, greet{2}) // serves as a clock: with other arguments it is another job
		start(t, q)
		receive(t, started)
		for range 4 {
			receive(t, more)
		}
		if n := len(started); n != 0 {
			t.Errorf("%d more were begun while the first was at work", n)
		}
		close(release)
		receive(t, started)
	})
}

func TestEnqueueAt(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		ran := make(chan int, 2)
		jobs.Handle(q, time.Minute, func(_ context.Context, g greet) error {
			ran <- g.N
			return nil
		})
		start(t, q)
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			return q.EnqueueAt(t.Context(), tx, time.Now().Add(24*time.Hour), greet{1})
		})
		if err != nil {
			t.Fatal(err)
		}
		enqueue(t, db, q, 2, nil)
		if n := receive(t, ran); n != 2 {
			t.Errorf("ran %d before its time", n)
		}
		err = db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE river_job SET scheduled_at = $1 WHERE state = 'scheduled'`, tx.Now)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := receive(t, ran); n != 1 {
			t.Errorf("ran %d", n)
		}
	})
}

// TestSnooze checks that a job that snoozes runs again and does not count as failed.
func TestSnooze(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		ran := make(chan int, 10)
		jobs.Handle(q, time.Minute, func(_ context.Context, g greet) error {
			ran <- g.N
			if len(ran) == 1 {
				return jobs.Snooze(time.Millisecond)
			}
			return nil
		})
		start(t, q)
		enqueue(t, db, q, 1, nil)
		awaitState(t, db, "completed")
		if n := len(ran); n != 2 {
			t.Errorf("ran %d times", n)
		}
	})
}
