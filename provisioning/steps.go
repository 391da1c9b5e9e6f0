package provisioning

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// Provision is the job that works on a run. Attempt makes a job harmless
// that a retry has overtaken.
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
	run    Run
	tenant *tenantdb.DB // not yet shared with anybody
}

// Provision is the job handler. A step that fails ends the run: the owner
// sees the cause and mends it. An error is returned only when the run could
// not be worked on at all; the queue then tries again.
func (s *Service) Provision(ctx context.Context, job Provision) error {
	w, err := s.begin(ctx, job)
	if err == nil {
		defer w.close()
		err = w.do(ctx)
	}
	if errors.Is(err, errOvertaken) {
		return nil
	}
	return err
}

// begin marks the job's run as under way, or fails with errOvertaken.
func (s *Service) begin(ctx context.Context, job Provision) (*work, error) {
	w := &work{Service: s}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		w.run, err = claim(ctx, tx, job)
		return err
	})
	return w, err
}

func (w *work) do(ctx context.Context) error {
	for _, step := range steps {
		if w.run.did(step.name) {
			continue
		}
		if err := w.record(ctx, func(tx *masterdb.Tx) error { return startStep(ctx, tx, w.run.ID, step.name) }); err != nil {
			return err
		}
		switch err := w.step(ctx, step.run); {
		case err == nil:
		case errors.Is(err, errOvertaken):
			return err
		case errors.Is(ctx.Err(), context.Canceled):
			// Shutting down: the run stays as it is. The queue knows this error
			// and resumes the run without counting it as a failure.
			return fmt.Errorf("interrupted in step %s: %w", step.name, ctx.Err())
		default: // also when the time of the job is up
			return w.fail(ctx, step.name, err)
		}
	}
	return nil
}

// step opens the database when the first step that needs it comes.
func (w *work) step(ctx context.Context, run func(*work, context.Context) error) error {
	if w.tenant == nil {
		c, err := w.tenants.Load(ctx, w.db, w.run.StoreID)
		if err != nil {
			return err
		}
		if w.tenant, err = w.tenants.OpenUnleased(c); err != nil {
			return err
		}
	}
	return run(w, ctx)
}

func (w *work) close() {
	if w.tenant != nil {
		_ = w.tenant.Close()
	}
}

// failTimeout bounds the recording of a failure, for which the job's own
// time may have run out.
const failTimeout = 10 * time.Second

// fail records the cause and gives the store back to its owner.
func (w *work) fail(ctx context.Context, step string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failTimeout)
	defer cancel()
	fault := faultOf(cause)
	w.log.WarnContext(ctx, "provisioning failed", "store", w.run.StoreID.String(), "run", w.run.ID.String(),
		"step", step, "code", string(fault.Code), "err", cause)
	return w.record(ctx, func(tx *masterdb.Tx) error {
		if err := failStep(ctx, tx, w.run.ID, step, fault); err != nil {
			return err
		}
		if err := tenantdb.RecordHealth(ctx, tx, w.run.StoreID, fault.Err()); err != nil {
			return err
		}
		return w.registry.FailProvisioning(ctx, tx, w.run.StoreID)
	})
}

// record runs fn in one master transaction, or fails with errOvertaken when
// the run is no longer this job's to write.
func (w *work) record(ctx context.Context, fn func(*masterdb.Tx) error) error {
	return w.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := hold(ctx, tx, w.run); err != nil {
			return err
		}
		return fn(tx)
	})
}

// done records a step as finished, in one transaction with what it changed
// in the master.
func (w *work) done(ctx context.Context, step string, also ...func(*masterdb.Tx) error) error {
	return w.record(ctx, func(tx *masterdb.Tx) error {
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
	if err := w.tenant.Ping(ctx); err != nil {
		return err
	}
	return w.done(ctx, "connect")
}

// inspect refuses a server that is too old and a database that holds
// anything but this store.
func (w *work) inspect(ctx context.Context) error {
	in, err := w.tenant.Inspect(ctx)
	if err != nil {
		return err
	}
	if err := acceptable(in); err != nil {
		return err
	}
	if slices.Contains(in.Tables, "stores") {
		if _, err := holds(ctx, w.tenant, w.run.StoreID); err != nil {
			return err
		}
	}
	return w.done(ctx, "inspect")
}

// acceptable says why no store can live in the inspected database, or nil.
func acceptable(in tenantdb.Inspection) error {
	switch {
	case !in.Supported:
		return stoa.Errorf(stoa.DatabaseVersionUnsupported, "The server runs version %.40q; at least %s is needed.", in.Version, in.Minimum)
	case !in.MayCreate:
		return stoa.Errorf(stoa.DatabasePermissionDenied,
			"The database user may not create tables. On PostgreSQL: GRANT CREATE, USAGE ON SCHEMA public TO the user.")
	case len(in.Tables) > 0 && !slices.Contains(in.Tables, tenantdb.VersionTable):
		return stoa.Errorf(stoa.DatabaseNotEmpty, "The database already holds other tables (%s). Give the store a database of its own.",
			some(in.Tables))
	}
	return nil
}

// holds reports whether the database has the store in it, and refuses the
// one of another store.
func holds(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) (bool, error) {
	ids, err := shop.StoreIDs(ctx, db)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		if id != store {
			return false, shop.ErrForeignStore
		}
	}
	return len(ids) > 0, nil
}

// some names a few of a list. What a server calls its tables may hold any
// bytes, so they are quoted.
func some(names []string) string {
	const few = 3
	var quoted []string
	for _, name := range names[:min(few, len(names))] {
		quoted = append(quoted, strconv.Quote(name))
	}
	list := strings.Join(quoted, ", ")
	if more := len(names) - few; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

func (w *work) migrate(ctx context.Context) error {
	schema, err := w.tenant.MigrateTo(ctx, tenantdb.MigrateOptions{})
	if err != nil {
		return err
	}
	return w.done(ctx, "migrate", func(tx *masterdb.Tx) error {
		return recordSchema(ctx, tx, w.run.StoreID, schema)
	})
}

func recordSchema(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, schema tenantdb.Schema) error {
	if err := tenantdb.RecordSchema(ctx, tx, store, schema.Version); err != nil {
		return err
	}
	return tenantdb.RecordOwnSchema(ctx, tx, store, schema.Own)
}

func (w *work) seed(ctx context.Context) error {
	if err := shop.Seed(ctx, w.tenant); err != nil {
		return err
	}
	return w.done(ctx, "seed")
}

func (w *work) storeRecord(ctx context.Context) error {
	identity, err := w.registry.ReadIdentity(ctx, w.run.StoreID)
	if err != nil {
		return err
	}
	err = shop.CreateStore(ctx, w.tenant, shop.Profile{ID: w.run.StoreID, Name: identity.Name, Slug: identity.Slug})
	if err != nil {
		return err
	}
	return w.done(ctx, "store_record")
}

func (w *work) ownerRecord(ctx context.Context) error {
	id, err := access.OwnerOf(ctx, w.db, w.run.StoreID)
	if err != nil {
		return err
	}
	user, err := accounts.ReadUser(ctx, w.db, id)
	if err != nil {
		return err
	}
	owner := shop.Owner{ID: user.ID, Email: user.Email, FirstName: user.FirstName, LastName: user.LastName}
	if err := shop.CreateOwner(ctx, w.tenant, owner); err != nil {
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
	return w.done(ctx, "activate", func(tx *masterdb.Tx) error {
		if err := tenantdb.RecordHealth(ctx, tx, w.run.StoreID, nil); err != nil {
			return err
		}
		if err := w.registry.Activate(ctx, tx, w.run.StoreID); err != nil {
			return err
		}
		return finishRun(ctx, tx, w.run.ID)
	})
}
