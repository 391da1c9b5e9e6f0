package jobs_test

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/tracing"
	"github.com/stoahq/stoa/internal/tracing/tracingtest"
)

// trace returns a tracer with a sampler, and its collector.
func trace(t *testing.T, name string) (*tracing.Tracer, *tracingtest.Collector) {
	t.Helper()
	collector := tracingtest.Start(t)
	sampler, err := tracing.ParseSampler(name, "")
	testkit.Must(t, err)
	tracer, err := tracing.New(t.Context(), tracing.Options{Endpoint: collector.URL, Service: "test", Sampler: sampler, Log: slog.New(slog.DiscardHandler)})
	testkit.Must(t, err)
	t.Cleanup(func() { _ = tracer.Close(context.Background()) })
	return tracer, collector
}

// TestStatementsOfTheQueueAreTraced enqueues jobs within the span of a request. The statement
// that inserts each is a part of the request, and the one that stores its outcome a part of its
// attempt. River's search for work makes no trace.
func TestStatementsOfTheQueueAreTraced(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		tracer, collector := trace(t, "always_on")
		db.Trace(tracer)
		q := newQueue(t, db, jobs.Options{Tracer: tracer})
		jobs.Handle(q, patience, func(_ context.Context, g greet) error {
			if g.N == 2 {
				return jobs.Cancel(errTest)
			}
			return nil
		})
		ctx, request := tracer.Request(t.Context(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil), false)
		testkit.Must(t, db.Tx(ctx, func(tx *masterdb.Tx) error {
			return errors.Join(q.Enqueue(ctx, tx, greet{1}), q.Enqueue(ctx, tx, greet{2}))
		}))
		request.End()
		start(t, q)
		spans := awaitSpans(t, tracer, collector, "UPDATE master", 2)
		for _, span := range spans {
			if hex.EncodeToString(span.GetTraceId()) != request.SpanContext().TraceID().String() {
				t.Errorf("%q is in a trace of its own: %v", span.GetName(), span)
			}
		}
		id := request.SpanContext().SpanID()
		inserts, attempts := named(spans, "INSERT master"), named(spans, "job greet")
		if len(inserts) != 2 || len(attempts) != 2 {
			t.Fatalf("%d inserts, %d attempts: %v", len(inserts), len(attempts), spans)
		}
		for _, span := range inserts {
			checkStatement(t, span, db, "INSERT")
			if hex.EncodeToString(span.GetParentSpanId()) != id.String() {
				t.Errorf("the parent of the insertion is not the request: %v", span)
			}
		}
		for _, span := range named(spans, "UPDATE master") {
			checkStatement(t, span, db, "UPDATE")
			if !slices.ContainsFunc(attempts, func(a *tracepb.Span) bool { return string(a.GetSpanId()) == string(span.GetParentSpanId()) }) {
				t.Errorf("the parent of the outcome is no attempt: %v", span)
			}
		}
		if n := q.Remembered(); n != 0 {
			t.Errorf("%d attempts are kept after their outcome is stored", n)
		}
	})
}

// TestUntracedJobsHaveNoStatements checks that jobs whose trace is not recorded leave nothing.
func TestUntracedJobsHaveNoStatements(t *testing.T) {
	t.Parallel()
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	tracer, collector := trace(t, "always_off")
	db.Trace(tracer)
	q := newQueue(t, db, jobs.Options{Tracer: tracer})
	jobs.Handle(q, patience, func(context.Context, greet) error { return nil })
	enqueue(t, db, q, 1, nil)
	start(t, q)
	awaitState(t, db, "completed")
	testkit.Must(t, tracer.Close(t.Context()))
	if n := len(collector.Spans()); n != 0 || q.Remembered() != 0 {
		t.Errorf("%d spans, %d attempts kept", n, q.Remembered())
	}
}

// awaitSpans returns all spans once there are n with the name.
func awaitSpans(t *testing.T, tracer *tracing.Tracer, collector *tracingtest.Collector, name string, n int) []*tracepb.Span {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		testkit.Must(t, tracer.Flush(t.Context()))
		spans := collector.Spans()
		if len(named(spans, name)) >= n {
			return spans
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("there are not %d spans %q: %v", n, name, spans)
		}
	}
}

func named(spans []*tracepb.Span, name string) (out []*tracepb.Span) {
	for _, span := range spans {
		if span.GetName() == name {
			out = append(out, span)
		}
	}
	return out
}

func checkStatement(t *testing.T, span *tracepb.Span, db *masterdb.DB, operation string) {
	t.Helper()
	for name, want := range map[string]string{
		"db.system.name": string(db.Engine), "db.operation.name": operation, "db.collection.name": "river_job",
		"db.query.summary": operation + " river_job", "stoa.database": "master",
	} {
		if got := tracingtest.Attribute(span, name); got != want {
			t.Errorf("%s: %s is %q, want %q", span.GetName(), name, got, want)
		}
	}
}
