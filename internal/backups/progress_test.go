package backups

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestProgress checks that a backup and the steps of a restore record how far they are, and
// that only the owner of the lease does.
func TestProgress(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		if b.Done.OfTables == 0 || b.Done.Tables != b.Done.OfTables || b.Done.Rows == 0 {
			t.Errorf("the backup recorded %+v", b.Done)
		}
		testkit.Must(t, f.queue.Stop(t.Context())) // nobody else executes the restore
		for _, step := range []string{stepCheck, stepLoad} {
			for _, owner := range []lease.Owner{"another", "this"} {
				id := stoa.NewID[stoa.RestoreID]()
				f.exec(t, `DELETE FROM backup_restores WHERE store_id = $1`, s.ID)
				f.exec(t, `INSERT INTO backup_restores (id, store_id, backup_id, source_id, state, step, unsaved, claimed_by, created_at) VALUES ($1, $2, $3, $2, 'running', $4, $5, 'this', $6)`,
					id, s.ID, b.ID, step, true, f.db.Now())
				r, err := readRestore(t.Context(), f.db, `id = $1`, id)
				testkit.Must(t, err)
				r.owner = owner
				testkit.Must(t, restoreSteps[step].do(f.Service, t.Context(), r))
				r, err = readRestore(t.Context(), f.db, `id = $1`, id)
				testkit.Must(t, err)
				recorded := r.RowsDone > 0 && r.RowsDone <= r.RowsTotal && r.RowsTotal == b.RowCount
				if recorded != (owner == "this") {
					t.Errorf("%s by %s: %d of %d rows; the archive has %d", step, owner, r.RowsDone, r.RowsTotal, b.RowCount)
				}
			}
		}
	})
}

// TestCloneByOperator checks that an operator's clone belongs to the owner of the archive's
// store, and that a repeated call goes on with the same store.
func TestCloneByOperator(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		by := authz.CommandLine("backups clone")
		clone := Clone{New: stores.NewStore{Name: "Branch"}, Without: []string{WithoutCustomers}}
		created, r, err := f.CloneByOperator(t.Context(), by, s.ID, b.ID, clone)
		testkit.Must(t, err)
		if r, err = f.FinishClone(t.Context(), r, func(Restore) {}); err != nil || r.State != Succeeded {
			t.Fatalf("%+v: %v", r, err)
		}
		if diff := cmp.Diff([]string{"bread"}, f.products(t, created.ID)); diff != "" {
			t.Errorf("products (-want +got):\n%s", diff)
		}
		if owner, err := authz.OwnerOf(t.Context(), f.db, created.ID); err != nil || owner.UserID != p.UserID {
			t.Errorf("the clone belongs to %v: %v", owner, err)
		}
		again, r2, err := f.CloneByOperator(t.Context(), by, s.ID, b.ID, clone)
		if err != nil || again.ID != created.ID || r2.ID != r.ID {
			t.Errorf("a repeated call made %v, %v: %v", again.ID, r2.ID, err)
		}
		f.exec(t, `UPDATE stores SET status = 'deleting', status_before = 'active', delete_after = $2 WHERE id = $1`, created.ID, f.db.Now())
		_, _, err = f.CloneByOperator(t.Context(), by, s.ID, b.ID, clone)
		wantCode(t, err, stoa.IdempotencyConflict)
		_, _, err = f.CloneByOperator(t.Context(), by, s.ID, stoa.NewID[stoa.BackupID](), Clone{New: stores.NewStore{Name: "None"}})
		wantCode(t, err, stoa.NotFound)
		clone.Without = []string{"everything"}
		_, _, err = f.CloneByOperator(t.Context(), by, s.ID, b.ID, clone)
		wantCode(t, err, stoa.InvalidRequest)
	})
}
