package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Warning is a fact about a working database that its owner should know.
type Warning struct {
	Code    stoa.Code `json:"code"`
	Message string    `json:"message"`
}

// These constants are the codes of warnings. They say who else may read a
// store's database. They are not errors; the API returns them in addition to a
// result.
const (
	PublicConnect  stoa.Code = "database_public_connect"  // every role of the server may connect
	PublicRights   stoa.Code = "database_public_rights"   // every role of the server has rights on the schema or its tables
	OtherReaders   stoa.Code = "database_other_readers"   // other accounts have rights on the tables
	AnyHost        stoa.Code = "database_any_host"        // the account may log in from any address
	ReadersUnknown stoa.Code = "database_readers_unknown" // the account may not see who else has rights
)

// Warnings returns who else may read the database, except superusers. It does
// not check whether an HTTP API may: see ProveClosed. It returns nothing for a
// managed database, to which only its store's role may connect, and nothing for
// an embedded one.
func (db *DB) Warnings(ctx context.Context) ([]Warning, error) {
	if db.credentials.Kind == credential.Managed {
		return nil, nil
	}
	return db.engine.warnings(ctx, db)
}

// maxReaders limits the number of accounts that are counted.
const maxReaders = 100

// postgresReaders selects the roles that may log in and that have, or may
// become a role that has, rights on a table or view of the current schema. It
// omits the tables' owners and their members. It follows the memberships from
// the roles that have rights, because a server has a role for each store.
const postgresReaders = `WITH RECURSIVE
	space AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()),
	relation AS (SELECT c.oid, c.relowner, c.relacl FROM pg_catalog.pg_class c JOIN space ON c.relnamespace = space.oid
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT ` + fromExtension + `),
	holder AS (SELECT acl.grantee AS oid FROM relation, aclexplode(relacl) acl
		UNION SELECT acl.grantee FROM relation JOIN pg_catalog.pg_attribute a ON a.attrelid = relation.oid, aclexplode(a.attacl) acl
		UNION SELECT oid FROM pg_catalog.pg_roles WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data')),
	membership AS (SELECT member, roleid FROM pg_catalog.pg_auth_members
		UNION ALL SELECT d.datdba, r.oid FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
			WHERE d.datname = current_database() AND r.rolname = 'pg_database_owner'),
	able AS (SELECT oid AS role, oid AS holder FROM holder
		UNION SELECT m.member, able.holder FROM membership m JOIN able ON m.roleid = able.role)
	SELECT DISTINCT r.rolname::text AS name FROM able JOIN pg_catalog.pg_roles r ON r.oid = able.role, space
	WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> session_user
		AND NOT EXISTS (SELECT FROM (SELECT DISTINCT relowner FROM relation) owner WHERE pg_has_role(r.oid, owner.relowner, 'MEMBER'))
		AND (has_schema_privilege(able.holder, space.oid, 'USAGE') OR has_schema_privilege(r.oid, space.oid, 'USAGE'))
	ORDER BY 1 LIMIT 100`

// isSupabaseRole reports whether a role is one that Supabase keeps in every project
// for itself.
func isSupabaseRole(role string) bool {
	return strings.HasPrefix(role, "supabase_") || slices.Contains([]string{"authenticator", "dashboard_user", "pgbouncer"}, role)
}

func (db *DB) postgresWarnings(ctx context.Context) (all []Warning, err error) {
	var public struct{ Connect, Create, Tables bool }
	err = db.Get(ctx, &public, `SELECT has_database_privilege('public', current_database(), 'CONNECT') AS connect,
		coalesce(has_schema_privilege('public', current_schema(), 'CREATE'), false) AS create,
		EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
			AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND NOT `+fromExtension+`
			AND (has_table_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
				OR has_any_column_privilege('public', c.oid, 'SELECT, UPDATE'))) AS tables`)
	if err != nil {
		return nil, err
	}
	// In a Supabase project every role may always connect, so a warning would
	// say nothing.
	if public.Connect && db.credentials.Kind != credential.KindSupabase {
		all = append(all, Warning{PublicConnect, "Every role of the database server may connect to this database. " +
			"REVOKE CONNECT ON DATABASE … FROM PUBLIC, after a GRANT to the roles that need it."})
	}
	if public.Tables {
		all = append(all, Warning{PublicRights, "Every role of the database server may use tables of this database. " +
			"REVOKE ALL ON ALL TABLES IN SCHEMA … FROM PUBLIC."})
	} else if public.Create {
		all = append(all, Warning{PublicRights, "Every role of the database server may create objects in the schema of the store's tables. " +
			"REVOKE CREATE ON SCHEMA … FROM PUBLIC."})
	}
	var readers []string
	if err := db.Select(ctx, &readers, postgresReaders); err != nil {
		return nil, err
	}
	if db.credentials.Kind == credential.KindSupabase {
		readers = slices.DeleteFunc(readers, isSupabaseRole)
	}
	return append(all, otherReaders(readers)...), nil
}

func otherReaders(names []string) []Warning {
	if len(names) == 0 {
		return nil
	}
	const few = 5
	var quoted []string
	for _, name := range names[:min(few, len(names))] {
		quoted = append(quoted, strconv.Quote(fmt.Sprintf("%.80s", strings.ToValidUTF8(name, "?"))))
	}
	list := strings.Join(quoted, ", ")
	switch more := len(names) - few; {
	case len(names) >= maxReaders:
		list += " and many more"
	case more > 0:
		list += fmt.Sprintf(" and %d more", more)
	}
	return []Warning{{OtherReaders, "Other accounts have rights on the store's tables: " + list + ". Revoke what they do not need."}}
}

// mysqlReaders selects the accounts with a right on this database or on all
// databases, except the connected account and the accounts that administer the
// server. The database name of a grant is a pattern.
const mysqlReaders = `SELECT DISTINCT concat(a.user, '@', a.host) AS name FROM (
		SELECT user, host FROM mysql.user WHERE super_priv <> 'Y' AND 'Y' IN (select_priv, insert_priv, update_priv, delete_priv, drop_priv)
		UNION ALL SELECT user, host FROM mysql.db WHERE lower(database()) LIKE lower(db)
			AND 'Y' IN (select_priv, insert_priv, update_priv, delete_priv, drop_priv, alter_priv)
		UNION ALL SELECT user, host FROM mysql.tables_priv WHERE lower(db) = lower(database())) a
	WHERE concat(a.user, '@', a.host) <> current_user()
		AND NOT EXISTS (SELECT 1 FROM mysql.user s WHERE s.user = a.user AND s.host = a.host AND s.super_priv = 'Y')
	ORDER BY 1 LIMIT 100`

func (db *DB) mysqlWarnings(ctx context.Context) (all []Warning, err error) {
	var account string
	if err := db.Get(ctx, &account, `SELECT current_user()`); err != nil {
		return nil, err
	}
	if host := account[strings.LastIndex(account, "@")+1:]; strings.Contains(host, "%") {
		all = append(all, Warning{AnyHost, fmt.Sprintf("The account %.120q may log in from any address that its host name matches. "+
			"Where the server allows it, RENAME USER to one that names this platform's address.", account)})
	}
	var readers []string
	err = db.Select(ctx, &readers, mysqlReaders)
	var denied *mysql.MySQLError
	if errors.As(err, &denied) && (denied.Number == 1142 || denied.Number == 1143 || denied.Number == 1044) { // access to a table, column or database was denied
		return append(all, Warning{ReadersUnknown, "Whether other accounts may read this database cannot be told: " +
			"the account may not read the server's grants (mysql.user, mysql.db, mysql.tables_priv). Ask the server's administrator."}), nil
	}
	if err != nil {
		return nil, err
	}
	return append(all, otherReaders(readers)...), nil
}
