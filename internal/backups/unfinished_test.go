package backups

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestLostJobsAreResumed checks that a restore, a backup and a deletion whose jobs the queue
// has given up go on.
func TestLostJobsAreResumed(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := setup(t, db, Options{})
		f.start(t)
		p, s := f.store(t, credential.SQLite)
		kept, dropped := f.made(t, p, s.ID), f.made(t, p, s.ID)
		testkit.Must(t, f.queue.Stop(t.Context()))
		testkit.Must(t, f.Delete(t.Context(), p, s.ID, dropped.ID))
		r, err := f.Restore(t.Context(), p, s.ID, kept.ID, RestoreOptions{})
		testkit.Must(t, err)
		b, err := f.Make(t.Context(), p, s.ID)
		testkit.Must(t, err)
		f.exec(t, `DELETE FROM river_job WHERE kind LIKE 'backups.%'`)

		again := f.sharing(t, Options{}).start(t)
		testkit.Must(t, again.RunDue(t.Context(), Due{}))
		if r = again.restored(t, r); r.State != Succeeded {
			t.Errorf("restore %+v, %+v", r, r.Fault)
		}
		if b = again.checked(t, b); b.State != Succeeded {
			t.Errorf("backup %+v, %+v", b, b.Fault)
		}
		testkit.Eventually(t, time.Minute, "the archive is deleted", func() bool {
			_, err := read(t.Context(), db, `b.id = $1`, dropped.ID)
			return stoa.CodeOf(err) == stoa.NotFound
		})
	})
}

// TestRestoreOfADeletedStoreEnds checks that the rows of a store are not put back for ever
// when the store is deleted meanwhile.
func TestRestoreOfADeletedStoreEnds(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		for _, step := range []string{stepSave, stepLoad, stepUndo, stepOpen} {
			f.exec(t, `UPDATE store_databases SET credentials = '' WHERE store_id = $1`, s.ID)
			id := stoa.NewID[stoa.RestoreID]()
			f.exec(t, `INSERT INTO backup_restores (id, store_id, backup_id, source_id, state, step, saved_id, created_at) VALUES ($1, $2, $3, $2, 'running', $4, $3, $5)`,
				id, s.ID, b.ID, step, f.db.Now())
			testkit.Must(t, f.RunDue(t.Context(), Due{}))
			if r := f.restored(t, Restore{ID: id}); r.State != Failed && step != stepOpen {
				t.Errorf("at %s: %+v", step, r)
			}
		}
	})
}

// TestFailedLoadWithoutSavedRows checks that a store stays closed whose database has some
// rows of an archive only, until another restore.
func TestFailedLoadWithoutSavedRows(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		f.within(t, s.ID, func(db *tenantdb.DB) error {
			_, err := db.Exec(t.Context(), `CREATE TRIGGER refuse BEFORE INSERT ON products BEGIN SELECT RAISE(ABORT, 'no bread'); END`)
			return err
		})
		r, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{Unsaved: true})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Failed || r.Step != stepLoad {
			t.Fatalf("restore %+v, %+v", r, r.Fault)
		}
		_, err = f.tenants.Acquire(t.Context(), s.ID)
		wantCode(t, err, stoa.TenantUnavailable)
		c, err := f.tenants.Load(t.Context(), f.db, s.ID)
		testkit.Must(t, err)
		db, err := f.tenants.OpenUnleased(c)
		testkit.Must(t, err)
		_, err = db.Exec(t.Context(), `DROP TRIGGER refuse`)
		testkit.Must(t, err)
		testkit.Must(t, db.Close())
		r, err = f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{Unsaved: true})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Succeeded {
			t.Fatalf("second restore %+v, %+v", r, r.Fault)
		}
		if diff := cmp.Diff([]string{"bread"}, f.products(t, s.ID)); diff != "" {
			t.Errorf("products (-want +got):\n%s", diff)
		}
	})
}

// meanwhile is a Storage that calls a function while the first archive is written.
type meanwhile struct {
	archive.Storage
	call func()
}

func (m *meanwhile) Create(ctx context.Context, name string, write func(io.Writer) error) (archive.Stored, error) {
	return m.Storage.Create(ctx, name, func(w io.Writer) error {
		if call := m.call; call != nil {
			m.call = nil
			call()
		}
		return write(w)
	})
}

// TestBackupDuringRestore checks that an archive which was written while a restore began
// and ended is made anew: it may have rows of before and of after.
func TestBackupDuringRestore(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := setup(t, db, Options{})
		f.start(t)
		p, s := f.store(t, credential.SQLite)
		testkit.Must(t, f.checkStorage(t.Context()))
		f.storage = &meanwhile{f.storage, func() {
			for _, change := range []func(context.Context, *masterdb.Tx, stoa.StoreID) error{tenantdb.BeginRestore, tenantdb.EndRestore} {
				testkit.Must(t, f.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return change(t.Context(), tx, s.ID) }))
			}
		}}
		b := f.made(t, p, s.ID)
		row, err := read(t.Context(), f.db, `b.id = $1`, b.ID)
		if err != nil || row.State != Succeeded || row.Attempt != 2 || len(f.files(t)) != 1 {
			t.Errorf("archive %+v, attempt %d, %d files, %v", b, row.Attempt, len(f.files(t)), err)
		}
	})
}
