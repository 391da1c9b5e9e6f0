// Package provisioning connects a store to a database, in recorded steps. Each run and
// each of its steps is recorded in the master database.
package provisioning

import (
	"context"
	"crypto/rand"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
)

// Service provisions stores. It is safe for concurrent use.
type Service struct {
	db       *masterdb.DB
	registry *stores.Registry
	tenants  *tenantdb.Manager
	managed  *managed.Databases
	queue    *jobs.Queue
	log      *slog.Logger
	opts     Options
	process  *lease.Process
	slots    slots
	waiters  *lease.Waiters
	poll     time.Duration // between two checks of Wait
	ended    *prometheus.CounterVec
}

// Options configure a Service.
type Options struct {
	// Lease is the duration of the lease of a run. An execution renews its lease. Default
	// 15 s. The runs of a process that ended are resumed sooner; see Release.
	Lease time.Duration
	// Process is the name of this process, for Release. Default: a random name.
	Process string
	// Pauses are the pauses before each further attempt of a step after a transient
	// fault. Default: four pauses, 5 s in total.
	Pauses []time.Duration
	// Cloud creates databases in Supabase projects. Nil disables them.
	Cloud *link.Service
	// Quotas limit the managed databases of a user.
	Quotas quotas.Limits
	// Drain is how long Stop waits for runs before it interrupts them and hands
	// them over to the queue. Default 10 s.
	Drain time.Duration
}

// New returns a service. Its method Provision is the handler of Provision jobs.
// Call New before masterdb.DB.Listen.
func New(db *masterdb.DB, registry *stores.Registry, tenants *tenantdb.Manager, queue *jobs.Queue, log *slog.Logger, opts Options) *Service {
	if opts.Lease == 0 {
		opts.Lease = 15 * time.Second
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
	return &Service{
		ended: newRunsTotal(),
		db:    db, registry: registry, tenants: tenants, managed: managed.New(db, tenants), queue: queue, log: log, opts: opts,
		process: lease.NewProcess(opts.Process), waiters: lease.NewWaiters(db, eventTopic), poll: lease.Poll,
	}
}

// request describes a new run.
type request struct {
	principal   authz.Principal
	store       stoa.StoreID
	credentials credential.Credentials // of the database; with a project only its kind is set
	project     *link.Choice           // the Supabase project of the database, or nil
	unlimited   bool                   // the quota of managed databases does not apply
}

// Connect saves the credentials, encrypted, and starts the run that provisions the store,
// in this process or in the queue. A managed database needs only its Kind. It fails with
// already_connected or provisioning_in_progress when the store does not wait for a
// database, with quota_exceeded when the store's creator has as many managed databases as
// allowed, and with rate_limited for a store that has started or retried many runs within
// an hour.
func (s *Service) Connect(ctx context.Context, p authz.Principal, store stoa.StoreID, c credential.Credentials) (Run, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
		return Run{}, err
	}
	return s.connect(ctx, request{principal: p, store: store, credentials: c})
}

// connect completes the credentials and starts the run.
func (s *Service) connect(ctx context.Context, r request) (_ Run, err error) {
	c := &r.credentials
	if c.Kind == credential.Managed {
		*c, err = s.managed.NewCredentials(ctx, r.store)
	} else {
		err = s.tenants.Validate(c)
	}
	if err != nil {
		return Run{}, err
	}
	c.PlanRole()
	return s.start(ctx, r)
}

// ConnectProject connects a store, as Connect does, to a database in a Supabase project
// of the account that the store is connected to. The project is an existing one or a new
// one. The store gets its own role and schema there.
func (s *Service) ConnectProject(ctx context.Context, p authz.Principal, store stoa.StoreID, c link.Choice) (Run, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
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
	return s.start(ctx, request{principal: p, store: store, credentials: credential.Credentials{Kind: credential.KindSupabase}, project: &c})
}

// start records a run and starts it in this process, if a slot is free, or otherwise in
// the queue.
func (s *Service) start(ctx context.Context, r request) (run Run, err error) {
	sl, begun := s.acquireSlot(), false
	defer func() {
		if !begun {
			s.releaseSlot(sl)
		}
	}()
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if run, err = s.recordRun(ctx, tx, r, sl.owner); err != nil || sl.ok() {
			return err
		}
		return s.enqueue(ctx, tx, run)
	})
	if err != nil {
		return Run{}, err
	}
	if begun = sl.ok(); begun {
		go s.executeInProcess(sl, s.newExecution(run, s.lease(run.ID, sl.owner)))
	}
	return run, nil
}

// recordRun records a run with everything that it needs. The run is leased to the owner,
// or queued when the owner is "".
func (s *Service) recordRun(ctx context.Context, tx *masterdb.Tx, r request, owner lease.Owner) (Run, error) {
	creator, err := lockCreator(ctx, tx, r.store, r.credentials.Kind)
	if err != nil {
		return Run{}, err
	}
	if err := s.registry.BeginProvisioning(ctx, tx, r.store); err != nil {
		return Run{}, err
	}
	if err := checkRate(ctx, tx, r.store); err != nil {
		return Run{}, err
	}
	if r.unlimited {
		creator = nil
	}
	if err := s.checkManaged(creator); err != nil {
		return Run{}, err
	}
	if err := s.saveRequest(ctx, tx, r); err != nil {
		return Run{}, err
	}
	details := map[string]string{"type": string(r.credentials.Kind)}
	if r.credentials.Adopt {
		details["adopt"] = "true"
	}
	err = audit.Record(ctx, tx, r.principal, audit.Event{Action: audit.DatabaseConnected, Store: r.store, Details: details})
	if err != nil {
		return Run{}, err
	}
	return s.insertRun(ctx, tx, r.store, r.project != nil, owner)
}

// saveRequest saves the credentials or, for a Supabase project, the choice of the
// project.
func (s *Service) saveRequest(ctx context.Context, tx *masterdb.Tx, r request) error {
	if r.project != nil {
		if err := tenantdb.DeleteRecord(ctx, tx, r.store); err != nil { // of a run that failed
			return err
		}
		return s.opts.Cloud.Plan(ctx, tx, r.store, *r.project)
	}
	if err := s.tenants.Save(ctx, tx, r.store, r.credentials); err != nil {
		return err
	}
	return link.RecordProject(ctx, tx, r.store, s.tenants.ProjectRef(r.credentials))
}

// Retry resumes the store's last run at the step that failed, with the same credentials.
// It fails with not_found when the last run has not failed, and in other states of the
// store as Connect does.
func (s *Service) Retry(ctx context.Context, p authz.Principal, store stoa.StoreID) (Run, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ConnectDatabase); err != nil {
		return Run{}, err
	}
	sl, begun := s.acquireSlot(), false
	defer func() {
		if !begun {
			s.releaseSlot(sl)
		}
	}()
	var e *execution // nil if there is no slot
	var run Run
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		job, err := s.recordRetry(ctx, tx, p, store)
		if err != nil {
			return err
		}
		if sl.ok() {
			e, err = s.acquire(ctx, tx, job, sl.owner)
			return err
		}
		if run, err = readRun(ctx, tx, `id = $1`, job.RunID); err != nil {
			return err
		}
		if run, err = withSteps(ctx, tx, run); err != nil {
			return err
		}
		return s.enqueue(ctx, tx, run)
	})
	if err != nil {
		return Run{}, err
	}
	if begun = sl.ok(); begun {
		run = e.run
		run.Steps = slices.Clone(run.Steps) // the execution changes the slice of e
		go s.executeInProcess(sl, e)
	}
	return run, nil
}

// recordRetry records the next attempt of the store's last run, and returns its job.
func (s *Service) recordRetry(ctx context.Context, tx *masterdb.Tx, p authz.Principal, store stoa.StoreID) (Provision, error) {
	if err := s.registry.BeginProvisioning(ctx, tx, store); err != nil {
		return Provision{}, err
	}
	failed, err := latest(ctx, tx, store)
	if err != nil {
		return Provision{}, err
	}
	if failed.State != Failed {
		return Provision{}, stoa.Errorf(stoa.NotFound, "There is no failed run to resume. Connect a database.")
	}
	if err := checkRate(ctx, tx, store); err != nil {
		return Provision{}, err
	}
	details := map[string]string{"run": failed.ID.String()}
	if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.ConnectRetried, Store: store, Details: details}); err != nil {
		return Provision{}, err
	}
	attempt, err := s.requeue(ctx, tx, failed.ID)
	return Provision{RunID: failed.ID, Attempt: attempt}, err
}
