package tenantdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// apiRoleList are the roles, in SQL, as which the HTTP API of a Supabase project
// (PostgREST) runs its callers' queries. The key of the first is public.
// Source: Supabase documentation, "Postgres roles".
const apiRoleList = `('anon', 'authenticated', 'service_role')`

// publicSchema is the schema that Supabase's HTTP API shows, and that other
// software shares with a store that was connected to it.
const publicSchema = "public"

// ServesAPI reports whether an HTTP API such as Supabase's may have a way to
// this database: it is a Supabase project's, or the roles of such an API have
// been granted rights where the store's tables are or will be.
func (db *DB) ServesAPI(ctx context.Context) (serves bool, err error) {
	switch {
	case db.Engine != credential.PostgreSQL || db.credentials.Kind == credential.Managed:
		return false, nil
	case db.credentials.Kind == credential.KindSupabase:
		return true, nil
	}
	err = db.Get(ctx, &serves, `WITH granted AS (
			SELECT acl.grantee FROM pg_catalog.pg_default_acl d, aclexplode(d.defaclacl) acl
			UNION ALL SELECT acl.grantee FROM pg_catalog.pg_namespace n, aclexplode(n.nspacl) acl
				WHERE n.nspname IN ('public', current_schema())
			UNION ALL SELECT acl.grantee FROM pg_catalog.pg_class c, aclexplode(c.relacl) acl
				WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()))
		SELECT EXISTS (SELECT FROM granted JOIN pg_catalog.pg_roles r ON r.oid = granted.grantee WHERE r.rolname IN `+apiRoleList+`)`)
	return serves, err
}

// securable is something in a schema that rights can be granted on.
type securable struct {
	Kind   string // as in GRANT … ON <kind>; "DEFAULT <kind>" for default privileges
	Name   string // quoted by the server
	Base   string // unquoted name of the object, of an owned sequence that of its table
	Owned  bool   // the connected role may grant and revoke
	NoRLS  bool   `db:"no_rls"`  // a table that could have row-level security enabled and has not
	OpenTo string `db:"open_to"` // roles of apiRoleList, and PUBLIC, that have any right
}

// securables lists what is in the current schema. A schema "public" itself is
// left out, since other software has its own use of it, and so are members of
// extensions. Only of roles that exist can be asked.
const securables = `WITH
	space AS (SELECT oid, nspname, nspowner FROM pg_catalog.pg_namespace WHERE nspname = current_schema()),
	who AS (SELECT 'public' AS name, 'PUBLIC' AS shown UNION ALL
		SELECT rolname, rolname FROM pg_catalog.pg_roles WHERE rolname IN ` + apiRoleList + `),
	extension AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e'),
	relation AS (SELECT c.* FROM pg_catalog.pg_class c JOIN space ON c.relnamespace = space.oid
		WHERE NOT EXISTS (SELECT FROM extension e WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid))
	SELECT 'SCHEMA' AS kind, format('%I', nspname) AS name, nspname::text AS base, pg_has_role(nspowner, 'USAGE') AS owned, false AS no_rls,
		coalesce((SELECT string_agg(shown, ', ') FROM who WHERE has_schema_privilege(who.name, space.oid, 'USAGE, CREATE')), '') AS open_to
		FROM space WHERE nspname <> 'public'
	UNION ALL SELECT 'TABLE', format('%I.%I', space.nspname, c.relname), c.relname::text, pg_has_role(c.relowner, 'USAGE'),
		c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND NOT EXISTS (SELECT FROM aclexplode(c.relacl) acl
			LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee
			WHERE acl.grantee NOT IN (0, c.relowner) AND NOT coalesce(r.rolname IN ` + apiRoleList + `, false)),
		coalesce((SELECT string_agg(shown, ', ') FROM who
			WHERE has_table_privilege(who.name, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
			OR has_any_column_privilege(who.name, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')), '')
		FROM relation c, space WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
	UNION ALL SELECT 'SEQUENCE', format('%I.%I', space.nspname, c.relname), coalesce((SELECT t.relname FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_class t ON t.oid = d.refobjid WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
			AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1), c.relname)::text,
		pg_has_role(c.relowner, 'USAGE'), false,
		coalesce((SELECT string_agg(shown, ', ') FROM who WHERE has_sequence_privilege(who.name, c.oid, 'USAGE, SELECT, UPDATE')), '')
		FROM relation c, space WHERE c.relkind = 'S'
	UNION ALL SELECT 'ROUTINE', format('%I.%I(%s)', space.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proname::text,
		pg_has_role(p.proowner, 'USAGE'), false,
		coalesce((SELECT string_agg(shown, ', ') FROM who WHERE has_function_privilege(who.name, p.oid, 'EXECUTE')), '')
		FROM pg_catalog.pg_proc p JOIN space ON p.pronamespace = space.oid
		WHERE NOT EXISTS (SELECT FROM extension e WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid)
	UNION ALL SELECT 'DEFAULT ' || CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' ELSE 'FUNCTIONS' END,
		format('FOR ROLE %I IN SCHEMA %I', pg_get_userbyid(d.defaclrole), space.nspname), '', pg_has_role(d.defaclrole, 'USAGE'), false,
		coalesce((SELECT string_agg(DISTINCT who.shown, ', ') FROM aclexplode(d.defaclacl) acl
			LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee
			JOIN who ON who.name = CASE acl.grantee WHEN 0 THEN 'public' ELSE r.rolname END), '')
		FROM pg_catalog.pg_default_acl d JOIN space ON d.defaclnamespace = space.oid
		WHERE d.defaclobjtype IN ('r', 'S', 'f') AND space.nspname <> 'public'
	ORDER BY 1, 2`

// securables returns what of the current schema is the store's: all of it,
// and in a schema "public", which other software may share, what the
// migrations make, the operator's own among them.
func (db *DB) securables(ctx context.Context) ([]securable, error) {
	var schema *string
	if err := db.Get(ctx, &schema, `SELECT current_schema()::text`); err != nil {
		return nil, err
	}
	var all []securable
	if err := db.Select(ctx, &all, securables); err != nil || schema == nil || *schema != publicSchema {
		return all, err
	}
	made, err := db.madeByMigrations()
	return slices.DeleteFunc(all, func(s securable) bool { return !made[s.Base] }), err
}

// Names in the text of a migration: one that needs no quotes, or has them and
// maybe needs none, and one that needs them.
var (
	plainName  = regexp.MustCompile(`[\p{L}_][\p{L}\p{N}_$]*`)
	quotedName = regexp.MustCompile(`"([^"]+)"`)
)

// madeByMigrations are the names that the migrations on PostgreSQL may have
// given to what they made. Of the operator's own, these are all names in their
// text: too many rather than too few.
func (db *DB) madeByMigrations() (map[string]bool, error) {
	expected, err := Expected(credential.PostgreSQL)
	if err != nil {
		return nil, err
	}
	made := map[string]bool{VersionTable: true, CustomVersionTable: true, MarkerTable: true}
	for what := range expected {
		made[tableOf(what)] = true
	}
	if db.own == nil || db.own.folders[credential.PostgreSQL] == nil {
		return made, nil
	}
	files := db.own.folders[credential.PostgreSQL]
	names, err := fs.Glob(files, "*.sql")
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		for _, word := range plainName.FindAllString(string(text), -1) {
			made[word], made[strings.ToLower(word)] = true, true
		}
		for _, match := range quotedName.FindAllStringSubmatch(string(text), -1) {
			made[match[1]] = true
		}
	}
	return made, err
}

// CloseToAPI revokes all rights that the roles of an HTTP API and PUBLIC have
// on what is the store's in this database, default privileges in the store's
// own schema included, and then enables row-level security on its tables,
// which their owner passes. It changes no data, takes no lock that a query
// waits for but for the moment of enabling, and may be run again. Where no such
// API is, it does nothing.
//
// Row-level security stays off for a table on which the project's owner has
// granted rights to other roles: these would find it empty.
func (db *DB) CloseToAPI(ctx context.Context) error {
	serves, err := db.ServesAPI(ctx)
	if err != nil || !serves {
		return err
	}
	all, err := db.securables(ctx)
	if err != nil {
		return err
	}
	roles, err := db.existingAPIRoles(ctx)
	if err != nil {
		return err
	}
	var revoke, enable []string
	for _, s := range all {
		if s.Owned && s.OpenTo != "" {
			revoke = append(revoke, s.revocation(roles))
		}
		if s.Owned && s.NoRLS {
			enable = append(enable, `ALTER TABLE `+s.Name+` ENABLE ROW LEVEL SECURITY`)
		}
	}
	if err := db.execAll(ctx, revoke); err != nil {
		return err
	}
	return db.execAll(ctx, enable)
}

// revocation is the statement that takes everything from the roles.
func (s securable) revocation(roles string) string {
	if kind, ok := strings.CutPrefix(s.Kind, "DEFAULT "); ok {
		return `ALTER DEFAULT PRIVILEGES ` + s.Name + ` REVOKE ALL ON ` + kind + ` FROM ` + roles
	}
	return `REVOKE ALL ON ` + s.Kind + ` ` + s.Name + ` FROM ` + roles + ` CASCADE`
}

func (db *DB) existingAPIRoles(ctx context.Context) (string, error) {
	var roles string
	err := db.Get(ctx, &roles, `SELECT concat_ws(', ', 'PUBLIC', (SELECT string_agg(format('%I', rolname), ', ')
		FROM pg_catalog.pg_roles WHERE rolname IN `+apiRoleList+`))`)
	return roles, err
}

// lockAttempts times lockTimeout is how long a statement waits for a table that
// a long query or transaction of another's has locked. Between two attempts
// those get their turn that wait behind it.
const lockAttempts = 3

// execAll runs the statements in one transaction.
func (db *DB) execAll(ctx context.Context, statements []string) error {
	for attempt := 1; len(statements) > 0; attempt++ {
		err := db.Tx(ctx, func(tx *Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
				return err
			}
			for _, statement := range statements {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
		if attempt == lockAttempts || !isState(err, "55P03") { // lock_not_available
			return err
		}
		select {
		case <-time.After(time.Duration(attempt) * 100 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
	return nil
}

// ProveClosed fails with database_exposed when a role of an HTTP API, or
// PUBLIC, has any right on what is the store's in this database. It asks the
// server for their rights and, as far as the connected role may become one of
// them, reads each table as that role. Where no such API is, there is nothing
// to be proven.
func (db *DB) ProveClosed(ctx context.Context) error {
	serves, err := db.ServesAPI(ctx)
	if err != nil || !serves {
		return err
	}
	all, err := db.securables(ctx)
	if err != nil {
		return err
	}
	var open, tables []string
	for _, s := range all {
		if s.OpenTo != "" {
			open = append(open, strings.ToLower(s.Kind)+" "+s.Name+" ("+s.OpenTo+")")
		}
		if s.Kind == "TABLE" {
			tables = append(tables, s.Name)
		}
	}
	if len(open) > 0 {
		return exposed(open)
	}
	return db.askAsAPI(ctx, tables)
}

// exposed quotes what the server calls its objects: it may hold any bytes.
func exposed(open []string) *stoa.Error {
	const few = 3
	var quoted []string
	for _, what := range open[:min(few, len(open))] {
		quoted = append(quoted, strconv.Quote(strings.ToValidUTF8(what, "?")))
	}
	list := strings.Join(quoted, ", ")
	if more := len(open) - few; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return stoa.Errorf(stoa.DatabaseExposed, "The HTTP API of the Supabase project can reach the store's data: %.600s. As the owner of these, "+
		"REVOKE ALL … FROM PUBLIC, anon, authenticated, service_role, and try again.", list)
}

// readable is the SQLSTATE that the statement of askAsAPI raises for a table
// that it could read; no server has it.
const readable = "STOA1"

// askAsAPI reads each table as each role of an HTTP API that the connected role
// may become, in one statement, which a transaction pooler can carry.
func (db *DB) askAsAPI(ctx context.Context, tables []string) error {
	if len(tables) == 0 {
		return nil
	}
	var names []string
	for _, name := range tables {
		names = append(names, `'`+strings.ReplaceAll(name, `'`, `''`)+`'`)
	}
	quote := `$ask_` + rand.Text() + `$` // nothing in a name can end it
	_, err := db.Exec(ctx, `DO `+quote+`
DECLARE
	who text;
	name text;
BEGIN
	FOR who IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN `+apiRoleList+` AND pg_has_role(oid, 'MEMBER') LOOP
		BEGIN
			EXECUTE format('SET LOCAL ROLE %I', who);
		EXCEPTION WHEN insufficient_privilege THEN CONTINUE;
		END;
		FOREACH name IN ARRAY ARRAY[`+strings.Join(names, `, `)+`]::text[] LOOP
			BEGIN
				EXECUTE 'SELECT FROM ' || name || ' LIMIT 0';
				RAISE EXCEPTION 'readable' USING ERRCODE = '`+readable+`', DETAIL = 'table ' || name || ' (' || who || ')';
			EXCEPTION WHEN insufficient_privilege THEN NULL;
			END;
		END LOOP;
		SET LOCAL ROLE NONE;
	END LOOP;
END
`+quote)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == readable {
		return exposed([]string{pgErr.Detail})
	}
	return err
}
