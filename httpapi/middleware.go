package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/limits"
)

type (
	requestKey   struct{}
	principalKey struct{}
)

// request is what the middleware knows of a request; one allocation for all.
type request struct {
	id      string
	client  accounts.Client
	address netip.Addr // that client's; zero: not known
	host    string
	header  http.Header // of the answer
}

func requestOf(ctx context.Context) request {
	r, _ := ctx.Value(requestKey{}).(*request)
	if r == nil {
		return request{}
	}
	return *r
}

func requestID(ctx context.Context) string { return requestOf(ctx).id }

// principal returns who was authenticated. Only private operations have one.
func principal(ctx context.Context) access.Principal {
	p, _ := ctx.Value(principalKey{}).(access.Principal)
	return p
}

// middleware wraps every request, from the outside in: metrics, id, access
// log, recovery, deadline. The door comes after it.
func (a *api) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		req := a.newRequest(w, r)
		ctx := context.WithValue(r.Context(), requestKey{}, req)
		limit := a.timeout(r)
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		ctx, held := a.Memory.Reserve(ctx)
		defer held.Release()

		w.Header().Set("X-Request-Id", req.id)
		rec := &recorder{
			ResponseWriter: w, control: http.NewResponseController(w), memory: a.Memory, held: held,
			client: limits.Address("answers-to-address", req.address), stall: a.stall, until: start.Add(limit + sendTimeout),
			draining: a.Draining,
		}
		inner := r.WithContext(ctx) // in which the mux leaves its pattern
		a.metrics.inFlight.Inc()
		defer func() {
			a.metrics.inFlight.Dec()
			a.metrics.observe(inner.Pattern, r.Method, rec, time.Since(start))
		}()
		defer func() {
			if p := recover(); p != nil {
				a.recovered(rec, inner, p)
			}
			if rec.refused {
				rec.reset()
				a.refuse(rec, inner, noMemory())
			}
			rec.finish()
			a.logAccess(ctx, rec, r, req, time.Since(start))
		}()
		next.ServeHTTP(rec, inner)
	})
}

func (a *api) newRequest(w http.ResponseWriter, r *http.Request) *request {
	if r.Header.Get(forwardedFor) != "" && a.Proxies.ignores(r) {
		a.unheard.Do(func() {
			a.Log.WarnContext(r.Context(), "a proxy on a private network says where requests come from, and is not believed: "+
				"until STOA_TRUSTED_PROXIES names it, all that come through it share one address and its rate limits", "proxy", r.RemoteAddr)
		})
	}
	// The id is always the server's own: with one that a client could choose,
	// two requests could look like one in the audit log.
	req := &request{id: stoa.NewID[stoa.RequestID]().String(), address: a.Proxies.client(r), host: r.Host, header: w.Header()}
	req.client = accounts.Client{UserAgent: r.UserAgent(), RequestID: req.id, ClientRequestID: a.Proxies.requestID(r)}
	if req.address.IsValid() {
		req.client.Address = req.address.String()
	}
	return req
}

// timeout: what waits for a run's outcome or for a merchant's server has
// longer, and so has a whole history.
func (a *api) timeout(r *http.Request) time.Duration {
	if strings.HasSuffix(r.URL.Path, "/provisioning/events") {
		return streamLimit + requestTimeout
	}
	if (strings.HasSuffix(r.URL.Path, "/credits/transactions") || strings.HasSuffix(r.URL.Path, "/audit")) && strings.Contains(r.Header.Get("Accept"), csvType) {
		return streamLimit
	}
	for _, patient := range []string{"/connect-database", "/supabase/projects", "/provisioning/retry", "/database/test", "/database/rotate-credentials"} {
		if strings.HasSuffix(r.URL.Path, patient) {
			return requestTimeout + MaxWait
		}
	}
	return requestTimeout
}

// recovered answers a panic. What was sent already cannot be taken back.
func (a *api) recovered(w *recorder, r *http.Request, p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	a.Log.ErrorContext(r.Context(), "panic", "requestId", requestID(r.Context()), "panic", p, "stack", string(debug.Stack()))
	if !w.sent {
		w.reset()
		writeProblem(w, a.problem(r.Context(), stoa.Errorf(stoa.Internal,
			"Something went wrong on our side. Try again; if it persists, name this request's id.")))
	}
}

func (a *api) logAccess(ctx context.Context, w *recorder, r *http.Request, req *request, took time.Duration) {
	level := slog.LevelInfo
	if w.status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	message := "request"
	if w.cut {
		message = "request cut off: its client does not read the answer"
	}
	// Not the query: it may carry what should not be kept.
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("host", r.Host), slog.String("path", r.URL.Path),
		slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.Duration("took", took),
		slog.String("address", req.client.Address), slog.String("requestId", req.id),
	}
	if id := req.client.ClientRequestID; id != "" {
		attrs = append(attrs, slog.String("clientRequestId", id))
	}
	a.Log.LogAttrs(ctx, level, message, attrs...)
}

// authenticate is the middleware of private operations.
func (a *api) authenticate(ctx huma.Context, next func(huma.Context)) {
	p, err := a.principal(ctx)
	if err == nil {
		err = a.takePrincipal(ctx.Context(), p)
	}
	if err != nil {
		_, w := humago.Unwrap(ctx)
		writeProblem(w, a.problem(ctx.Context(), err))
		return
	}
	next(huma.WithValue(ctx, principalKey{}, p))
}

func (a *api) principal(ctx huma.Context) (access.Principal, error) {
	scheme, token, _ := strings.Cut(ctx.Header("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return access.Principal{}, stoa.Errorf(stoa.TokenInvalid, "This call needs an access token or an API key: Authorization: Bearer …")
	}
	p, err := a.Accounts.Authenticate(ctx.Context(), strings.TrimSpace(token))
	client := requestOf(ctx.Context()).client
	p.Origin = access.Origin{Address: client.Address, RequestID: client.RequestID, ClientRequestID: client.ClientRequestID}
	return p, err
}
