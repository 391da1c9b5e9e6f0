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

// MigrationOrderFault is how the operator's own migrations contradict what a store's
// database has on record: a file was added below one that has run already, so it
// is never run there, or one that has run is gone, so that new stores lack it and
// one under a new number runs twice.
type MigrationOrderFault struct {
	Version int64
	File    string // "00002_notes.sql"; "" of one that is gone
}

// Gone reports whether the migration has run and its file is gone.
func (f MigrationOrderFault) Gone() bool { return f.File == "" }

// String says what is wrong and what to do.
func (f MigrationOrderFault) String() string {
	if f.Gone() {
		return fmt.Sprintf("the migration %d has run and its file is gone or has another number: put it back under that number", f.Version)
	}
	return fmt.Sprintf("%s was added below a migration that has run already, so it will not run: give it a number above all others", f.File)
}

// OrderFaults compares the versions that a store's database has on record with
// the files. Migrations that several old ones were merged into may have the number
// of the last of these: what is below the first file is not missed. Versions above
// the last file are those of another release.
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

// maxGone bounds what is reported as gone: a merchant's database may have any
// numbers on record.
const maxGone = 20

// First returns the version of the first migration, 0 without any.
func (o *CustomMigrations) First() int64 {
	if o == nil {
		return 0
	}
	return o.versions[0]
}

// fileOf returns the name of a version's file.
func (o *CustomMigrations) fileOf(engine credential.EngineName, version int64) string {
	files := o.folders[engine]
	if files == nil { // such a store cannot be migrated at all
		return fmt.Sprintf("the migration %d", version)
	}
	names, _ := fs.Glob(files, "*.sql")
	for _, name := range names {
		if v, err := goose.NumericComponent(name); err == nil && v == version {
			return dialectFolders[engine] + "/" + name
		}
	}
	return fmt.Sprintf("the migration %d", version)
}

// CustomMigrations returns the operator's own migrations, nil without any.
func (m *Manager) CustomMigrations() *CustomMigrations { return m.opts.Custom }

// maxVersions bounds the versions that are read of a database. An operator has
// far fewer migrations.
const maxVersions = 10_000

var selectCustomVersions = fmt.Sprintf(`SELECT DISTINCT version_id FROM %s WHERE version_id > 0 ORDER BY version_id LIMIT %d`, CustomVersionTable, maxVersions)

// CustomVersions reads which of the operator's own migrations a database has on
// record that has some.
func (db *DB) CustomVersions(ctx context.Context) (versions []int64, err error) {
	err = db.Select(ctx, &versions, selectCustomVersions)
	return versions, err
}

// checkOrder refuses to migrate a database whose record contradicts the files.
func (s *session) checkOrder(ctx context.Context, p *goose.Provider, own *CustomMigrations, engine credential.EngineName) error {
	if _, err := p.GetDBVersion(ctx); err != nil { // it makes the version table
		return err
	}
	var applied []int64
	err := s.on(ctx, func(ctx context.Context, conn *sql.Conn) error {
		rows, err := conn.QueryContext(ctx, selectCustomVersions)
		if err != nil {
			return err
		}
		defer rows.Close() //nolint:errcheck // Err has what matters
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
	return stoa.Errorf(MigrationFailed, "The platform's own migrations do not fit this database: %s.", strings.Join(words, "; "))
}
