package provisioning

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// order is the documented order of the steps.
var order = []string{"connect", "inspect", "migrate", "seed", "store_record", "owner_record", "hostname", "activate"}

func TestRun(t *testing.T) {
	t.Parallel()
	each(t, tenantdbtest.All(), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		before := time.Now().Add(-time.Second)
		c := credentials(t, engine)
		run := b.connect(t, p, s.ID, c)
		store := b.succeeded(t, p, run)

		if run.StoreID != s.ID || run.Attempt != 1 || run.StartedAt == nil || run.StartedAt.Before(before) {
			t.Errorf("run %+v", run)
		}
		var names []string
		last := *run.StartedAt
		for _, step := range run.Steps {
			names = append(names, step.Name)
			if step.StartedAt == nil || step.StartedAt.Before(last) || step.FinishedAt.Before(*step.StartedAt) {
				t.Fatalf("step %s from %v to %v, the one before ended at %v", step.Name, step.StartedAt, step.FinishedAt, last)
			}
			last = *step.FinishedAt
		}
		if run.FinishedAt.Before(last) {
			t.Errorf("the run ended at %v, its last step at %v", run.FinishedAt, last)
		}
		if diff := cmp.Diff(order, names); diff != "" {
			t.Error(diff)
		}
		latest, err := b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if diff := cmp.Diff(run, latest); diff != "" {
			t.Error(diff)
		}

		if got, want := store.Hostnames[0].Hostname, s.Slug+".shops.test"; got != want || !store.Hostnames[0].Primary || store.Hostnames[0].VerifiedAt == nil {
			t.Errorf("hostname %+v, want %s", store.Hostnames[0], want)
		}
		if c.Kind == credential.Managed {
			c.Engine = credential.SQLite
		}
		if d := store.Database; d.Kind != c.Kind || d.Engine != c.Engine || d.SchemaVersion == 0 || d.LastCheckedAt == nil {
			t.Errorf("database %+v", d)
		}
		if f := store.Profile; f.ID != s.ID || f.Name != s.Name || f.Slug != s.Slug {
			t.Errorf("profile %+v", f)
		}
		b.checkOwner(t, p, s.ID)
	})
}

// checkOwner checks the owner's row in the tenant database.
func (b fixture) checkOwner(t *testing.T, p authz.Principal, id stoa.StoreID) {
	t.Helper()
	lease, err := b.tenants.Acquire(t.Context(), id)
	testkit.Must(t, err)
	defer lease.Release()
	var users []struct {
		ID        stoa.UserID `db:"id"`
		Email     string      `db:"email"`
		FirstName string      `db:"first_name"`
		LastName  string      `db:"last_name"`
		Role      string      `db:"role"`
	}
	testkit.Must(t, lease.Select(t.Context(), &users, `SELECT id, email, first_name, last_name, role FROM users`))
	if len(users) != 1 || users[0].ID != p.UserID || users[0].Email != p.UserID.String()+"@example.com" ||
		users[0].FirstName != "Olive" || users[0].LastName != "Owner" || users[0].Role != "owner" {
		t.Errorf("users %+v", users)
	}
}

// TestConnectRecordsTheRun checks that the records of Connect are complete before any job
// runs.
func TestConnectRecordsTheRun(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		_, err := b.Latest(t.Context(), p, s.ID)
		wantCode(t, err, stoa.NotFound)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		want := Run{ID: run.ID, StoreID: s.ID, State: Queued, Attempt: 1, CreatedAt: run.CreatedAt, Warnings: []tenantdb.Warning{}}
		for _, name := range order {
			want.Steps = append(want.Steps, Step{Name: name, State: Pending})
		}
		if diff := cmp.Diff(want, run); diff != "" {
			t.Error(diff)
		}
		if got := b.status(t, s.ID); got != stores.Provisioning {
			t.Errorf("the store is %s", got)
		}
		if n := b.count(t, `river_job`); n != 1 {
			t.Errorf("%d jobs", n)
		}
	})
}

func TestConnectAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		const rounds = 10
		for range rounds {
			p, s := b.store(t)
			_, errs := atOnce(8, func(int) (Run, error) {
				return b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
			})
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
					continue
				}
				wantCode(t, err, stoa.ProvisioningInProgress)
			}
			if won != 1 {
				t.Errorf("%d callers won", won)
			}
		}
		if b.count(t, `provisioning_runs`) != rounds || b.count(t, `river_job`) != rounds {
			t.Errorf("%d runs, %d jobs, want %d", b.count(t, `provisioning_runs`), b.count(t, `river_job`), rounds)
		}
	})
}

func TestConnectInOtherStates(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		managed := credential.Credentials{Kind: credential.Managed}
		for status, want := range map[stores.Status]stoa.Code{
			stores.Provisioning: stoa.ProvisioningInProgress, stores.Active: stoa.AlreadyConnected,
			stores.Suspended: stoa.StoreSuspended, stores.Deleting: stoa.StoreSuspended, stores.Deleted: stoa.StoreNotFound,
		} {
			b.exec(t, `UPDATE stores SET status = $2 WHERE id = $1`, s.ID, string(status))
			_, err := b.Connect(t.Context(), p, s.ID, managed)
			wantCode(t, err, want)
			_, err = b.Retry(t.Context(), p, s.ID)
			wantCode(t, err, want)
		}
		if n := b.count(t, `provisioning_runs`) + b.count(t, `store_databases`) + b.count(t, `river_job`); n != 0 {
			t.Errorf("%d rows were written", n)
		}
	})
}

func TestConnectChecksCredentials(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		_, other := b.store(t)
		for _, c := range []credential.Credentials{
			{},
			{Kind: credential.KindPostgreSQL, Engine: credential.PostgreSQL, Host: "db.example.com"},
			// An embedded database may not be a merchant's own.
			{Kind: credential.KindPostgreSQL, Engine: credential.SQLite, Host: "db.example.com", Port: 1, Database: other.ID.String(), User: "u", Password: keyring.NewSecret("p")},
		} {
			_, err := b.Connect(t.Context(), p, s.ID, c)
			wantCode(t, err, stoa.InvalidRequest)
		}
		if got := b.status(t, s.ID); got != stores.PendingDatabase || b.count(t, `store_databases`) != 0 {
			t.Errorf("the store is %s", got)
		}
		// A managed database is created for the store. The other fields of the
		// credentials are ignored.
		_, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed, Engine: credential.SQLite, Database: other.ID.String()})
		testkit.Must(t, err)
		saved, err := b.tenants.Load(t.Context(), db, s.ID)
		testkit.Must(t, err)
		if saved.Engine != credential.SQLite || saved.Database != s.ID.String() {
			t.Errorf("the managed database is %s %s", saved.Engine, saved.Database)
		}
	})
}

func TestAccess(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		b.exec(t, `UPDATE stores SET status = 'pending_database' WHERE id = $1`, s.ID)
		try := func(who authz.Principal, want, wantLatest stoa.Code) {
			t.Helper()
			// A caller without permission to connect is not told the faults of the
			// credentials.
			_, err := b.Connect(t.Context(), who, s.ID, credential.Credentials{})
			wantCode(t, err, want)
			_, err = b.Retry(t.Context(), who, s.ID)
			wantCode(t, err, want)
			_, err = b.Latest(t.Context(), who, s.ID)
			wantCode(t, err, wantLatest)
		}
		try(b.user(t), stoa.StoreNotFound, stoa.StoreNotFound)
		try(b.member(t, s.ID, authz.Viewer), stoa.Forbidden, stoa.NotFound)
		try(b.member(t, s.ID, authz.Member), stoa.Forbidden, stoa.NotFound)
		_, err := b.Connect(t.Context(), p, stoa.NewID[stoa.StoreID](), credential.Credentials{})
		wantCode(t, err, stoa.StoreNotFound)
		run, err := b.Connect(t.Context(), b.member(t, s.ID, authz.Admin), s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		seen, err := b.Latest(t.Context(), b.member(t, s.ID, authz.Viewer), s.ID)
		testkit.Must(t, err)
		if seen.ID != run.ID {
			t.Errorf("a viewer sees run %s, want %s", seen.ID, run.ID)
		}
	})
}

func TestRetryWithoutAFailedRun(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		_, err := b.Retry(t.Context(), p, s.ID)
		wantCode(t, err, stoa.NotFound)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		_, err = b.Retry(t.Context(), p, s.ID)
		wantCode(t, err, stoa.ProvisioningInProgress)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		_, err = b.Retry(t.Context(), p, s.ID)
		wantCode(t, err, stoa.AlreadyConnected)
		// If a store ever lost its database, a run that succeeded could not be retried.
		b.exec(t, `UPDATE stores SET status = 'pending_database' WHERE id = $1`, s.ID)
		_, err = b.Retry(t.Context(), p, s.ID)
		wantCode(t, err, stoa.NotFound)
		if got := b.status(t, s.ID); got != stores.PendingDatabase {
			t.Errorf("the store is %s", got)
		}
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		for _, patience := range []time.Duration{0, 30 * time.Millisecond} {
			got, err := b.Wait(t.Context(), run.ID, patience)
			testkit.Must(t, err)
			if diff := cmp.Diff(run, got); diff != "" {
				t.Errorf("patience %v: %s", patience, diff)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := b.Wait(ctx, run.ID, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller who has gone gets %v", err)
		}
		waiting := make(chan Run, 1)
		go func() {
			got, err := b.Wait(t.Context(), run.ID, time.Hour)
			if err != nil {
				t.Error(err)
			}
			waiting <- got
		}()
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		b.succeeded(t, p, <-waiting)
		got, err := b.Wait(t.Context(), run.ID, 0) // the run has ended, so no wait is needed
		testkit.Must(t, err)
		b.succeeded(t, p, got)
		_, err = b.Wait(t.Context(), stoa.NewID[stoa.RunID](), time.Hour)
		wantCode(t, err, stoa.NotFound)
	})
}

// TestJobOfAnotherTime checks jobs of other attempts. A job has its arguments in plain
// text and is delivered at least once.
func TestJobOfAnotherTime(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		repair := b.takeHostname(t, s)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		repair()
		nothing := func(j Provision) {
			t.Helper()
			before, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			testkit.Must(t, b.Provision(t.Context(), j))
			after, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("job %+v: %s", j, diff)
			}
		}
		nothing(job(run)) // the run has failed
		second, err := b.Retry(t.Context(), p, s.ID)
		testkit.Must(t, err)
		nothing(Provision{RunID: run.ID, Attempt: 1}) // an old attempt
		nothing(Provision{RunID: run.ID, Attempt: 3})
		nothing(Provision{RunID: stoa.NewID[stoa.RunID](), Attempt: 1})
		testkit.Must(t, b.Provision(t.Context(), job(second)))
		nothing(job(second)) // the run has succeeded
		nothing(Provision{RunID: run.ID, Attempt: 1})
		third, err := b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, third)
		if third.Attempt != 2 || third.ID != run.ID {
			t.Errorf("run %+v", third)
		}
	})
}

func TestRetryResumesAtTheFailedStep(t *testing.T) {
	t.Parallel()
	each(t, tenantdbtest.Engines(), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		repair := b.takeHostname(t, s)
		first := b.connect(t, p, s.ID, credentials(t, engine))
		b.failed(t, p, first, "hostname", stoa.HostnameTaken)
		// Changes to the tenant database show which steps run again.
		c, err := b.tenants.Load(t.Context(), b.db, s.ID)
		testkit.Must(t, err)
		tenant, err := b.tenants.OpenUnleased(c)
		testkit.Must(t, err)
		defer tenant.Close() //nolint:errcheck // a connection of the test
		_, err = tenant.Exec(t.Context(), `DELETE FROM pages`)
		testkit.Must(t, err)

		b.failed(t, p, b.retry(t, p, s.ID), "hostname", stoa.HostnameTaken) // the cause is not corrected yet
		repair()
		run := b.retry(t, p, s.ID)
		b.succeeded(t, p, run)
		if run.ID != first.ID || run.Attempt != 3 {
			t.Errorf("run %s, attempt %d, want run %s, attempt 3", run.ID, run.Attempt, first.ID)
		}
		if diff := cmp.Diff(first.Steps[:6], run.Steps[:6]); diff != "" {
			t.Errorf("steps that had succeeded were recorded again: %s", diff)
		}
		var pages int
		testkit.Must(t, tenant.Get(t.Context(), &pages, `SELECT count(*) FROM pages`))
		if pages != 0 {
			t.Error("the step seed ran again")
		}
		if _, err := storedata.ReadProfile(t.Context(), tenant, s.ID); err != nil {
			t.Error(err)
		}
	})
}
