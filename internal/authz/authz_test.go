package authz_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

var (
	roles   = []authz.Role{authz.Owner, authz.Admin, authz.Member, authz.Viewer}
	actions = []authz.Action{
		authz.ReadStore, authz.UpdateStore, authz.ManageHostnames, authz.ConnectDatabase, authz.TestDatabase, authz.RotateCredentials,
		authz.ReadCredentials, authz.ResetPassword, authz.MoveDatabase, authz.ReadBackups, authz.MakeBackup, authz.ManageBackups, authz.DownloadBackup, authz.RestoreBackup,
		authz.SuspendStore, authz.DeleteStore, authz.ReadCredits, authz.SpendCredits, authz.PurchaseCredits,
		authz.ReadMembers, authz.ManageMembers, authz.ManageOwners, authz.ManageKeys, authz.ReadAudit, authz.ReadEvents, authz.ReadWebhooks, authz.ManageWebhooks,
	}
)

// TestRoles repeats the table of permissions, so that a change of them is deliberate.
func TestRoles(t *testing.T) {
	t.Parallel()
	want := map[authz.Role][]authz.Action{
		authz.Owner: actions,
		authz.Admin: slices.DeleteFunc(slices.Clone(actions), func(a authz.Action) bool {
			return a == authz.DeleteStore || a == authz.ManageOwners || a == authz.ReadCredentials || a == authz.ResetPassword || a == authz.MoveDatabase ||
				a == authz.ManageBackups || a == authz.DownloadBackup || a == authz.RestoreBackup
		}),
		authz.Member: {authz.ReadStore, authz.UpdateStore, authz.ReadCredits, authz.SpendCredits, authz.ReadMembers},
		authz.Viewer: {authz.ReadStore, authz.ReadCredits, authz.ReadMembers},
		authz.Operator: slices.DeleteFunc(slices.Clone(actions), func(a authz.Action) bool {
			return a == authz.SpendCredits || a == authz.PurchaseCredits || a == authz.ManageKeys || a == authz.ReadCredentials || a == authz.ResetPassword || a == authz.MoveDatabase || a == authz.DownloadBackup ||
				a == authz.ManageWebhooks
		}),
		"":         nil,
		"nonsense": nil,
	}
	for role, may := range want {
		for _, action := range append([]authz.Action{"", "nonsense"}, actions...) {
			if got := role.Can(action); got != slices.Contains(may, action) {
				t.Errorf("%q.Can(%q) = %t", role, action, got)
			}
		}
	}
}

// fixture is a master database with stores and users.
type fixture struct {
	*testing.T
	db *masterdb.DB
}

func (w fixture) tx(fn func(*masterdb.Tx) error) {
	w.Helper()
	if err := w.db.Tx(w.Context(), fn); err != nil {
		w.Fatal(err)
	}
}

func (w fixture) user() authz.Principal {
	w.Helper()
	id := stoa.NewID[stoa.UserID]()
	w.tx(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.Context(), `
			INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, id, id.String()+"@example.com", tx.Now)
		return err
	})
	return authz.Principal{UserID: id, SessionID: stoa.NewID[stoa.SessionID]()}
}

func (w fixture) store(owner authz.Principal) stoa.StoreID {
	w.Helper()
	id := stoa.NewID[stoa.StoreID]()
	w.tx(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.Context(), `
			INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'A store', 'active', $3, $4, $4)`, id, id.String(), owner.UserID, tx.Now)
		if err != nil {
			return err
		}
		return authz.Grant(w.Context(), tx, id, owner.UserID, authz.Owner)
	})
	return id
}

func (w fixture) member(store stoa.StoreID, role authz.Role) authz.Principal {
	w.Helper()
	p := w.user()
	w.tx(func(tx *masterdb.Tx) error { return authz.Grant(w.Context(), tx, store, p.UserID, role) })
	return p
}

func (w fixture) setStatus(store stoa.StoreID, status string) {
	w.Helper()
	w.tx(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.Context(), `UPDATE stores SET status = $1 WHERE id = $2`, status, store)
		return err
	})
}

// eachEngine runs test on every engine.
func eachEngine(t *testing.T, test func(fixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) { test(fixture{t, db}) })
}

func TestCheck(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		store := w.store(w.user())
		for _, role := range roles {
			p := w.member(store, role)
			for _, action := range actions {
				got, err := authz.Check(w.Context(), w.db, p, store, action)
				switch {
				case role.Can(action):
					if err != nil || got != role {
						w.Errorf("%s, %s: %q, %v, want the role", role, action, got, err)
					}
				case stoa.CodeOf(err) != stoa.Forbidden || got != "":
					w.Errorf("%s, %s: %q, %v, want forbidden and no role", role, action, got, err)
				}
			}
		}
	})
}

// TestMaySQL checks that the condition agrees with Check.
func TestMaySQL(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		own, deleted := w.store(w.user()), w.store(w.user())
		people := []authz.Principal{w.user(), {}}
		for _, role := range roles {
			people = append(people, w.member(own, role))
		}
		w.tx(func(tx *masterdb.Tx) error {
			return authz.Grant(w.Context(), tx, deleted, people[2].UserID, authz.Owner)
		})
		w.setStatus(deleted, "deleted")
		for _, store := range []stoa.StoreID{own, deleted, {}} {
			for _, p := range people {
				for _, action := range actions {
					_, err := authz.Check(w.Context(), w.db, p, store, action)
					var may bool
					if err := w.db.Get(w.Context(), &may, `SELECT `+authz.MaySQL(action, "$1", "$2"), store, p.UserID); err != nil {
						w.Fatal(err)
					}
					if may != (err == nil) {
						w.Errorf("%s in %s, %s: %t, but Check says %v", p.UserID, store, action, may, err)
					}
				}
			}
		}
	})
}

// TestCheckHidesOtherStores checks that the error does not reveal which stores exist.
func TestCheckHidesOtherStores(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner := w.user()
		own, foreign, deleted := w.store(owner), w.store(w.user()), w.store(owner)
		w.setStatus(deleted, "deleted")
		for name, c := range map[string]struct {
			who   authz.Principal
			store stoa.StoreID
		}{
			"a store that does not exist": {owner, stoa.NewID[stoa.StoreID]()},
			"the zero id":                 {owner, stoa.StoreID{}},
			"somebody else's store":       {owner, foreign},
			"a deleted store":             {owner, deleted},
			"nobody":                      {authz.Principal{}, own},
			"a user who does not exist":   {authz.Principal{UserID: stoa.NewID[stoa.UserID]()}, own},
		} {
			for _, action := range actions {
				role, err := authz.Check(w.Context(), w.db, c.who, c.store, action)
				if diff := cmp.Diff(authz.ErrStoreNotFound(), err); diff != "" || role != "" {
					w.Errorf("%s, %s: role %q, (-want +got):\n%s", name, action, role, diff)
				}
			}
		}
		for _, status := range []string{"pending_database", "provisioning", "suspended", "deleting"} {
			w.setStatus(own, status)
			if role, err := authz.Check(w.Context(), w.db, owner, own, authz.ReadStore); role != authz.Owner || err != nil {
				w.Errorf("the owner of a store that is %s: %q, %v", status, role, err)
			}
		}
	})
}

// TestCheckInTx checks that a role granted or withdrawn in the transaction takes effect
// in it.
func TestCheckInTx(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		store, p := w.store(w.user()), w.user()
		w.tx(func(tx *masterdb.Tx) error {
			if err := authz.Grant(w.Context(), tx, store, p.UserID, authz.Viewer); err != nil {
				return err
			}
			role, err := authz.Check(w.Context(), tx, p, store, authz.ReadStore)
			if role != authz.Viewer {
				w.Errorf("the new member is %q", role)
			}
			return err
		})
	})
}

// TestCheckWith checks that a missing right is the error, whatever the queries have found, and
// that a query without a row is told to a caller who has the right.
func TestCheckWith(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner, stranger := w.user(), w.user()
		store := w.store(owner)
		check := func(p authz.Principal, store stoa.StoreID, slug string) (role authz.Role, found string, err error) {
			role, err = authz.CheckWith(w.Context(), w.db, p, store, authz.ReadStore,
				masterdb.One(&found, `SELECT status FROM stores WHERE CAST(id AS text) = $1`, slug))
			return role, found, err
		}
		if role, found, err := check(owner, store, store.String()); err != nil || role != authz.Owner || found == "" {
			w.Errorf("of the owner: %q, %q, %v", role, found, err)
		}
		if role, _, err := check(owner, store, "none"); !errors.Is(err, masterdb.ErrNotFound) || role != authz.Owner {
			w.Errorf("of the owner, without a row: %q, %v", role, err)
		}
		for what, id := range map[string]stoa.StoreID{"another's store": store, "no store": stoa.NewID[stoa.StoreID]()} {
			for _, row := range []string{store.String(), "none"} {
				if role, _, err := check(stranger, id, row); stoa.CodeOf(err) != stoa.StoreNotFound || role != "" {
					w.Errorf("%s: %q, %v", what, role, err)
				}
			}
		}
	})
}

func TestGrantOnce(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		store := w.store(w.user())
		p := w.member(store, authz.Viewer)
		grant := func(role authz.Role) error {
			return w.db.Tx(w.Context(), func(tx *masterdb.Tx) error {
				return authz.Grant(w.Context(), tx, store, p.UserID, role)
			})
		}
		if err := grant(authz.Owner); !masterdb.IsUnique(err) {
			w.Errorf("a second membership: %v, want a unique violation", err)
		}
		p = w.user()
		if err := grant("nonsense"); !masterdb.IsCheck(err) {
			w.Errorf("an unknown role: %v, want a check violation", err)
		}
	})
}

func TestMemberships(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		p := w.user()
		first, deleted := w.store(p), w.store(p)
		second := w.store(w.user())
		w.tx(func(tx *masterdb.Tx) error { return authz.Grant(w.Context(), tx, second, p.UserID, authz.Viewer) })
		w.setStatus(deleted, "deleted")
		w.store(w.user()) // not p's

		got, err := authz.Memberships(w.Context(), w.db, p.UserID)
		if err != nil {
			w.Fatal(err)
		}
		for i := range got {
			if age := time.Since(got[i].Since); age < 0 || age > time.Minute {
				w.Errorf("member since %v", got[i].Since)
			}
			got[i].Since = time.Time{}
		}
		want := []authz.Membership{{StoreID: second, Role: authz.Viewer}, {StoreID: first, Role: authz.Owner}}
		if diff := cmp.Diff(want, got); diff != "" {
			w.Errorf("newest first, without the deleted one (-want +got):\n%s", diff)
		}
		if none, err := authz.Memberships(w.Context(), w.db, w.user().UserID); err != nil || len(none) != 0 {
			w.Errorf("a newcomer has %v, %v, want no store", none, err)
		}
	})
}

func TestOwnerOf(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner := w.user()
		store := w.store(owner)
		w.member(store, authz.Admin)
		w.member(store, authz.Owner)
		if got, err := authz.OwnerOf(w.Context(), w.db, store); err != nil || got.UserID != owner.UserID {
			w.Errorf("OwnerOf = %s, %v, want the first owner %s", got, err, owner.UserID)
		}
		_, err := authz.OwnerOf(w.Context(), w.db, stoa.NewID[stoa.StoreID]())
		if got := stoa.CodeOf(err); err == nil || got != stoa.Internal {
			w.Errorf("OwnerOf a store that does not exist = %v", err)
		}
	})
}

// TestImpersonation checks that an operator who acts as an owner may do what the table
// marks, and nothing that outlasts the impersonation or costs credits.
func TestImpersonation(t *testing.T) {
	t.Parallel()
	lasting := []authz.Action{
		authz.ManageHostnames, authz.ConnectDatabase, authz.RotateCredentials, authz.ReadCredentials, authz.ResetPassword, authz.MoveDatabase, authz.SuspendStore, authz.DeleteStore,
		authz.MakeBackup, authz.ManageBackups, authz.DownloadBackup, authz.RestoreBackup, authz.SpendCredits, authz.PurchaseCredits, authz.ManageMembers, authz.ManageOwners, authz.ManageKeys, authz.ManageWebhooks,
	}
	eachEngine(t, func(w fixture) {
		acting := w.user()
		store := w.store(acting)
		acting.Impersonator = stoa.NewID[stoa.UserID]()
		for _, action := range actions {
			_, err := authz.Check(w.Context(), w.db, acting, store, action)
			if slices.Contains(lasting, action) {
				if stoa.CodeOf(err) != stoa.Forbidden || stoa.CodeOf(acting.Within(store, action)) != stoa.Forbidden {
					w.Errorf("%s: %v, want forbidden", action, err)
				}
			} else if err != nil {
				w.Errorf("%s: %v", action, err)
			}
		}
	})
}
