package moves

import (
	"strings"

	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

const (
	controlTable = tenantdb.MoveControlTable
	journalTable = tenantdb.MoveJournalTable
)

// recorder is the SQL with which an engine records changes in the journal and refuses them.
type recorder interface {
	// state creates the control table and the journal. A row of the journal is the key of a
	// changed row; gone is set if the row was deleted at that time, even if it exists again.
	// The key of a row that stands for a whole table, which was truncated, is empty.
	state() []string
	// probe creates a trigger on the control table, and drops it. The first statement of drop
	// can run before. It returns nothing for an engine that refuses no trigger.
	probe(name string) (create, drop []string)
	// limitLock limits the wait for locks in a transaction.
	limitLock() string
	// freeze waits for the transactions that have changed something, and makes others that
	// change something wait until the transaction of the freeze ends.
	freeze() string
	// createTriggers creates what records the changes of a table. all are all tables.
	createTriggers(t archive.Table, all []archive.Table) []string
	// dropTriggers drops the triggers, and dropFunctions what they have called.
	dropTriggers(t archive.Table) []string
	dropFunctions(t archive.Table) []string
	// shape is the query that describes the tables and triggers as far as a statement that no
	// trigger sees changes them: one that truncates a table, creates it anew or alters it.
	shape() string
}

// recorders has one line for each engine.
var recorders = map[credential.EngineName]recorder{
	credential.SQLite: sqliteRecorder{}, credential.PostgreSQL: postgresRecorder{}, credential.MySQL: mysqlRecorder{},
}

// trigger returns the name of a trigger.
func trigger(kind string, t archive.Table) string { return "stoa_move_" + kind + t.Name }

// events are the changes that triggers record, with the records of the old and the new row.
var events = []struct {
	kind, event string
	old, new    bool
}{
	{"i_", "INSERT", false, true}, {"u_", "UPDATE", true, true}, {"d_", "DELETE", true, false},
}

// dropRowTriggers drops the triggers of createRowTriggers, and b_ of MySQL.
func dropRowTriggers(t archive.Table) []string {
	drops := []string{`DROP TRIGGER IF EXISTS ` + trigger("b_", t)}
	for _, e := range events {
		drops = append(drops, `DROP TRIGGER IF EXISTS `+trigger(e.kind, t))
	}
	return drops
}

// createRowTriggers creates a trigger for each event, which runs refuse first. record returns
// the statement that records the key of the old or the new row; with changed, it records an
// old key only if the new one differs.
func createRowTriggers(t archive.Table, refuse []string, record func(row string, changed bool) string) (creates []string) {
	for _, e := range events {
		body := append([]string{}, refuse...)
		if e.old {
			body = append(body, record("OLD", e.new))
		}
		if e.new {
			body = append(body, record("NEW", false))
		}
		creates = append(creates, `CREATE TRIGGER `+trigger(e.kind, t)+` AFTER `+e.event+` ON `+t.Name+` FOR EACH ROW BEGIN `+strings.Join(body, "; ")+`; END`)
	}
	return creates
}

// journalRow returns the values of a row of the journal for the old or the new row. array is
// the function that makes a JSON array, and gone are the words for false and true.
func journalRow(t archive.Table, array, row string, gone [2]string) string {
	word := gone[0]
	if row == "OLD" {
		word = gone[1]
	}
	return `'` + t.Name + `', ` + array + `(` + row + `.` + strings.Join(t.Key, `, `+row+`.`) + `), ` + word
}

const insertJournal = `INSERT INTO ` + journalTable + ` (name, k, gone) `

// insertRow returns the statement that records the row, in the language of triggers of
// PostgreSQL and MySQL.
func insertRow(t archive.Table, values string, changed bool) string {
	insert := insertJournal + `VALUES (` + values + `)`
	if changed {
		return `IF NOT (` + equal(t.Key) + `) THEN ` + insert + `; END IF`
	}
	return insert
}

// equal returns the condition that the old and the new key are the same.
func equal(key []string) string {
	var all []string
	for _, c := range key {
		all = append(all, "OLD."+c+" = NEW."+c)
	}
	return strings.Join(all, " AND ")
}
