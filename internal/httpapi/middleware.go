package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/ratelimit"
)

type requestKey struct{}

// request is the middleware's data about a request.
type request struct {
	id      string
	client  accounts.Client
	address netip.Addr // the client's; zero when unknown
	host    string
	// platform says that the host is the platform's own, and not a store's.
	platform bool
	header   http.Header // of the response
	options  routeOptions
	version  string // of the API; empty for pages
	// versionErr says that the request names a version that there is not.
	versionErr error
	body       io.Reader // of a streamed route
	key        string    // the Idempotency-Key of a route that takes one
	begun      bool      // the input was valid, and the handler was called

	caller authz.Principal // zero unless the caller is authenticated
	store  stoa.StoreID    // that the request is about, where its path does not name it: see about and storeOf
}

// requestOf returns the request that ctx belongs to, or the zero value.
func requestOf(ctx context.Context) request {
	r, _ := ctx.Value(requestKey{}).(*request)
	if r == nil {
		return request{}
	}
	return *r
}

// requestIn returns the request that ctx belongs to, to change it.
func requestIn(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

func requestID(ctx context.Context) string { return requestOf(ctx).id }

// middleware wraps every request. From the outside in: metrics, request id,
// access log, recovery from panics, timeout. The security middleware follows.
func (a *api) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		req := a.newRequest(w, r)
		ctx := context.WithValue(r.Context(), requestKey{}, req)
		if a.Tracer != nil {
			var span trace.Span
			ctx, span = a.Tracer.Request(ctx, r, a.Proxies.sent(r))
			defer span.End()
		}
		timeout := req.options.timeoutOf(r)
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		ctx, memory := a.Memory.Reserve(ctx)

		w.Header().Set("X-Request-Id", req.id)
		rw := &responseWriter{
			ResponseWriter: w, request: r, secret: req.options.secret, version: req.version, control: http.NewResponseController(w), memory: memory,
			client: ratelimit.Address("answers-to-address", req.address), stall: a.stall, deadline: start.Add(timeout + sendTimeout),
			draining: a.Draining,
		}
		defer rw.releaseMemory()
		routed := r.WithContext(ctx) // the mux sets its Pattern
		a.metrics.inFlight.Inc()
		defer func() {
			a.metrics.inFlight.Dec()
			a.metrics.observe(routed.Pattern, r.Method, rw, time.Since(start))
		}()
		defer func() {
			if p := recover(); p != nil {
				a.recovered(rw, routed, p)
			}
			if rw.refused {
				rw.reset()
				a.writeError(rw, routed, errNoMemory())
			}
			rw.finish()
			a.logAccess(ctx, rw, routed, req, time.Since(start))
			if a.Tracer != nil {
				describeSpan(trace.SpanFromContext(ctx), rw, routed, req)
			}
		}()
		next.ServeHTTP(rw, routed)
	})
}

func (a *api) newRequest(w http.ResponseWriter, r *http.Request) *request {
	if r.Header.Get(forwardedFor) != "" && a.Proxies.isUntrusted(r) {
		a.warnProxyOnce.Do(func() {
			a.Log.WarnContext(r.Context(), "X-Forwarded-For ignored: the proxy is not trusted, so all its clients share one address and its rate limits; "+
				"add the proxy to STOA_TRUSTED_PROXIES", "proxy", r.RemoteAddr)
		})
	}
	// The id is always generated here: a client that could choose it could make
	// two requests look like one in the audit log.
	req := &request{
		id: stoa.NewID[stoa.RequestID]().String(), address: a.Proxies.clientIP(r), host: r.Host, platform: a.isPlatform(r.Host), header: w.Header(), options: a.optionsOf(r),
	}
	if req.platform && strings.HasPrefix(r.URL.Path, "/api/") { // a shop tells nothing of the platform
		req.version, req.versionErr = requestedVersion(r)
		w.Header().Set(versionHeader, req.version)
	}
	req.client = accounts.Client{UserAgent: r.UserAgent(), RequestID: req.id, ClientRequestID: a.Proxies.requestID(r)}
	if req.address.IsValid() {
		req.client.Address = req.address.String()
	}
	return req
}

// recovered answers a request whose handler panicked. A response that has begun
// cannot be replaced.
func (a *api) recovered(w *responseWriter, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	a.Log.ErrorContext(r.Context(), "panic", "request_id", requestID(r.Context()), "panic", p, "stack", string(debug.Stack()))
	if !w.sent {
		w.reset()
		a.writeError(w, r, stoa.Errorf(stoa.Internal, "%s", internalMessage))
	}
}
