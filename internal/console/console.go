// Package console is the browser console: pages for owners and operators, sign-in
// included, and the platform's public pages. There is one file per page with its
// routes at the head, its view model and its handlers; a .templ file beside it has the
// markup, and package ui the components.
//
// A page reads and changes with the domain methods that the API calls, with the
// caller's principal. It has no SQL and no rule of its own. Package httpapi mounts the
// routes: it authenticates the session cookie, applies the limits and refuses forms of
// other sites.
package console

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/moves"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/traffic"
	"github.com/stoahq/stoa/internal/webhooks"
)

// Services are the domain services that the pages call.
type Services struct {
	Master       *masterdb.DB
	Accounts     *accounts.Accounts
	APIKeys      *apikeys.Service
	Stores       *stores.Registry
	Hostnames    *hostnames.Service
	Tenants      *tenantdb.Manager
	Credits      *credits.Ledger
	Payments     *payments.Service
	Provisioning *provisioning.Service
	Backups      *backups.Service
	Moves        *moves.Service
	Cloud        *link.Service
	Mail         *mail.Sender
	Traffic      *traffic.Service
	Webhooks     *webhooks.Service
	Bulk         *fleet.Bulk
	Doctor       Doctor
	Operations   *operations.Service
}

// Config is the configuration of the console.
type Config struct {
	BaseURL     string // the platform's own URL, such as http://localhost:3000
	BaseDomain  string // stores are served at <slug>.<BaseDomain>
	Development bool
	Sandbox     bool // no money moves
	Log         *slog.Logger
	Stopping    <-chan struct{} // closed when the server stops: live pages end; nil: never
}

// Console makes the pages. It is safe for concurrent use.
type Console struct {
	Services
	Config
}

// New returns a console.
func New(s Services, cfg Config) *Console { return &Console{Services: s, Config: cfg} }

// Request is a request to a page with what the server knows about it. The form of a
// POST is parsed, but for an Upload.
type Request struct {
	*http.Request
	Client    accounts.Client
	Principal authz.Principal // zero when nobody is signed in
	User      accounts.User   // of the principal, or whom the page has just signed in
	Expires   time.Time       // of the session
	Cookie    string          // of the session
	Secure    bool            // the platform's own address is https
	StoreID   stoa.StoreID    // that the page is about; zero: none, or it is not read yet
}

// SignedIn reports whether the request has a session.
func (r *Request) SignedIn() bool { return !r.Principal.SessionID.IsZero() }

// Kind says what a route does and thereby its limits, which httpapi sets.
type Kind int

// The kinds of routes.
const (
	View         Kind = iota // reads
	Form                     // takes a form
	SignIn                   // takes a form and hashes a password or sends mail
	DatabaseForm             // takes a form and connects to a server that the caller names
	Stream                   // sends events until the caller leaves
	Download                 // sends a long file
	FileForm                 // takes a form and sends a file that may take hours
	Upload                   // takes a file that may take hours; Handle reads the body as it arrives
)

// Scope says who may call a route: one of the constants, or the authz.Action that the
// caller needs in the store. Domain methods check authorization; the scope states it.
type Scope string

// The scopes that are no action on a store.
const (
	Public   Scope = "public"   // everybody
	Optional Scope = "optional" // everybody; a session is recognised
	Person   Scope = "person"   // everybody who is signed in
	Operator Scope = "operator" // an operator of the platform
)

// RouteOptions are the limits of a route.
type RouteOptions struct {
	Kind  Kind
	Scope Scope
	List  string // the parameter that a query may hold many times; empty: none
}

// Route is one page, or the action of one form. An error of Handle becomes an error
// page.
type Route struct {
	Pattern string
	RouteOptions
	Handle func(http.ResponseWriter, *Request) error
}

func scopeOf(a authz.Action) Scope      { return Scope(a) }
func view(s Scope) RouteOptions         { return RouteOptions{Kind: View, Scope: s} }
func form(s Scope) RouteOptions         { return RouteOptions{Kind: Form, Scope: s} }
func databaseForm(s Scope) RouteOptions { return RouteOptions{Kind: DatabaseForm, Scope: s} }
func stream(s Scope) RouteOptions       { return RouteOptions{Kind: Stream, Scope: s} }
func download(s Scope) RouteOptions     { return RouteOptions{Kind: Download, Scope: s} }
func signInForm(s Scope) RouteOptions   { return RouteOptions{Kind: SignIn, Scope: s} }

// Routes lists all pages.
func (c *Console) Routes() []Route {
	var all []Route
	for _, routes := range [][]Route{
		c.mailboxRoutes(),
		c.signUpRoutes(),
		c.signInRoutes(),
		c.passkeySignInRoutes(),
		c.passkeyRoutes(),
		c.reauthenticateRoutes(),
		c.searchRoutes(),
		c.storeListRoutes(),
		c.newStoreRoutes(),
		c.overviewRoutes(),
		c.domainRoutes(),
		c.peopleRoutes(),
		c.keyRoutes(),
		c.webhookRoutes(), c.webhookEndpointRoutes(), c.webhookDeliveryRoutes(),
		c.activityRoutes(), c.auditLogRoutes(),
		c.settingsRoutes(), c.settingsObjectsRoutes(),
		c.accountRoutes(),
		c.passwordRoutes(),
		c.factorRoutes(),
		c.sessionRoutes(),
		c.exportRoutes(),
		c.deleteAccountRoutes(),
		c.forgotRoutes(),
		c.linkRoutes(),
		c.invitationRoutes(),
		c.connectRoutes(),
		c.supabaseRoutes(),
		c.provisioningRoutes(),
		c.databaseRoutes(),
		c.moveRoutes(),
		c.backupRoutes(), c.singleBackupRoutes(), c.backupScheduleRoutes(), c.backupRestoreRoutes(), c.backupTransferRoutes(),
		c.creditRoutes(),
		c.checkoutRoutes(),
		c.operatorFleetRoutes(),
		c.operatorStoreListRoutes(),
		c.operatorBulkRoutes(),
		c.operatorStoreRoutes(),
		c.operatorServerRoutes(),
		c.operatorSystemRoutes(),
		c.operatorRunRoutes(),
		c.operatorJobRoutes(),
		c.operatorUserRoutes(),
		c.operatorMoneyRoutes(),
		c.operatorAuditRoutes(),
		c.impersonationRoutes(),
	} {
		all = append(all, routes...)
	}
	return all
}

// store returns the store that the path names, as the caller may see it.
func (c *Console) store(r *Request) (stores.Store, error) {
	s, err := c.Stores.GetBySlug(r.Context(), r.Principal, r.PathValue("slug"))
	r.StoreID = s.ID
	return s, err
}

// notFound is the error for an address that leads nowhere.
func notFound() error { return stoa.Errorf(stoa.NotFound, "There is nothing at this address.") }
