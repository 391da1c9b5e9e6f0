package jobs_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// end is a job that ends in some way.
type end struct {
	How   string       `json:"how"`
	Store stoa.StoreID `json:"store"`
}

func (end) Kind() string { return "end" }

// TestAttemptsAreLoggedAndCounted runs a job to each outcome and compares the log lines and
// the metric.
func TestAttemptsAreLoggedAndCounted(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		out := &lockedBuffer{}
		q, err := jobs.New(db, slog.New(slog.NewJSONHandler(out, nil)), jobs.Options{})
		testkit.Must(t, err)
		jobs.Handle(q, time.Minute, func(_ context.Context, job end) error {
			switch job.How {
			case "snoozed":
				return jobs.Snooze(time.Hour)
			case "cancelled":
				return jobs.Cancel(errTest)
			case "failed":
				return errTest
			case "panicked":
				panic("on purpose")
			}
			return nil
		})
		testkit.Must(t, q.Start(t.Context()))
		store := stoa.NewID[stoa.StoreID]()
		want := map[string]int{"completed": 1, "snoozed": 1, "cancelled": 1, "failed": 1, "panicked": 1}
		for how := range want {
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return q.Enqueue(t.Context(), tx, end{How: how, Store: store}) }))
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(q.Metrics()...)
		counted := map[string]int{}
		deadline, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for waiting := true; waiting && len(counted) < len(want); {
			select {
			case <-tick.C:
				counted = outcomes(t, registry)
			case <-deadline:
				waiting = false
			}
		}
		if d := cmp.Diff(want, counted); d != "" {
			t.Error("stoa_jobs_total:", d)
		}
		testkit.Must(t, q.Stop(t.Context()))
		logged := map[string]int{}
		for line := range strings.Lines(out.String()) {
			var l struct {
				Msg, Kind, Outcome string
				JobID              int64   `json:"job_id"`
				Attempt            int     `json:"attempt"`
				StoreID            string  `json:"store_id"`
				DurationMS         float64 `json:"duration_ms"`
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Msg != "job" {
				continue
			}
			logged[l.Outcome]++
			if l.Kind != "end" || l.JobID == 0 || l.Attempt != 1 || l.StoreID != store.String() || l.DurationMS < 0 {
				t.Error("a line of a job:", line)
			}
		}
		if d := cmp.Diff(want, logged); d != "" {
			t.Error("the log:", d)
		}
	})
}

// outcomes returns stoa_jobs_total by outcome.
func outcomes(t *testing.T, r *prometheus.Registry) map[string]int {
	t.Helper()
	families, err := r.Gather()
	testkit.Must(t, err)
	out := map[string]int{}
	for _, f := range families {
		if f.GetName() != "stoa_jobs_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "outcome" {
					out[l.GetValue()] += int(m.GetCounter().GetValue())
				}
			}
		}
	}
	return out
}
