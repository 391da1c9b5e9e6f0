package jobs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestListPagesEachFilter walks the pages of each filter and compares them with the jobs
// that were inserted.
func TestListPagesEachFilter(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		q := newQueue(t, db, jobs.Options{})
		due := db.Now().UTC().Add(-time.Minute)
		for range 4 {
			for _, kind := range []string{"a", "b", "of an older release"} {
				for _, state := range []string{"completed", "discarded", "retryable"} {
					fill(t, db, 2, "default", kind, state, due)
				}
			}
		}
		for name, c := range map[string]struct {
			filter jobs.Filter
			want   int
		}{
			"all":                    {jobs.Filter{}, 72},
			"a state":                {jobs.Filter{States: []string{"discarded"}}, 24},
			"states":                 {jobs.Filter{States: []string{"discarded", "retryable"}}, 48},
			"a kind":                 {jobs.Filter{Kinds: []string{"b"}}, 24},
			"kinds and a state":      {jobs.Filter{Kinds: []string{"a", "of an older release"}, States: []string{"completed"}}, 16},
			"a state that none has":  {jobs.Filter{States: []string{"running"}}, 0},
			"a kind that none has":   {jobs.Filter{Kinds: []string{"c"}}, 0},
			"a state named twice":    {jobs.Filter{States: []string{"discarded", "discarded"}}, 24},
			"more kinds than a part": {jobs.Filter{Kinds: append(strings.Split(strings.Repeat("x ", 250), " "), "a")}, 24},
		} {
			var got []jobs.Job
			for c.filter.Limit = 5; ; {
				page, err := q.List(t.Context(), c.filter)
				testkit.Must(t, err)
				got = append(got, page.Jobs...)
				if page.NextCursor == nil {
					break
				}
				if len(page.Jobs) != 5 {
					t.Errorf("%s: a page of %d", name, len(page.Jobs))
				}
				c.filter.Cursor = *page.NextCursor
			}
			if len(got) != c.want || !slices.IsSortedFunc(got, func(a, b jobs.Job) int { return int(b.ID - a.ID) }) {
				t.Errorf("%s: %d jobs, want %d, newest first", name, len(got), c.want)
			}
			for i, job := range got {
				if f := c.filter; i > 0 && got[i-1].ID == job.ID || len(f.Kinds) > 0 && !slices.Contains(f.Kinds, job.Kind) || len(f.States) > 0 && !slices.Contains(f.States, job.State) {
					t.Errorf("%s: %+v", name, job)
				}
			}
		}
		if _, err := q.List(t.Context(), jobs.Filter{States: []string{"completed' OR '1'='1"}}); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("a state that is SQL: %v", err)
		}
	})
}

// TestListUsesAnIndex checks that no statement of a list reads more than a page of each
// state and kind, however many jobs have ended. (For a kind without jobs PostgreSQL reads
// River's index of kinds, where it finds none.)
func TestListUsesAnIndex(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		newQueue(t, db, jobs.Options{})
		due := db.Now().UTC().Add(-time.Minute)
		fill(t, db, 20_000, "default", "done", "completed", due)
		fill(t, db, 500, "default", "seldom", "completed", due)
		fill(t, db, 20, "default", "done", "available", due)
		masterdbtest.Analyze(t, db, "river_job")
		for name, query := range jobs.ListQueries(db.Engine) {
			plan := masterdbtest.Plan(t, db, query.SQL, query.Args...)
			if masterdbtest.ReadsTable(plan) || !query.Plan.MatchString(plan) || strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "river_job_pkey") {
				t.Errorf("%s:\n%s", name, plan)
			}
		}
	})
}
