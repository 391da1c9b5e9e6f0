package moves

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// role is what a database was when the move began.
type role string

const (
	source role = "source"
	target role = "target"
)

// side is one of the two databases of a move.
type side struct {
	*tenantdb.DB
	role role
}

// control is the one row of the control table.
type control struct {
	MoveID string `db:"move_id"`
	Role   role
	Fenced bool
}

const (
	controlTable = tenantdb.MoveControlTable
	journalTable = tenantdb.MoveJournalTable
)

// stateDDL creates the control table and the journal. A row of the journal is the key of a
// changed row; gone is set if the row was deleted at that time, even if it exists again. The
// key of a row that stands for a whole table, which was truncated, is empty.
var stateDDL = map[credential.EngineName][]string{
	credential.SQLite: {
		`CREATE TABLE IF NOT EXISTS ` + controlTable + ` (one integer NOT NULL PRIMARY KEY CHECK (one = 1), move_id text NOT NULL, role text NOT NULL, fenced boolean NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS ` + journalTable + ` (seq integer PRIMARY KEY, name text NOT NULL, k text NOT NULL, gone boolean NOT NULL)`,
	},
	credential.PostgreSQL: {
		`CREATE TABLE IF NOT EXISTS ` + controlTable + ` (one smallint NOT NULL PRIMARY KEY CHECK (one = 1), move_id varchar(36) NOT NULL, role varchar(6) NOT NULL, fenced boolean NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS ` + journalTable + ` (seq bigserial PRIMARY KEY, name varchar(63) NOT NULL, k text NOT NULL, gone boolean NOT NULL)`,
	},
	credential.MySQL: {
		`CREATE TABLE IF NOT EXISTS ` + controlTable + ` (one SMALLINT NOT NULL PRIMARY KEY CHECK (one = 1), move_id VARCHAR(36) NOT NULL, role VARCHAR(6) NOT NULL, fenced BOOLEAN NOT NULL)
			ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
		`CREATE TABLE IF NOT EXISTS ` + journalTable + ` (seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(63) NOT NULL, k TEXT NOT NULL, gone BOOLEAN NOT NULL)
			ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
	},
}

// begin creates the control table and the journal. What an earlier move has left is removed.
// It fails if the database is the other one of the same move, and if its user may not create
// triggers.
func (s side) begin(ctx context.Context, move stoa.MoveID, tables []archive.Table) error {
	c, err := s.control(ctx)
	if err != nil {
		return err
	}
	switch {
	case c != nil && c.MoveID == move.String() && c.Role != s.role:
		return stoa.Errorf(stoa.MoveRefused, "This is the database that the store has now. Give the address of another one.")
	case c != nil && c.MoveID != move.String():
		if err := s.end(ctx, tables); err != nil {
			return err
		}
	}
	for _, ddl := range stateDDL[s.Engine] {
		if _, err := s.Exec(ctx, ddl); err != nil {
			return err
		}
	}
	if c == nil || c.MoveID != move.String() {
		_, err := s.Exec(ctx, `INSERT INTO `+controlTable+` (one, move_id, role, fenced) VALUES (1, ?, ?, ?)`, move.String(), string(s.role), s.role == target)
		if err != nil {
			return err
		}
	}
	return s.probe(ctx)
}

// control returns the control row, or nil if there is none.
func (s side) control(ctx context.Context) (*control, error) {
	structure, err := s.tables(ctx)
	if err != nil || !structure[controlTable] {
		return nil, err
	}
	var c control
	err = s.Get(ctx, &c, `SELECT move_id, role, fenced FROM `+controlTable+` WHERE one = 1`)
	if errors.Is(err, tenantdb.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented: no row
	}
	return &c, err
}

// tables returns which of the tables of a move and of the schema exist.
func (s side) tables(ctx context.Context) (map[string]bool, error) {
	in, err := s.Inspect(ctx)
	there := map[string]bool{}
	for _, name := range in.Tables {
		there[name] = true
	}
	return there, err
}

// probe creates a trigger on the control table and drops it.
func (s side) probe(ctx context.Context) error {
	const name = "stoa_move_probe"
	var create []string
	drop := []string{`DROP TRIGGER IF EXISTS ` + name}
	switch s.Engine {
	case credential.MySQL:
		create = []string{`CREATE TRIGGER ` + name + ` AFTER DELETE ON ` + controlTable + ` FOR EACH ROW BEGIN END`}
	case credential.PostgreSQL:
		create = []string{`CREATE OR REPLACE FUNCTION ` + name + `() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
			`CREATE TRIGGER ` + name + ` AFTER DELETE ON ` + controlTable + ` FOR EACH ROW EXECUTE FUNCTION ` + name + `()`}
		drop = []string{`DROP TRIGGER IF EXISTS ` + name + ` ON ` + controlTable, `DROP FUNCTION IF EXISTS ` + name + `()`}
	default: // an embedded database refuses no trigger
		return nil
	}
	for _, statements := range [][]string{drop[:1], create, drop} {
		if err := s.ddl(ctx, statements); err != nil {
			return triggersRefused(err)
		}
	}
	return nil
}

// triggersRefused explains why a server refuses to create a trigger.
func triggersRefused(err error) error {
	var myErr *mysql.MySQLError
	switch {
	case errors.As(err, &myErr) && myErr.Number == 1419: // ER_BINLOG_CREATE_ROUTINE_NEED_SUPER
		return stoa.Errorf(stoa.MoveRefused, "The database server writes a binary log and lets this user create no triggers, with which a move records changes (error 1419). "+
			"Set log_bin_trust_function_creators = 1 in the server's configuration, or its parameter group, then try again.").WithCause(err)
	case errors.As(err, &myErr) && (myErr.Number == 1142 || myErr.Number == 1227 || myErr.Number == 1044): // ER_TABLEACCESS_DENIED_ERROR and the like
		return stoa.Errorf(stoa.MoveRefused, "The database user may not create triggers, with which a move records changes. GRANT TRIGGER ON its database TO the user, then try again.").WithCause(err)
	case stoa.CodeOf(err) == stoa.DatabasePermissionDenied:
		return stoa.Errorf(stoa.MoveRefused, "The database user may not create functions and triggers, with which a move records changes. "+
			"On PostgreSQL: GRANT CREATE ON the schema, and USAGE ON LANGUAGE plpgsql, TO the user; then try again.").WithCause(err)
	}
	return err
}

// Statements that change a table's triggers wait for its writers, and later ones wait for
// the statement: it gives up soon and is repeated.
const (
	ddlWait  = time.Second
	ddlTries = 30
	ddlPause = 500 * time.Millisecond
)

// limitLock returns the statement that limits the wait for locks in a transaction. An
// embedded database has a limit of its own.
func (s side) limitLock() string {
	return map[credential.EngineName]string{
		credential.SQLite:     `SELECT 1`,
		credential.PostgreSQL: `SET LOCAL lock_timeout = '1s'`,
		credential.MySQL:      `SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1`,
	}[s.Engine]
}

// ddl runs statements in one transaction, as far as the engine allows it.
func (s side) ddl(ctx context.Context, statements []string) error {
	for try := 1; ; try++ {
		err := s.Tx(ctx, func(tx *tenantdb.Tx) error {
			for _, statement := range append([]string{s.limitLock()}, statements...) {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil || !tenantdb.IsTransient(err) || try == ddlTries {
			return err
		}
		if err := wait(ctx, ddlPause); err != nil {
			return err
		}
	}
}

// record creates the triggers that record changes and refuse them while the database is
// fenced. When it returns, every transaction that began without them has ended.
func (s side) record(ctx context.Context, tables []archive.Table) error {
	for _, t := range tables {
		if err := s.ddl(ctx, s.dropTriggers(t)); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
		if err := s.ddl(ctx, s.createTriggers(t, tables)); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, triggersRefused(err))
		}
	}
	return nil
}

// unrecord drops the triggers of record, of those tables that exist.
func (s side) unrecord(ctx context.Context, tables []archive.Table) error {
	there, err := s.tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if !there[t.Name] {
			continue // its triggers went with it
		}
		if err := s.ddl(ctx, s.dropTriggers(t)); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return nil
}

// end removes everything that a move has added. It can be repeated.
func (s side) end(ctx context.Context, tables []archive.Table) error {
	if err := s.unrecord(ctx, tables); err != nil {
		return err
	}
	for _, t := range tables {
		if s.Engine != credential.PostgreSQL {
			break
		}
		if err := s.ddl(ctx, []string{`DROP FUNCTION IF EXISTS ` + trigger("", t) + `()`}); err != nil {
			return err
		}
	}
	return s.ddl(ctx, []string{`DROP TABLE IF EXISTS ` + journalTable, `DROP TABLE IF EXISTS ` + controlTable})
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

func (s side) dropTriggers(t archive.Table) []string {
	if s.Engine == credential.PostgreSQL {
		return []string{`DROP TRIGGER IF EXISTS ` + trigger("r_", t) + ` ON ` + t.Name, `DROP TRIGGER IF EXISTS ` + trigger("t_", t) + ` ON ` + t.Name}
	}
	drops := []string{`DROP TRIGGER IF EXISTS ` + trigger("b_", t)}
	for _, e := range events {
		drops = append(drops, `DROP TRIGGER IF EXISTS `+trigger(e.kind, t))
	}
	return drops
}

func (s side) createTriggers(t archive.Table, all []archive.Table) []string {
	if s.Engine == credential.PostgreSQL {
		return postgresTriggers(t)
	}
	var creates []string
	for _, e := range events {
		var body []string
		if s.Engine == credential.MySQL {
			// A locking read waits while the move has frozen the table, and then sees its end.
			body = []string{`DECLARE closed INT DEFAULT 0`,
				`SELECT fenced INTO closed FROM ` + controlTable + ` WHERE one = 1 LOCK IN SHARE MODE`,
				`IF closed = 1 THEN SIGNAL SQLSTATE '` + tenantdb.FenceState + `' SET MESSAGE_TEXT = '` + tenantdb.FenceMessage + `'; END IF`}
		} else {
			body = []string{`SELECT RAISE(ABORT, '` + tenantdb.FenceMessage + `') WHERE (SELECT fenced FROM ` + controlTable + ` WHERE one = 1)`}
		}
		array := map[credential.EngineName]string{credential.MySQL: mysqlArray, credential.SQLite: sqliteArray}[s.Engine]
		if e.old {
			body = append(body, recordKey(t, array, "OLD", e.new))
		}
		if e.new {
			body = append(body, recordKey(t, array, "NEW", false))
		}
		creates = append(creates, `CREATE TRIGGER `+trigger(e.kind, t)+` AFTER `+e.event+` ON `+t.Name+` FOR EACH ROW BEGIN `+strings.Join(body, "; ")+`; END`)
	}
	if children := recordChildren(t, all, `OLD.`+t.Key[0]); s.Engine == credential.MySQL && children != nil {
		creates = append(creates, `CREATE TRIGGER `+trigger("b_", t)+` BEFORE DELETE ON `+t.Name+` FOR EACH ROW BEGIN `+strings.Join(children, "; ")+`; END`)
	}
	return creates
}

// recordChildren returns the statements that record the rows that a foreign key may change
// when a row is deleted, and the rows that reference those. On MySQL, such changes fire no
// triggers. parents is the key of the row, or a query of keys. To record too many keys is
// harmless.
func recordChildren(t archive.Table, all []archive.Table, parents string) (statements []string) {
	for _, child := range all {
		for _, c := range child.Columns {
			if c.References != t.Name {
				continue
			}
			of := ` FROM ` + child.Name + ` WHERE ` + c.Name + ` IN (` + parents + `)`
			statements = append(statements, `INSERT INTO `+journalTable+` (name, k, gone) SELECT '`+child.Name+`', `+mysqlArray+`(`+strings.Join(child.Key, `, `)+`), 0`+of)
			if !c.Self { // its own reference is set to NULL, which changes no further row
				statements = append(statements, recordChildren(child, all, `SELECT `+child.Key[0]+of)...)
			}
		}
	}
	return statements
}

// recordKey returns the statement that records the key of the old or the new row. With
// changed, it records an old key only if the new one differs.
func recordKey(t archive.Table, array, row string, changed bool) string {
	gone := map[bool]string{true: "1", false: "0"}[row == "OLD"]
	if array == postgresArray {
		gone = map[bool]string{true: "true", false: "false"}[row == "OLD"]
	}
	insert := `INSERT INTO ` + journalTable + ` (name, k, gone) `
	values := `'` + t.Name + `', ` + array + `(` + row + `.` + strings.Join(t.Key, `, `+row+`.`) + `), ` + gone
	switch {
	case !changed:
		return insert + `VALUES (` + values + `)`
	case array == sqliteArray:
		return insert + `SELECT ` + values + ` WHERE NOT (` + equal(t.Key) + `)`
	}
	return `IF NOT (` + equal(t.Key) + `) THEN ` + insert + `VALUES (` + values + `); END IF`
}

// These are the functions that make a JSON array.
const (
	sqliteArray   = "json_array"
	mysqlArray    = "JSON_ARRAY"
	postgresArray = "json_build_array"
)

// equal returns the condition that the old and the new key are the same.
func equal(key []string) string {
	var all []string
	for _, c := range key {
		all = append(all, "OLD."+c+" = NEW."+c)
	}
	return strings.Join(all, " AND ")
}

// freezeLock is the key of the advisory lock that writers share and that a freeze takes
// alone. In contrast to a row lock, later writers wait behind the freeze, so that a stream
// of writers cannot keep it out.
const freezeLock = 7_304_212_960_114_001

// postgresTriggers returns one function per table and its triggers. The function has the
// rights of its owner, because the owner's other roles may write the tables without a right
// to the journal. It locks the control row too: a transaction of a higher isolation level
// than READ COMMITTED, which does not see a later fence, then fails.
func postgresTriggers(t archive.Table) []string {
	function := `CREATE OR REPLACE FUNCTION ` + trigger("", t) + `() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $stoa$
		DECLARE closed boolean;
		BEGIN
			PERFORM pg_catalog.pg_advisory_xact_lock_shared(` + fmt.Sprint(int64(freezeLock)) + `);
			SELECT fenced INTO closed FROM ` + controlTable + ` WHERE one = 1 FOR SHARE;
			IF closed THEN RAISE EXCEPTION '` + tenantdb.FenceMessage + `' USING ERRCODE = '` + tenantdb.FenceState + `'; END IF;
			IF TG_OP = 'TRUNCATE' THEN
				INSERT INTO ` + journalTable + ` (name, k, gone) VALUES ('` + t.Name + `', '', true);
				RETURN NULL;
			END IF;
			IF TG_OP = 'DELETE' THEN ` + recordKey(t, postgresArray, "OLD", false) + `; END IF;
			IF TG_OP = 'UPDATE' THEN ` + recordKey(t, postgresArray, "OLD", true) + `; END IF;
			IF TG_OP <> 'DELETE' THEN ` + recordKey(t, postgresArray, "NEW", false) + `; END IF;
			RETURN NULL;
		END $stoa$`
	call := ` EXECUTE FUNCTION ` + trigger("", t) + `()`
	return []string{function,
		`REVOKE ALL ON FUNCTION ` + trigger("", t) + `() FROM PUBLIC`, // who fires the trigger needs no right
		`CREATE TRIGGER ` + trigger("r_", t) + ` AFTER INSERT OR UPDATE OR DELETE ON ` + t.Name + ` FOR EACH ROW` + call,
		`CREATE TRIGGER ` + trigger("t_", t) + ` AFTER TRUNCATE ON ` + t.Name + ` FOR EACH STATEMENT` + call,
	}
}

// shape describes the tables and triggers as far as a statement that no trigger sees changes
// them: one that truncates a table, creates it anew or alters it.
func (s side) shape(ctx context.Context) (string, error) {
	query := map[credential.EngineName]string{
		credential.SQLite: `SELECT name || ' ' || coalesce(sql, '') AS part FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY type, name LIMIT 5000`,
		credential.PostgreSQL: `SELECT c.relname || ' ' || c.oid || ' ' || c.relfilenode || ' ' || c.relnatts || ' ' || coalesce((SELECT string_agg(t.tgname || t.tgenabled::text, ',' ORDER BY t.tgname)
				FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal), '') AS part FROM pg_catalog.pg_class c
			WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND c.relkind IN ('r', 'p') ORDER BY c.relname LIMIT 5000`,
		credential.MySQL: `SELECT concat(t.table_name, ' ', coalesce(t.create_time, ''), ' ', (SELECT count(*) FROM information_schema.triggers g
				WHERE g.event_object_schema = database() AND g.event_object_table = t.table_name)) AS part FROM information_schema.tables t
			WHERE t.table_schema = database() ORDER BY t.table_name LIMIT 5000`,
	}[s.Engine]
	var parts []struct {
		Part string `max:"20000"`
	}
	err := s.Select(ctx, &parts, query)
	return fmt.Sprint(parts), err
}

// wait waits for d, or until ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
