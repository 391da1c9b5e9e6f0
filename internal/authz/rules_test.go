package authz_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// scopes repeats which scope each action requires. No key may do other actions.
var scopes = map[authz.Action]authz.Scope{
	authz.ReadStore: "store:read", authz.UpdateStore: "store:write", authz.ManageHostnames: "hostnames:write",
	authz.ConnectDatabase: "database:write", authz.TestDatabase: "database:write", authz.RotateCredentials: "database:write",
	authz.ReadCredits: "credits:read", authz.SpendCredits: "credits:spend", authz.PurchaseCredits: "credits:purchase",
	authz.ReadMembers: "members:read", authz.ReadAudit: "audit:read", authz.ReadBackups: "backups:read", authz.MakeBackup: "backups:write",
	authz.ReadEvents: "events:read", authz.ReadWebhooks: "webhooks:read", authz.ManageWebhooks: "webhooks:write",
}

func keyOf(p authz.Principal, store stoa.StoreID, scopes ...string) authz.Principal {
	return authz.Principal{UserID: p.UserID, Key: authz.Key{ID: stoa.NewID[stoa.KeyID](), StoreID: store, Scopes: strings.Join(scopes, " ")}}
}

// TestKeys checks that a key may do only what its scopes, its creator's role and its
// store all allow.
func TestKeys(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner := w.user()
		own, other := w.store(owner), w.store(owner)
		viewer := w.member(own, authz.Viewer)
		for _, action := range actions {
			for _, scope := range append([]authz.Scope{""}, authz.Scopes()...) {
				_, err := authz.Check(w.Context(), w.db, keyOf(owner, own, string(scope)), own, action)
				want := stoa.Code("")
				if scope == "" || scopes[action] != scope {
					want = stoa.Forbidden
				}
				if got := stoa.CodeOf(err); got != want {
					w.Errorf("a key with %q, %s: %v, want %q", scope, action, err, want)
				}
			}
			all := make([]string, 0, len(authz.Scopes()))
			for _, s := range authz.Scopes() {
				all = append(all, string(s))
			}
			if _, err := authz.Check(w.Context(), w.db, keyOf(owner, own, all...), other, action); err == nil || err.Error() != authz.ErrStoreNotFound().Error() {
				w.Errorf("%s in its maker's other store: %v, want as if there were none", action, err)
			}
			_, err := authz.Check(w.Context(), w.db, keyOf(viewer, own, all...), own, action)
			if may := authz.Viewer.Can(action) && scopes[action] != ""; may != (err == nil) {
				w.Errorf("a viewer's key, %s: %v", action, err)
			}
			if _, err := authz.Check(w.Context(), w.db, keyOf(w.user(), own, all...), own, action); err == nil {
				w.Errorf("the key of somebody who is no member, %s: no error", action)
			}
		}
	})
}

func (w fixture) operator() authz.Principal {
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

// TestOperator checks that an operator may access every store and that each access is
// recorded. The access does not apply to an API key, during an impersonation, or for
// spending credits.
func TestOperator(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		op, deleted := w.operator(), w.store(w.user())
		store := w.store(w.user())
		w.setStatus(deleted, "deleted")
		barred := []authz.Action{authz.ReadCredentials, authz.ResetPassword, authz.MoveDatabase, authz.DownloadBackup, authz.SpendCredits, authz.PurchaseCredits, authz.ManageKeys, authz.ManageWebhooks}
		written := 0
		for _, action := range actions {
			role, err := authz.Check(w.Context(), w.db, op, store, action)
			if slices.Contains(barred, action) {
				if stoa.CodeOf(err) != stoa.Forbidden {
					w.Errorf("%s: %q, %v, want forbidden", action, role, err)
				}
				continue
			}
			written++
			if role != authz.Operator || err != nil || w.countEntries(audit.OperatorActed) != written {
				w.Errorf("%s: %q, %v, %d entries, want %d", action, role, err, w.countEntries(audit.OperatorActed), written)
			}
			if _, err := authz.Check(w.Context(), w.db, op, deleted, action); stoa.CodeOf(err) != stoa.StoreNotFound {
				w.Errorf("%s in a deleted store: %v", action, err)
			}
			acting := op
			acting.Impersonator = stoa.NewID[stoa.UserID]()
			for name, p := range map[string]authz.Principal{"a key": keyOf(op, store, string(scopes[action])), "an impersonated one": acting} {
				if _, err := authz.Check(w.Context(), w.db, p, store, action); err == nil {
					w.Errorf("%s of an operator, %s: no error", name, action)
				}
			}
		}
	})
}

// TestOperatorIsRecordedOncePerRequest checks that a request with many checks, such as
// a stream, adds one entry.
func TestOperatorIsRecordedOncePerRequest(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		op, store := w.operator(), w.store(w.user())
		op.Origin = audit.Origin{Address: "192.0.2.9", RequestID: "r1"}
		look := func(q masterdb.Handle, a authz.Action) {
			w.Helper()
			if _, err := authz.Check(w.Context(), q, op, store, a); err != nil {
				w.Fatal(err)
			}
		}
		look(w.db, authz.ReadStore)
		w.tx(func(tx *masterdb.Tx) error {
			look(tx, authz.ReadStore)
			look(tx, authz.ReadCredits)
			look(tx, authz.ReadCredits)
			return nil
		})
		if n := w.countEntries(audit.OperatorActed); n != 2 {
			w.Errorf("%d entries, want 2: two actions in one request", n)
		}
		op.Origin.RequestID = "r2"
		look(w.db, authz.ReadStore)
		if n := w.countEntries(audit.OperatorActed); n != 3 {
			w.Errorf("%d entries after another request, want 3", n)
		}
		if err := authz.CheckOperator(w.Context(), w.db, op, authz.ReadStore); err != nil || w.countEntries(audit.OperatorActed) != 4 {
			w.Errorf("all stores: %v, %d entries", err, w.countEntries(audit.OperatorActed))
		}
		for name, p := range map[string]authz.Principal{"an owner": w.user(), "nobody": {}, "a key": keyOf(op, store)} {
			if err := authz.CheckOperator(w.Context(), w.db, p, authz.ReadStore); stoa.CodeOf(err) != stoa.Forbidden {
				w.Errorf("%s: %v, want forbidden", name, err)
			}
		}
	})
}

// TestMarkdown checks that each action has a row with the marks of the table.
func TestMarkdown(t *testing.T) {
	t.Parallel()
	table := authz.Markdown()
	if got := strings.Count(table, "\n"); got != len(authz.Rules())+2 || len(authz.Rules()) != len(actions) {
		t.Errorf("%d lines for %d actions", got, len(actions))
	}
	if want := "| Delete and restore the store | ✓ | | | | ✓ | | – |\n"; !strings.Contains(table, want) {
		t.Errorf("no %q in\n%s", want, table)
	}
}
