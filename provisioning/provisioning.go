package provisioning

import (
	"context"
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
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
}

// New returns a service. Its Provision method is the handler of Provision jobs.
func New(db *masterdb.DB, registry *stores.Registry, tenants *tenantdb.Manager, queue *jobs.Queue, log *slog.Logger) *Service {
	return &Service{db: db, registry: registry, tenants: tenants, queue: queue, log: log}
}

// Connect stores the credentials, encrypted, and queues the run that makes
// the store work. A managed database needs no more than its Kind. It fails
// with already_connected or provisioning_in_progress when the store is not
// waiting for a database.
func (s *Service) Connect(ctx context.Context, p access.Principal, store stoa.StoreID, c tenantdb.Credentials) (Run, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return Run{}, err
	}
	if c.Kind == tenantdb.Managed {
		c = tenantdb.ManagedSQLite(store)
	} else if err := c.Validate(); err != nil {
		return Run{}, err
	}
	var id stoa.RunID
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := s.registry.BeginProvisioning(ctx, tx, store); err != nil {
			return err
		}
		if err := s.tenants.Save(ctx, tx, store, c); err != nil {
			return err
		}
		var err error
		if id, err = insertRun(ctx, tx, store); err != nil {
			return err
		}
		return s.queue.Enqueue(ctx, tx, Provision{RunID: id, Attempt: 1})
	})
	if err != nil {
		return Run{}, err
	}
	// A pool opened with the credentials of before must not serve this store.
	s.tenants.Forget(store)
	return s.Latest(ctx, p, store)
}

// Retry resumes the store's last run at the step that failed, with the
// credentials it had.
func (s *Service) Retry(ctx context.Context, p access.Principal, store stoa.StoreID) (Run, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ConnectDatabase); err != nil {
		return Run{}, err
	}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := s.registry.BeginProvisioning(ctx, tx, store); err != nil {
			return err
		}
		run, err := latest(ctx, tx, store)
		if err != nil {
			return err
		}
		attempt, err := requeue(ctx, tx, run.ID)
		if err != nil {
			return err
		}
		return s.queue.Enqueue(ctx, tx, Provision{RunID: run.ID, Attempt: attempt})
	})
	if err != nil {
		return Run{}, err
	}
	return s.Latest(ctx, p, store)
}

// Wait returns the run when it has ended, or as it stands when patience or
// ctx runs out. Any replica may be the one that works, so it looks in the
// master database.
func (s *Service) Wait(ctx context.Context, id stoa.RunID, patience time.Duration) (Run, error) {
	deadline := time.After(patience)
	for pause := 10 * time.Millisecond; ; pause = min(pause*3/2, 200*time.Millisecond) {
		run, err := readRun(ctx, s.db, `id = $1`, id)
		if err != nil {
			return Run{}, err
		}
		over := run.Done()
		if !over {
			select {
			case <-time.After(pause):
				continue
			case <-deadline:
			case <-ctx.Done():
				return Run{}, ctx.Err()
			}
		}
		run.Steps, err = readSteps(ctx, s.db, id)
		return run, err
	}
}
