package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// maxParent is the maximum length of a traceparent that is read, in bytes. That of version 00
// has 55; later ones may be longer.
const maxParent = 128

// traceparent is the name of the header, and of the member of a job's metadata.
const traceparent = "traceparent"

// parent carries a traceparent alone: tracestate and baggage are not read, so that nothing
// that a client sends is kept.
type parent struct{ text string }

// Get implements propagation.TextMapCarrier.
func (p *parent) Get(key string) string {
	if key == traceparent {
		return p.text
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (p *parent) Set(key, value string) {
	if key == traceparent {
		p.text = value
	}
}

// Keys implements propagation.TextMapCarrier.
func (*parent) Keys() []string { return []string{traceparent} }

// extract returns ctx with the parent that text names. Text that is not valid names none.
func extract(ctx context.Context, text string) context.Context {
	if len(text) > maxParent {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, &parent{text})
}

// Request begins the span of a request. The parent is that of its traceparent, if it has one
// and no more. trusted: a proxy of ours sent it, which decides whether the trace is recorded.
func (t *Tracer) Request(ctx context.Context, r *http.Request, trusted bool) (context.Context, trace.Span) {
	if values := r.Header["Traceparent"]; len(values) == 1 {
		ctx = extract(ctx, values[0])
		if trusted {
			ctx = trusting(ctx)
		}
	}
	return t.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
}

// Parent returns the traceparent of ctx for a job that is enqueued in it, or "" if its trace
// is not recorded.
func (t *Tracer) Parent(ctx context.Context) string {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	var p parent
	propagation.TraceContext{}.Inject(ctx, &p)
	return p.text
}

// Job begins the span of an attempt of a job, as a part of the trace in which it was enqueued.
func (t *Tracer) Job(ctx context.Context, kind, parent string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	if parent != "" {
		ctx = trusting(extract(ctx, parent))
	}
	return t.Start(ctx, "job "+kind, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attributes...))
}

// Call begins the span of a request to another server. Its headers are not changed: nobody
// outside is told the ids of our traces.
func (t *Tracer) Call(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return t.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
}

// Answered ends the span of a call with the status of its answer.
func Answered(span trace.Span, status int, err error) {
	Fail(span, err)
	if status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	span.End()
}
