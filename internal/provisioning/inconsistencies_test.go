package provisioning

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

func (b fixture) inconsistencies(t *testing.T) []Inconsistency {
	t.Helper()
	found, err := testkit.Collect(b.Inconsistencies(t.Context()))
	testkit.Must(t, err)
	return found
}

// TestInconsistencies causes one inconsistency after another. It checks that exactly this
// one is found, and repairs it.
func TestInconsistencies(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		long := time.Now().UTC().Add(-time.Hour)
		deleting := `UPDATE stores SET status = 'deleting', status_before = 'active', delete_after = $2 WHERE id = $1`
		deleted := `UPDATE stores SET status = 'deleted', slug = 'deleted.' || id, created_at = $2 WHERE id = $1`
		for want, c := range map[stores.InconsistencyKind]struct {
			statements []string // $1 is a store that was active, $2 is one hour ago
			after      stores.Status
			queued     bool // a job completes the repair
		}{
			StuckStore:                   {statements: []string{`UPDATE stores SET status = 'provisioning', updated_at = $2 WHERE id = $1`}, after: stores.PendingDatabase},
			stores.ActiveWithoutDatabase: {statements: []string{`DELETE FROM store_databases WHERE store_id = $1 AND created_at > $2`, `UPDATE stores SET created_at = $2 WHERE id = $1`}, after: stores.PendingDatabase},
			stores.DeletionOverdue:       {statements: []string{deleting}, after: stores.Deleted, queued: true},
			stores.DeletedWithDatabase: {
				statements: []string{deleted, `DELETE FROM store_hostnames WHERE store_id = $1 AND created_at > $2`, `UPDATE store_databases SET updated_at = $2 WHERE store_id = $1`},
				after:      stores.Deleted, queued: true,
			},
			stores.HostnameOfDeleted: {
				statements: []string{
					deleted, `DELETE FROM store_databases WHERE store_id = $1 AND created_at > $2`, `UPDATE store_hostnames SET created_at = $2 WHERE store_id = $1`,
				},
				after: stores.Deleted,
			},
		} {
			t.Run(string(want), func(t *testing.T) {
				p, s := b.store(t)
				run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
				testkit.Must(t, err)
				testkit.Must(t, b.Provision(t.Context(), job(run)))
				if found := b.inconsistencies(t); len(found) != 0 {
					t.Fatalf("beforehand: %+v", found)
				}
				for _, statement := range c.statements {
					b.exec(t, statement, s.ID, long)
				}
				found := b.inconsistencies(t)
				var other []Inconsistency
				for _, a := range found {
					if a.Kind != OrphanDatabase { // the file of a database that is missing in the registry is an orphan
						other = append(other, a)
					}
				}
				if len(other) != 1 || other[0].Kind != want || other[0].StoreID != s.ID || other[0].Detail == "" || other[0].Remedy == "" {
					t.Fatalf("found %+v", found)
				}
				for range 2 {
					for i := range found {
						testkit.Must(t, found[i].Repair(t.Context()))
						if !found[i].Repaired {
							t.Errorf("not repaired: %+v", found[i])
						}
					}
				}
				if c.queued {
					pending, err := jobs.Unfinished[stores.DeleteStore](t.Context(), db)
					testkit.Must(t, err)
					mine := 0
					for _, j := range pending {
						if j.StoreID == s.ID {
							mine++
							testkit.Must(t, b.registry.FinishDeletion(t.Context(), j))
						}
					}
					if mine != 1 {
						t.Errorf("%d jobs were queued", mine)
					}
				}
				if found := b.inconsistencies(t); len(found) != 0 {
					t.Errorf("afterwards: %+v", found)
				}
				if got := b.status(t, s.ID); got != c.after {
					t.Errorf("the store is %s", got)
				}
			})
		}
	})
}

// TestRunWithoutJob checks that a run without a job is reported, but not repaired, and
// only while no process executes it.
func TestRunWithoutJob(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		b.exec(t, `UPDATE provisioning_runs SET created_at = $2 WHERE id = $1`, run.ID, time.Now().UTC().Add(-time.Hour))
		if found := b.inconsistencies(t); len(found) != 0 {
			t.Errorf("with its job: %+v", found)
		}
		b.exec(t, `DELETE FROM river_job`)
		found := b.inconsistencies(t)
		if len(found) != 1 || found[0].Kind != RunWithoutJob || found[0].StoreID != s.ID || found[0].Repairable() {
			t.Errorf("without: %+v", found)
		}
		b.exec(t, `UPDATE provisioning_runs SET claimed_by = 'a process', claimed_until = $2 WHERE id = $1`, run.ID, time.Now().UTC().Add(time.Minute))
		if found := b.inconsistencies(t); len(found) != 0 {
			t.Errorf("while a process works on it: %+v", found)
		}
	})
}

// TestStrayFile checks that a file that belongs to no store is reported. The repair drops
// it unless it belongs to a store by then.
func TestStrayFile(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		dir := filepath.Join(b.dataDir, "stores", s.ID.String()[34:])
		testkit.Must(t, os.MkdirAll(dir, 0o700))
		for _, suffix := range []string{".db", ".db-wal"} {
			testkit.Must(t, os.WriteFile(filepath.Join(dir, s.ID.String()+suffix), nil, 0o600))
		}
		found := b.inconsistencies(t)
		if len(found) != 1 || found[0].Kind != OrphanDatabase || found[0].Name != s.ID.String() {
			t.Fatalf("found %+v", found)
		}
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		if err := found[0].Repair(t.Context()); err == nil || found[0].Repaired {
			t.Error("a database that a store owns by now was dropped")
		}
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		b.exec(t, `DELETE FROM store_databases WHERE store_id = $1`, s.ID)
		testkit.Must(t, found[0].Repair(t.Context()))
		if _, err := os.Stat(filepath.Join(dir, s.ID.String()+".db")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file: %v", err)
		}
		if stoa.CodeOf(found[0].Repair(t.Context())) != "" {
			t.Error("to drop it twice is an error")
		}
	})
}

// TestManyInconsistencies checks that of more inconsistencies than are read at a time each
// is found once.
func TestManyInconsistencies(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		_, s := b.store(t)
		const stuck = page.Part + 3
		for i := range stuck {
			b.exec(t, `INSERT INTO stores (id, created_by, name, slug, status, created_at, updated_at)
				SELECT $2, created_by, name, $3, 'provisioning', created_at, $4 FROM stores WHERE id = $1`,
				s.ID, stoa.NewID[stoa.StoreID](), fmt.Sprintf("stuck-%d", i), time.Now().UTC().Add(-time.Hour))
		}
		names := map[string]bool{}
		for _, found := range b.inconsistencies(t) {
			if found.Kind == StuckStore {
				names[found.Name] = true
			}
		}
		if found := b.inconsistencies(t); len(names) != stuck || len(found) != stuck {
			t.Errorf("%d stores in %d findings, want %d", len(names), len(found), stuck)
		}
	})
}
