package masterbackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// restoreLock is the key of an advisory lock that only this file uses. A restore holds it
// to its end.
const restoreLock int64 = 0x73746f61_72657374 // "stoarest"

// postgres restores into an empty PostgreSQL database. From its first change to its last,
// the table masterdb.RestoreTable keeps servers from starting. All rows are loaded in one
// transaction.
func (r *reader) postgres(ctx context.Context, url string, latest int64) error {
	db, err := masterdb.Open(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	unlock, err := lockRestore(ctx, db)
	if err != nil {
		return err
	}
	defer unlock()
	if err := beginRestore(ctx, db); err != nil {
		return db.MapError(ctx, err)
	}
	if err := db.MigrateTo(ctx, r.head.SchemaVersion); err != nil {
		return err
	}
	if err := jobs.MigrateTo(ctx, db, r.head.QueueVersion); err != nil {
		return err
	}
	if err := r.checkVersions(ctx, db); err != nil {
		return err
	}
	if err := pgx.BeginFunc(ctx, db.Pool(), func(tx pgx.Tx) error { return r.load(ctx, db, tx) }); err != nil {
		return db.MapError(ctx, err)
	}
	if err := r.checkVersions(ctx, db); err != nil {
		return err
	}
	if err := migrate(ctx, db, latest); err != nil {
		return err
	}
	return db.Tx(ctx, func(tx *masterdb.Tx) error {
		if r.opts.Finish != nil {
			if err := r.opts.Finish(ctx, tx, r.head); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `DROP TABLE `+masterdb.RestoreTable)
		return err
	})
}

// lockRestore takes the lock that ends with this process.
func lockRestore(ctx context.Context, db *masterdb.DB) (unlock func(), err error) {
	conn, err := db.Dedicated(ctx, "stoa restore")
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = conn.Close(context.WithoutCancel(ctx)) }
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, restoreLock).Scan(&locked); err != nil || !locked {
		unlock()
		if err == nil {
			err = stoa.Errorf(stoa.PlatformUnavailable, "Another process restores into this database. Wait until it has ended.")
		}
		return nil, err
	}
	return unlock, nil
}

// beginRestore checks that the database is empty, or removes what an interrupted restore has
// left, and creates the table that keeps servers from starting.
func beginRestore(ctx context.Context, db *masterdb.DB) error {
	return pgx.BeginFunc(ctx, db.Pool(), func(tx pgx.Tx) error {
		if err := masterdb.LockMigrations(ctx, tx); err != nil {
			return err
		}
		list, err := pgObjects(ctx, tx)
		if err != nil {
			return err
		}
		begun := slices.ContainsFunc(list, func(o pgObject) bool {
			return o.kind == "TABLE" && o.name == masterdb.RestoreTable
		})
		if len(list) > 0 && !begun {
			return notEmpty(ctx, tx, list)
		}
		for _, o := range list {
			if _, err := tx.Exec(ctx, `DROP `+o.kind+` IF EXISTS `+o.name+` CASCADE`); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `CREATE TABLE `+masterdb.RestoreTable+` (begun_at timestamptz NOT NULL DEFAULT now())`)
		return err
	})
}

// pgObject is something that can be dropped. name is quoted.
type pgObject struct{ kind, name string }

// pgObjects lists what is in the current schema, members of extensions left out, in an order
// in which all can be dropped.
func pgObjects(ctx context.Context, tx pgx.Tx) (list []pgObject, err error) {
	rows, err := tx.Query(ctx, `
		SELECT kind, name FROM (
			SELECT CASE relkind WHEN 'S' THEN 2 ELSE 1 END AS n, CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS kind,
				quote_ident(relname) AS name, oid, 'pg_class'::regclass AS class
			FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
			UNION ALL
			SELECT 3, CASE prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END, oid::regprocedure::text, oid, 'pg_proc'::regclass
			FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
			UNION ALL
			SELECT 4, 'TYPE', quote_ident(typname), oid, 'pg_type'::regclass
			FROM pg_type WHERE typnamespace = current_schema()::regnamespace AND typtype IN ('e', 'd', 'r')
		) o WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.class AND e.objid = o.oid AND e.deptype = 'e')
		ORDER BY n, name`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o pgObject, err error) {
		err = row.Scan(&o.kind, &o.name)
		return o, err
	})
}

// notEmpty returns the error for a database with other content.
func notEmpty(ctx context.Context, tx pgx.Tx, list []pgObject) error {
	what := "It has " + describe(list) + "."
	if slices.ContainsFunc(list, func(o pgObject) bool { return o.name == "goose_db_version" }) && slices.ContainsFunc(list, func(o pgObject) bool { return o.name == "stores" }) {
		var users, stores int64
		if err := tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM stores)`).Scan(&users, &stores); err != nil {
			return err
		}
		what = fmt.Sprintf("It is a master database already, with %d users and %d stores.", users, stores)
	}
	return stoa.Errorf(stoa.DatabaseNotEmpty, "The database is not empty. %s Nothing was changed. Create a new database and restore into that: CREATE DATABASE ….", what)
}

// describe names a few of the objects.
func describe(list []pgObject) string {
	const most = 3
	var parts []string
	for _, o := range list[:min(most, len(list))] {
		parts = append(parts, "the "+strings.ToLower(o.kind)+" "+shorten(o.name))
	}
	if n := len(list) - most; n > 0 {
		parts = append(parts, fmt.Sprintf("%d more", n))
	}
	return strings.Join(parts, ", ")
}

// load replaces the rows of the new schema, some of which migrations have written, by those
// of the archive, and compares them.
func (r *reader) load(ctx context.Context, db *masterdb.DB, tx pgx.Tx) error {
	found, err := pgTables(ctx, db)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(t Table) bool { return t.Name == masterdb.RestoreTable })
	if err := sameTables(r.head.Tables, found); err != nil {
		return err
	}
	references, err := suspendRules(ctx, tx, r.head.Tables)
	if err != nil {
		return err
	}
	for _, t := range r.head.Tables {
		if err := r.copyIn(ctx, tx, t); err != nil {
			return err
		}
	}
	if err := r.end(); err != nil {
		return err
	}
	if err := r.setSequences(ctx, tx); err != nil {
		return err
	}
	if err := resumeRules(ctx, tx, r.head.Tables, references); err != nil {
		return err
	}
	for i, t := range r.head.Tables {
		count := newLineTally()
		if err := copyOut(ctx, tx, t, count); err != nil {
			return err
		}
		if err := r.compare(count.Summary(t.Name), r.sums[i]); err != nil {
			return err
		}
	}
	return nil
}

// foreignKey is a foreign key that is dropped while rows are loaded.
type foreignKey struct{ table, name, definition string }

// suspendRules empties the tables, and removes until resumeRules what is about changes of
// single rows: triggers, and foreign keys, whose order the tables are not in.
func suspendRules(ctx context.Context, tx pgx.Tx, tables []Table) ([]foreignKey, error) {
	rows, err := tx.Query(ctx, `SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
		WHERE contype = 'f' AND connamespace = current_schema()::regnamespace ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	references, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k foreignKey, err error) {
		err = row.Scan(&k.table, &k.name, &k.definition)
		return k, err
	})
	if err != nil {
		return nil, err
	}
	var statements, names []string
	for _, k := range references {
		statements = append(statements, `ALTER TABLE `+k.table+` DROP CONSTRAINT `+k.name)
	}
	for _, t := range tables {
		names = append(names, t.Name)
		statements = append(statements, `ALTER TABLE `+quoted([]string{t.Name})+` DISABLE TRIGGER USER`)
	}
	statements = append(statements, `TRUNCATE `+quoted(names))
	return references, execAll(ctx, tx, statements)
}

// resumeRules brings back what suspendRules has removed. All rows are checked by the foreign
// keys.
func resumeRules(ctx context.Context, tx pgx.Tx, tables []Table, references []foreignKey) error {
	var statements []string
	for _, t := range tables {
		statements = append(statements, `ALTER TABLE `+quoted([]string{t.Name})+` ENABLE TRIGGER USER`)
	}
	for _, k := range references {
		statements = append(statements, `ALTER TABLE `+k.table+` ADD CONSTRAINT `+k.name+` `+k.definition)
	}
	return execAll(ctx, tx, statements)
}

func execAll(ctx context.Context, tx pgx.Tx, statements []string) error {
	for _, s := range statements {
		if _, err := tx.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// copyIn loads the rows of a table, and checks that they are those of its summary.
func (r *reader) copyIn(ctx context.Context, tx pgx.Tx, t Table) error {
	data, count := r.data(), newLineTally()
	_, err := tx.Conn().PgConn().CopyFrom(ctx, io.TeeReader(data, count), `COPY `+quoted([]string{t.Name})+` (`+quoted(t.Columns)+`) FROM STDIN`)
	if data.err != nil && !errors.Is(data.err, io.EOF) {
		return data.err
	}
	if err != nil {
		return fmt.Errorf("load the table %s: %w", t.Name, err)
	}
	if data.sum == nil || count.Summary(t.Name) != *data.sum {
		return container.Damaged("the rows of the table "+t.Name+" are not those that were written", nil)
	}
	r.total.AddAll(count.Tally)
	return nil
}

// setSequences sets the sequences, which must be those of the schema.
func (r *reader) setSequences(ctx context.Context, tx pgx.Tx) error {
	for _, s := range r.head.Sequences {
		if _, err := tx.Exec(ctx, `SELECT setval((quote_ident(current_schema()) || '.' || quote_ident($1))::regclass, $2)`, s.Name, s.Last); err != nil {
			return fmt.Errorf("sequence %s: %w", s.Name, err)
		}
	}
	return nil
}
