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

// apiRoleList lists, in SQL, the roles that the HTTP API of a Supabase project
// (PostgREST) uses to run its callers' queries. The key of the first role is
// public.
// Source: Supabase documentation, "Postgres roles".
const apiRoleList = `('anon', 'authenticated', 'service_role')`

// publicSchema is the schema that Supabase's HTTP API exposes. A store that was
// connected to this schema shares it with other software.
const publicSchema = "public"

// ServesAPI reports whether an HTTP API such as Supabase's may be able to reach
// this database. It may if the database belongs to a Supabase project, or if
// the roles of such an API have rights where the store's tables are or will be.
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

// securable is an object in a schema on which rights can be granted.
type securable struct {
	Kind   string // as in GRANT … ON <kind>; "DEFAULT <kind>" for default privileges
	Name   string // quoted by the server
	Base   string // unquoted name of the object; for an owned sequence, of its table
	Owned  bool   // the connected role may grant and revoke
	NoRLS  bool   `db:"no_rls"`  // a table that supports row-level security and has it disabled
	OpenTo string `db:"open_to"` // the roles of apiRoleList, and PUBLIC, that have any right
}

// securables lists the objects in the current schema. It excludes a schema
// "public" itself, because other software uses it, and the members of
// extensions. It only asks about roles that exist.
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

// securables returns the objects of the current schema that belong to the
// store. These are all objects, except in a schema "public", which other
// software may share: there, they are the objects that the migrations create,
// including the operator's custom migrations.
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

// These expressions match names in the text of a migration: a name that needs
// no quotes (with or without them), and a name that needs quotes.
var (
	plainName  = regexp.MustCompile(`[\p{L}_][\p{L}\p{N}_$]*`)
	quotedName = regexp.MustCompile(`"([^"]+)"`)
)

// madeByMigrations returns the names that the migrations on PostgreSQL may have
// given to the objects that they create. For custom migrations it returns all
// names in their text: too many are safer than too few.
func (db *DB) madeByMigrations() (map[string]bool, error) {
	expected, err := Expected(credential.PostgreSQL)
	if err != nil {
		return nil, err
	}
	made := map[string]bool{VersionTable: true, CustomVersionTable: true, MarkerTable: true}
	for what := range expected {
		made[tableOf(what)] = true
	}
	if db.own == nil || db.own.folders[postgresDialect.folder] == nil {
		return made, nil
	}
	files := db.own.folders[postgresDialect.folder]
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
// on the store's objects in this database. This includes the default privileges
// in the store's own schema. It then enables row-level security on the store's
// tables; the owner of a table bypasses it. CloseToAPI changes no data and can
// be repeated. Queries wait for its locks only while it enables row-level
// security. It does nothing if there is no such API.
//
// Row-level security stays disabled for a table on which the project's owner
// has granted rights to other roles, because those roles would see no rows.
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

// revocation returns the statement that revokes all rights from the roles.
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

// lockAttempts multiplied by lockTimeout is how long a statement waits for a
// table that another party's long query or transaction has locked. Between two
// attempts, the requests that queue behind the statement can run.
const lockAttempts = 3

// execAll executes the statements in one transaction.
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
		if attempt == lockAttempts || !IsState(err, "55P03") { // lock_not_available
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

// ProveClosed checks that no role of an HTTP API, and not PUBLIC, has any right
// on the store's objects in this database. Otherwise it fails with
// database_exposed. It asks the server for the rights of these roles. It also
// reads each table as each role that the connected role may become. It does
// nothing if there is no such API.
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

// exposed returns the database_exposed error. It quotes the server's names of
// objects, because they may contain any bytes.
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
// that it can read. No server uses this SQLSTATE.
const readable = "STOA1"

// askAsAPI reads each table as each role of an HTTP API that the connected role
// may become. It uses one statement, so that it works through a transaction
// pooler.
func (db *DB) askAsAPI(ctx context.Context, tables []string) error {
	if len(tables) == 0 {
		return nil
	}
	var names []string
	for _, name := range tables {
		names = append(names, `'`+strings.ReplaceAll(name, `'`, `''`)+`'`)
	}
	quote := `$ask_` + rand.Text() + `$` // no name can contain it
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
