package jobs_test

import (
	"context"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestJobStartsWhileAnEarlierTransactionIsOpen checks that the second of two concurrently
// enqueued jobs starts while the first one's transaction is still open. River sends a
// notification in the first one's transaction only.
func TestJobStartsWhileAnEarlierTransactionIsOpen(t *testing.T) {
	masterdbtest.NeedsNotifications(t, "the test is of how soon a job starts by them, without River's next look")
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.Postgres))
	q := newQueue(t, db, jobs.Options{})
	ran := make(chan int, 2)
	jobs.Handle(q, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })
	start(t, q)
	begun := time.Now()
	err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := q.Enqueue(t.Context(), tx, greet{1}); err != nil {
			return err
		}
		enqueue(t, db, q, 2, nil)
		if n := receive(t, ran); n != 2 {
			t.Errorf("job %d ran, want 2", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := receive(t, ran); n != 1 {
		t.Errorf("job %d ran, want 1", n)
	}
	if d := time.Since(begun); d > 8*time.Second { // River's next poll comes after 10 s
		t.Errorf("the jobs ran after %v", d)
	}
}

// TestWakesAreShared checks that jobs of one queue that become due together share a
// timer, and that the next moment and another queue have their own.
func TestWakesAreShared(t *testing.T) {
	t.Parallel()
	q := newQueue(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)), jobs.Options{})
	at, set := time.Now().Add(time.Minute), 0
	for range 1000 {
		if q.WakeAt("tenants", at) {
			set++
		}
	}
	if set < 1 || set > 2 { // two when the steps' border lies between two calls
		t.Errorf("%d timers were set for one moment", set)
	}
	if !q.WakeAt("default", at) || !q.WakeAt("tenants", at.Add(time.Second)) {
		t.Error("another queue or another moment has no timer")
	}
	if q.WakeAt("tenants", at.Add(time.Hour)) {
		t.Error("a timer is set for a moment behind the horizon")
	}
}
