package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// routeOptions are the limits of one route. Every registration states all of
// them; TestRoutesStateTheirOptions fails for one that does not.
type routeOptions struct {
	// timeout bounds the work on a request. Sending the answer has sendTimeout more.
	timeout time.Duration
	// exportTimeout replaces timeout for a request that accepts text/csv. Zero
	// means that the route has no CSV form.
	exportTimeout time.Duration
	rate          rateClass
	scope         scope
	// maxBody is the largest accepted request body in bytes, or noBody.
	maxBody int64
	// streamed: the handler reads the body as it arrives, from request.body. It may be
	// longer than maxBody of other routes.
	streamed bool
	// console: the route is a page of the console, whose caller has a session cookie.
	console bool
	// key says what an Idempotency-Key does; see TestWhichCallsTakeKeys.
	key keyUse
	// secret: the answer to GET holds secrets, and is not compressed.
	secret bool
	// list is the parameter that a query may hold many times; empty means none.
	list string
}

const (
	// requestTimeout is the timeout of a route that does not wait for another server.
	requestTimeout = 30 * time.Second
	// waitTimeout is the timeout of a route that waits for a provisioning run or
	// for a merchant's server.
	waitTimeout = requestTimeout + MaxWait
	// csvTimeout is the timeout of a CSV export.
	csvTimeout = streamLifetime
)

const (
	// noBody is for a route that reads no request body.
	noBody int64 = -1
	// maxJSON is the body limit of a JSON call.
	maxJSON int64 = 1 << 20
	// maxForm is the body limit of an HTML form. It is far above what any form accepts, so
	// that a form with a text that is too long comes back with what was typed.
	maxForm int64 = 256 << 10
	// maxWebhook is the body limit of a webhook.
	maxWebhook int64 = 1 << 20
)

// rateClass names the rate limits that a route counts against. Every class but
// rateHealth counts requests by client address too, and every authenticated
// request is counted by user, or by API key and that key's store.
type rateClass string

const (
	rateHealth       rateClass = "health"        // by client address, apart from all other requests
	rateAddress      rateClass = "address"       // by client address only
	rateAuth         rateClass = "auth"          // by client address: the call hashes a password or sends mail
	rateCaller       rateClass = "caller"        // by user or API key
	rateDatabase     rateClass = "database"      // by user: the call connects to a server that the caller names
	rateDatabaseWait rateClass = "database-wait" // as rateDatabase; a user may have few of them at the same time
	rateStorefront   rateClass = "storefront"    // by store
)

// scope says who may call a route: one of the constants below, or the
// authz.Action that the caller needs in the store. Authentication follows from
// it. Domain methods check authorization; the scope only states it.
type scope string

const (
	scopePublic   scope = "public"   // everybody
	scopeOptional scope = "optional" // everybody; a token that is sent is checked
	scopeCaller   scope = "caller"   // every authenticated caller
	scopePerson   scope = "person"   // an authenticated user, no API key
	scopeOperator scope = "operator" // an operator of the platform, no API key
)

// needsAuthentication reports whether a request without a token is refused.
func (s scope) needsAuthentication() bool { return s != scopePublic && s != scopeOptional }

// fallbackOptions are for requests that match no route.
var fallbackOptions = routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: noBody}

// timeoutOf returns the timeout of a request.
func (o routeOptions) timeoutOf(r *http.Request) time.Duration {
	if o.exportTimeout > 0 && strings.Contains(r.Header.Get("Accept"), csvType) {
		return o.exportTimeout
	}
	return o.timeout
}

// optionsOf returns the options of the route that a request matches.
func (a *api) optionsOf(r *http.Request) routeOptions {
	if r.URL.RawPath == "" { // otherwise the mux does not match the decoded path
		if o, ok := a.exact[exactRoute{r.Method, r.URL.Path}]; ok {
			return o
		}
	}
	_, pattern := a.mux.Handler(r)
	if o, ok := a.options[pattern]; ok {
		return o
	}
	return fallbackOptions
}

// exactRoute is a route that has one path.
type exactRoute struct{ method, path string }

// state records the options of a pattern. Those of an exact route are found without the
// mux, which would otherwise be searched twice for each request.
func (a *api) state(pattern string, o routeOptions) {
	a.options[pattern] = o
	method, path, _ := strings.Cut(pattern, " ")
	if path != "" && !strings.Contains(path, "{") && !strings.HasSuffix(path, "/") {
		a.exact[exactRoute{method, path}] = o
	}
}

// mux is an http.ServeMux that remembers its patterns.
type mux struct {
	http.ServeMux
	patterns []string
}

// HandleFunc implements humago.Mux.
func (m *mux) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	m.patterns = append(m.patterns, pattern)
	m.ServeMux.HandleFunc(pattern, handler)
}

// route registers an API operation. It maps the handler's errors to problem
// documents and derives authentication, rate limits and the documented statuses
// from o.
func route[I, O any](a *api, o routeOptions, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	statuses := []int{http.StatusBadRequest, http.StatusRequestURITooLong, http.StatusTooManyRequests, http.StatusServiceUnavailable} // unknown version, rate limits, master database unavailable
	switch {
	case o.scope == scopePublic:
		op.Security = []map[string][]string{{}}
	case o.scope == scopeOptional:
		op.Security = []map[string][]string{{}, {"bearer": {}}}
	case o.scope.needsAuthentication():
		op.Security = []map[string][]string{{"bearer": {}}}
		statuses = append(statuses, http.StatusForbidden) // an API key may lack the scope
	}
	op.RejectUnknownQueryParameters = o.rate != rateHealth // a load balancer may add some
	if op.RejectUnknownQueryParameters {
		statuses = append(statuses, http.StatusUnprocessableEntity)
	}
	if o.key != keyIgnored {
		statuses = append(statuses, http.StatusConflict)
		documentKey(&op, o.key)
	}
	op.Errors = slices.Clone(op.Errors)
	for _, status := range statuses {
		if !slices.Contains(op.Errors, status) {
			op.Errors = append(op.Errors, status)
		}
	}
	if o.maxBody != noBody {
		op.MaxBodyBytes = o.maxBody
	}
	op.Middlewares = a.routeMiddlewares(o)
	a.state(op.Method+" "+op.Path, o)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		release, err := a.admit(ctx, o.rate)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		defer release()
		requestIn(ctx).begun = true
		out, err := handle(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
}

// routeMiddlewares returns the middlewares that a request passes before its input is
// decoded.
func (a *api) routeMiddlewares(o routeOptions) (all huma.Middlewares) {
	if o.rate == rateAuth {
		all = append(all, a.limitAuth)
	}
	switch {
	case o.scope == scopeOptional:
		all = append(all, a.authenticateOptional)
	case o.scope.needsAuthentication():
		all = append(all, a.authenticate)
	}
	if o.key != keyIgnored {
		all = append(all, a.takeKey(o))
	}
	return all
}

// page registers a handler outside the OpenAPI document.
func (a *api) page(pattern string, o routeOptions, handle http.HandlerFunc) {
	a.state(pattern, o)
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if o.maxBody != noBody {
			r.Body = http.MaxBytesReader(w, r.Body, o.maxBody)
		}
		handle(w, r)
	})
}

// Route is one registered route with its options, for tests and documentation.
type Route struct {
	Method  string // empty: every method
	Path    string
	Timeout time.Duration
	Rate    string
	Scope   string // an authz.Action, or one of public, optional, caller, person, operator
	MaxBody int64  // bytes; -1: no body is read
	Console bool   // a page of the console, whose caller has a session cookie
}

// Routes lists the routes that New registers for cfg, in the order of their
// registration.
func Routes(cfg Config) []Route {
	cfg.Metrics = nil
	a := newAPI(Domains{}, cfg)
	list := make([]Route, len(a.mux.patterns))
	for i, pattern := range a.mux.patterns {
		method, path, found := strings.Cut(pattern, " ")
		if !found {
			method, path = "", pattern
		}
		o := a.options[pattern]
		list[i] = Route{Method: method, Path: path, Timeout: o.timeout, Rate: string(o.rate), Scope: string(o.scope), MaxBody: o.maxBody, Console: o.console}
	}
	return list
}

// OpenAPI returns the OpenAPI document of the API that New serves for cfg, as JSON.
func OpenAPI(cfg Config) ([]byte, error) {
	cfg.Metrics = nil
	return newAPI(Domains{}, cfg).huma.OpenAPI().MarshalJSON()
}
