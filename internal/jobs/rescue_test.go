package jobs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// release makes q release the jobs of a process that has ended.
func release(t *testing.T, db *masterdb.DB, q *jobs.Queue, process string) {
	t.Helper()
	if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error { return q.Release(t.Context(), tx, process) }); err != nil {
		t.Fatal(err)
	}
}

// TestReleasedJobsRunAgain checks that the jobs of an ended process run again at once, also
// unique ones, and that jobs that become due later do not wait for an ended leader. Jobs of
// other processes are unaffected.
func TestReleasedJobsRunAgain(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			url := masterdbtest.URL(t, engine)
			begun, over := make(chan int, 10), make(chan struct{})
			hang := func(_ context.Context, a greet) error {
				begun <- a.N
				<-over // also when it is cancelled: an ended process does not complete its jobs
				return nil
			}
			dead := newQueue(t, masterdbtest.Open(t, url), jobs.Options{Process: "dead", Drain: patience})
			jobs.Handle(dead, patience, hang)
			db := masterdbtest.Open(t, url)
			living := newQueue(t, db, jobs.Options{Process: "living"})
			ran := make(chan int, 10)
			jobs.Handle(living, patience, func(_ context.Context, a greet) error { ran <- a.N; return nil })

			start(t, dead)
			t.Cleanup(func() { close(over) }) // runs before dead stops
			once := func(n int) {
				if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error { return living.EnqueueOnce(t.Context(), tx, greet{n}) }); err != nil {
					t.Fatal(err)
				}
			}
			enqueue(t, db, dead, 1, nil)
			once(2)
			if got := receive(t, begun) + receive(t, begun); got != 3 {
				t.Fatalf("jobs begun: %d", got)
			}
			if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				return living.EnqueueAt(t.Context(), tx, tx.Now.Add(2*time.Second), greet{3})
			}); err != nil {
				t.Fatal(err)
			}
			if err := dead.Stop(stopped(t)); err == nil { // it fetches no more jobs
				t.Error("a queue with jobs under way has stopped")
			}
			exec(t, db, `DELETE FROM river_leader`)
			exec(t, db, `INSERT INTO river_leader (leader_id, elected_at, expires_at) SELECT 'dead', max(created_at), '2100-01-01 00:00:00' FROM river_job`)
			release(t, db, living, "another") // this process has no jobs
			once(2)                           // the job is still unique
			release(t, db, living, "dead")
			once(2)
			since, got := time.Now(), map[int]bool{}
			start(t, living)
			for range 3 {
				got[receive(t, ran)] = true
			}
			if !got[1] || !got[2] || !got[3] {
				t.Errorf("jobs that ran: %v", got)
			}
			if d := time.Since(since); d > masterdbtest.Deadline(12*time.Second) {
				t.Errorf("the jobs ran after %v", d)
			}
			var n int
			if err := db.Get(t.Context(), &n, `SELECT count(*) FROM river_job`); err != nil || n != 3 {
				t.Errorf("%d jobs, want 3: %v", n, err)
			}
		})
	}
}

// stopped returns a context that has ended.
func stopped(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// TestReleasedJob checks that a job that was running when several processes ended, and may
// be the cause, waits longer each time and has no more attempts than other jobs.
func TestReleasedJob(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		jobs.Handle(q, patience, func(context.Context, greet) error { return nil })
		for name, c := range map[string]struct {
			attempt, rescues int
			by               []string
			state            string
			pause            time.Duration
		}{
			"first time":    {1, 0, []string{"other", "dead"}, "available", 0},
			"second time":   {2, 1, []string{"dead"}, "retryable", time.Second},
			"fourth time":   {4, 3, []string{"dead", "dead"}, "retryable", 81 * time.Second},
			"many times":    {24, 23, []string{"dead"}, "retryable", time.Hour},
			"last attempt":  {25, 0, []string{"dead"}, "discarded", 0},
			"another's now": {2, 0, []string{"dead", "other"}, "running", 0},
			"of nobody":     {1, 0, nil, "running", 0},
		} {
			enqueue(t, db, q, 0, nil)
			text := `'["` + strings.Join(c.by, `","`) + `"]'`
			by, metadata := `jsonb(`+text+`)`, `jsonb('{"river:rescue_count": %d}')`
			if db.Engine == masterdb.Postgres {
				by, metadata = `ARRAY(SELECT jsonb_array_elements_text(`+text+`))`, `'{"river:rescue_count": %d}'`
			}
			if c.by == nil {
				by = `NULL`
			}
			exec(t, db, `UPDATE river_job SET state = 'running', attempted_at = created_at, attempt = $1, attempted_by = `+by+`, metadata = `+
				fmt.Sprintf(metadata, c.rescues), c.attempt)
			before := time.Now()
			release(t, db, q, "dead")
			var job struct {
				State       string
				Errors      int
				ScheduledAt time.Time
			}
			count := `coalesce(json_array_length(errors), 0)`
			if db.Engine == masterdb.Postgres {
				count = `coalesce(array_length(errors, 1), 0)`
			}
			if err := db.Get(t.Context(), &job, `SELECT CAST(state AS text) AS state, scheduled_at, `+count+` AS errors FROM river_job`); err != nil {
				t.Fatal(err)
			}
			wantErrors := 1
			if c.state == "running" {
				wantErrors = 0
			}
			pause := job.ScheduledAt.Sub(before).Round(time.Second)
			if job.State != c.state || job.Errors != wantErrors || max(pause, 0) < c.pause || pause > c.pause+5*time.Second {
				t.Errorf("%s: %+v, a pause of %v; want %s, %v", name, job, pause, c.state, c.pause)
			}
			exec(t, db, `DELETE FROM river_job`)
		}
	})
}

func exec(t *testing.T, db *masterdb.DB, query string, args ...any) {
	t.Helper()
	if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
