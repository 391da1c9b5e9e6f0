package jobs_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestNewerQueue checks that tables that a newer release has migrated are used only if the
// master's schema, which that release migrated first, allows it.
func TestNewerQueue(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		own, err := db.Schema(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		change := func(query string, args ...any) {
			t.Helper()
			err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), query, args...)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		try := func(state string, want error) {
			t.Helper()
			if err := jobs.CheckSchema(t.Context(), db); !errors.Is(err, want) {
				t.Errorf("CheckSchema, %s: %v, want %v", state, err, want)
			}
			if n, err := jobs.Migrate(t.Context(), db); n != 0 || !errors.Is(err, want) {
				t.Errorf("Migrate, %s: %d, %v, want %v", state, n, err, want)
			}
		}
		try("all of this release", nil)
		change(`INSERT INTO river_migration (line, version) VALUES ('main', 99)`)
		try("a newer queue", masterdb.ErrSchemaTooNew)
		change(`INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`, own.Binary+1)
		try("a newer queue and schema, which allows it", nil)
		change(`UPDATE schema_compatibility SET oldest_binary = $1`, own.Binary+1)
		try("a newer queue and schema, which refuses it", masterdb.ErrSchemaTooNew)
	})
}

// TestQueueVersion fails when River has migrations that this release does not know: see
// jobs.LatestMigration.
func TestQueueVersion(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		var versions []rivermigrate.Migration
		if db.Engine == masterdb.Postgres {
			m, err := rivermigrate.New(riverpgxv5.New(db.Pool()), nil)
			if err != nil {
				t.Fatal(err)
			}
			versions = m.AllVersions()
		} else {
			m, err := rivermigrate.New(riversqlite.New(db.Writer()), nil)
			if err != nil {
				t.Fatal(err)
			}
			versions = m.AllVersions()
		}
		last := slices.MaxFunc(versions, func(a, b rivermigrate.Migration) int { return a.Version - b.Version })
		if last.Version != jobs.LatestMigration {
			t.Errorf("River's last migration is %d, and this release says %d", last.Version, jobs.LatestMigration)
		}
	})
}
