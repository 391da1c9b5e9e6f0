package jobs_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fill inserts n jobs, all in one state, that became due some time ago.
func fill(t *testing.T, db *masterdb.DB, n int, queue, kind, state string, due time.Time) {
	t.Helper()
	var finished any
	if state == "completed" || state == "discarded" || state == "cancelled" {
		finished = due
	}
	empty, cast := `'{}'`, ``
	if db.Engine == masterdb.SQLite {
		empty = `jsonb('{}')`
	} else {
		cast = `::river_job_state`
	}
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), fmt.Sprintf(`
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO river_job (args, kind, queue, state, max_attempts, metadata, scheduled_at, created_at, finalized_at)
			SELECT %s, $1, $2, '%s'%s, 25, %s, $3, $3, $4 FROM n`, n, empty, state, cast, empty), kind, queue, due, finished)
		return err
	}))
}

func TestCountsAreBounded(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		newQueue(t, db, jobs.Options{})
		due := db.Now().UTC().Add(-time.Minute)
		fill(t, db, 5000, "default", "done", "completed", due)
		fill(t, db, 600, "default", "a", "available", due)
		fill(t, db, 600, "tenants", "b", "available", due)
		fill(t, db, 3, "default", "a", "retryable", due)
		fill(t, db, jobs.MaxCounted, "default", "c", "discarded", due)
		got, err := jobs.Counts(t.Context(), db)
		testkit.Must(t, err)
		want := []jobs.Count{
			{Kind: "a", State: "available", Jobs: 600, More: true}, {Kind: "a", State: "retryable", Jobs: 3},
			{Kind: "b", State: "available", Jobs: 401, More: true}, {Kind: "c", State: "discarded", Jobs: jobs.MaxCounted},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if n, more := jobs.Total(got, "available", "retryable"); n != jobs.MaxCounted+3 || !more {
			t.Errorf("waiting: %d, more: %v", n, more)
		}
		if n, more := jobs.Total(got, "discarded"); n != jobs.MaxCounted || more {
			t.Errorf("discarded: %d, more: %v", n, more)
		}
	})
}

func TestQueueStates(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		newQueue(t, db, jobs.Options{})
		now := db.Now().UTC().Truncate(time.Second)
		ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
		read := func() []jobs.QueueState {
			t.Helper()
			got, err := jobs.QueueStates(t.Context(), db, now)
			testkit.Must(t, err)
			for i := range got {
				if got[i].Oldest != nil {
					*got[i].Oldest = got[i].Oldest.UTC()
				}
			}
			return got
		}
		fill(t, db, 2000, "default", "a", "completed", *ago(time.Hour))
		fill(t, db, 1, "tenants", "a", "scheduled", *ago(-time.Hour))
		want := []jobs.QueueState{{Queue: "default"}, {Queue: "tenants"}, {Queue: "new_tenants"}}
		if d := cmp.Diff(want, read()); d != "" {
			t.Error("nothing waits:", d)
		}
		fill(t, db, 3, "default", "a", "available", *ago(time.Minute))
		fill(t, db, 2, "default", "b", "available", *ago(10 * time.Minute))
		fill(t, db, 1, "default", "b", "running", *ago(20 * time.Minute))
		fill(t, db, 1, "tenants", "c", "retryable", *ago(5 * time.Minute)) // nothing has made it available
		fill(t, db, jobs.MaxCounted+5, "new_tenants", "c", "available", *ago(time.Second))
		want = []jobs.QueueState{
			{Queue: "default", Waiting: 5, Running: 1, Oldest: ago(10 * time.Minute)}, {Queue: "tenants", Oldest: ago(5 * time.Minute)},
			{Queue: "new_tenants", Waiting: jobs.MaxCounted + 1, Oldest: ago(time.Second)},
		}
		got := read()
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if age := got[0].Age(now); age != 10*time.Minute {
			t.Errorf("the oldest job waits for %s", age)
		}
	})
}

// TestCountsUseAnIndex checks that no count reads all jobs.
func TestCountsUseAnIndex(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		newQueue(t, db, jobs.Options{})
		due := db.Now().UTC().Add(-time.Minute)
		fill(t, db, 20_000, "default", "done", "completed", due)
		fill(t, db, 20, "default", "a", "available", due)
		masterdbtest.Analyze(t, db, "river_job")
		for name, query := range jobs.CountQueries() {
			plan := masterdbtest.Plan(t, db, query)
			if masterdbtest.ReadsTable(plan) || !strings.Contains(plan, "river_job_prioritized_fetching_index") {
				t.Errorf("%s reads all jobs:\n%s", name, plan)
			}
		}
	})
}
