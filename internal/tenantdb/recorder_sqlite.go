package tenantdb

// sqliteRecorder records the changes of embedded databases.
type sqliteRecorder struct{}

func (sqliteRecorder) State() []string {
	return []string{
		`CREATE TABLE IF NOT EXISTS ` + MoveControlTable + ` (one integer NOT NULL PRIMARY KEY CHECK (one = 1), move_id text NOT NULL, role text NOT NULL, fenced boolean NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS ` + MoveJournalTable + ` (seq integer PRIMARY KEY, name text NOT NULL, k text NOT NULL, gone boolean NOT NULL)`,
	}
}

// Probe implements Recorder. An embedded database refuses no trigger.
func (sqliteRecorder) Probe(string) (create, drop []string) { return nil, nil }

// LimitLock implements Recorder. An embedded database has a limit of its own.
func (sqliteRecorder) LimitLock() string { return `SELECT 1` }

// Freeze implements Recorder. The transaction is the only one that writes.
func (sqliteRecorder) Freeze() string {
	return `UPDATE ` + MoveControlTable + ` SET fenced = false WHERE one = 1`
}

func (sqliteRecorder) CreateTriggers(t Table, _ []Table) []string {
	refuse := []string{`SELECT RAISE(ABORT, '` + fenceMessage + `') WHERE (SELECT fenced FROM ` + MoveControlTable + ` WHERE one = 1)`}
	return createRowTriggers(t, refuse, func(row string, changed bool) string {
		values := journalRow(t, "json_array", row, [2]string{"0", "1"})
		if changed {
			return insertJournal + `SELECT ` + values + ` WHERE NOT (` + sameKey(t.Key) + `)`
		}
		return insertJournal + `VALUES (` + values + `)`
	})
}

func (sqliteRecorder) DropTriggers(t Table) []string { return dropRowTriggers(t) }

func (sqliteRecorder) Alternative([]string, error) []string { return nil }

func (sqliteRecorder) DropFunctions(Table) []string { return nil }

func (sqliteRecorder) Shape() string {
	return `SELECT name || ' ' || coalesce(sql, '') AS part FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY type, name LIMIT 5000`
}
