// Package cloud keeps a store's connection to its owner's Supabase account
// and makes a database for the store there: the consent, its tokens and their
// renewal, the projects that can be chosen, the project and the role in it.
// What the calls look like is in supabase, how the database is used then in
// tenantdb. It owns the tables supabase_consents, supabase_connections and
// supabase_projects.
package cloud

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/lease"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/supabase"
	"github.com/stoahq/stoa/tenantdb"
)

// Service speaks to Supabase for stores. It is safe for concurrent use.
type Service struct {
	db      *masterdb.DB
	ring    *keyring.Ring
	tenants *tenantdb.Manager
	opts    Options
	process *lease.Process

	renewing sync.WaitGroup // the renewals of tokens under way
	waiters  *lease.Waiters // for the end of a renewal

	organizations *otter.Cache[stoa.StoreID, []supabase.Organization]
	projects      *otter.Cache[stoa.StoreID, []supabase.Project]
}

// Options say who asks Supabase.
type Options struct {
	// API is nil when the operator has no OAuth application: most calls then
	// fail with supabase_not_configured.
	API *supabase.Client
	// Redirect is where the browser comes back to, as the application has it.
	Redirect string
	// Poll is how often is asked whether a project is ready, at first; the
	// pauses grow. Default 2 s.
	Poll time.Duration
	// Patience is how long a project may take to be ready. Default 4 min.
	Patience time.Duration
	// Lease is how long a renewal of tokens may take. Default 30 s, which is more
	// than the timeout of a call.
	Lease time.Duration
	// Process names this process to Release. Default: a random name.
	Process string
	Log     *slog.Logger
}

// Lists are the same for a moment: the rate limit is every store's.
const (
	listsFor  = 15 * time.Second
	maxCached = 1000 // stores
)

// New returns the service.
func New(db *masterdb.DB, ring *keyring.Ring, tenants *tenantdb.Manager, opts Options) *Service {
	if opts.Poll == 0 {
		opts.Poll = 2 * time.Second
	}
	if opts.Patience == 0 {
		opts.Patience = 4 * time.Minute
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
		MaximumSize: maxCached, ExpiryCalculator: otter.ExpiryWriting[stoa.StoreID, V](listsFor),
	})
}

// forget drops what is remembered of the store's account.
func (s *Service) forget(store stoa.StoreID) {
	s.organizations.Invalidate(store)
	s.projects.Invalidate(store)
}

func (s *Service) configured() error {
	if s == nil || s.opts.API == nil {
		return stoa.Errorf(stoa.SupabaseNotConfigured, "This platform is not registered with Supabase. Connect the project by its connection string.")
	}
	return nil
}

// Destroy makes all that lets the platform into the store's Supabase account
// unreadable for ever, in the transaction that deletes the store.
func Destroy(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	for _, table := range []string{"supabase_consents", "supabase_connections", "supabase_projects"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE store_id = $1`, store); err != nil {
			return err
		}
	}
	return nil
}
