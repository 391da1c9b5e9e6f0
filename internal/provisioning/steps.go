package provisioning

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Provision is the job that executes a run. A job for an attempt that has ended does
// nothing.
type Provision struct {
	jobs.AtNewTenant `json:"-"`

	RunID   stoa.RunID `json:"runId"`
	Attempt int        `json:"attempt"`
}

// Kind implements jobs.Args.
func (Provision) Kind() string { return "provisioning.provision" }

// Timeout limits the duration of one execution of a run.
const Timeout = 5 * time.Minute

// step is one step of a run.
type step struct {
	name string
	// do works outside the master database. After an interruption it is called again and
	// detects the work that is already done. It may be nil.
	do func(*execution, context.Context) error
	// apply changes the master database, in the transaction that records the end of
	// the step. It may be nil.
	apply func(*execution, context.Context, *masterdb.Tx) error
	final bool // the run succeeds with this step
}

// steps are the steps of every run, in order.
var steps = []step{
	{name: "connect", do: (*execution).connect, apply: (*execution).saveCredentials},
	{name: "inspect", do: (*execution).inspect},
	{name: "migrate", do: (*execution).migrate, apply: (*execution).recordSchema},
	{name: "seed", do: (*execution).seed, apply: (*execution).recordWarnings},
	{name: "store_record", do: (*execution).createStore},
	{name: "owner_record", do: (*execution).createOwner},
	{name: "hostname", apply: (*execution).mapHostname},
	{name: "activate", apply: (*execution).activate, final: true},
}

// stepProject is the first step of runs whose database is in a Supabase project: before
// it there are no credentials.
const stepProject = "project"

var projectSteps = slices.Concat([]step{{name: stepProject, do: (*execution).prepareProject, apply: (*execution).settleProject}}, steps)

// prepareProject creates the store's role in its Supabase project, and the project if
// there is none. Connect has recorded the plan for it.
func (e *execution) prepareProject(ctx context.Context) error {
	c, err := e.opts.Cloud.Prepare(ctx, e.run.StoreID, e)
	if err == nil {
		e.credentials = &c
	}
	return err
}

// ReportWait implements link.WaitReporter.
func (e *execution) ReportWait(ctx context.Context, cause error) error {
	return e.record(ctx, transition{begun: stepProject, fault: FaultOf(cause)})
}

func (e *execution) settleProject(ctx context.Context, tx *masterdb.Tx) error {
	if err := e.saveCredentials(ctx, tx); err != nil {
		return err
	}
	return link.CompletePlan(ctx, tx, e.run.StoreID)
}

// saveCredentials saves the credentials that the step has created, if any.
func (e *execution) saveCredentials(ctx context.Context, tx *masterdb.Tx) error {
	if e.credentials == nil {
		return nil
	}
	return e.tenants.Save(ctx, tx, e.run.StoreID, *e.credentials)
}

func (e *execution) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	// The credentials of a managed database were saved before the run started. After an
	// interruption, the next execution finds the existing role, database and grants and
	// completes them.
	if err := e.managed.Make(ctx, e.database.Credentials); err != nil {
		return err
	}
	if err := e.tenant.Ping(ctx); err != nil {
		return err
	}
	in, err := e.tenants.PlanIsolation(ctx, e.tenant, e.run.StoreID)
	if err != nil {
		return err
	}
	if in.Role != "" {
		return e.isolate(ctx, in)
	}
	if err := e.tenant.EnsureSchema(ctx); err != nil {
		return err
	}
	return e.tenant.PinSession(ctx, e.run.StoreID)
}

// isolate creates a role and a schema for the store in its owner's Supabase project. The
// credentials of the role replace those that the owner gave once they are verified. The
// next step opens the database with them.
func (e *execution) isolate(ctx context.Context, in tenantdb.Isolation) error {
	password := e.database.Credentials.RolePassword
	if password.IsZero() { // an earlier release started the run and planned no password
		password = credential.NewPassword()
	}
	c, err := e.tenants.Isolate(ctx, e.tenant, in, password)
	if err != nil {
		return err
	}
	own, err := e.tenants.OpenUnleased(c)
	if err != nil {
		return err
	}
	defer own.Close() //nolint:errcheck // no statement is pending
	if err := own.Ping(ctx); err != nil {
		return err
	}
	e.credentials = &c
	e.close()
	return nil
}

// inspect refuses a server that is too old and a database that contains anything but this
// store. It marks the database as the store's before anything else is written there.
func (e *execution) inspect(ctx context.Context) error {
	in, err := e.tenant.Inspect(ctx)
	if err != nil {
		return err
	}
	if err := checkServer(in); err != nil {
		return err
	}
	if err := checkOwnership(ctx, e.tenant, in, e.run.StoreID, e.database.Credentials.Adopt); err != nil {
		return err
	}
	return foreignStore(e.tenant.Mark(ctx, e.run.StoreID))
}

func (e *execution) migrate(ctx context.Context) (err error) {
	e.schema, err = e.tenant.MigrateTo(ctx, tenantdb.MigrateOptions{})
	return err
}

func (e *execution) recordSchema(ctx context.Context, tx *masterdb.Tx) error {
	return tenantdb.RecordSchema(ctx, tx, e.run.StoreID, e.schema)
}

// seed writes the initial rows, checks that the database returns what was written
// unchanged, and requires that no HTTP API of the database can read the rows.
func (e *execution) seed(ctx context.Context) error {
	if err := storedata.Seed(ctx, e.tenant); err != nil {
		return err
	}
	if err := e.tenant.SelfTest(ctx); err != nil {
		return err
	}
	if err := e.tenant.ProveClosed(ctx); err != nil {
		return err
	}
	e.warnings = e.readerWarnings(ctx, e.tenant, e.run.StoreID)
	return nil
}

func (e *execution) recordWarnings(ctx context.Context, tx *masterdb.Tx) error {
	warnings, err := json.Marshal(append([]tenantdb.Warning{}, e.warnings...))
	if err != nil {
		return err
	}
	if err := tenantdb.RecordExposure(ctx, tx, e.run.StoreID, e.database.Version, nil); err != nil {
		return err
	}
	return tx.ExecLater(ctx, `UPDATE provisioning_runs SET warnings = $2 WHERE id = $1`, e.run.ID, string(warnings))
}

func (e *execution) createStore(ctx context.Context) error {
	identity, err := e.registry.ReadIdentity(ctx, e.run.StoreID)
	if err != nil {
		return err
	}
	return storedata.CreateStore(ctx, e.tenant, storedata.Profile{ID: e.run.StoreID, ProfileValues: storedata.ProfileValues{Name: identity.Name, Slug: identity.Slug}})
}

func (e *execution) createOwner(ctx context.Context) error {
	owner, err := authz.OwnerOf(ctx, e.db, e.run.StoreID)
	if err != nil {
		return err
	}
	return storedata.CreateOwner(ctx, e.tenant, storedata.Owner{ID: owner.UserID, Email: owner.Email, FirstName: owner.FirstName, LastName: owner.LastName})
}

func (e *execution) mapHostname(ctx context.Context, tx *masterdb.Tx) error {
	return e.registry.MapHostname(ctx, tx, e.run.StoreID)
}

func (e *execution) activate(ctx context.Context, tx *masterdb.Tx) error {
	if err := tenantdb.RecordHealth(ctx, tx, e.run.StoreID, nil); err != nil {
		return err
	}
	return e.registry.Activate(ctx, tx, e.run.StoreID)
}
