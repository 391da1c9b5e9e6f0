package fleet_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/testkit"
)

// newStores inserts n active stores without databases.
func (b fixture) newStores(t *testing.T, n int) (ids []stoa.StoreID) {
	t.Helper()
	for range n {
		id := stoa.NewID[stoa.StoreID]()
		ids = append(ids, id)
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
				VALUES ($1, $2, 'A', 'active', $3, $4, $4)`, id, id.String(), b.owner.UserID, tx.Now)
			return err
		}))
	}
	return ids
}

// TestBulkSuspendAndResume suspends the stores of a filter and of a list, and opens them
// again: each once, those that cannot be changed are named, and a second execution changes
// nothing.
func TestBulkSuspendAndResume(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		service := fleet.New(db, b.old, slog.New(slog.DiscardHandler), fleet.Options{})
		bulk := fleet.NewBulk(service, b.registry, b.queue)
		jobs.Handle(b.queue, fleet.Timeout, bulk.Run)
		ids := b.newStores(t, 60)
		b.exec(t, `UPDATE users SET role = 'admin' WHERE id = $1`, b.owner.UserID)
		op := b.owner
		run := func(kind fleet.BulkKind, sel fleet.Selection) fleet.BulkAction {
			a, err := bulk.Begin(t.Context(), op, kind, sel)
			testkit.Must(t, err)
			for range 2 {
				testkit.Must(t, bulk.Run(t.Context(), fleet.RunBulk{ID: a.ID}))
			}
			a, err = bulk.Get(t.Context(), op, a.ID)
			testkit.Must(t, err)
			return a
		}
		b.exec(t, `UPDATE stores SET status = 'pending_database' WHERE id = $1`, ids[1])
		a := run(fleet.BulkSuspend, fleet.Selection{Stores: []stoa.StoreID{ids[0], ids[1], ids[0]}})
		if a.State != fleet.BulkFinished || a.Done != 1 || a.Failed != 1 || len(a.Failures) != 1 || a.Failures[0].Store != ids[1] || *a.Total != 2 {
			t.Errorf("a list of two stores: %+v", a)
		}
		a = run(fleet.BulkSuspend, fleet.Selection{Filter: &stores.ListFilter{Status: stores.Active}})
		if a.State != fleet.BulkFinished || a.Done != 58 || a.Failed != 0 || a.FinishedAt == nil {
			t.Errorf("all active stores: %+v", a)
		}
		if n := b.suspended(t); n != 59 {
			t.Errorf("%d stores are suspended, want 59", n)
		}
		b.exec(t, `UPDATE stores SET held = false WHERE id = $1`, ids[2]) // as its owner suspends it
		a = run(fleet.BulkResume, fleet.Selection{Stores: []stoa.StoreID{ids[1], ids[2], ids[3]}})
		if a.State != fleet.BulkFinished || a.Done != 2 || a.Failed != 1 {
			t.Errorf("two suspended stores and one without a database are resumed: %+v", a)
		}
		a = run(fleet.BulkResume, fleet.Selection{Filter: &stores.ListFilter{Status: stores.Suspended}})
		if n := b.suspended(t); n != 0 || a.Done != 57 {
			t.Errorf("%d stores are still suspended: %+v", n, a)
		}
	})
}

func (b fixture) suspended(t *testing.T) (n int) {
	t.Helper()
	testkit.Must(t, b.db.Get(context.Background(), &n, `SELECT count(*) FROM stores WHERE status = 'suspended' AND held`))
	return n
}

// TestBulkRefuses checks the selection and the permission, also of an operator who is
// none any more when the job runs.
func TestBulkRefuses(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		bulk := fleet.NewBulk(fleet.New(db, b.old, slog.New(slog.DiscardHandler), fleet.Options{}), b.registry, b.queue)
		jobs.Handle(b.queue, fleet.Timeout, bulk.Run)
		one := fleet.Selection{Stores: b.newStores(t, 1)}
		if _, err := bulk.Begin(t.Context(), b.owner, fleet.BulkSuspend, one); stoa.CodeOf(err) != stoa.Forbidden {
			t.Errorf("an owner begins: %v, want forbidden", err)
		}
		b.exec(t, `UPDATE users SET role = 'admin' WHERE id = $1`, b.owner.UserID)
		for _, sel := range []fleet.Selection{{}, {Filter: &stores.ListFilter{}}, {Filter: &stores.ListFilter{Status: "open"}}, {Stores: make([]stoa.StoreID, 0, 1)}} {
			if _, err := bulk.Begin(t.Context(), b.owner, fleet.BulkSuspend, sel); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%+v: %v, want invalid_request", sel, err)
			}
		}
		a, err := bulk.Begin(t.Context(), b.owner, fleet.BulkSuspend, one)
		testkit.Must(t, err)
		b.exec(t, `UPDATE users SET role = 'user' WHERE id = $1`, b.owner.UserID)
		testkit.Must(t, bulk.Run(t.Context(), fleet.RunBulk{ID: a.ID}))
		if _, err := bulk.Get(t.Context(), b.owner, a.ID); stoa.CodeOf(err) != stoa.Forbidden || b.suspended(t) != 0 {
			t.Errorf("the former operator reads: %v; %d stores were suspended", err, b.suspended(t))
		}
		b.exec(t, `UPDATE users SET role = 'admin' WHERE id = $1`, b.owner.UserID)
		if a, err = bulk.Get(t.Context(), b.owner, a.ID); err != nil || a.State != fleet.BulkFailed || a.Error == "" {
			t.Errorf("the action of a former operator: %+v, %v, want failed", a, err)
		}
	})
}
