package jobs

import (
	"context"
	"log/slog"
	"reflect"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river/rivertype"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tracing"
)

// The outcomes of one attempt of a job. A failed one is retried unless it was the last
// attempt, which is discarded. A snoozed one runs again and has not failed.
const (
	outcomeCompleted = "completed"
	outcomeSnoozed   = "snoozed"
	outcomeCancelled = "cancelled"
	outcomeFailed    = "failed"
	outcomeDiscarded = "discarded"
	outcomePanicked  = "panicked"
)

// metrics count the attempts of this process. Kinds are those that have a handler.
type metrics struct {
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics() metrics {
	return metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_jobs_total", Help: "Attempts of jobs in this process, by kind and outcome.",
		}, []string{"kind", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "stoa_job_duration_seconds", Help: "How long attempts of jobs took, by kind.", Buckets: []float64{.01, .1, 1, 10, 60, 600},
		}, []string{"kind"}),
	}
}

// Metrics returns the metrics of the jobs that run in this process.
func (q *Queue) Metrics() []prometheus.Collector {
	return []prometheus.Collector{q.metrics.attempts, q.metrics.duration}
}

// finished logs and counts an attempt that began at a time and ends now, with *err or with a
// panic. Call it with defer: a panic goes on.
func (q *Queue) finished(ctx context.Context, job *rivertype.JobRow, store stoa.StoreID, began time.Time, err *error) {
	took, outcome := time.Since(began), outcomePanicked
	p := recover()
	if p == nil {
		outcome = outcomeOf(job, *err)
	}
	q.metrics.attempts.WithLabelValues(job.Kind, outcome).Inc()
	q.metrics.duration.WithLabelValues(job.Kind).Observe(took.Seconds())
	attrs := append(make([]slog.Attr, 0, 8),
		slog.String("kind", job.Kind), slog.Int64("job_id", job.ID), slog.Int("attempt", job.Attempt), slog.String("outcome", outcome),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000))
	if !store.IsZero() {
		attrs = append(attrs, slog.String("store_id", store.String()))
	}
	if q.tracer != nil {
		attrs = append(attrs, slog.String("trace_id", tracing.ID(ctx)))
	}
	q.log.LogAttrs(ctx, slog.LevelInfo, "job", attrs...)
	if p != nil {
		panic(p)
	}
}

func outcomeOf(job *rivertype.JobRow, err error) string {
	switch {
	case err == nil:
		return outcomeCompleted
	case IsSnoozed(err):
		return outcomeSnoozed
	case IsCancelled(err):
		return outcomeCancelled
	case job.Attempt >= job.MaxAttempts:
		return outcomeDiscarded
	}
	return outcomeFailed
}

// storeField returns the index of the field of a job's arguments that names its store, or
// nil.
func storeField(args reflect.Type) []int {
	for _, f := range reflect.VisibleFields(args) {
		if f.Type == reflect.TypeFor[stoa.StoreID]() {
			return f.Index
		}
	}
	return nil
}

// storeOf returns the store that a job's arguments name, or zero.
func (w *worker[A]) storeOf(args A) stoa.StoreID {
	if w.store == nil {
		return stoa.StoreID{}
	}
	store, _ := reflect.ValueOf(args).FieldByIndex(w.store).Interface().(stoa.StoreID)
	return store
}
