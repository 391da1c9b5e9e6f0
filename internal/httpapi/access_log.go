package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/tracing"
)

// logAccess writes the log line of a request. It has the route's pattern and not the path:
// what a client wrote into a path, such as the token of a link, may be a secret, and lines of
// one route are found by one value. The query is not logged for the same reason.
func (a *api) logAccess(ctx context.Context, w *responseWriter, r *http.Request, req *request, took time.Duration) {
	level := slog.LevelInfo
	if w.status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	message := "request"
	if w.cut {
		message = "request cut off: its client does not read the answer"
	}
	attrs := append(make([]slog.Attr, 0, 14),
		slog.String("request_id", req.id), slog.String("method", r.Method), slog.String("route", routeLabel(r.Pattern)), slog.String("host", r.Host),
		slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.String("address", req.client.Address),
	)
	if id := a.traceID(ctx, r); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	if store := req.storeOf(r); !store.IsZero() {
		attrs = append(attrs, slog.String("store_id", store.String()))
	}
	if !req.caller.UserID.IsZero() {
		attrs = append(attrs, slog.String("user_id", req.caller.UserID.String()))
	}
	if req.caller.IsKey() {
		attrs = append(attrs, slog.String("key_id", req.caller.Key.ID.String()))
	}
	if id := req.client.ClientRequestID; id != "" {
		attrs = append(attrs, slog.String("client_request_id", id))
	}
	a.Log.LogAttrs(ctx, level, message, attrs...)
}

// traceID returns the id of the trace that a request belongs to. While tracing is off it is the
// caller's, or "": the request id suffices to find the line of a request that is in no trace.
func (a *api) traceID(ctx context.Context, r *http.Request) string {
	if a.Tracer == nil {
		return tracing.SentID(r)
	}
	return tracing.ID(ctx)
}

// storePattern begins the pattern of each API route of one store.
const storePattern = "/api/stores/{id}"

// storeOf returns the store that a request is about: one that was recorded, that of the path,
// or that of the API key. Zero: none. The caller may lack the right to it.
func (req *request) storeOf(r *http.Request) stoa.StoreID {
	if !req.store.IsZero() {
		return req.store
	}
	if strings.HasPrefix(routeLabel(r.Pattern), storePattern) {
		if id, err := stoa.ParseID[stoa.StoreID](r.PathValue("id")); err == nil {
			return id
		}
	}
	return req.caller.Key.StoreID
}

// about records the store that the request of ctx is about, where its path does not name it.
func about(ctx context.Context, store stoa.StoreID) {
	if req := requestIn(ctx); req != nil {
		req.store = store
	}
}

// identify records the caller of the request that ctx belongs to.
func identify(ctx context.Context, p authz.Principal) {
	if req := requestIn(ctx); req != nil {
		req.caller = p
	}
}
