package tenantdb

import "fmt"

// postgresRecorder records the changes of databases on PostgreSQL.
type postgresRecorder struct{}

func (postgresRecorder) State() []string {
	return []string{
		`CREATE TABLE IF NOT EXISTS ` + MoveControlTable + ` (one smallint NOT NULL PRIMARY KEY CHECK (one = 1), move_id varchar(36) NOT NULL, role varchar(6) NOT NULL, fenced boolean NOT NULL)`,
		`CREATE TABLE IF NOT EXISTS ` + MoveJournalTable + ` (seq bigserial PRIMARY KEY, name varchar(63) NOT NULL, k text NOT NULL, gone boolean NOT NULL)`,
	}
}

func (postgresRecorder) Probe(name string) (create, drop []string) {
	create = []string{
		`CREATE OR REPLACE FUNCTION ` + name + `() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
		`CREATE TRIGGER ` + name + ` AFTER DELETE ON ` + MoveControlTable + ` FOR EACH ROW EXECUTE FUNCTION ` + name + `()`,
	}
	return create, []string{`DROP TRIGGER IF EXISTS ` + name + ` ON ` + MoveControlTable, `DROP FUNCTION IF EXISTS ` + name + `()`}
}

func (postgresRecorder) LimitLock() string { return `SET LOCAL lock_timeout = '1s'` }

// freezeLock is the key of the advisory lock that writers share and that a freeze takes
// alone. In contrast to a row lock, later writers wait behind the freeze, so that a stream
// of writers cannot keep it out.
const freezeLock = 7_304_212_960_114_001

func (postgresRecorder) Freeze() string {
	return fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d)`, int64(freezeLock))
}

// CreateTriggers implements Recorder, with one function per table. The function has the
// rights of its owner, because the owner's other roles may write the tables without a right
// to the journal. It locks the control row too: a transaction of a higher isolation level
// than READ COMMITTED, which does not see a later fence, then fails.
func (r postgresRecorder) CreateTriggers(t Table, _ []Table) []string {
	function := `CREATE OR REPLACE FUNCTION ` + moveTrigger("", t) + `() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $stoa$
		DECLARE closed boolean;
		BEGIN
			PERFORM pg_catalog.pg_advisory_xact_lock_shared(` + fmt.Sprint(int64(freezeLock)) + `);
			SELECT fenced INTO closed FROM ` + MoveControlTable + ` WHERE one = 1 FOR SHARE;
			IF closed THEN RAISE EXCEPTION '` + fenceMessage + `' USING ERRCODE = '` + fenceState + `'; END IF;
			IF TG_OP = 'TRUNCATE' THEN
				INSERT INTO ` + MoveJournalTable + ` (name, k, gone) VALUES ('` + t.Name + `', '', true);
				RETURN NULL;
			END IF;
			IF TG_OP = 'DELETE' THEN ` + r.record(t, "OLD", false) + `; END IF;
			IF TG_OP = 'UPDATE' THEN ` + r.record(t, "OLD", true) + `; END IF;
			IF TG_OP <> 'DELETE' THEN ` + r.record(t, "NEW", false) + `; END IF;
			RETURN NULL;
		END $stoa$`
	call := ` EXECUTE FUNCTION ` + moveTrigger("", t) + `()`
	return []string{function,
		`REVOKE ALL ON FUNCTION ` + moveTrigger("", t) + `() FROM PUBLIC`, // who fires the trigger needs no right
		`CREATE TRIGGER ` + moveTrigger("r_", t) + ` AFTER INSERT OR UPDATE OR DELETE ON ` + t.Name + ` FOR EACH ROW` + call,
		`CREATE TRIGGER ` + moveTrigger("t_", t) + ` AFTER TRUNCATE ON ` + t.Name + ` FOR EACH STATEMENT` + call,
	}
}

// record returns the statement that records the key of the old or the new row. With changed,
// it records an old key only if the new one differs.
func (postgresRecorder) record(t Table, row string, changed bool) string {
	return insertRow(t, journalRow(t, "json_build_array", row, [2]string{"false", "true"}), changed)
}

func (postgresRecorder) DropTriggers(t Table) []string {
	return []string{`DROP TRIGGER IF EXISTS ` + moveTrigger("r_", t) + ` ON ` + t.Name, `DROP TRIGGER IF EXISTS ` + moveTrigger("t_", t) + ` ON ` + t.Name}
}

func (postgresRecorder) Alternative([]string, error) []string { return nil }

func (postgresRecorder) DropFunctions(t Table) []string {
	return []string{`DROP FUNCTION IF EXISTS ` + moveTrigger("", t) + `()`}
}

func (postgresRecorder) Shape() string {
	return `SELECT c.relname || ' ' || c.oid || ' ' || c.relfilenode || ' ' || c.relnatts || ' ' || coalesce((SELECT string_agg(t.tgname || t.tgenabled::text, ',' ORDER BY t.tgname)
			FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal), '') AS part FROM pg_catalog.pg_class c
		WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND c.relkind IN ('r', 'p') ORDER BY c.relname LIMIT 5000`
}
