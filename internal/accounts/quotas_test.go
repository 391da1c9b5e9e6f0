package accounts

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/stores"
)

// TestStoreQuotasAreExact checks that of fifty concurrent calls for one store exactly
// as many succeed as the quota allows, and that a revocation frees its part of the
// quota.
func TestStoreQuotasAreExact(t *testing.T) {
	t.Parallel()
	const limit = 7
	for name, c := range map[string]struct {
		create func(b storeFixture, i int) error
		free   string
	}{
		quotas.APIKeys: {func(b storeFixture, i int) error {
			_, _, err := b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: fmt.Sprint(i), Scopes: []string{"store:read"}})
			return err
		}, `UPDATE api_keys SET revoked_at = $1`},
		quotas.Invitations: {func(b storeFixture, i int) error {
			_, err := b.Invite(b.Context(), b.owner, b.store, fmt.Sprintf("guest%d@example.com", i), authz.Member)
			return err
		}, `UPDATE invitations SET revoked_at = $1`},
	} {
		t.Run(name, func(t *testing.T) {
			eachStoreFixture(t, func(b storeFixture) {
				b.opts.Quotas = quotas.Limits{APIKeys: limit, Invitations: limit}
				created := 0
				// Forty is less than the invitations that a store may send in a day.
				for _, err := range concurrently(40, func(i int) error { return c.create(b, i) }) {
					if err == nil {
						created++
						continue
					}
					var e *stoa.Error
					if !errors.As(err, &e) || e.Code != stoa.QuotaExceeded || *e.Quota != (stoa.Quota{Name: name, Limit: limit, Used: limit}) {
						b.Errorf("%v", err)
					}
				}
				if created != limit {
					b.Errorf("%d were created, want %d", created, limit)
				}
				exec(b.T, b.db, c.free, time.Now().UTC())
				if err := c.create(b, 100); err != nil {
					b.Errorf("after the others were taken back: %v", err)
				}
			})
		})
	}
}

// TestMembersAreBounded checks that members and open invitations count together, exactly
// under concurrent calls, and that nobody joins a store that has more members than a lowered
// limit allows. The invitation stays open then.
func TestMembersAreBounded(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		const limit = 6
		b.opts.Quotas = quotas.Limits{Members: limit}
		guest := b.person("guest@example.com")
		token := b.invite(authz.Member) // with the owner that is two
		full := func(err error, limit, used int) {
			b.Helper()
			var e *stoa.Error
			if !errors.As(err, &e) || e.Code != stoa.QuotaExceeded || *e.Quota != (stoa.Quota{Name: quotas.Members, Limit: limit, Used: used}) {
				b.Errorf("%v", err)
			}
		}
		invited := 0
		for _, err := range concurrently(15, func(i int) error {
			_, err := b.Invite(b.Context(), b.owner, b.store, fmt.Sprintf("guest%d@example.com", i), authz.Member)
			return err
		}) {
			if err == nil {
				invited++
			} else {
				full(err, limit, limit)
			}
		}
		if invited != limit-2 {
			b.Errorf("%d were invited, want %d", invited, limit-2)
		}
		b.opts.Quotas.Members = 1
		_, err := b.AcceptInvitation(b.Context(), guest, token)
		full(err, 1, 1)
		b.opts.Quotas.Members = limit
		if _, err := b.AcceptInvitation(b.Context(), guest, token); err != nil || b.roleOf(guest) != authz.Member {
			b.Errorf("an invited person has no room: %v", err)
		}
		_, err = b.Invite(b.Context(), b.owner, b.store, "another@example.com", authz.Member)
		full(err, limit, limit)
	})
}

// TestSessionsAreBounded checks that repeated sign-ins leave a bounded number of rows.
// Revoked sessions are deleted first, then those used least recently.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		first := register(t, a)
		user := first.User.ID
		now := time.Now().UTC().Truncate(time.Microsecond)
		if err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			for i := range maxSessions {
				var ended *time.Time
				if i < 10 {
					ended = &now
				}
				_, err := tx.Exec(t.Context(), `INSERT INTO sessions (id, user_id, user_agent, created_at, last_used_at, expires_at, revoked_at)
					VALUES ($1, $2, $3, $4, $5, $6, $7)`, stoa.NewID[stoa.SessionID](), user, fmt.Sprintf("row %d", i), now,
					now.Add(-time.Duration(i)*time.Minute), now.Add(time.Hour), ended)
				if err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		r := registration()
		session, err := a.Login(t.Context(), r.Email, r.Password, r.Client)
		if err != nil {
			t.Fatal(err)
		}
		wantRows(t, db, map[string]int{"sessions": maxSessions})
		for _, token := range []keyring.Secret{first.AccessToken, session.AccessToken} {
			if _, err := a.Authenticate(t.Context(), token.Reveal()); err != nil {
				t.Errorf("a session in use has ended: %v", err)
			}
		}
		var left int
		if err := db.Get(t.Context(), &left, `SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL`); err != nil || left != 8 {
			t.Errorf("%d ended sessions are left (%v), want 8 of 10", left, err)
		}
	})
}

// TestSetQuotas checks the operator's limits for one user. A limit of 0 is no limit,
// and an operator has no limits.
func TestSetQuotas(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		user := register(t, a).User
		limits := quotas.Limits{Stores: quotas.PerUser{Unverified: 1, Verified: 2}, ManagedDatabases: quotas.PerUser{Unverified: 3, Verified: 4}, StoresPerHour: 5}
		check := func(what string, stores, managed, hourly int) {
			t.Helper()
			err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				u, err := quotas.LockUser(t.Context(), tx, user.ID)
				if got := [3]int{limits.StoreLimit(u), limits.ManagedDatabaseLimit(u), limits.HourlyStoreLimit(u)}; got != [3]int{stores, managed, hourly} {
					t.Errorf("%s: %v", what, got)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		set := func(q UserQuotas) {
			t.Helper()
			if _, err := SetQuotas(t.Context(), db, authz.Principal{}, user.Email, q); err != nil {
				t.Fatal(err)
			}
		}
		check("unverified", 1, 3, 5)
		set(UserQuotas{Stores: new(50)})
		check("more stores", 50, 3, 5)
		exec(t, db, `UPDATE users SET email_verified = $1`, true)
		check("verified", 50, 4, 5)
		set(UserQuotas{ManagedDatabases: new(0)})
		check("no limit on databases", 2, 0, 5)
		exec(t, db, `UPDATE users SET role = $1`, "admin")
		check("operator", 0, 0, 0)
		wantAudited(t, db, audit.QuotasSet, audit.Success, 2)
		_, err := SetQuotas(t.Context(), db, authz.Principal{}, "nobody@example.com", UserQuotas{})
		wantCode(t, err, stoa.NotFound)
		err = db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := quotas.LockUser(t.Context(), tx, stoa.NewID[stoa.UserID]())
			return err
		})
		wantCode(t, err, stoa.SessionRevoked)
	})
}

// TestLockCreator checks that a store's creator is found, also after they have deleted their
// account: the store may belong to others by then.
func TestLockCreator(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		creator := register(t, a).User
		store, err := a.stores.Create(t.Context(), authz.Principal{UserID: creator.ID}, stores.NewStore{Name: "A store"})
		if err != nil {
			t.Fatal(err)
		}
		lock := func(id stoa.StoreID) (u quotas.User, n int, err error) {
			err = db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				u, err = quotas.LockCreator(t.Context(), tx, id, masterdb.One(&n, `SELECT count(*) FROM stores`))
				return err
			})
			return u, n, err
		}
		for _, statement := range []string{`UPDATE users SET updated_at = updated_at WHERE email <> $1`, `UPDATE users SET deleted_at = created_at WHERE email <> $1`} {
			exec(t, db, statement, "")
			if u, n, err := lock(store.ID); err != nil || u.ID != creator.ID || n != 1 {
				t.Errorf("%s: %v, %d stores, %v", statement, u.ID, n, err)
			}
		}
		_, _, err = lock(stoa.NewID[stoa.StoreID]())
		wantCode(t, err, stoa.StoreNotFound)
	})
}
