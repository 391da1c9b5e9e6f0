package provisioning

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// Provision is the job that works on a run. Attempt makes a job that was
// overtaken by a retry harmless.
type Provision struct {
	RunID   stoa.RunID `json:"runId"`
	Attempt int        `json:"attempt"`
}

// Kind implements jobs.Args.
func (Provision) Kind() string { return "provisioning.provision" }

// Timeout bounds one attempt of a run.
const Timeout = 5 * time.Minute

// steps in their order. Each may run again after an interruption and then
// finds its work done.
var steps = []struct {
	name string
	run  func(*work, context.Context) error
}{
	{"connect", (*work).connect},
	{"inspect", (*work).inspect},
	{"migrate", (*work).migrate},
	{"seed", (*work).seed},
	{"store_record", (*work).storeRecord},
	{"owner_record", (*work).ownerRecord},
	{"hostname", (*work).hostname},
	{"activate", (*work).activate},
}

// work is a run under way.
type work struct {
	*Service
	run Run
	db  *tenantdb.DB // the tenant's, not yet shared with anybody
}

// Provision is the job handler. A step that fails ends the run: the owner
// sees the cause and mends it. An error is returned only when the run could
// not be worked on at all; the queue then tries again.
func (s *Service) Provision(ctx context.Context, job Provision) error {
	var claimed bool
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		claimed, err = claim(ctx, tx, job)
		return err
	})
	if err != nil || !claimed {
		return err
	}
	run, err := readRun(ctx, s.db, `id = $1`, job.RunID)
	if err != nil {
		return err
	}
	if run.Steps, err = readSteps(ctx, s.db, run.ID); err != nil {
		return err
	}
	w := &work{Service: s, run: run}
	defer w.close()
	return w.do(ctx)
}

func (w *work) do(ctx context.Context) error {
	for i, step := range steps {
		if w.run.Steps[i].State == Succeeded {
			continue
		}
		if err := w.master(ctx, func(tx *masterdb.Tx) error { return startStep(ctx, tx, w.run.ID, step.name) }); err != nil {
			return err
		}
		err := w.step(ctx, step.run)
		switch {
		case err != nil && ctx.Err() != nil:
			return err // shutting down: the run stays as it is and the queue resumes it
		case err != nil:
			return w.fail(ctx, step.name, err)
		}
	}
	return nil
}

// step opens the database when the first step that needs it comes.
func (w *work) step(ctx context.Context, run func(*work, context.Context) error) error {
	if w.db == nil {
		c, err := w.tenants.Load(ctx, w.Service.db, w.run.StoreID)
		if err != nil {
			return err
		}
		if w.db, err = w.tenants.OpenUnleased(c); err != nil {
			return err
		}
	}
	return run(w, ctx)
}

func (w *work) close() {
	if w.db != nil {
		_ = w.db.Close()
	}
}

// fail records the cause and gives the store back to its owner.
func (w *work) fail(ctx context.Context, step string, cause error) error {
	fault := faultOf(cause)
	w.log.WarnContext(ctx, "provisioning failed", "store", w.run.StoreID.String(), "run", w.run.ID.String(),
		"step", step, "code", string(fault.Code), "err", cause)
	err := w.master(ctx, func(tx *masterdb.Tx) error {
		if err := failStep(ctx, tx, w.run.ID, step, fault); err != nil {
			return err
		}
		if err := tenantdb.RecordHealth(ctx, tx, w.run.StoreID, fault.Err()); err != nil {
			return err
		}
		return w.registry.FailProvisioning(ctx, tx, w.run.StoreID)
	})
	w.registry.Changed(ctx, w.run.StoreID)
	return err
}

func (w *work) master(ctx context.Context, fn func(*masterdb.Tx) error) error {
	return w.Service.db.Tx(ctx, fn)
}

// done records a step as finished, in one transaction with what it changed
// in the master.
func (w *work) done(ctx context.Context, step string, also ...func(*masterdb.Tx) error) error {
	return w.master(ctx, func(tx *masterdb.Tx) error {
		for _, fn := range also {
			if err := fn(tx); err != nil {
				return err
			}
		}
		return finishStep(ctx, tx, w.run.ID, step)
	})
}

func (w *work) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := w.db.Ping(ctx); err != nil {
		return err
	}
	return w.done(ctx, "connect")
}

// inspect refuses a server that is too old and a database that holds
// anything but this store.
func (w *work) inspect(ctx context.Context) error {
	in, err := w.db.Inspect(ctx)
	if err != nil {
		return err
	}
	switch {
	case !in.Supported:
		return stoa.Errorf(stoa.DatabaseVersionUnsupported, "The server runs version %s; at least %s is needed.", in.Version, in.Minimum)
	case !in.MayCreate:
		return stoa.Errorf(stoa.DatabasePermissionDenied,
			"The database user may not create tables. On PostgreSQL: GRANT CREATE, USAGE ON SCHEMA public TO the user.")
	case len(in.Tables) > 0 && !slices.Contains(in.Tables, tenantdb.VersionTable):
		return stoa.Errorf(stoa.DatabaseNotEmpty, "The database already holds other tables (%s). Give the store a database of its own.",
			some(in.Tables))
	}
	if slices.Contains(in.Tables, "stores") {
		if err := w.checkMine(ctx); err != nil {
			return err
		}
	}
	return w.done(ctx, "inspect")
}

// checkMine refuses the database of another store.
func (w *work) checkMine(ctx context.Context) error {
	ids, err := shop.StoreIDs(ctx, w.db)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id != w.run.StoreID {
			return shop.ErrForeignStore
		}
	}
	return nil
}

// some names a few of a list.
func some(names []string) string {
	const few = 3
	if len(names) <= few {
		return fmt.Sprint(names)
	}
	return fmt.Sprintf("%v and %d more", names[:few], len(names)-few)
}

func (w *work) migrate(ctx context.Context) error {
	version, err := w.db.Migrate(ctx)
	if err != nil {
		return err
	}
	return w.done(ctx, "migrate", func(tx *masterdb.Tx) error {
		return tenantdb.RecordSchema(ctx, tx, w.run.StoreID, version)
	})
}

func (w *work) seed(ctx context.Context) error {
	if err := shop.Seed(ctx, w.db); err != nil {
		return err
	}
	return w.done(ctx, "seed")
}

func (w *work) storeRecord(ctx context.Context) error {
	identity, err := w.registry.ReadIdentity(ctx, w.run.StoreID)
	if err != nil {
		return err
	}
	err = shop.CreateStore(ctx, w.db, shop.Profile{ID: w.run.StoreID, Name: identity.Name, Slug: identity.Slug})
	if err != nil {
		return err
	}
	return w.done(ctx, "store_record")
}

func (w *work) ownerRecord(ctx context.Context) error {
	id, err := access.OwnerOf(ctx, w.Service.db, w.run.StoreID)
	if err != nil {
		return err
	}
	user, err := accounts.ReadUser(ctx, w.Service.db, id)
	if err != nil {
		return err
	}
	owner := shop.Owner{ID: user.ID, Email: user.Email, FirstName: user.FirstName, LastName: user.LastName}
	if err := shop.CreateOwner(ctx, w.db, owner); err != nil {
		return err
	}
	return w.done(ctx, "owner_record")
}

func (w *work) hostname(ctx context.Context) error {
	if err := w.registry.MapHostname(ctx, w.run.StoreID); err != nil {
		return err
	}
	return w.done(ctx, "hostname")
}

func (w *work) activate(ctx context.Context) error {
	err := w.done(ctx, "activate", func(tx *masterdb.Tx) error {
		if err := tenantdb.RecordHealth(ctx, tx, w.run.StoreID, nil); err != nil {
			return err
		}
		if err := w.registry.Activate(ctx, tx, w.run.StoreID); err != nil {
			return err
		}
		return finishRun(ctx, tx, w.run.ID)
	})
	w.registry.Changed(ctx, w.run.StoreID)
	return err
}
