// Package httpapi is the JSON API: one file per resource with its routes at the
// head, the middleware, and one mapping from error codes to HTTP statuses. Each
// route states its timeout, rate class, scope and body limit. A handler decodes,
// calls one domain method and encodes.
package httpapi

import (
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/idempotency"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/moves"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tracing"
	"github.com/stoahq/stoa/internal/traffic"
	"github.com/stoahq/stoa/internal/webhooks"
)

// Domains are the domain services that the API calls.
type Domains struct {
	Master       *masterdb.DB
	Accounts     *accounts.Accounts
	Idempotency  *idempotency.Store
	APIKeys      *apikeys.Service
	Stores       *stores.Registry
	Hostnames    *hostnames.Service
	Tenants      *tenantdb.Manager
	Credits      *credits.Ledger
	Payments     *payments.Service
	Provisioning *provisioning.Service
	Moves        *moves.Service
	Backups      *backups.Service
	Cloud        *link.Service
	Mail         *mail.Sender
	Traffic      *traffic.Service
	Webhooks     *webhooks.Service
	Bulk         *fleet.Bulk
	Doctor       console.Doctor
	Operations   *operations.Service
	Limits       *ratelimit.Limiter
	Memory       *ratelimit.ByteBudget // of responses; the budget that Tenants uses too
}

// Config is the configuration of the API.
type Config struct {
	BaseURL     string // the platform's own URL, such as http://localhost:3000
	BaseDomain  string // stores are served at <slug>.<BaseDomain>
	Development bool
	Sandbox     bool // serve the sandbox's payment page
	Rates       Rates
	Proxies     Proxies
	Hosts       []string // hostnames of the platform besides localhost, BaseDomain and that of BaseURL
	CORS        CORS
	Tracer      *tracing.Tracer // nil: requests have no spans
	// SecurityContact is the https, mailto or tel address for reports of vulnerabilities;
	// empty: there is no security.txt.
	SecurityContact string
	Log             *slog.Logger
	Metrics         prometheus.Registerer // nil: no metrics
	Draining        <-chan struct{}       // closed when the server begins to drain, see shutdown.go; nil: never
	Stopping        <-chan struct{}       // closed when the server stops: waiting requests are answered and streams end; nil: never
}

type api struct {
	Domains
	Config
	huma           huma.API
	console        *console.Console
	crossOrigin    http.CrossOriginProtection
	mux            *mux
	options        map[string]routeOptions // by pattern
	exact          map[exactRoute]routeOptions
	metrics        *metrics
	hosts          map[string]bool
	streams        streams
	readiness      readiness
	databaseSlots  databaseSlots
	warnProxyOnce  sync.Once      // an untrusted proxy is logged once
	logUnavailable rate.Sometimes // a master outage fails many requests
	stall          time.Duration  // see responseWriter
}

// New returns the handler of the public listener.
func New(d Domains, cfg Config) http.Handler {
	a := newAPI(d, cfg)
	return a.middleware(a.security(a.mux))
}

// newAPI returns an api with all routes.
func newAPI(d Domains, cfg Config) *api {
	a := &api{
		Domains: d, Config: cfg, mux: &mux{}, options: map[string]routeOptions{}, exact: map[exactRoute]routeOptions{}, metrics: newMetrics(cfg.Metrics, d.Memory), hosts: cfg.platformHosts(),
		stall: stallTimeout, logUnavailable: rate.Sometimes{Interval: 10 * time.Second},
	}
	a.console = a.newConsole()
	a.huma = humago.New(a.mux, openAPI(cfg.BaseURL))
	a.documentRoutes()
	a.authRoutes()
	a.accountRoutes()
	a.sessionRoutes()
	a.passwordRoutes()
	a.secondFactorRoutes()
	a.passkeyRoutes()
	a.apiKeyRoutes()
	a.memberRoutes()
	a.auditRoutes()
	a.operatorRoutes()
	a.storeRoutes()
	a.lifecycleRoutes()
	a.hostnameRoutes()
	a.provisioningRoutes()
	a.eventRoutes()
	a.webhookRoutes()
	a.publishedEventRoutes()
	a.databaseRoutes()
	a.supabaseRoutes()
	a.creditRoutes()
	a.paymentRoutes()
	a.autoRechargeRoutes()
	a.storefrontRoutes()
	a.healthRoutes()
	a.homeRoutes()
	a.consoleRoutes()
	a.wellKnownRoutes()
	a.page("/", fallbackOptions, a.noRoute)
	completeDocument(a.huma.OpenAPI())
	return a
}

func openAPI(baseURL string) huma.Config {
	cfg := huma.DefaultConfig("Stoa", stoa.Version)
	cfg.Formats = map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat}
	cfg.Components.Schemas = huma.NewMapRegistry(refPrefix, schemaName)
	cfg.CreateHooks = nil // they would add a $schema field to every response
	cfg.OpenAPIPath = ""  // see document.go
	cfg.DocsPath, cfg.SchemasPath = "", ""
	if baseURL != "" {
		cfg.Servers = []*huma.Server{{URL: baseURL, Description: "This platform"}}
	}
	cfg.Info.License = &huma.License{Name: "Apache 2.0", Identifier: "Apache-2.0"}
	// A JSON column is an object in the API, not the bytes that store it.
	cfg.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[storedata.JSON](), reflect.TypeFor[map[string]any]())
	cfg.Info.Description = "The platform under many online stores: people, stores, their databases and credits. " +
		"Errors are RFC 9457 problem documents with a stable code. Times are RFC 3339 in UTC, credits decimal strings, ids UUIDs."
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "The accessToken of register, login or refresh; or an API key (stoa_live_…), for what its scopes allow in its store."},
	}
	cfg.Tags = []*huma.Tag{
		{Name: "Auth", Description: "Accounts and sessions"},
		{Name: "Stores", Description: "Stores, their databases and profiles"},
		{Name: "Supabase", Description: "A store's database in its owner's Supabase account"},
		{Name: "People", Description: "Who may do what to a store: members, API keys and the audit log.\n\n" + authz.Markdown() +
			"\nA key acts for the member who made it and may do no more than they. Nobody makes or unmakes owners but owners and operators, " +
			"and the last owner of a store stays one. What an operator of the platform does is in the store's audit log."},
		{Name: "Operator", Description: "For operators of the platform"},
		{Name: "Credits", Description: "Balances, spending, purchases"},
		{Name: "Store front", Description: "What a store shows its shoppers; the store is named by the Host header"},
		{Name: "Operations", Description: "Health of this server"},
	}
	return cfg
}
