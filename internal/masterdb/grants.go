package masterdb

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ownersTables are the tables that only their owner writes. They say which migrations were
// applied, which releases may run on them, and how long the audit log is kept.
var ownersTables = map[string]bool{"goose_db_version": true, "river_migration": true, "schema_compatibility": true, "audit_retention": true}

// grantLock is the key of an advisory lock that only this file uses. PostgreSQL fails two
// transactions that change the privileges on one table at the same time.
const grantLock int64 = 0x73746f61_6772616e // "stoagran"

// relation is a table or sequence of the master database.
type relation struct {
	Name       string
	Sequence   bool
	AppendOnly bool // whether a trigger makes it append-only
	Expires    bool // append-only, but a trigger permits deleting expired rows
}

// rights returns the privileges that a server needs on the relation.
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

// ofExtension is an SQL condition: the relation c of pg_class is a member of an extension.
// Such a table does not belong to the platform, whoever owns it.
const ofExtension = `EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`

// GrantTo grants role the privileges that a server needs on all existing tables and
// sequences, and revokes every other privilege on them. On an append-only table the role
// may insert and select, and may delete only where a trigger permits deleting expired rows.
// The caller must own the tables. Tables of later migrations need another call. GrantTo
// works on PostgreSQL only: SQLite has no roles.
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

// checkRole returns an error for a role that grants cannot restrict, such as a superuser or
// the owner of the tables.
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

// CheckGrants returns an error that names the tables which this connection's role cannot
// read, such as those of a migration after the last GrantTo. It returns nil on SQLite.
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
