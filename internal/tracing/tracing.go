// Package tracing makes spans of requests, statements, jobs and calls to other servers, and
// exports them by OTLP over HTTP. A nil *Tracer is tracing that is off: its methods make
// nothing and allocate nothing.
//
// A span has names, ids, statuses and statements without their values. Nothing that a person
// has written, and no secret, belongs into one: collectors keep spans for long and show them
// to many. docs/adr/0040-tracing.md has the reasons.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Options configure a Tracer. The SDK reads the other standard variables by itself, such as
// OTEL_EXPORTER_OTLP_HEADERS, …_TIMEOUT and OTEL_BSP_….
type Options struct {
	Endpoint   string            // base URL of the collector; /v1/traces is added
	Service    string            // service.name
	Version    string            // service.version
	Attributes map[string]string // of the resource
	Sampler    Sampler
	Log        *slog.Logger
}

// The limits of what a hanging collector can cost. The queue holds 2,048 spans (OTEL_BSP_MAX_QUEUE_SIZE);
// further ones are dropped.
const (
	// maxText is the maximum length of an attribute in bytes.
	maxText = 2048
	// maxResponse is how many bytes of a collector's answer are read.
	maxResponse = 64 << 10
	// closeTimeout is how long Close waits for the last spans to be sent.
	closeTimeout = 2 * time.Second
)

// Tracer makes spans. It is safe for concurrent use.
type Tracer struct {
	trace.Tracer
	provider *sdktrace.TracerProvider
	exported *exporter
}

// New returns a Tracer that exports to a collector. It does not connect: a collector that
// does not answer is logged when spans cannot be sent.
func New(ctx context.Context, opts Options) (*Tracer, error) {
	u, err := endpoint(opts.Endpoint)
	if err != nil {
		return nil, err
	}
	out, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u), otlptracehttp.WithMaxResponseSize(maxResponse))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	attributes := []attribute.KeyValue{attribute.String("service.version", opts.Version)}
	for name, value := range opts.Attributes {
		attributes = append(attributes, attribute.String(name, value))
	}
	attributes = append(attributes, attribute.String("service.name", opts.Service))
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxText
	e := newExporter(out, opts.Log)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(e.sdkError))
	p := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(e), sdktrace.WithSampler(opts.Sampler), sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithResource(resource.NewSchemaless(attributes...)),
	)
	return &Tracer{Tracer: p.Tracer("github.com/stoahq/stoa"), provider: p, exported: e}, nil
}

// Check reports what is wrong with the URL of a collector.
func Check(endpointURL string) error {
	_, err := endpoint(endpointURL)
	return err
}

func endpoint(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("must be an http or https address without a password, such as http://127.0.0.1:4318; OTEL_EXPORTER_OTLP_HEADERS takes credentials")
	}
	return u.JoinPath("v1", "traces").String(), nil
}

// Metrics returns the metrics of the export; none while tracing is off.
func (t *Tracer) Metrics() []prometheus.Collector {
	if t == nil {
		return nil
	}
	return []prometheus.Collector{t.exported.spans}
}

// Flush sends the spans that wait, and returns when they are sent or dropped.
func (t *Tracer) Flush(ctx context.Context) error { return t.provider.ForceFlush(ctx) }

// Close sends the spans that are left, within closeTimeout and the time of ctx.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// ID returns the id of the trace that ctx belongs to, or "".
func ID(ctx context.Context) string {
	if c := trace.SpanContextFromContext(ctx); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}

// Fail marks a span as failed if err is not nil. The error's text is not recorded: servers put
// values into theirs.
func Fail(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		kind := errorType(err)
		span.SetAttributes(attribute.String("error.type", kind))
		span.SetStatus(codes.Error, kind)
	}
}

// Store is the attribute that names a store. It is an id, and belongs on spans, never on
// metrics.
func Store(id fmt.Stringer) attribute.KeyValue { return attribute.String("stoa.store.id", id.String()) }

// ParseAttributes reads OTEL_RESOURCE_ATTRIBUTES: key=value, separated by commas, the values
// percent-encoded.
func ParseAttributes(text string) (map[string]string, error) {
	out := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		plain, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !found || name == "" || err != nil {
			return nil, errors.New("must be key=value, separated by commas, such as deployment.environment.name=production")
		}
		out[name] = plain
	}
	return out, nil
}
