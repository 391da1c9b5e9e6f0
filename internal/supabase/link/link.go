// Package link links a store to its owner's Supabase account and creates a database for
// the store there. It handles the consent, the tokens and their renewal, the lists of
// projects, and the project and the role for the store. Package supabase makes the calls,
// and package tenantdb uses the database. Package link owns the tables supabase_consents,
// supabase_connections and supabase_projects.
package link

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Service calls Supabase for stores. It is safe for concurrent use.
type Service struct {
	db      *masterdb.DB
	ring    *keyring.Ring
	tenants *tenantdb.Manager
	opts    Options
	process *lease.Process

	renewing sync.WaitGroup // the renewals of tokens in progress
	waiters  *lease.Waiters // waiting for the end of a renewal

	organizations *otter.Cache[stoa.StoreID, []supabase.Organization]
	projects      *otter.Cache[stoa.StoreID, []supabase.Project]
}

// Options configure a Service.
type Options struct {
	// API is nil when the operator has no OAuth application: most calls then
	// fail with supabase_not_configured.
	API *supabase.Client
	// Redirect is the URL that the browser returns to, as registered with the
	// application.
	Redirect string
	// Poll is the first pause between two checks whether a project is ready; the
	// pauses grow. Default 2 s.
	Poll time.Duration
	// ReadyTimeout is how long a project may take to be ready. Default 4 min.
	ReadyTimeout time.Duration
	// Lease is how long a renewal of tokens may take. Default 30 s, which is more
	// than the timeout of a call.
	Lease time.Duration
	// Process is the name of this process, for Release. Default: a random name.
	Process string
	Log     *slog.Logger
}

// The limits of the cache of lists. Lists are cached since all stores share one rate
// limit.
const (
	listTTL         = 15 * time.Second
	maxCachedStores = 1000
)

// New returns the service. Call it before masterdb.DB.Listen.
func New(db *masterdb.DB, ring *keyring.Ring, tenants *tenantdb.Manager, opts Options) *Service {
	if opts.Poll == 0 {
		opts.Poll = 2 * time.Second
	}
	if opts.ReadyTimeout == 0 {
		opts.ReadyTimeout = 4 * time.Minute
	}
	if opts.Lease == 0 {
		opts.Lease = 30 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Process == "" {
		opts.Process = rand.Text()
	}
	return &Service{
		db: db, ring: ring, tenants: tenants, opts: opts,
		process: lease.NewProcess(opts.Process), waiters: lease.NewWaiters(db, renewalTopic),
		organizations: newCache[[]supabase.Organization](), projects: newCache[[]supabase.Project](),
	}
}

func newCache[V any]() *otter.Cache[stoa.StoreID, V] {
	return otter.Must(&otter.Options[stoa.StoreID, V]{
		MaximumSize: maxCachedStores, ExpiryCalculator: otter.ExpiryWriting[stoa.StoreID, V](listTTL),
	})
}

// forget drops the cached lists of the store's account.
func (s *Service) forget(store stoa.StoreID) {
	s.organizations.Invalidate(store)
	s.projects.Invalidate(store)
}

// Configured reports whether this platform is registered with Supabase.
func (s *Service) Configured() bool { return s.configured() == nil }

// ConsentOrigin returns the scheme and host of the page at which owners consent; ""
// when this platform is not registered.
func (s *Service) ConsentOrigin() string {
	if !s.Configured() {
		return ""
	}
	u, err := url.Parse(s.opts.API.AuthorizeURL("", "", keyring.NewSecret("")))
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (s *Service) configured() error {
	if s == nil || s.opts.API == nil {
		return stoa.Errorf(stoa.SupabaseNotConfigured, "This platform is not registered with Supabase. Connect the project by its connection string.")
	}
	return nil
}

// Destroy deletes, in the transaction that deletes the store, everything that gives
// the platform access to the store's Supabase account.
func Destroy(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	if _, _, err := endConnections(ctx, tx, `store_id = $1`, store); err != nil {
		return err
	}
	for _, table := range []string{"supabase_consents", "supabase_projects"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE store_id = $1`, store); err != nil {
			return err
		}
	}
	return nil
}
