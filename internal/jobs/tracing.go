package jobs

import (
	"context"
	"encoding/json"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
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

// end ends the span of an attempt of the job. To be run again is no fault.
func (q *Queue) end(span trace.Span, job int64, err error) {
	if !IsSnoozed(err) {
		tracing.Fail(span, err)
	}
	if span.SpanContext().IsSampled() {
		q.ended.Store(job, span.SpanContext())
	}
	span.End()
}

// jobTable is River's table of jobs.
const jobTable = "river_job"

// traced returns driver with spans of the statements that store the outcomes of jobs; driver
// itself while tracing is off. River's other statements outside transactions belong to no one
// request or job: they look for work.
func traced[TTx any](q *Queue, driver riverdriver.Driver[TTx]) riverdriver.Driver[TTx] {
	if q.tracer == nil {
		return driver
	}
	return tracedDriver[TTx]{driver, q}
}

type tracedDriver[TTx any] struct {
	riverdriver.Driver[TTx]
	queue *Queue
}

// GetExecutor implements riverdriver.Driver.
func (d tracedDriver[TTx]) GetExecutor() riverdriver.Executor {
	return tracedExecutor{d.Driver.GetExecutor(), d.queue}
}

type tracedExecutor struct {
	riverdriver.Executor
	queue *Queue
}

// JobSetStateIfRunningMany implements riverdriver.Executor. River stores the outcomes of up to
// thousands of jobs at once. The statement has a span in the trace of each recorded one.
func (e tracedExecutor) JobSetStateIfRunningMany(ctx context.Context, params *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	var spans []tracing.Statement
	for _, id := range params.ID {
		// River repeats a statement that failed. The first has the span: those after it may never
		// come, and what is kept here must not outlive the job.
		if attempt, found := e.queue.ended.LoadAndDelete(id); found {
			attempt, _ := attempt.(trace.SpanContext)
			spans = append(spans, e.queue.master.BeginUnseen(trace.ContextWithSpanContext(ctx, attempt), "UPDATE", jobTable, len(params.ID)))
		}
	}
	rows, err := e.Executor.JobSetStateIfRunningMany(ctx, params)
	for _, span := range spans {
		span.End(err)
	}
	return rows, err
}
