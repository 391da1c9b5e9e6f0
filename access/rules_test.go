package access_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// scopes repeats which scope each action requires. No key may do other actions.
var scopes = map[access.Action]access.Scope{
	access.ReadStore: "store:read", access.UpdateStore: "store:write", access.ManageHostnames: "hostnames:write",
	access.ConnectDatabase: "database:write", access.TestDatabase: "database:write", access.RotateCredentials: "database:write",
	access.ReadCredits: "credits:read", access.SpendCredits: "credits:spend", access.PurchaseCredits: "credits:purchase",
	access.ReadMembers: "members:read", access.ReadAudit: "audit:read",
}

func keyOf(p access.Principal, store stoa.StoreID, scopes ...string) access.Principal {
	return access.Principal{UserID: p.UserID, Key: access.Key{ID: stoa.NewID[stoa.KeyID](), StoreID: store, Scopes: strings.Join(scopes, " ")}}
}

// TestKeys: a key may do what its scopes, its creator's role and its store all
// allow.
func TestKeys(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner := w.user()
		own, other := w.store(owner), w.store(owner)
		viewer := w.member(own, access.Viewer)
		for _, action := range actions {
			for _, scope := range append([]access.Scope{""}, access.Scopes()...) {
				_, err := access.Check(w.Context(), w.db, keyOf(owner, own, string(scope)), own, action)
				want := stoa.Code("")
				if scope == "" || scopes[action] != scope {
					want = stoa.Forbidden
				}
				if got := stoa.CodeOf(err); got != want {
					w.Errorf("a key with %q, %s: %v, want %q", scope, action, err, want)
				}
			}
			all := make([]string, 0, len(access.Scopes()))
			for _, s := range access.Scopes() {
				all = append(all, string(s))
			}
			if _, err := access.Check(w.Context(), w.db, keyOf(owner, own, all...), other, action); err == nil || err.Error() != access.ErrStoreNotFound().Error() {
				w.Errorf("%s in its maker's other store: %v, want as if there were none", action, err)
			}
			_, err := access.Check(w.Context(), w.db, keyOf(viewer, own, all...), own, action)
			if may := access.Viewer.Can(action) && scopes[action] != ""; may != (err == nil) {
				w.Errorf("a viewer's key, %s: %v", action, err)
			}
			if _, err := access.Check(w.Context(), w.db, keyOf(w.user(), own, all...), own, action); err == nil {
				w.Errorf("the key of somebody who is no member, %s: no error", action)
			}
		}
	})
}

func (w fixture) operator() access.Principal {
	w.Helper()
	p := w.user()
	w.tx(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.Context(), `UPDATE users SET role = 'admin' WHERE id = $1`, p.UserID)
		return err
	})
	return p
}

func (w fixture) countEntries(action string) (n int) {
	w.Helper()
	if err := w.db.Get(w.Context(), &n, `SELECT count(*) FROM audit_events WHERE action = $1`, action); err != nil {
		w.Fatal(err)
	}
	return n
}

// TestOperator: an operator may access every store, and each access is recorded;
// not with a key, not while impersonating, and not to spend credits.
func TestOperator(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		op, deleted := w.operator(), w.store(w.user())
		store := w.store(w.user())
		w.setStatus(deleted, "deleted")
		barred := []access.Action{access.SpendCredits, access.PurchaseCredits, access.ManageKeys}
		written := 0
		for _, action := range actions {
			role, err := access.Check(w.Context(), w.db, op, store, action)
			if slices.Contains(barred, action) {
				if stoa.CodeOf(err) != stoa.Forbidden {
					w.Errorf("%s: %q, %v, want forbidden", action, role, err)
				}
				continue
			}
			written++
			if role != access.Operator || err != nil || w.countEntries(access.OperatorActed) != written {
				w.Errorf("%s: %q, %v, %d entries, want %d", action, role, err, w.countEntries(access.OperatorActed), written)
			}
			if _, err := access.Check(w.Context(), w.db, op, deleted, action); stoa.CodeOf(err) != stoa.StoreNotFound {
				w.Errorf("%s in a deleted store: %v", action, err)
			}
			acting := op
			acting.Impersonator = stoa.NewID[stoa.UserID]()
			for name, p := range map[string]access.Principal{"a key": keyOf(op, store, string(scopes[action])), "an impersonated one": acting} {
				if _, err := access.Check(w.Context(), w.db, p, store, action); err == nil {
					w.Errorf("%s of an operator, %s: no error", name, action)
				}
			}
		}
	})
}

// TestOperatorIsRecordedOncePerRequest: a request with many checks, such as a
// stream, adds one entry.
func TestOperatorIsRecordedOncePerRequest(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		op, store := w.operator(), w.store(w.user())
		op.Origin = access.Origin{Address: "192.0.2.9", RequestID: "r1"}
		look := func(q masterdb.Handle, a access.Action) {
			w.Helper()
			if _, err := access.Check(w.Context(), q, op, store, a); err != nil {
				w.Fatal(err)
			}
		}
		look(w.db, access.ReadStore)
		w.tx(func(tx *masterdb.Tx) error {
			look(tx, access.ReadStore)
			look(tx, access.ReadCredits)
			look(tx, access.ReadCredits)
			return nil
		})
		if n := w.countEntries(access.OperatorActed); n != 2 {
			w.Errorf("%d entries, want 2: two actions in one request", n)
		}
		op.Origin.RequestID = "r2"
		look(w.db, access.ReadStore)
		if n := w.countEntries(access.OperatorActed); n != 3 {
			w.Errorf("%d entries after another request, want 3", n)
		}
		if err := access.CheckOperator(w.Context(), w.db, op, access.ReadStore); err != nil || w.countEntries(access.OperatorActed) != 4 {
			w.Errorf("all stores: %v, %d entries", err, w.countEntries(access.OperatorActed))
		}
		for name, p := range map[string]access.Principal{"an owner": w.user(), "nobody": {}, "a key": keyOf(op, store)} {
			if err := access.CheckOperator(w.Context(), w.db, p, access.ReadStore); stoa.CodeOf(err) != stoa.Forbidden {
				w.Errorf("%s: %v, want forbidden", name, err)
			}
		}
	})
}

// TestMarkdown: each action has a row with the marks of the table.
func TestMarkdown(t *testing.T) {
	t.Parallel()
	table := access.Markdown()
	if got := strings.Count(table, "\n"); got != len(access.Rules())+2 || len(access.Rules()) != len(actions) {
		t.Errorf("%d lines for %d actions", got, len(actions))
	}
	if want := "| Delete and restore the store | ✓ | | | | ✓ | | – |\n"; !strings.Contains(table, want) {
		t.Errorf("no %q in\n%s", want, table)
	}
}
