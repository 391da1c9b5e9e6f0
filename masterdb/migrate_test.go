package masterdb_test

import (
	"io/fs"
	"sync"
	"testing"

	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
)

// TestMigrateByManyReplicas: each handle is what one starting process has.
func TestMigrateByManyReplicas(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			const replicas = 6
			url := emptyURL(t, engine)
			var applied [replicas]int
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i := range applied {
				wg.Go(func() {
					<-start
					db, err := masterdb.Open(t.Context(), url)
					if err != nil {
						t.Error(err)
						return
					}
					defer db.Close()
					if applied[i], err = db.Migrate(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			close(start)
			wg.Wait()

			db := masterdbtest.Open(t, url)
			current, target, err := db.SchemaVersion(t.Context())
			if err != nil || current != target || target < 2 {
				t.Errorf("the schema has version %d of %d, %v", current, target, err)
			}
			sum := 0
			for _, n := range applied {
				sum += n
			}
			files, err := fs.ReadDir(masterdb.Migrations, "migrations/sqlite")
			if err != nil || sum != len(files) {
				t.Errorf("the replicas applied %v migrations, want %d together, %v", applied, len(files), err)
			}
			if n, err := db.Migrate(t.Context()); n != 0 || err != nil {
				t.Errorf("a further Migrate = %d, %v, want that nothing is left", n, err)
			}
			if _, err := insertUser(t, db, "olive@example.com"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSchemaVersionOfAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, emptyURL(t, engine))
			current, target, err := db.SchemaVersion(t.Context())
			if err != nil || current != 0 || target < 2 {
				t.Errorf("SchemaVersion = %d, %d, %v, want 0 and what the binary brings", current, target, err)
			}
		})
	}
}
