package authz_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

func (w fixture) record(p authz.Principal, e audit.Event) {
	w.Helper()
	w.tx(func(tx *masterdb.Tx) error { return audit.Record(w.Context(), tx, p, e) })
}

func (w fixture) read(p authz.Principal, store stoa.StoreID, f audit.Filter) audit.Page {
	w.Helper()
	page, err := authz.ReadAuditLog(w.Context(), w.db, p, store, f)
	if err != nil {
		w.Fatal(err)
	}
	return page
}

func TestAuditEntry(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner := w.user()
		store := w.store(owner)
		key := keyOf(owner, store, "store:read")
		key.Impersonator = stoa.NewID[stoa.UserID]()
		key.Origin = audit.Origin{Address: "192.0.2.7", RequestID: "r-1"}
		w.record(key, audit.Event{Action: "a.b", Store: store, Outcome: audit.Denied, Details: map[string]string{"note": "\"quoted\"\n"}})
		w.record(authz.Principal{}, audit.Event{Action: "c.d", Store: store})

		got := w.read(owner, store, audit.Filter{}).Entries
		if len(got) != 2 {
			t.Fatalf("%d entries", len(got))
		}
		if e := got[0]; e.UserID != nil || e.Email != nil || e.Action != "c.d" || e.Outcome != audit.Success || e.Details != "{}" {
			w.Errorf("of the platform: %+v", e)
		}
		e := got[1]
		if *e.UserID != owner.UserID || *e.Email == "" || *e.StoreID != store || e.Address != "192.0.2.7" || e.RequestID != "r-1" ||
			e.Outcome != audit.Denied || time.Since(e.CreatedAt) > time.Minute {
			w.Errorf("entry %+v", e)
		}
		var details map[string]string
		if err := json.Unmarshal([]byte(e.Details), &details); err != nil {
			w.Fatal(err)
		}
		want := map[string]string{"note": "\"quoted\"\n", "apiKey": key.Key.ID.String(), "impersonator": key.Impersonator.String()}
		if diff := cmp.Diff(want, details); diff != "" {
			w.Errorf("details (-want +got):\n%s", diff)
		}
	})
}

// TestRollbackLeavesNoEntry checks that the entry of an action is rolled back with it.
func TestRollbackLeavesNoEntry(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		cause := errors.New("undone")
		err := w.db.Tx(w.Context(), func(tx *masterdb.Tx) error {
			return errors.Join(audit.Record(w.Context(), tx, authz.Principal{}, audit.Event{Action: "a.b"}), cause)
		})
		if n := w.countEntries("a.b"); !errors.Is(err, cause) || n != 0 {
			w.Errorf("%v, %d entries", err, n)
		}
	})
}

func TestAuditPagesAndFilters(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner, other := w.user(), w.user()
		store, foreign := w.store(owner), w.store(other)
		for i := range 7 {
			who, outcome := owner, audit.Success
			if i%2 == 1 {
				who, outcome = other, audit.Failed
			}
			w.record(who, audit.Event{Action: fmt.Sprintf("act.%d", i%3), Store: store, Outcome: outcome})
			w.record(who, audit.Event{Action: "act.0", Store: foreign})
		}
		var seen []stoa.EventID
		f := audit.Filter{Limit: 3}
		for {
			page := w.read(owner, store, f)
			for _, e := range page.Entries {
				seen = append(seen, e.ID)
			}
			if page.NextCursor == nil {
				break
			}
			f.Cursor = *page.NextCursor
		}
		all := w.read(owner, store, audit.Filter{Limit: 100}).Entries
		if len(seen) != 7 || len(all) != 7 {
			w.Fatalf("%d entries in pages, %d at once, want 7", len(seen), len(all))
		}
		for i, e := range all {
			if seen[i] != e.ID {
				w.Errorf("entry %d differs between the pages and the whole", i)
			}
		}
		at := all[3].CreatedAt
		for name, c := range map[string]struct {
			f    audit.Filter
			want int
		}{
			"action":  {audit.Filter{Action: "act.0"}, 3},
			"outcome": {audit.Filter{Outcome: "failed"}, 3},
			"user":    {audit.Filter{UserID: owner.UserID}, 4},
			"from":    {audit.Filter{From: &at}, 4},
			"to":      {audit.Filter{To: &at}, 3},
			"none":    {audit.Filter{Action: "x' OR 1=1 --"}, 0},
		} {
			if got := len(w.read(owner, store, c.f).Entries); got != c.want {
				w.Errorf("by %s: %d entries, want %d", name, got, c.want)
			}
		}
		for name, f := range map[string]audit.Filter{"limit": {Limit: 101}, "negative": {Limit: -1}, "cursor": {Cursor: "zzz"}} {
			if _, err := authz.ReadAuditLog(w.Context(), w.db, owner, store, f); stoa.CodeOf(err) != stoa.InvalidRequest {
				w.Errorf("%s: %v, want invalid_request", name, err)
			}
		}
		if _, err := authz.ReadAuditLog(w.Context(), w.db, owner, foreign, audit.Filter{}); stoa.CodeOf(err) != stoa.StoreNotFound {
			w.Errorf("a foreign log: %v", err)
		}
		if _, err := authz.ReadPlatformLog(w.Context(), w.db, owner, audit.Filter{}); stoa.CodeOf(err) != stoa.Forbidden {
			w.Errorf("the platform's log: %v", err)
		}
		page, err := authz.ReadPlatformLog(w.Context(), w.db, w.operator(), audit.Filter{Limit: 100, Action: "act.0"})
		if err != nil || len(page.Entries) != 10 {
			w.Errorf("an operator sees %d entries, %v; want 10 of both stores", len(page.Entries), err)
		}
	})
}

// TestCheckInsideATransaction checks Check within a transaction. On SQLite a check
// through the database would wait for that very transaction, so it is refused quickly.
// A check through the transaction writes its entry in it.
func TestCheckInsideATransaction(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		op, store := w.operator(), w.store(w.user())
		ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
		defer cancel()
		for name, check := range map[string]func(masterdb.Handle) error{
			"Check": func(h masterdb.Handle) error {
				_, err := authz.Check(ctx, h, op, store, authz.ReadStore)
				return err
			},
			"CheckOperator": func(h masterdb.Handle) error { return authz.CheckOperator(ctx, h, op, authz.ReadStore) },
			"ReadAuditLog": func(h masterdb.Handle) error {
				_, err := authz.ReadAuditLog(ctx, h, op, store, audit.Filter{})
				return err
			},
		} {
			before := w.countEntries(audit.OperatorActed)
			err := w.db.Tx(ctx, func(tx *masterdb.Tx) error {
				if err := check(w.db); w.db.Engine == masterdb.SQLite != errors.Is(err, masterdb.ErrBusy) {
					w.Errorf("%s through the database, inside a transaction: %v", name, err)
				}
				return check(tx)
			})
			want := before + 1
			if w.db.Engine == masterdb.Postgres {
				want++ // PostgreSQL has another connection for the first check
			}
			if n := w.countEntries(audit.OperatorActed); err != nil || n != want {
				w.Errorf("%s: %v, %d entries, want %d", name, err, n, want)
			}
		}
	})
}

// TestClientCannotChooseRequestID checks that a proxy's request id neither suppresses
// an entry nor replaces the platform's id.
func TestClientCannotChooseRequestID(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		op, store := w.operator(), w.store(w.user())
		for i := range 5 {
			op.Origin = audit.Origin{RequestID: fmt.Sprintf("own-%d", i), ClientRequestID: "always-the-same"}
			for range 2 {
				if _, err := authz.Check(w.Context(), w.db, op, store, authz.ReadStore); err != nil {
					w.Fatal(err)
				}
			}
		}
		entries := w.read(op, store, audit.Filter{Action: audit.OperatorActed}).Entries
		seen := map[string]bool{}
		for _, e := range entries {
			if e.Details == `{"action":"store:read","clientRequestId":"always-the-same"}` {
				seen[e.RequestID] = true
			}
		}
		if len(seen) != 5 {
			w.Errorf("%d requests are in the log, want 5: %+v", len(seen), entries)
		}
	})
}

// TestCommandIsRecorded checks that each run of a command has its own request id.
func TestCommandIsRecorded(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(w fixture) {
		owner := w.user()
		store := w.store(owner)
		for range 2 {
			by := authz.CommandLine("stores suspend")
			w.record(by, audit.Event{Action: "a.b", Store: store})
			w.record(by, audit.Event{Action: "c.d", Store: store})
		}
		got := w.read(owner, store, audit.Filter{}).Entries
		ids := map[string]int{}
		for _, e := range got {
			ids[e.RequestID]++
			if e.UserID != nil || e.Details != `{"command":"stores suspend"}` {
				w.Errorf("entry %+v", e)
			}
			if _, err := stoa.ParseID[stoa.RequestID](e.RequestID); err != nil {
				w.Errorf("request id %q: %v", e.RequestID, err)
			}
		}
		if len(got) != 4 || len(ids) != 2 {
			w.Errorf("%d entries of %d runs, want 4 of 2", len(got), len(ids))
		}
	})
}
