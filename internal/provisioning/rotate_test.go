package provisioning

import (
	"context"
	"slices"
	"sync"
	"testing"

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

// opened creates an active store with an empty database of that engine.
func (b fixture) opened(t *testing.T, engine credential.EngineName) (authz.Principal, stores.Store, credential.Credentials) {
	t.Helper()
	p, s := b.store(t)
	c := credentials(t, engine)
	return p, b.succeeded(t, p, b.connect(t, p, s.ID, c)), c
}

func (b fixture) info(t *testing.T, id stoa.StoreID) tenantdb.Info {
	t.Helper()
	info, err := tenantdb.ReadInfo(t.Context(), b.db, id)
	testkit.Must(t, err)
	return *info
}

// visit is one request of a shopper.
func (b fixture) visit(ctx context.Context, s stores.Store) (*tenantdb.DB, error) {
	site, err := b.registry.Resolve(ctx, s.Hostnames[0].Hostname)
	if err != nil {
		return nil, err
	}
	lease, err := b.tenants.Acquire(ctx, site.StoreID)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	_, err = storedata.ReadProfile(ctx, lease.DB, s.ID)
	return lease.DB, err
}

// shoppers sends requests to the store without a pause until stop is called. stop fails
// the test if any request was refused.
func (b fixture) shoppers(t *testing.T, s stores.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var wg sync.WaitGroup
	visits := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := b.visit(t.Context(), s); err != nil {
				t.Errorf("a shopper was turned away: %v", err)
				return
			}
			visits++
		}
	})
	return func() {
		cancel()
		wg.Wait()
		if visits == 0 {
			t.Error("no shopper came")
		}
	}
}

// TestRotate changes the password at the server and then here. A transaction that began
// before continues on its connection, later ones get a new connection, and no request of
// a shopper fails.
func TestRotate(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s, c := b.opened(t, engine)
		before := b.info(t, s.ID)
		lease, err := b.tenants.Acquire(t.Context(), s.ID)
		testkit.Must(t, err)
		defer lease.Release()
		testkit.Must(t, lease.Tx(t.Context(), func(tx *tenantdb.Tx) error {
			_, err := b.visit(t.Context(), s) // opens a second connection of the store while the password is still valid
			testkit.Must(t, err)
			stop := b.shoppers(t, s)
			c = tenantdbtest.NewPassword(t, c)
			testkit.Must(t, b.Rotate(t.Context(), p, s.ID, c))
			fresh, err := b.visit(t.Context(), s)
			testkit.Must(t, err)
			if fresh == lease.DB {
				t.Error("still the pool of before")
			}
			stop()
			_, err = tx.Exec(t.Context(), `UPDATE stores SET description = 'begun before, ended after' WHERE id = ?`, s.ID)
			return err
		}))
		lease.Release()

		want := before
		want.CredentialVersion++
		after := b.info(t, s.ID)
		if after.LastCheckedAt == nil || !after.LastCheckedAt.After(*before.LastCheckedAt) {
			t.Errorf("checked at %v", after.LastCheckedAt)
		}
		want.LastCheckedAt = after.LastCheckedAt
		if diff := cmp.Diff(want, after); diff != "" {
			t.Errorf("the registry (-want +got):\n%s", diff)
		}
		store, err := b.registry.Get(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if store.Profile == nil || store.Profile.Description != "begun before, ended after" {
			t.Errorf("the profile is %+v", store.Profile)
		}

		testkit.Must(t, b.Rotate(t.Context(), p, s.ID, c))
		if again := b.info(t, s.ID); again.CredentialVersion != after.CredentialVersion || again.SchemaVersion != after.SchemaVersion {
			t.Errorf("the same credentials again: %+v", again)
		}
		_, err = b.visit(t.Context(), s)
		testkit.Must(t, err)
	})
}

// TestRotateRefuses checks that credentials without access to this store's own data, or
// without permission to change it, leave everything unchanged.
func TestRotateRefuses(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s, c := b.opened(t, engine)
		_, _, foreign := b.opened(t, engine)
		strangers := credentials(t, engine)
		tenantdbtest.Exec(t, strangers, `CREATE TABLE guests (n integer)`)
		migrated := credentials(t, engine)
		_, err := tenantdbtest.Open(t, migrated).Migrate(t.Context())
		testkit.Must(t, err)
		pool, err := b.visit(t.Context(), s)
		testkit.Must(t, err)
		before := b.info(t, s.ID)
		with := func(change func(*credential.Credentials)) credential.Credentials {
			other := c
			change(&other)
			return other
		}
		for _, test := range []struct {
			name string
			c    credential.Credentials
			want stoa.Code
		}{
			{"wrong password", with(func(c *credential.Credentials) { c.Password = keyring.NewSecret("wrong") }), stoa.DatabaseAuthFailed},
			{"metadata address", with(func(c *credential.Credentials) { c.Host = "169.254.169.254" }), stoa.DatabaseHostForbidden},
			{"no TLS there", with(func(c *credential.Credentials) { c.TLS = credential.TLSVerify; c.CACertificate = "" }), stoa.DatabaseTLSFailed},
			{"another store's", foreign, stoa.DatabaseNotEmpty},
			{"a stranger's", strangers, stoa.DatabaseNotEmpty},
			{"empty", credentials(t, engine), stoa.InvalidRequest},
			{"without a store", migrated, stoa.InvalidRequest},
			{"who may only read", tenantdbtest.Guest(t, c), stoa.DatabasePermissionDenied},
			{"managed", credential.Credentials{Kind: credential.Managed}, stoa.InvalidRequest},
			{"incomplete", with(func(c *credential.Credentials) { c.User = "" }), stoa.InvalidRequest},
		} {
			t.Run(test.name, func(t *testing.T) {
				wantCode(t, b.Rotate(t.Context(), p, s.ID, test.c), test.want)
				if diff := cmp.Diff(before, b.info(t, s.ID)); diff != "" {
					t.Errorf("the registry changed:\n%s", diff)
				}
				now, err := b.visit(t.Context(), s)
				testkit.Must(t, err)
				if now != pool {
					t.Error("the pool is another")
				}
			})
		}
		wantCode(t, b.Rotate(t.Context(), b.member(t, s.ID, authz.Member), s.ID, c), stoa.Forbidden)
		wantCode(t, b.Rotate(t.Context(), b.user(t), s.ID, c), stoa.StoreNotFound)
		b.exec(t, `UPDATE stores SET status = 'suspended' WHERE id = $1`, s.ID)
		testkit.Must(t, b.Rotate(t.Context(), b.member(t, s.ID, authz.Admin), s.ID, c))
	})
}

func TestRotateInOtherStates(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		engine := servers(t)[0]
		b := setup(t, db) // its jobs do not run
		c := credentials(t, engine)
		p, s := b.store(t)
		wantCode(t, b.Rotate(t.Context(), p, s.ID, c), stoa.StorePendingDatabase)
		_, err := b.Connect(t.Context(), p, s.ID, c)
		testkit.Must(t, err)
		wantCode(t, b.Rotate(t.Context(), p, s.ID, c), stoa.ProvisioningInProgress)

		// Provisioning starts while the credentials are being verified.
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			wantCode(t, b.replace(t.Context(), tx, p, s.ID, c, Finding{}), stoa.ProvisioningInProgress)
			return nil
		}))
		b.exec(t, `UPDATE stores SET status = 'deleting' WHERE id = $1`, s.ID)
		wantCode(t, b.Rotate(t.Context(), p, s.ID, c), stoa.StoreSuspended)

		managed, m := b.store(t)
		_, err = b.Connect(t.Context(), managed, m.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		b.exec(t, `UPDATE stores SET status = 'active' WHERE id = $1`, m.ID)
		wantCode(t, b.Rotate(t.Context(), managed, m.ID, c), stoa.InvalidRequest)
	})
}

// TestRotateAtOnce checks that each of several concurrent rotations is verified, and that
// the stored credentials are exactly those of one of them.
func TestRotateAtOnce(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s, c := b.opened(t, engine)
		both := []credential.Credentials{c, tenantdbtest.Successor(t, c)}
		stop := b.shoppers(t, s)
		_, errs := atOnce(6, func(i int) (struct{}, error) {
			return struct{}{}, b.Rotate(t.Context(), p, s.ID, both[i%2])
		})
		stop()
		for _, err := range errs {
			testkit.Must(t, err)
		}
		saved, err := b.tenants.Load(t.Context(), b.db, s.ID)
		testkit.Must(t, err)
		if !slices.Contains(both, saved) {
			t.Fatalf("saved %+v", saved)
		}
		lease, err := b.tenants.Acquire(t.Context(), s.ID)
		testkit.Must(t, err)
		defer lease.Release()
		query := `SELECT current_user`
		if engine == credential.MySQL {
			query = `SELECT substring_index(current_user(), '@', 1)`
		}
		var user string
		testkit.Must(t, lease.Get(t.Context(), &user, query))
		if user != saved.User {
			t.Errorf("connected as %s, saved is %s", user, saved.User)
		}
		if info := b.info(t, s.ID); info.Status != tenantdb.StatusOK || info.SchemaVersion != s.Database.SchemaVersion {
			t.Errorf("the registry has %+v", info)
		}
	})
}

// TestRotateAfterRevocation revokes the credentials while Stoa uses them. It checks that
// shoppers are refused, that the owner sees the cause, and that new credentials make the
// store available at once: the circuit breaker's state is about the old ones.
func TestRotateAfterRevocation(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s, c := b.opened(t, engine)
		_, err := b.visit(t.Context(), s)
		testkit.Must(t, err)
		c = tenantdbtest.Revoke(t, c)
		testkit.Eventually(t, testkit.Timeout, "the breaker opens", func() bool {
			_, err := b.visit(t.Context(), s)
			if err != nil {
				wantCode(t, err, stoa.TenantUnavailable)
			}
			return b.tenants.Refusing(s.ID) != nil
		})
		shown, err := b.registry.Get(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if d := shown.Database; shown.Profile != nil || d.Status != tenantdb.StatusFailed || d.LastError != stoa.DatabaseAuthFailed {
			t.Errorf("the owner sees %+v", d)
		}
		testkit.Must(t, b.Rotate(t.Context(), p, s.ID, c))
		_, err = b.visit(t.Context(), s)
		testkit.Must(t, err)
		shown, err = b.registry.Get(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if d := shown.Database; shown.Profile == nil || d.Status != tenantdb.StatusOK || d.LastError != "" {
			t.Errorf("the owner sees %+v", d)
		}
	})
}
