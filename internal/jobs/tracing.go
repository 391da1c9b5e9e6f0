package jobs

import (
	"context"
	"encoding/json"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tracing"
)

// metadata is what a job's row has beside its arguments.
type metadata struct {
	Traceparent string `json:"traceparent,omitempty"`
}

// withParent returns opts with the trace that ctx belongs to, if it is recorded, so that the
// job continues it.
func (q *Queue) withParent(ctx context.Context, opts *river.InsertOpts) *river.InsertOpts {
	parent := q.tracer.Parent(ctx)
	if parent == "" {
		return opts
	}
	text, err := json.Marshal(metadata{parent})
	if err != nil {
		return opts
	}
	if opts == nil {
		opts = &river.InsertOpts{}
	}
	opts.Metadata = text
	return opts
}

// begin begins the span of an attempt.
func (q *Queue) begin(ctx context.Context, job *rivertype.JobRow, store stoa.StoreID) (context.Context, trace.Span) {
	var m metadata
	_ = json.Unmarshal(job.Metadata, &m) // without a parent the span begins a trace
	ctx, span := q.tracer.Job(ctx, job.Kind, m.Traceparent,
		attribute.String("stoa.job.kind", job.Kind), attribute.Int64("stoa.job.id", job.ID), attribute.Int("stoa.job.attempt", job.Attempt))
	if !store.IsZero() {
		span.SetAttributes(tracing.Store(store))
	}
	return ctx, span
}

// end ends the span of an attempt. To be run again is no fault.
func end(span trace.Span, err error) {
	if !IsSnoozed(err) {
		tracing.Fail(span, err)
	}
	span.End()
}
