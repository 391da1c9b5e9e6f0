package tenantdb

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// MigrationOrderFault is a contradiction between the operator's custom
// migrations and the versions that a store's database has recorded. Either a
// file was added below a version that has already run, so it never runs there.
// Or a version that has run has no file any more, so new stores lack it, and
// the same migration under a new number runs twice.
type MigrationOrderFault struct {
	Version int64
	File    string // "00002_notes.sql"; "" if the file is gone
}

// Gone reports whether the migration has run and its file is gone.
func (f MigrationOrderFault) Gone() bool { return f.File == "" }

// String describes the fault and the remedy.
func (f MigrationOrderFault) String() string {
	if f.Gone() {
		return fmt.Sprintf("the migration %d has run and its file is gone or has another number: put it back under that number", f.Version)
	}
	return fmt.Sprintf("%s was added below a migration that has run already, so it will not run: give it a number above all others", f.File)
}

// OrderFaults compares the versions that a store's database has recorded with
// the files. Several old migrations may have been merged into one that has the
// number of the last of them. Recorded versions below the first file are
// therefore not reported. Versions above the last file belong to another
// release.
func (o *CustomMigrations) OrderFaults(engine credential.EngineName, applied []int64) []MigrationOrderFault {
	if o == nil || len(applied) == 0 {
		return nil
	}
	var faults []MigrationOrderFault
	highest := slices.Max(applied)
	for _, v := range o.versions {
		if v < highest && !slices.Contains(applied, v) {
			faults = append(faults, MigrationOrderFault{v, o.fileOf(engine, v)})
		}
	}
	gone := 0
	for _, v := range applied {
		if gone < maxGone && v > o.First() && v < o.latest && !slices.Contains(o.versions, v) {
			faults, gone = append(faults, MigrationOrderFault{Version: v}), gone+1
		}
	}
	return faults
}

// maxGone limits the number of migrations that are reported as gone, because a
// merchant's database may have recorded any numbers.
const maxGone = 20

// First returns the version of the first migration, or 0 if there is none.
func (o *CustomMigrations) First() int64 {
	if o == nil {
		return 0
	}
	return o.versions[0]
}

// fileOf returns the name of a version's file.
func (o *CustomMigrations) fileOf(engine credential.EngineName, version int64) string {
	folder := registered[engine].dialect.folder
	files := o.folders[folder]
	if files == nil { // a store on this engine cannot be migrated at all
		return fmt.Sprintf("the migration %d", version)
	}
	names, _ := fs.Glob(files, "*.sql")
	for _, name := range names {
		if v, err := goose.NumericComponent(name); err == nil && v == version {
			return folder + "/" + name
		}
	}
	return fmt.Sprintf("the migration %d", version)
}

// CustomMigrations returns the operator's custom migrations, or nil if there
// are none.
func (m *Manager) CustomMigrations() *CustomMigrations { return m.opts.Custom }

// CheckCustomMigrations fails with migration_failed if there are custom
// migrations, but none for the engine, so that no store can be set up on it.
func (m *Manager) CheckCustomMigrations(engine credential.EngineName) error {
	_, err := m.opts.Custom.of(engine)
	return err
}

// maxVersions limits the number of versions that are read from a database. An
// operator has far fewer migrations.
const maxVersions = 10_000

var selectCustomVersions = fmt.Sprintf(`SELECT DISTINCT version_id FROM %s WHERE version_id > 0 ORDER BY version_id LIMIT %d`, CustomVersionTable, maxVersions)

// CustomVersions reads which custom migrations a database has recorded. The
// database must have some.
func (db *DB) CustomVersions(ctx context.Context) (versions []int64, err error) {
	err = db.Select(ctx, &versions, selectCustomVersions)
	return versions, err
}

// checkOrder returns an error for a database whose recorded versions contradict
// the files.
func (s *session) checkOrder(ctx context.Context, p *goose.Provider, own *CustomMigrations, engine credential.EngineName) error {
	if _, err := p.GetDBVersion(ctx); err != nil { // creates the version table
		return err
	}
	var applied []int64
	err := s.on(ctx, func(ctx context.Context, conn *sql.Conn) error {
		rows, err := conn.QueryContext(ctx, selectCustomVersions)
		if err != nil {
			return err
		}
		defer rows.Close() //nolint:errcheck // Err returns the relevant error
		for rows.Next() {
			var version int64
			if err := rows.Scan(&version); err != nil {
				return err
			}
			applied = append(applied, version)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	faults := own.OrderFaults(engine, applied)
	if len(faults) == 0 {
		return nil
	}
	var words []string
	for _, f := range faults {
		words = append(words, f.String())
	}
	return stoa.Errorf(stoa.MigrationFailed, "The platform's migrations cannot run in this database. Tell its operator.").
		WithCause(fmt.Errorf("the custom migrations do not fit this database: %s", strings.Join(words, "; ")))
}
