package moves

import (
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// sqliteRecorder records the changes of embedded databases.
type sqliteRecorder struct{}

func (sqliteRecorder) state() []string {
	return []string{
		`CREATE TABLE IF NOT EXISTS ` + controlTable + ` (one integer NOT NULL PRIMARY KEY CHECK (one = 1), move_id text NOT NULL, role text NOT NULL, fenced boolean NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS ` + journalTable + ` (seq integer PRIMARY KEY, name text NOT NULL, k text NOT NULL, gone boolean NOT NULL)`,
	}
}

// probe implements recorder. An embedded database refuses no trigger.
func (sqliteRecorder) probe(string) (create, drop []string) { return nil, nil }

// limitLock implements recorder. An embedded database has a limit of its own.
func (sqliteRecorder) limitLock() string { return `SELECT 1` }

// freeze implements recorder. The transaction is the only one that writes.
func (sqliteRecorder) freeze() string {
	return `UPDATE ` + controlTable + ` SET fenced = false WHERE one = 1`
}

func (sqliteRecorder) createTriggers(t archive.Table, _ []archive.Table) []string {
	refuse := []string{`SELECT RAISE(ABORT, '` + tenantdb.FenceMessage + `') WHERE (SELECT fenced FROM ` + controlTable + ` WHERE one = 1)`}
	return createRowTriggers(t, refuse, func(row string, changed bool) string {
		values := journalRow(t, "json_array", row, [2]string{"0", "1"})
		if changed {
			return insertJournal + `SELECT ` + values + ` WHERE NOT (` + equal(t.Key) + `)`
		}
		return insertJournal + `VALUES (` + values + `)`
	})
}

func (sqliteRecorder) dropTriggers(t archive.Table) []string { return dropRowTriggers(t) }

func (sqliteRecorder) dropFunctions(archive.Table) []string { return nil }

func (sqliteRecorder) shape() string {
	return `SELECT name || ' ' || coalesce(sql, '') AS part FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY type, name LIMIT 5000`
}
