package provisioning

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
	"github.com/stoahq/stoa/internal/testkit"
)

// openedManaged creates an active store with a managed database.
func (b fixture) openedManaged(t *testing.T) (authz.Principal, stores.Store) {
	t.Helper()
	p, s := b.store(t)
	run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
	testkit.Must(t, err)
	testkit.Must(t, b.Provision(t.Context(), job(run)))
	run, err = b.Latest(t.Context(), p, s.ID)
	testkit.Must(t, err)
	return p, b.succeeded(t, p, run)
}

// replica returns another process of the same platform.
func (b fixture) replica(t *testing.T) fixture {
	t.Helper()
	return setupWith(t, b.db, b.platform, jobs.Options{}, nil)
}

func (b fixture) reach(t *testing.T, p authz.Principal, id stoa.StoreID, a credential.Access) credential.Credentials {
	t.Helper()
	c, err := b.Credentials(t.Context(), p, id, a)
	testkit.Must(t, err)
	return c
}

// session connects as the store's own software does.
func (b fixture) session(t *testing.T, c credential.Credentials) (*tenantdb.DB, error) {
	t.Helper()
	db, err := b.tenants.OpenUnleased(c)
	testkit.Must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db, db.Ping(t.Context())
}

// settled checks that no reset is incomplete, and that the stored password is the server's.
func (b fixture) settled(t *testing.T, id stoa.StoreID) credential.Credentials {
	t.Helper()
	c, err := b.tenants.Load(t.Context(), b.db, id)
	testkit.Must(t, err)
	if c.Reset != (credential.PasswordReset{}) || c.Reader.Reset != (credential.PasswordReset{}) {
		t.Errorf("incomplete: %+v, %+v", c.Reset, c.Reader.Reset)
	}
	_, err = b.session(t, c)
	testkit.Must(t, err)
	return c
}

// TestResetPassword checks that the old password and the sessions that used it end, and
// that shoppers notice nothing, also at another replica.
func TestResetPassword(t *testing.T) {
	t.Parallel()
	eachManaged(t, func(t *testing.T, b fixture, _ credential.EngineName, _ *door) {
		p, s := b.openedManaged(t)
		other := b.replica(t)
		_, err := other.visit(t.Context(), s)
		testkit.Must(t, err)
		before, old := b.info(t, s.ID), b.reach(t, p, s.ID, credential.FullAccess)
		software, err := b.session(t, old)
		testkit.Must(t, err)
		stop, stopOther := b.shoppers(t, s), other.shoppers(t, s)
		testkit.Must(t, b.ResetPassword(t.Context(), p, s.ID, credential.FullAccess))
		stop()
		stopOther()
		wantCode(t, software.Ping(t.Context()), stoa.DatabaseAuthFailed)
		_, err = b.session(t, old)
		wantCode(t, err, stoa.DatabaseAuthFailed)
		b.settled(t, s.ID)
		renewed := b.reach(t, p, s.ID, credential.FullAccess)
		if renewed.Password == old.Password {
			t.Error("the password is the old one")
		}
		_, err = b.session(t, renewed)
		testkit.Must(t, err)

		want := before
		want.CredentialVersion++
		if diff := cmp.Diff(want, b.info(t, s.ID)); diff != "" {
			t.Errorf("the registry (-want +got):\n%s", diff)
		}
		// The job finds nothing to do.
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			waiting, err := jobs.Waiting[FinishReset](t.Context(), tx)
			if !slices.Contains(waiting, FinishReset{StoreID: s.ID}) {
				t.Errorf("the jobs are %v", waiting)
			}
			return err
		}))
		testkit.Must(t, b.FinishReset(t.Context(), FinishReset{StoreID: s.ID}))
		if again := b.info(t, s.ID); again.CredentialVersion != want.CredentialVersion {
			t.Errorf("the job changed the password")
		}
	})
}

// TestResetPasswordAtOnce checks that concurrent resets, of several replicas, agree on a
// password, and that no shopper is refused.
func TestResetPasswordAtOnce(t *testing.T) {
	t.Parallel()
	eachManaged(t, func(t *testing.T, b fixture, _ credential.EngineName, _ *door) {
		p, s := b.openedManaged(t)
		old := b.settled(t, s.ID)
		replicas := []fixture{b, b.replica(t)}
		stop := b.shoppers(t, s)
		_, errs := atOnce(6, func(i int) (struct{}, error) {
			return struct{}{}, replicas[i%2].ResetPassword(t.Context(), p, s.ID, credential.FullAccess)
		})
		stop()
		for _, err := range errs {
			testkit.Must(t, err)
		}
		if c := b.settled(t, s.ID); c.Password == old.Password {
			t.Error("the password is the old one")
		}
	})
}

// TestResetPasswordInterrupted ends the process before and after the server has the new
// password. The store can be opened by every process, and the job completes the reset.
func TestResetPasswordInterrupted(t *testing.T) {
	t.Parallel()
	eachManaged(t, func(t *testing.T, b fixture, _ credential.EngineName, d *door) {
		p, s := b.openedManaged(t)
		running := b.replica(t) // has the old password in memory
		_, err := running.visit(t.Context(), s)
		testkit.Must(t, err)
		old := b.settled(t, s.ID)
		c, err := b.planPassword(t.Context(), s.ID, credential.FullAccess, &p)
		testkit.Must(t, err)
		next := c.Reset.Next
		_, err = b.replica(t).visit(t.Context(), s)
		testkit.Must(t, err)

		_, err = b.managed.SetPassword(t.Context(), c, credential.FullAccess, next, func() (bool, error) { return false, nil })
		if !errors.Is(err, managed.ErrSuperseded) {
			t.Errorf("superseded: %v", err)
		}
		_, err = b.session(t, old)
		testkit.Must(t, err)
		mark, err := b.managed.SetPassword(t.Context(), c, credential.FullAccess, next, func() (bool, error) { return true, nil })
		testkit.Must(t, err)
		_, err = b.managed.EndSessions(t.Context(), c, credential.FullAccess, mark, managed.AllSessions)
		testkit.Must(t, err)
		_, err = running.visit(t.Context(), s)
		testkit.Must(t, err)
		_, err = b.session(t, old.As(credential.FullAccess))
		wantCode(t, err, stoa.DatabaseAuthFailed)
		_, err = b.replica(t).visit(t.Context(), s)
		testkit.Must(t, err)
		stop := running.shoppers(t, s)
		d.closed.Store(true) // the server fails
		if err := b.FinishReset(t.Context(), FinishReset{StoreID: s.ID}); stoa.CodeOf(err) != stoa.TenantUnavailable {
			t.Errorf("with the server down: %v", err)
		}
		d.closed.Store(false)
		testkit.Must(t, b.FinishReset(t.Context(), FinishReset{StoreID: s.ID}))
		stop()
		if c := b.settled(t, s.ID); c.Password != next {
			t.Error("the password is not the planned one")
		}

		// What is shown after an interruption is valid.
		c, err = b.planPassword(t.Context(), s.ID, credential.FullAccess, &p)
		testkit.Must(t, err)
		_, err = b.managed.SetPassword(t.Context(), c, credential.FullAccess, c.Reset.Next, func() (bool, error) { return true, nil })
		testkit.Must(t, err)
		_, err = b.session(t, b.reach(t, p, s.ID, credential.FullAccess))
		testkit.Must(t, err)
	})
}

// TestReadAccess checks the role for reports: what it may do, and its end.
func TestReadAccess(t *testing.T) {
	t.Parallel()
	eachManaged(t, func(t *testing.T, b fixture, engine credential.EngineName, _ *door) {
		p, s := b.openedManaged(t)
		wantCode(t, b.ResetPassword(t.Context(), p, s.ID, credential.ReadAccess), stoa.NotFound)
		if engine == credential.PostgreSQL { // as releases before 15 create databases
			full, err := b.session(t, b.reach(t, p, s.ID, credential.FullAccess))
			testkit.Must(t, err)
			_, err = full.Exec(t.Context(), `GRANT CREATE ON SCHEMA public TO PUBLIC`)
			testkit.Must(t, err)
		}
		readers, errs := atOnce(4, func(int) (credential.Credentials, error) {
			return b.Credentials(t.Context(), p, s.ID, credential.ReadAccess)
		})
		for i, err := range errs {
			testkit.Must(t, err)
			if readers[i] != readers[0] {
				t.Errorf("another answer: %+v", readers[i])
			}
		}
		c := b.settled(t, s.ID)
		if info := b.info(t, s.ID); info.CredentialVersion != s.Database.CredentialVersion || c.Password == readers[0].Password {
			t.Errorf("the store's own role changed: %+v", info)
		}
		b.checkReader(t, engine, c, readers[0])

		old := readers[0]
		testkit.Must(t, b.ResetPassword(t.Context(), p, s.ID, credential.ReadAccess))
		_, err := b.session(t, old)
		wantCode(t, err, stoa.DatabaseAuthFailed)
		reader := b.reach(t, p, s.ID, credential.ReadAccess)
		_, err = b.session(t, reader)
		testkit.Must(t, err)
		if again := b.settled(t, s.ID); again.Password != c.Password {
			t.Error("the store's own password changed")
		}
		testkit.Must(t, b.registry.FinishDeletion(t.Context(), b.doom(t, p, s.ID)))
		if _, err = b.session(t, reader); err == nil {
			t.Error("the role is left after the store")
		}
		testkit.Must(t, b.FinishReset(t.Context(), FinishReset{StoreID: s.ID}))
	})
}

// checkReader uses the database as its reader.
func (b fixture) checkReader(t *testing.T, engine credential.EngineName, own, reader credential.Credentials) {
	t.Helper()
	full, err := b.session(t, own)
	testkit.Must(t, err)
	for _, statement := range []string{`CREATE TABLE later (n integer)`, `INSERT INTO later VALUES (7)`} {
		_, err := full.Exec(t.Context(), statement)
		testkit.Must(t, err)
	}
	later := []string{"later"}
	if engine == credential.PostgreSQL {
		for _, statement := range []string{`CREATE SCHEMA reports`, `CREATE TABLE reports.later (n integer)`, `INSERT INTO reports.later VALUES (7)`} {
			_, err := full.Exec(t.Context(), statement)
			testkit.Must(t, err)
		}
		later = append(later, "reports.later")
	}
	db, err := b.session(t, reader)
	testkit.Must(t, err)
	for _, table := range later {
		var n int
		if err := db.Get(t.Context(), &n, `SELECT n FROM `+table); err != nil || n != 7 {
			t.Errorf("%s: %d, %v", table, n, err)
		}
	}
	var n int
	if err := db.Get(t.Context(), &n, `SELECT count(*) FROM products`); err != nil {
		t.Error(err)
	}
	for _, statement := range []string{
		`INSERT INTO later VALUES (8)`, `UPDATE later SET n = 8`, `DELETE FROM later`, `CREATE TABLE mine (n integer)`, `DROP TABLE later`,
		`ALTER TABLE later ADD m integer`, `TRUNCATE TABLE later`,
	} {
		if _, err := db.Exec(t.Context(), statement); err == nil {
			t.Errorf("a reader may %s", statement)
		}
	}
	if engine == credential.PostgreSQL {
		_, err := db.Exec(t.Context(), `SET default_transaction_read_only = off; SET statement_timeout = 0; CREATE TABLE mine (n integer)`)
		wantCode(t, err, stoa.DatabasePermissionDenied)
		_, err = db.Exec(t.Context(), `CREATE TEMPORARY TABLE mine (n integer)`)
		wantCode(t, err, stoa.DatabasePermissionDenied)
	}
	b.checkReaderLimits(t, reader)
}

// checkReaderLimits opens connections until the server refuses one.
func (b fixture) checkReaderLimits(t *testing.T, reader credential.Credentials) {
	t.Helper()
	opened := 0
	for range 8 {
		db, err := b.tenants.OpenUnleased(reader)
		testkit.Must(t, err)
		defer db.Close() //nolint:errcheck // nothing is pending
		if db.Ping(t.Context()) == nil {
			opened++
		}
	}
	if opened == 0 || opened > 5 {
		t.Errorf("%d connections of 8 are admitted, want at most 5", opened)
	}
}

// TestCredentialsRefuse checks who may not reach a database, and which databases have
// nothing to reach.
func TestCredentialsRefuse(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db).start(t)
		p, s := b.store(t)
		both := func(p authz.Principal, want stoa.Code) {
			t.Helper()
			for _, a := range credential.Accesses {
				_, err := b.Credentials(context.Background(), p, s.ID, a)
				wantCode(t, err, want)
				wantCode(t, b.ResetPassword(context.Background(), p, s.ID, a), want)
			}
		}
		both(p, stoa.StorePendingDatabase)
		s = b.succeeded(t, p, b.connect(t, p, s.ID, credential.Credentials{Kind: credential.Managed}))
		both(p, stoa.NotFound) // embedded
		both(b.member(t, s.ID, authz.Admin), stoa.Forbidden)
		both(b.user(t), stoa.StoreNotFound)
		browser := p
		browser.Browser = true
		both(browser, stoa.ReauthenticationRequired)
		acting := p
		acting.Impersonator = stoa.NewID[stoa.UserID]()
		both(acting, stoa.Forbidden)
		key := p
		key.Key = authz.Key{ID: stoa.NewID[stoa.KeyID](), StoreID: s.ID, Scopes: "database:write store:read"}
		both(key, stoa.Forbidden)
		if engines := servers(t); len(engines) > 0 {
			p, s = b.store(t)
			s = b.succeeded(t, p, b.connect(t, p, s.ID, credentials(t, engines[0])))
			both(p, stoa.NotFound) // the owner's own
		}
		if n := b.count(t, `audit_events WHERE action IN ('database.credentials_shown', 'database.password_reset')`); n != 0 {
			t.Errorf("%d entries of what was refused", n)
		}
	})
}
