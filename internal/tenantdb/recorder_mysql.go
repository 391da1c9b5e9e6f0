package tenantdb

import "strings"

// mysqlRecorder records the changes of databases on MySQL and MariaDB.
type mysqlRecorder struct{}

// mysqlArray is the function that makes a JSON array.
const mysqlArray = "JSON_ARRAY"

func (mysqlRecorder) State() []string {
	return []string{
		`CREATE TABLE IF NOT EXISTS ` + MoveControlTable + ` (one SMALLINT NOT NULL PRIMARY KEY CHECK (one = 1), move_id VARCHAR(36) NOT NULL, role VARCHAR(6) NOT NULL, fenced BOOLEAN NOT NULL)
			ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS ` + MoveJournalTable + ` (seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(63) NOT NULL, k TEXT NOT NULL, gone BOOLEAN NOT NULL)
			ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
	}
}

func (mysqlRecorder) Probe(name string) (create, drop []string) {
	return []string{`CREATE TRIGGER ` + name + ` AFTER DELETE ON ` + MoveControlTable + ` FOR EACH ROW BEGIN END`}, []string{`DROP TRIGGER IF EXISTS ` + name}
}

func (mysqlRecorder) LimitLock() string {
	return `SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1`
}

func (mysqlRecorder) Freeze() string {
	return `SELECT fenced FROM ` + MoveControlTable + ` WHERE one = 1 FOR UPDATE`
}

// CreateTriggers implements Recorder. A locking read waits while the move has frozen the
// table, and then sees its end.
func (mysqlRecorder) CreateTriggers(t Table, all []Table) []string {
	refuse := []string{
		`DECLARE closed INT DEFAULT 0`,
		`SELECT fenced INTO closed FROM ` + MoveControlTable + ` WHERE one = 1 LOCK IN SHARE MODE`,
		`IF closed = 1 THEN SIGNAL SQLSTATE '` + fenceState + `' SET MESSAGE_TEXT = '` + fenceMessage + `'; END IF`,
	}
	creates := createRowTriggers(t, refuse, func(row string, changed bool) string {
		return insertRow(t, journalRow(t, mysqlArray, row, [2]string{"0", "1"}), changed)
	})
	if children := recordChildren(t, all, `OLD.`+t.Key[0]); children != nil {
		creates = append(creates, `CREATE TRIGGER `+moveTrigger("b_", t)+` BEFORE DELETE ON `+t.Name+` FOR EACH ROW BEGIN `+strings.Join(children, "; ")+`; END`)
	}
	for i := range creates {
		creates[i] = datedLater + creates[i]
	}
	return creates
}

// datedLater makes MariaDB date a trigger a second later than it is made; MySQL reads a
// comment. MariaDB takes the list of a prepared statement's tables as still right unless a
// trigger is younger than the statement, and keeps their times in hundredths of a second: a
// statement that was prepared in the hundredth of the trigger would not find the control
// table (error 1146).
const datedLater = `/*M! SET STATEMENT timestamp = unix_timestamp(sysdate(6)) + 1 FOR */ `

// Alternative implements Recorder, for a server that lets nobody set the time
// (secure_timestamp).
func (mysqlRecorder) Alternative(statements []string, err error) (undated []string) {
	const prevented, denied = 1290, 1227 // ER_OPTION_PREVENTS_STATEMENT, ER_SPECIFIC_ACCESS_DENIED_ERROR
	if !IsMySQL(err, prevented, denied) {
		return nil
	}
	for _, s := range statements {
		undated = append(undated, strings.TrimPrefix(s, datedLater))
	}
	return undated
}

// recordChildren returns the statements that record the rows that a foreign key may change
// when a row is deleted, and the rows that reference those. On MySQL, such changes fire no
// triggers. parents is the key of the row, or a query of keys. To record too many keys is
// harmless.
func recordChildren(t Table, all []Table, parents string) (statements []string) {
	for _, child := range all {
		for _, c := range child.Columns {
			if c.References != t.Name {
				continue
			}
			of := ` FROM ` + child.Name + ` WHERE ` + c.Name + ` IN (` + parents + `)`
			statements = append(statements, `INSERT INTO `+MoveJournalTable+` (name, k, gone) SELECT '`+child.Name+`', `+mysqlArray+`(`+strings.Join(child.Key, `, `)+`), 0`+of)
			if c.References != child.Name { // its own reference is set to NULL, which changes no further row
				statements = append(statements, recordChildren(child, all, `SELECT `+child.Key[0]+of)...)
			}
		}
	}
	return statements
}

func (mysqlRecorder) DropTriggers(t Table) []string { return dropRowTriggers(t) }

func (mysqlRecorder) DropFunctions(Table) []string { return nil }

func (mysqlRecorder) Shape() string {
	return `SELECT concat(t.table_name, ' ', coalesce(t.create_time, ''), ' ', (SELECT count(*) FROM information_schema.triggers g
			WHERE g.event_object_schema = database() AND g.event_object_table = t.table_name)) AS part FROM information_schema.tables t
		WHERE t.table_schema = database() ORDER BY t.table_name LIMIT 5000`
}
