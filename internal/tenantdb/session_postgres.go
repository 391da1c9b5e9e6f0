package tenantdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// postgresSetting is a setting of a session with the value that Stoa requires.
type postgresSetting struct {
	name, value string
	since       int64 // the first major version that has it; 0: all supported versions have it
	// harms reports whether Stoa cannot work with a value. If it is nil, Stoa
	// can work with any value that does not change.
	harms func(value string) bool
}

// postgresSettings are the settings of a role, a database or a server that
// change what is stored, what is read, how text is interpreted or how long a
// statement may take. Any user may set all of them.
// Source: PostgreSQL manual, "Client Connection Defaults" and "Version and
// Platform Compatibility".
var postgresSettings = []postgresSetting{
	{name: "client_encoding", value: "UTF8", harms: not("UTF8")},
	{name: "DateStyle", value: "ISO, MDY", harms: func(v string) bool { return !strings.HasPrefix(v, "ISO") }},
	{name: "TimeZone", value: "UTC"},
	{name: "standard_conforming_strings", value: "on", harms: not("on")},
	{name: "IntervalStyle", value: "postgres"},
	{name: "bytea_output", value: "hex"},
	{name: "extra_float_digits", value: "1"},
	{name: "xmlbinary", value: "base64"},
	{name: "xmloption", value: "content"},
	{name: "array_nulls", value: "on"},
	{name: "backslash_quote", value: "safe_encoding"},
	{name: "quote_all_identifiers", value: "off"},
	{name: "transform_null_equals", value: "off"},
	{name: "default_transaction_isolation", value: "read committed"},
	{name: "default_transaction_read_only", value: "off", harms: not("off")},
	{name: "default_transaction_deferrable", value: "off"},
	{name: "statement_timeout", value: "0", harms: shorterThan(longestWait)},
	{name: "lock_timeout", value: "0", harms: shorterThan(time.Second)},
	{name: "idle_in_transaction_session_timeout", value: "0", harms: shorterThan(longestWait)},
	{name: "idle_session_timeout", value: "0", since: 14},
	{name: "transaction_timeout", value: "0", since: 17, harms: shorterThan(longestWait)},
	{name: "row_security", value: "on", harms: not("on")},
	{name: "synchronous_commit", value: "on"},
	{name: "default_tablespace", value: ""},
	{name: "default_table_access_method", value: "heap"},
	{name: "check_function_bodies", value: "on"},
	{name: "gin_fuzzy_search_limit", value: "0"},
	{name: "exit_on_error", value: "off"},
	{name: "client_min_messages", value: "notice"},
}

// longestWait is the maximum duration of one of Stoa's statements.
const longestWait = 10 * time.Second

// replicationRole is a setting that Stoa checks and never sets, because setting
// it requires a superuser. With the value replica, the server checks no foreign
// key and runs no trigger.
const replicationRole = "session_replication_role"

func not(value string) func(string) bool {
	return func(v string) bool { return !strings.EqualFold(v, value) }
}

// shorterThan returns a function that reports whether a time is shorter than
// limit. The time has the server's format, such as 0, 500ms or 2min. 0 means no
// limit.
func shorterThan(limit time.Duration) func(string) bool {
	return func(v string) bool {
		n, unit := strings.TrimRight(v, "dhimnsu"), strings.TrimLeft(v, "0123456789")
		count, err := strconv.ParseInt(n, 10, 64)
		units := map[string]time.Duration{"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
		return err == nil && count > 0 && units[unit] > 0 && count < int64(limit/units[unit])
	}
}

// pinning is the way in which the settings of a connection are pinned.
type pinning int

const (
	// pinAtStartup sends the settings as startup parameters of the connection.
	// This costs no round trip, and the parameters take precedence over every
	// setting of a role, database or server.
	pinAtStartup pinning = iota
	// pinInSession sets the settings after the connection is made, because a
	// pooler in session mode may refuse or ignore startup parameters.
	pinInSession
	// pinByCheck sets nothing and checks the settings, because other clients
	// use the server's session too, from one transaction to the next.
	pinByCheck
)

// pinning returns how the settings of c's next connection are pinned.
func (s *sessionState) pinning(c credential.Credentials) pinning {
	switch s.poolerOf(c) {
	case credential.SessionPooler:
		return pinInSession
	case credential.TransactionPooler:
		return pinByCheck
	case credential.NoPooler:
	}
	if s.plain.Load() {
		return pinByCheck
	}
	return pinAtStartup
}

// pooledSettings is the number of postgresSettings, counted from the first,
// that every pooler accepts as startup parameters and keeps for its client.
// Source: PgBouncer, "ignore_startup_parameters".
const pooledSettings = 4

// startupParameters returns the startup parameters of the next connection.
func (s *sessionState) startupParameters(how pinning) map[string]string {
	p := map[string]string{"application_name": "stoa"}
	for i, setting := range postgresSettings {
		if i < pooledSettings || how == pinAtStartup && (setting.since == 0 || setting.since <= s.version.Load()) {
			p[setting.name] = setting.value
		}
	}
	if at := s.schema.Load(); at != nil && how == pinAtStartup {
		p[searchPath] = at.path
	}
	return p
}

// established sets or checks the settings of each new connection before it is
// used. wanted is the search path that applies until the store's schema is
// known, or "".
func (s *sessionState) established(ctx context.Context, conn *pgx.Conn, how pinning, wanted string) error {
	if version, err := strconv.ParseInt(major(conn.PgConn().ParameterStatus("server_version")), 10, 64); err == nil {
		s.version.Store(version)
	}
	switch how {
	case pinInSession:
		_, err := simpleQuery(ctx, conn, s.setStatement(wanted))
		return err
	case pinByCheck:
		if !s.looked.Load() {
			return nil // PinSession checks, as soon as it knows what is in front of the server
		}
		found, err := lookAtSession(ctx, conn)
		if err != nil {
			return err
		}
		if at := s.schema.Load(); at != nil && at.name != found.Schema {
			return wrongSchema(found.Schema, at.name)
		}
		return found.Check()
	case pinAtStartup:
	}
	return nil
}

func major(version string) string {
	return version[:len(version)-len(strings.TrimLeft(version, "0123456789"))]
}

// setStatement returns the statement that sets every setting that the server
// has, and the search path. Until the store's schema is known, the search path
// is wanted; "" leaves the search path unchanged.
func (s *sessionState) setStatement(wanted string) string {
	var set []string
	for _, setting := range postgresSettings {
		call := fmt.Sprintf(`pg_catalog.set_config('%s', '%s', false)`, setting.name, setting.value)
		if setting.since > 0 {
			call = fmt.Sprintf(`CASE WHEN pg_catalog.current_setting('%s', true) IS NOT NULL THEN %s END`, setting.name, call)
		}
		set = append(set, call)
	}
	if at := s.schema.Load(); at != nil {
		wanted = at.path
	}
	if wanted != "" {
		set = append(set, `pg_catalog.set_config('search_path', `+quoteText(wanted)+`, false)`)
	}
	return `SELECT ` + strings.Join(set, ", ")
}

// quoteText quotes s as an SQL literal. It requires
// standard_conforming_strings, or a text without a backslash.
func quoteText(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }

// refusesParameters reports whether a server, or a pooler, refused a startup
// parameter.
// Source: PostgreSQL manual, appendix A; PgBouncer answers with 08P01.
func refusesParameters(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && slices.Contains([]string{"08P01", "42601", "42704", "22023", "55P02", "0A000"}, pgErr.Code)
}

// sessionLook describes a session.
type sessionLook struct {
	Session   uint32            // the id of the server's session
	Schema    string            // the current schema; "" if there is none
	Path      []string          // the schemas of the search path that exist
	Held      bool              // the current schema contains a store
	Elsewhere []schemaWithStore // other readable schemas that contain a store
	Settings  map[string]string
	// LosesCommits is true if the role or the database, and not the server as a
	// whole, has synchronous_commit off.
	LosesCommits bool
}

type schemaWithStore struct {
	Schema string
	Marked bool // it has the marker; otherwise it has the tables from before markers existed
}

// lookStatement returns a statement that returns one row with a sessionLook in
// JSON. It qualifies functions with their schema, because the search path is
// not trusted yet.
var lookStatement = sync.OnceValue(func() string {
	names := []string{quoteText(replicationRole)}
	for _, s := range postgresSettings {
		names = append(names, quoteText(s.name))
	}
	return `WITH relation AS (SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relname IN ('` + MarkerTable + `', '` + VersionTable + `', 'stores') AND c.relkind = 'r'
				AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')),
		holder AS (SELECT nspname, pg_catalog.bool_or(relname = '` + MarkerTable + `') AS marked FROM relation GROUP BY nspname
			HAVING pg_catalog.bool_or(relname = '` + MarkerTable + `') OR pg_catalog.count(*) = 2)
	SELECT pg_catalog.json_build_object('session', pg_catalog.pg_backend_pid(), 'schema', coalesce(pg_catalog.current_schema()::text, ''),
		'path', pg_catalog.array_to_json(pg_catalog.current_schemas(false)),
		'held', EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname IN ('` + MarkerTable + `', '` + VersionTable + `')
			AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = pg_catalog.current_schema())),
		'elsewhere', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('schema', nspname, 'marked', marked) ORDER BY nspname)
			FROM (SELECT * FROM holder WHERE nspname IS DISTINCT FROM pg_catalog.current_schema() ORDER BY nspname LIMIT ` + strconv.Itoa(maxElsewhere) + `) e),
		'losesCommits', CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN EXISTS (
			SELECT FROM pg_catalog.pg_settings WHERE name = 'synchronous_commit' AND source IN ('global', 'database', 'user', 'database user')) ELSE false END,
		'settings', (SELECT pg_catalog.json_object_agg(n, coalesce(pg_catalog.current_setting(n, true), '')) FROM pg_catalog.unnest(ARRAY[` + strings.Join(names, ", ") + `]) n))::text`
})

// maxElsewhere limits the number of schemas that are searched for a store's
// tables.
const maxElsewhere = 50

func lookAtSession(ctx context.Context, conn *pgx.Conn) (found sessionLook, err error) {
	rows, err := simpleQuery(ctx, conn, lookStatement())
	if err != nil {
		return found, err
	}
	if len(rows) != 1 || len(rows[0]) != 1 || json.Unmarshal(rows[0][0], &found) != nil {
		return found, &screen.ProtocolError{Rule: "an answer about the session that cannot be read"}
	}
	return found, nil
}

// simpleQuery returns the rows of the last statement of a text. It uses one
// round trip and prepares nothing.
func simpleQuery(ctx context.Context, conn *pgx.Conn, query string) ([][][]byte, error) {
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	return results[len(results)-1].Rows, results[len(results)-1].Err
}

// Check returns an error for a session that Stoa cannot work with.
func (l sessionLook) Check() error {
	for _, s := range postgresSettings {
		if value, ok := l.Settings[s.name]; ok && value != "" && s.harms != nil && s.harms(value) {
			return &settingError{name: s.name, value: value, remedy: resetRemedy(s.name)}
		}
	}
	if role := l.Settings[replicationRole]; role == "replica" {
		return &settingError{name: replicationRole, value: role, remedy: resetRemedy(replicationRole)}
	}
	if l.LosesCommits && l.Settings["synchronous_commit"] == "off" {
		return &settingError{name: "synchronous_commit", value: "off", remedy: resetRemedy("synchronous_commit")}
	}
	return nil
}

func resetRemedy(name string) string {
	return fmt.Sprintf("Remove it: ALTER ROLE … RESET %[1]s, ALTER DATABASE … RESET %[1]s or in the server's configuration, whichever sets it; then try again.", name)
}

func wrongSchema(is, want string) error {
	return &settingError{name: "search_path", value: is, remedy: fmt.Sprintf("The store's tables are in the schema %.63q. Set it: ALTER ROLE … SET search_path = %s; then try again.",
		want, pgx.Identifier{want}.Sanitize())}
}

// pinPostgres pins the settings of the current connection, and the schema of
// all connections.
func (db *DB) pinPostgres(ctx context.Context, store stoa.StoreID) error {
	return db.withPgx(ctx, func(conn *pgx.Conn) error {
		found, err := lookAtSession(ctx, conn)
		if err != nil {
			return err
		}
		if err := db.findPooler(ctx, conn, found.Session); err != nil {
			return err
		}
		how := db.pinned.pinning(db.credentials)
		if how == pinInSession { // conn may be older than the detection of the pooler
			if _, err := simpleQuery(ctx, conn, db.pinned.setStatement(credentialParameters(db.credentials)[searchPath])); err != nil {
				return err
			}
			if found, err = lookAtSession(ctx, conn); err != nil {
				return err
			}
		}
		at, err := found.schemaOf(ctx, conn, store)
		if err != nil {
			return err
		}
		if wanted := db.credentials.Schema; at != nil && wanted != "" && wanted != at.name {
			return db.schemaFault()
		}
		if how == pinByCheck {
			db.pinned.looked.Store(true)
			if at != nil {
				if at.name != found.Schema {
					return wrongSchema(found.Schema, at.name)
				}
				db.pinned.schema.Store(at)
			}
			return found.Check()
		}
		if how == pinAtStartup { // later connections send these as startup parameters; this connection sets them below
			for _, s := range postgresSettings {
				if s.since > 0 {
					delete(found.Settings, s.name)
				}
			}
		}
		if err := found.Check(); err != nil {
			return err
		}
		db.pinned.schema.Store(at)
		_, err = simpleQuery(ctx, conn, db.pinned.setStatement(""))
		return err
	})
}

// schemaOf returns the schema that the store's tables are or will be in: the
// schema that contains this store, or otherwise the current schema. It returns
// nil if there is neither.
func (l sessionLook) schemaOf(ctx context.Context, conn *pgx.Conn, store stoa.StoreID) (*pinnedSchema, error) {
	schema := l.Schema
	if len(l.Elsewhere) > 0 {
		here := ""
		if l.Held {
			here = l.Schema
		}
		other, err := findStore(ctx, conn, store, here, l.Elsewhere)
		if err != nil {
			return nil, err
		}
		if other != "" {
			schema = other
		}
	}
	if schema == "" {
		return nil, nil //nolint:nilnil // documented
	}
	path := []string{pgx.Identifier{schema}.Sanitize()}
	for _, s := range l.Path {
		if s != schema && !strings.HasPrefix(s, "pg_") {
			path = append(path, pgx.Identifier{s}.Sanitize())
		}
	}
	return &pinnedSchema{name: schema, path: strings.Join(path, ", ")}, nil
}

// findStore returns the only schema of elsewhere that contains the store. It
// returns "" if the current schema contains the store or if no schema does. It
// fails if several do.
func findStore(ctx context.Context, conn *pgx.Conn, store stoa.StoreID, here string, elsewhere []schemaWithStore) (string, error) {
	selects := []string{}
	for i, s := range elsewhere {
		table, column := MarkerTable, "store_id"
		if !s.Marked {
			table, column = "stores", "id::text"
		}
		selects = append(selects, fmt.Sprintf(`SELECT %d AS place FROM %s WHERE %s = '%s'`, i, pgx.Identifier{s.Schema, table}.Sanitize(), column, store))
	}
	rows, err := simpleQuery(ctx, conn, strings.Join(selects, " UNION ")+` ORDER BY place`)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	if here != "" {
		if is, err := holdsIn(ctx, conn, store, here); err != nil || is {
			return "", err
		}
	}
	if len(rows) > 1 {
		return "", &settingError{name: "search_path", value: here, remedy: "Several schemas hold this store's tables. Remove the copies, or set search_path to the one to be used."}
	}
	i, err := strconv.Atoi(string(slices.Concat(rows[0]...)))
	if err != nil || i < 0 || i >= len(elsewhere) {
		return "", &screen.ProtocolError{Rule: "a number that was not asked for"}
	}
	return elsewhere[i].Schema, nil
}

// holdsIn reports whether the schema contains the store. It checks the marker
// or, if there is none, the store's own row.
func holdsIn(ctx context.Context, conn *pgx.Conn, store stoa.StoreID, schema string) (bool, error) {
	for _, where := range []string{MarkerTable + `" WHERE store_id = '`, `stores" WHERE id::text = '`} {
		rows, err := simpleQuery(ctx, conn, `SELECT FROM `+pgx.Identifier{schema}.Sanitize()+`."`+where+store.String()+`'`)
		if len(rows) > 0 || err != nil && !IsState(err, "42P01") {
			return err == nil, err
		}
	}
	return false, nil
}
