package tracing

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/time/rate"
)

// maxErrorText is how many bytes of an error are logged: it may have a collector's answer.
const maxErrorText = 300

// exporter counts the spans that are sent, and logs when that begins to fail and when it
// works again, not each batch.
type exporter struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
	others  rate.Sometimes // errors of the SDK that belong to no batch
	spans   *prometheus.CounterVec
}

func newExporter(out sdktrace.SpanExporter, log *slog.Logger) *exporter {
	return &exporter{
		SpanExporter: out, log: log, others: rate.Sometimes{Interval: time.Minute},
		spans: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_trace_spans_total", Help: "Spans by outcome: exported, or failed and dropped.",
		}, []string{"outcome"}),
	}
}

// ExportSpans implements sdktrace.SpanExporter. It returns no error: it has logged it.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		e.spans.WithLabelValues("failed").Add(float64(len(spans)))
		if e.failing.CompareAndSwap(false, true) {
			e.log.WarnContext(ctx, "spans are not exported and dropped, until the collector accepts some; nothing else is affected", "err", short(err))
		}
		return nil
	}
	e.spans.WithLabelValues("exported").Add(float64(len(spans)))
	if e.failing.CompareAndSwap(true, false) {
		e.log.InfoContext(ctx, "spans are exported again")
	}
	return nil
}

// sdkError logs an error of the SDK itself.
func (e *exporter) sdkError(err error) {
	e.others.Do(func() { e.log.Warn("tracing", "err", short(err)) })
}

func short(err error) string {
	text := err.Error()
	return text[:min(len(text), maxErrorText)]
}
