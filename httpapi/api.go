// Package httpapi is the JSON API: one file per resource with its routes at
// the head, the middleware, and one mapping from error codes to statuses. A
// handler decodes, calls one domain method and encodes.
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/apikeys"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/limits"
	"github.com/stoahq/stoa/mail"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/payments"
	"github.com/stoahq/stoa/provisioning"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/stores"
	"github.com/stoahq/stoa/tenantdb"
)

// Domains are what the API speaks for.
type Domains struct {
	Master       *masterdb.DB
	Accounts     *accounts.Accounts
	APIKeys      *apikeys.Service
	Stores       *stores.Registry
	Tenants      *tenantdb.Manager
	Credits      *credits.Ledger
	Payments     *payments.Service
	Provisioning *provisioning.Service
	Cloud        *cloud.Service
	Mail         *mail.Sender
	Limits       *limits.Limiter
	Memory       *limits.ByteBudget // of answers, the one that Tenants counts in
}

// Config is what the API needs to know of its surroundings.
type Config struct {
	BaseURL     string // the platform's own address, such as http://localhost:3000
	BaseDomain  string // stores live at <slug>.<BaseDomain>
	Development bool
	Sandbox     bool // serve the sandbox's payment page
	Rates       Rates
	Proxies     Proxies
	Hosts       []string // the platform answers there too, beside localhost, BaseDomain and BaseURL
	CORS        CORS
	Log         *slog.Logger
	Metrics     prometheus.Registerer // nil: nobody asks for them
	Draining    <-chan struct{}       // closed when the server is about to stop: see stopping.go; nil: never
	Stopping    <-chan struct{}       // closed when it stops: what waits is answered, and streams end; nil: never
}

type api struct {
	Domains
	Config
	huma           huma.API
	mux            *http.ServeMux
	metrics        *metrics
	hosts          map[string]bool
	streams        streams
	readiness      readiness
	connecting     connecting
	unheard        sync.Once      // of a proxy that is not trusted, it is told once
	logUnavailable rate.Sometimes // a master outage fails many requests
	stall          time.Duration  // see recorder
}

// New returns the handler of the public listener.
func New(d Domains, cfg Config) http.Handler {
	a := &api{
		Domains: d, Config: cfg, mux: http.NewServeMux(), metrics: newMetrics(cfg.Metrics, d.Memory), hosts: cfg.platformHosts(), stall: stallTimeout,
		logUnavailable: rate.Sometimes{Interval: 10 * time.Second},
	}
	a.huma = humago.New(a.mux, openAPI())
	a.authRoutes()
	a.sessionRoutes()
	a.passwordRoutes()
	a.factorRoutes()
	a.keyRoutes()
	a.memberRoutes()
	a.auditRoutes()
	a.operatorRoutes()
	a.storeRoutes()
	a.lifecycleRoutes()
	a.hostnameRoutes()
	a.provisioningRoutes()
	a.eventRoutes()
	a.databaseRoutes()
	a.supabaseRoutes()
	a.creditRoutes()
	a.paymentRoutes()
	a.rechargeRoutes()
	a.storefrontRoutes()
	a.healthRoutes()
	a.pageRoutes()
	a.accountPages()
	a.mux.HandleFunc("/", a.noRoute)
	return a.middleware(a.door(a.mux))
}

func openAPI() huma.Config {
	cfg := huma.DefaultConfig("Stoa", stoa.Version)
	cfg.Formats = map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat}
	cfg.CreateHooks = nil // they would add a $schema field to every answer
	cfg.OpenAPIPath = "/api/openapi"
	cfg.DocsPath, cfg.SchemasPath = "", ""
	// A column of JSON is an object to the API, not the bytes it is kept in.
	cfg.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[shop.JSON](), reflect.TypeFor[map[string]any]())
	cfg.Info.Description = "The platform under many online stores: people, stores, their databases and credits. " +
		"Errors are RFC 9457 problem documents with a stable code. Times are RFC 3339 in UTC, credits decimal strings, ids UUIDs."
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "The accessToken of register, login or refresh; or an API key (stoa_live_…), for what its scopes allow in its store."},
	}
	cfg.Tags = []*huma.Tag{
		{Name: "Auth", Description: "Accounts and sessions"},
		{Name: "Stores", Description: "Stores, their databases and profiles"},
		{Name: "Supabase", Description: "A store's database in its owner's Supabase account"},
		{Name: "People", Description: "Who may do what to a store: members, API keys and the audit log.\n\n" + access.Markdown() +
			"\nA key acts for the member who made it and may do no more than they. Nobody makes or unmakes owners but owners and operators, " +
			"and the last owner of a store stays one. What an operator of the platform does is in the store's audit log."},
		{Name: "Operator", Description: "For operators of the platform"},
		{Name: "Credits", Description: "Balances, spending, purchases"},
		{Name: "Store front", Description: "What a store shows its shoppers; the store is named by the Host header"},
		{Name: "Operations", Description: "Health of this server"},
	}
	return cfg
}

// route registers a handler and gives its errors their documents.
func route[I, O any](a *api, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	if op.OperationID == "" {
		op.OperationID = operationID(op)
	}
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} { // by limits, and without a master
		if !slices.Contains(op.Errors, status) {
			op.Errors = append(slices.Clone(op.Errors), status)
		}
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return out, nil
	})
}

// operationID names an operation after its method and path:
// POST /api/stores/{id}/connect-database → postStoresIdConnectDatabase.
func operationID(op huma.Operation) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(op.Method))
	for _, word := range strings.FieldsFunc(strings.TrimPrefix(op.Path, "/api"), func(r rune) bool { return strings.ContainsRune("/{}-", r) }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// private makes an operation ask for an access token or an API key, which may
// lack the scope.
func (a *api) private(op huma.Operation) huma.Operation {
	if !slices.Contains(op.Errors, http.StatusForbidden) {
		op.Errors = append(slices.Clone(op.Errors), http.StatusForbidden)
	}
	op.Security = []map[string][]string{{"bearer": {}}}
	op.Middlewares = append(op.Middlewares, a.authenticate)
	return op
}

// optional makes an operation take an access token or an API key, if there is
// one.
func (a *api) optional(op huma.Operation) huma.Operation {
	op.Security = []map[string][]string{{}, {"bearer": {}}}
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		if ctx.Header("Authorization") == "" {
			next(ctx)
			return
		}
		a.authenticate(ctx, next)
	})
	return op
}

// requestTimeout bounds every request but those that wait on purpose.
const requestTimeout = 30 * time.Second
