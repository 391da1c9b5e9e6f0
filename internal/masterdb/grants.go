package masterdb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ownersTables are those that only the tables' owner writes: which migrations
// were applied, which releases may run on them, and how long the audit log is kept.
var ownersTables = map[string]bool{"goose_db_version": true, "river_migration": true, "schema_compatibility": true, "audit_retention": true}

// grantLock is an arbitrary number that only this file uses. PostgreSQL fails
// two transactions that change the rights to one table at the same time.
const grantLock int64 = 0x73746f61_6772616e // "stoagran"

// relation is a table or sequence of the master database.
type relation struct {
	Name       string
	Sequence   bool
	AppendOnly bool // as its trigger has it
	Expires    bool // append-only, and another trigger lets expired rows go
}

// rights are what a server needs.
func (r relation) rights() string {
	switch {
	case r.Sequence:
		return "USAGE"
	case ownersTables[r.Name]:
		return "SELECT"
	case r.AppendOnly && r.Expires:
		return "SELECT, INSERT, DELETE"
	case r.AppendOnly:
		return "SELECT, INSERT"
	default:
		return "SELECT, INSERT, UPDATE, DELETE"
	}
}

// ofExtension is an SQL condition: the relation c of pg_class is a member of an
// extension. Such a table is not the platform's, whoever owns it.
const ofExtension = `EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`

// GrantTo gives role what a server needs on the tables and sequences that are
// there, and takes away what else it had on them: rows of append-only tables
// it can add and read, and delete where a trigger lets expired ones go. Whoever calls owns the tables. It holds for tables of
// later migrations only when called again. PostgreSQL only: SQLite has no roles.
func (db *DB) GrantTo(ctx context.Context, role string) error {
	return db.Tx(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, grantLock); err != nil {
			return err
		}
		if err := checkRole(ctx, tx, role); err != nil {
			return err
		}
		var all []relation
		var schema string
		if err := tx.Get(ctx, &schema, `SELECT current_schema()`); err != nil {
			return err
		}
		if err := tx.Select(ctx, &all, `
			SELECT c.relname AS name, c.relkind = 'S' AS sequence, EXISTS (
				SELECT 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid AND p.proname = 'refuse_change'
			) AS append_only, EXISTS (
				SELECT 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid AND p.proname = 'refuse_early_delete'
			) AS expires
			FROM pg_class c
			WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'S') AND pg_has_role(c.relowner, 'USAGE')
				AND NOT `+ofExtension+`
			ORDER BY c.relname`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, grants(schema, role, all))
		return err
	})
}

func grants(schema, role string, all []relation) string {
	to := pgx.Identifier{role}.Sanitize()
	statements := []string{fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s", pgx.Identifier{schema}.Sanitize(), to)}
	for _, r := range all {
		kind := "TABLE"
		if r.Sequence {
			kind = "SEQUENCE"
		}
		name := pgx.Identifier{schema, r.Name}.Sanitize()
		statements = append(statements,
			fmt.Sprintf("REVOKE ALL ON %s %s FROM %s", kind, name, to),
			fmt.Sprintf("GRANT %s ON %s %s TO %s", r.rights(), kind, name, to))
	}
	return strings.Join(statements, ";\n")
}

// checkRole wants a role that grants can bind: not one that may do everything
// anyway.
func checkRole(ctx context.Context, tx *Tx, role string) error {
	var found struct{ Owner, Unbound bool }
	err := tx.Get(ctx, &found, `
		SELECT rolname = current_user AS owner, pg_has_role(oid, (
			SELECT relowner FROM pg_class WHERE oid = to_regclass('credit_transactions')), 'MEMBER') AS unbound
		FROM pg_roles WHERE rolname = $1`, role)
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("there is no role %.100q; make it first: CREATE ROLE %.100s LOGIN PASSWORD '…'", role, pgx.Identifier{role}.Sanitize())
	case err != nil:
		return err
	case found.Owner:
		return fmt.Errorf("%q is the role that migrates, and owns the tables; name another one, which 'stoa serve' then uses", role)
	case found.Unbound:
		return fmt.Errorf("%q is a superuser or a member of the role that owns the tables: it may do everything, whatever is granted; name another one", role)
	}
	return nil
}

// CheckGrants returns an error that names the tables which this connection's
// role cannot read, such as those of a migration after the last GrantTo. It
// says nothing on SQLite.
func (db *DB) CheckGrants(ctx context.Context) error {
	if db.Engine != Postgres {
		return nil
	}
	var missing struct {
		Role   string
		Tables string
	}
	err := db.Get(ctx, &missing, `
		SELECT current_user AS role, coalesce(string_agg(relname, ', ' ORDER BY relname), '') AS tables FROM pg_class c
		WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT has_table_privilege(oid, 'SELECT') AND NOT `+ofExtension)
	if err != nil || missing.Tables == "" {
		return err
	}
	return fmt.Errorf("the role %q may not read %s; as the role that owns the master database, run 'stoa migrate --grant-to %s'",
		missing.Role, missing.Tables, missing.Role)
}
