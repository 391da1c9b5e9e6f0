package httpapi

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/stoahq/stoa/internal/tracing"
)

// describeSpan adds to a request's span what its log line has: ids, the route's pattern and the
// status. The path, the query, headers and addresses are not recorded.
func describeSpan(span trace.Span, w *responseWriter, r *http.Request, req *request) {
	if !span.IsRecording() {
		return
	}
	method, route := methodLabel(r.Method), routeLabel(r.Pattern)
	span.SetName(method + " " + route)
	span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route),
		attribute.Int("http.response.status_code", w.status), attribute.String("stoa.request.id", req.id))
	if store := req.storeOf(r); !store.IsZero() {
		span.SetAttributes(tracing.Store(store))
	}
	if !req.caller.UserID.IsZero() {
		span.SetAttributes(attribute.String("stoa.user.id", req.caller.UserID.String()))
	}
	if req.caller.IsKey() {
		span.SetAttributes(attribute.String("stoa.key.id", req.caller.Key.ID.String()))
	}
	if w.status >= http.StatusInternalServerError {
		span.SetStatus(otelcodes.Error, "")
	}
}
