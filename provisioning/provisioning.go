package provisioning

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/quotas"
	"github.com/stoahq/stoa/stores"
	"github.com/stoahq/stoa/tenantdb"
)

// Service provisions stores.
type Service struct {
	db       *masterdb.DB
	registry *stores.Registry
	tenants  *tenantdb.Manager
	queue    *jobs.Queue
	log      *slog.Logger
	opts     Options
	name     string       // of this process, in claims
	works    atomic.Int64 // begun so far
	waiting  waiting
	here     here

	lookEvery time.Duration
}

// Options tune a Service.
type Options struct {
	// Claim is how long a run stays with an execution that does not renew its
	// claim. Default 15 s. The runs of a process that ended go on sooner, see Release.
	Claim time.Duration
	// Process names this process to Release. Default: a random name.
	Process string
	// Pauses are those before each further try at a step whose fault may pass.
	// Default four, of 5 s together.
	Pauses []time.Duration
	// Cloud makes databases in Supabase projects. Without it there are none.
	Cloud *cloud.Service
	// Quotas are how many managed databases a user may have.
	Quotas quotas.Limits
	// Drain is how long Stop waits for runs before it interrupts them and hands
	// them over to the queue. Default 10 s.
	Drain time.Duration
}

// New returns a service. Its Provision method is the handler of Provision jobs.
func New(db *masterdb.DB, registry *stores.Registry, tenants *tenantdb.Manager, queue *jobs.Queue, log *slog.Logger, opts Options) *Service {
	if opts.Claim == 0 {
		opts.Claim = 15 * time.Second
	}
	if opts.Drain == 0 {
		opts.Drain = 10 * time.Second
	}
	if opts.Pauses == nil {
		opts.Pauses = []time.Duration{250 * time.Millisecond, 750 * time.Millisecond, 1500 * time.Millisecond, 2500 * time.Millisecond}
	}
	if opts.Process == "" {
		opts.Process = rand.Text()
	}
	s := &Service{db: db, registry: registry, tenants: tenants, queue: queue, log: log, opts: opts, name: opts.Process, lookEvery: lookEvery}
	s.waiting.calls = map[chan struct{}]stoa.RunID{}
	s.waiting.subscribe(db)
	return s
}

// Connect stores the credentials, encrypted, and begins the run that makes
// the store work, here or in the queue. A managed database needs no more than its Kind. It fails
// with already_connected or provisioning_in_progress when the store is not
// waiting for a database, with quota_exceeded for a managed database more than
// the store's creator may have, and with rate_limited for a store that has
// begun or retried many runs within an hour.
func (s *Service) Connect(ctx context.Context, p access.Principal, store stoa.StoreID, c tenantdb.Credentials) (Run, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return Run{}, err
	}
	var err error
	if c.Kind == tenantdb.Managed {
		c, err = s.tenants.NewManaged(ctx, store)
	} else {
		err = s.tenants.Validate(&c)
	}
	if err != nil {
		return Run{}, err
	}
	if c.Engine == tenantdb.PostgreSQL && c.Kind != tenantdb.Managed {
		c.RolePassword = tenantdb.NewPassword()
	}
	return s.begun(ctx, p, store, c.Kind, false, func(tx *masterdb.Tx) error {
		if err := s.tenants.Save(ctx, tx, store, c); err != nil {
			return err
		}
		return cloud.Note(ctx, tx, store, s.tenants.ProjectRef(c))
	})
}

// ConnectProject is Connect to a database in a Supabase project of the account
// that the store is connected to, one that there is or one to be made. The
// store gets a role and a schema of its own there.
func (s *Service) ConnectProject(ctx context.Context, p access.Principal, store stoa.StoreID, c cloud.Choice) (Run, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return Run{}, err
	}
	if err := s.opts.Cloud.Check(ctx, store, c); err != nil {
		return Run{}, err
	}
	if c.Ref == "" && c.Name == "" {
		identity, err := s.registry.ReadIdentity(ctx, store)
		if err != nil {
			return Run{}, err
		}
		c.Name = identity.Slug
	}
	return s.begun(ctx, p, store, tenantdb.KindSupabase, true, func(tx *masterdb.Tx) error {
		if err := tenantdb.DeleteRecord(ctx, tx, store); err != nil { // of a run that failed
			return err
		}
		return s.opts.Cloud.Plan(ctx, tx, store, c)
	})
}

// begun records a run with what it needs, and begins it here or in the queue.
func (s *Service) begun(ctx context.Context, p access.Principal, store stoa.StoreID, kind tenantdb.Kind, inProject bool, needs func(*masterdb.Tx) error) (Run, error) {
	return s.launch(ctx, func(tx *masterdb.Tx, claimant string) (Run, error) {
		creator, err := lockCreator(ctx, tx, store, kind)
		if err != nil {
			return Run{}, err
		}
		if err := s.registry.BeginProvisioning(ctx, tx, store); err != nil {
			return Run{}, err
		}
		if err := checkRate(ctx, tx, store); err != nil {
			return Run{}, err
		}
		if err := s.checkManaged(ctx, tx, store, creator); err != nil {
			return Run{}, err
		}
		if err := needs(tx); err != nil {
			return Run{}, err
		}
		err = access.Record(ctx, tx, p, access.Event{Action: access.DatabaseConnected, Store: store, Details: map[string]string{"type": string(kind)}})
		if err != nil {
			return Run{}, err
		}
		return insertRun(ctx, tx, store, inProject, claimant, s.opts.Claim)
	})
}

// Retry resumes the store's last run at the step that failed, with the
// credentials it had. It fails with not_found when no run has failed, and in
// other states of the store as Connect does.
func (s *Service) Retry(ctx context.Context, p access.Principal, store stoa.StoreID) (Run, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return Run{}, err
	}
	return s.launch(ctx, func(tx *masterdb.Tx, claimant string) (Run, error) {
		if err := s.registry.BeginProvisioning(ctx, tx, store); err != nil {
			return Run{}, err
		}
		failed, err := latest(ctx, tx, store)
		if err != nil {
			return Run{}, err
		}
		if failed.State != Failed {
			return Run{}, stoa.Errorf(stoa.NotFound, "There is no failed run to resume. Connect a database.")
		}
		if err := checkRate(ctx, tx, store); err != nil {
			return Run{}, err
		}
		if err := access.Record(ctx, tx, p, access.Event{Action: access.ConnectRetried, Store: store, Details: map[string]string{"run": failed.ID.String()}}); err != nil {
			return Run{}, err
		}
		attempt, err := requeue(ctx, tx, failed.ID, s.opts.Claim)
		if err != nil {
			return Run{}, err
		}
		if claimant != "" {
			run, _, err := s.claim(ctx, tx, Provision{RunID: failed.ID, Attempt: attempt}, claimant)
			return run, err
		}
		run, err := readRun(ctx, tx, `id = $1`, failed.ID)
		if err != nil {
			return Run{}, err
		}
		return withSteps(ctx, tx, run)
	})
}
