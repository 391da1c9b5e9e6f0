package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/accounts"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// Provision is the job that works on a run. Attempt makes a job harmless
// that a retry has overtaken.
type Provision struct {
	jobs.AtNewTenant `json:"-"`

	RunID   stoa.RunID `json:"runId"`
	Attempt int        `json:"attempt"`
}

// Kind implements jobs.Args.
func (Provision) Kind() string { return "provisioning.provision" }

// Timeout bounds one attempt of a run.
const Timeout = 5 * time.Minute

type step struct {
	name string
	run  func(*work, context.Context) error
}

// steps in their order. Each may run again after an interruption and then
// finds its work done.
var steps = []step{
	{"connect", (*work).connect},
	{"inspect", (*work).inspect},
	{"migrate", (*work).migrate},
	{"seed", (*work).seed},
	{"store_record", (*work).storeRecord},
	{"owner_record", (*work).ownerRecord},
	{"hostname", (*work).hostname},
	{"activate", (*work).activate},
}

// stepProject comes first in those runs that find their database in a Supabase
// project: before it there are no credentials.
const stepProject = "project"

var projectSteps = slices.Concat([]step{{stepProject, (*work).project}}, steps)

// project has the store's role made in its Supabase project, and the project
// too if there is none. All that takes is planned and sealed since Connect.
func (w *work) project(ctx context.Context) error {
	c, err := w.opts.Cloud.Prepare(ctx, w.run.StoreID, func(why error) error {
		return w.record(ctx, nil, change{step: stepProject, state: Running, fault: faultOf(why)})
	})
	if err != nil {
		return err
	}
	err = w.record(ctx, func(ctx context.Context, tx *masterdb.Tx) error { // at once: the next step reads the credentials
		if err := w.tenants.Save(ctx, tx, w.run.StoreID, c); err != nil {
			return err
		}
		return cloud.Settle(ctx, tx, w.run.StoreID)
	}, w.passage(stepProject, nil).changes()...)
	if err == nil {
		w.run.pass(stepProject)
	}
	return err
}

func (w *work) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	// Of a managed database the credentials were stored before the run began: an
	// interruption between role, database and grants leaves nothing that the
	// next execution does not find and complete.
	if err := w.tenants.MakeManaged(ctx, w.database.Credentials); err != nil {
		return err
	}
	if err := w.tenant.Ping(ctx); err != nil {
		return err
	}
	in, err := w.tenants.PlanIsolation(ctx, w.tenant, w.run.StoreID)
	if err != nil {
		return err
	}
	if in.Role != "" {
		return w.isolate(ctx, in)
	}
	if err := w.tenant.EnsureSchema(ctx); err != nil {
		return err
	}
	if err := w.tenant.PinSession(ctx, w.run.StoreID); err != nil {
		return err
	}
	return w.done(ctx, "connect", nil)
}

// isolate gives the store a role and a schema of its own in its owner's Supabase
// project. The role's credentials replace those that the owner gave, once they
// are known to work.
func (w *work) isolate(ctx context.Context, in tenantdb.Isolation) error {
	password := w.database.Credentials.RolePassword
	if password.IsZero() { // the run was begun by a release that planned none
		password = tenantdb.NewPassword()
	}
	c, err := w.tenants.Isolate(ctx, w.tenant, in, password)
	if err != nil {
		return err
	}
	own, err := w.tenants.OpenUnleased(c)
	if err != nil {
		return err
	}
	defer own.Close() //nolint:errcheck // nothing is pending
	if err := own.Ping(ctx); err != nil {
		return err
	}
	err = w.record(ctx, func(ctx context.Context, tx *masterdb.Tx) error { // at once: the next step reads the credentials
		return w.tenants.Save(ctx, tx, w.run.StoreID, c)
	}, w.passage("connect", nil).changes()...)
	if err == nil {
		w.run.pass("connect")
		w.close()
		w.tenant = nil
	}
	return err
}

// inspect refuses a server that is too old and a database that holds anything
// but this store. What it accepts it marks as the store's before anything else
// is written there.
func (w *work) inspect(ctx context.Context) error {
	in, err := w.tenant.Inspect(ctx)
	if err != nil {
		return err
	}
	if err := acceptable(in); err != nil {
		return err
	}
	if err := ownable(ctx, w.tenant, in, w.run.StoreID); err != nil {
		return err
	}
	if err := w.tenant.Mark(ctx, w.run.StoreID); err != nil {
		return foreign(err)
	}
	return w.done(ctx, "inspect", nil)
}

// acceptable says why no store can live in the inspected database, or nil.
func acceptable(in tenantdb.Inspection) error {
	switch {
	case !in.Supported:
		return stoa.Errorf(stoa.DatabaseVersionUnsupported, "The server runs version %.40q; at least %s is needed.", in.Version, in.Minimum)
	case !in.MayCreate:
		return stoa.Errorf(stoa.DatabasePermissionDenied,
			"The database user may not create tables. On PostgreSQL: GRANT CREATE, USAGE ON SCHEMA public TO the user.")
	case !in.Unicode:
		return stoa.Errorf(stoa.DatabaseVersionUnsupported, "The database keeps text as %.40q, which cannot hold every character. "+
			"Make one in UTF-8; on PostgreSQL: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.", in.Encoding)
	}
	return nil
}

// ownable refuses a database that is another store's or a stranger's. The
// store's own has its mark; one from before there were marks, or a copy that
// lost it, is known by what else it holds.
func ownable(ctx context.Context, db *tenantdb.DB, in tenantdb.Inspection, store stoa.StoreID) error {
	marked := false
	if slices.Contains(in.Tables, tenantdb.MarkerTable) {
		var err error
		if marked, err = db.Marked(ctx, store); err != nil {
			return foreign(err)
		}
	}
	if slices.Contains(in.Tables, tenantdb.VersionTable) {
		if slices.Contains(in.Tables, "stores") {
			_, err := holds(ctx, db, store)
			return err
		}
		return nil
	}
	if marked {
		return nil
	}
	if others := slices.DeleteFunc(slices.Clone(in.Tables), func(t string) bool { return t == tenantdb.MarkerTable }); len(others) > 0 {
		return stoa.Errorf(stoa.DatabaseNotEmpty, "The database already holds other tables (%s). Give the store a database of its own.", some(others))
	}
	return nil
}

// foreign says of a database marked as another store's what there is to say.
func foreign(err error) error {
	if errors.Is(err, tenantdb.ErrMarked) {
		return shop.ErrForeignStore
	}
	return err
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
		quoted = append(quoted, fmt.Sprintf("%.80q", name)) // longer than any server allows
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
	return w.done(ctx, "migrate", func(ctx context.Context, tx *masterdb.Tx) error {
		return tenantdb.RecordSchema(ctx, tx, w.run.StoreID, schema)
	})
}

// seed writes the first rows, proves that the database keeps what is written as
// it was written, and then wants proof that nobody reads it through an HTTP API
// of the database's.
func (w *work) seed(ctx context.Context) error {
	if err := shop.Seed(ctx, w.tenant); err != nil {
		return err
	}
	if err := w.tenant.SelfTest(ctx); err != nil {
		return err
	}
	if err := w.tenant.ProveClosed(ctx); err != nil {
		return err
	}
	warnings, err := json.Marshal(append([]tenantdb.Warning{}, w.warnings(ctx, w.tenant, w.run.StoreID)...))
	if err != nil {
		return err
	}
	return w.done(ctx, "seed", func(ctx context.Context, tx *masterdb.Tx) error {
		if err := tenantdb.RecordExposure(ctx, tx, w.run.StoreID, w.database.Version, nil); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE provisioning_runs SET warnings = $2 WHERE id = $1`, w.run.ID, string(warnings))
		return err
	})
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
	return w.done(ctx, "store_record", nil)
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
	return w.done(ctx, "owner_record", nil)
}

func (w *work) hostname(ctx context.Context) error {
	return w.done(ctx, "hostname", func(ctx context.Context, tx *masterdb.Tx) error {
		return w.registry.MapHostname(ctx, tx, w.run.StoreID)
	})
}

// activate leaves the database open for those who come next, the owner who
// waits for the store among them. That may wait for another database to be
// closed, so it follows the commit.
func (w *work) activate(ctx context.Context) error {
	err := w.record(ctx, func(ctx context.Context, tx *masterdb.Tx) error {
		if err := tenantdb.RecordHealth(ctx, tx, w.run.StoreID, nil); err != nil {
			return err
		}
		return w.registry.Activate(ctx, tx, w.run.StoreID)
	}, change{step: "activate", state: Succeeded}, change{state: Succeeded})
	if err == nil && w.tenant != nil {
		w.tenants.Adopt(ctx, w.run.StoreID, w.database, w.tenant)
		w.tenant = nil
	}
	return err
}
