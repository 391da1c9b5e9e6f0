package tenantdb

import "strings"

// Recorder is the SQL with which an engine records changes in MoveJournalTable and refuses
// them, while a store moves to another database.
type Recorder interface {
	// State creates the control table and the journal. A row of the journal is the key of a
	// changed row; gone is set if the row was deleted at that time, even if it exists again.
	// The key of a row that stands for a whole table, which was truncated, is empty.
	State() []string
	// Probe creates a trigger on the control table, and drops it. The first statement of drop
	// can run before. It returns nothing for an engine that refuses no trigger.
	Probe(name string) (create, drop []string)
	// LimitLock limits the wait for locks in a transaction.
	LimitLock() string
	// Freeze waits for the transactions that have changed something, and makes others that
	// change something wait until the transaction of the freeze ends.
	Freeze() string
	// CreateTriggers creates what records the changes of a table. all are all tables.
	CreateTriggers(t Table, all []Table) []string
	// Alternative returns other statements with the effect of those of CreateTriggers, for a
	// server that has refused them with err. It returns nil if there are none.
	Alternative(statements []string, err error) []string
	// DropTriggers drops the triggers, and DropFunctions what they have called.
	DropTriggers(t Table) []string
	DropFunctions(t Table) []string
	// Shape is the query that describes the tables and triggers as far as a statement that no
	// trigger sees changes them: one that truncates a table, creates it anew or alters it.
	Shape() string
}

// Recorder returns the SQL that records the changes of the database.
func (db *DB) Recorder() Recorder { return db.dialect.recorder }

// moveTrigger returns the name of a trigger.
func moveTrigger(kind string, t Table) string { return "stoa_move_" + kind + t.Name }

// rowEvents are the changes that triggers record, with the records of the old and the new row.
var rowEvents = []struct {
	kind, event string
	old, new    bool
}{
	{"i_", "INSERT", false, true}, {"u_", "UPDATE", true, true}, {"d_", "DELETE", true, false},
}

// dropRowTriggers drops the triggers of createRowTriggers, and b_ of MySQL.
func dropRowTriggers(t Table) []string {
	drops := []string{`DROP TRIGGER IF EXISTS ` + moveTrigger("b_", t)}
	for _, e := range rowEvents {
		drops = append(drops, `DROP TRIGGER IF EXISTS `+moveTrigger(e.kind, t))
	}
	return drops
}

// createRowTriggers creates a trigger for each event, which runs refuse first. record returns
// the statement that records the key of the old or the new row; with changed, it records an
// old key only if the new one differs.
func createRowTriggers(t Table, refuse []string, record func(row string, changed bool) string) (creates []string) {
	for _, e := range rowEvents {
		body := append([]string{}, refuse...)
		if e.old {
			body = append(body, record("OLD", e.new))
		}
		if e.new {
			body = append(body, record("NEW", false))
		}
		creates = append(creates, `CREATE TRIGGER `+moveTrigger(e.kind, t)+` AFTER `+e.event+` ON `+t.Name+` FOR EACH ROW BEGIN `+strings.Join(body, "; ")+`; END`)
	}
	return creates
}

// journalRow returns the values of a row of the journal for the old or the new row. array is
// the function that makes a JSON array, and gone are the words for false and true.
func journalRow(t Table, array, row string, gone [2]string) string {
	word := gone[0]
	if row == "OLD" {
		word = gone[1]
	}
	return `'` + t.Name + `', ` + array + `(` + row + `.` + strings.Join(t.Key, `, `+row+`.`) + `), ` + word
}

const insertJournal = `INSERT INTO ` + MoveJournalTable + ` (name, k, gone) `

// insertRow returns the statement that records the row, in the language of triggers of
// PostgreSQL and MySQL.
func insertRow(t Table, values string, changed bool) string {
	insert := insertJournal + `VALUES (` + values + `)`
	if changed {
		return `IF NOT (` + sameKey(t.Key) + `) THEN ` + insert + `; END IF`
	}
	return insert
}

// sameKey returns the condition that the old and the new key are the same.
func sameKey(key []string) string {
	var all []string
	for _, c := range key {
		all = append(all, "OLD."+c+" = NEW."+c)
	}
	return strings.Join(all, " AND ")
}
