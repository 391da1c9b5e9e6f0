package masterdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// planning makes the server plan each statement once and use existing indexes. Every
// statement of the platform is prepared and looks rows up by their keys: planning it anew
// for each set of parameters costs more than it can gain. The generic plan may be made
// while a table is empty, when a sequential scan looks cheapest, and is kept until the
// table is analyzed; enable_seqscan = off prevents such a plan. A table without an index is
// still scanned, and such a scan must not trigger JIT compilation.
const planning = `SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off`

// setting is a setting of a session and the value that Stoa needs.
type setting struct{ name, value string }

// pinned are the settings that a role, a database or the server may change and that affect
// what is stored or read, or how long a statement may take. Those of newerSettings are for
// servers that know them. The isolation level is set apart: see isolation.
var pinned = []setting{
	{"client_encoding", "UTF8"}, {"DateStyle", "ISO, MDY"}, {"TimeZone", "UTC"}, {"standard_conforming_strings", "on"},
	{"IntervalStyle", "postgres"}, {"bytea_output", "hex"}, {"extra_float_digits", "1"}, {"array_nulls", "on"}, {"backslash_quote", "safe_encoding"},
	{"quote_all_identifiers", "off"}, {"transform_null_equals", "off"}, {"xmlbinary", "base64"}, {"xmloption", "content"},
	{"default_transaction_read_only", "off"}, {"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"}, {"lock_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"}, {"row_security", "on"},
	{"synchronous_commit", "on"}, {"default_tablespace", ""}, {"default_table_access_method", "heap"}, {"check_function_bodies", "on"},
	{"gin_fuzzy_search_limit", "0"}, {"exit_on_error", "off"}, {"client_min_messages", "notice"},
}

var newerSettings = []setting{{"idle_session_timeout", "0"}, {"transaction_timeout", "0"}}

// pin returns the statements that set the pinned settings, and find the schema of the tables.
func pin(level string) string {
	var b strings.Builder
	b.WriteString(planning)
	for _, s := range append([]setting{{isolationSetting, level}}, pinned...) {
		fmt.Fprintf(&b, "; SET %s = '%s'", s.name, s.value)
	}
	for _, s := range newerSettings {
		fmt.Fprintf(&b, "; SELECT set_config('%s', '%s', false) WHERE current_setting('%[1]s', true) IS NOT NULL", s.name, s.value)
	}
	return b.String() + "; " + findSchema
}

// findSchema makes the schema with the tables of the master the first of the search path.
const findSchema = `SELECT set_config('search_path', concat_ws(', ', quote_ident(coalesce(here.nspname, other.nspname)), nullif(rest.path, '')), false)
		FROM (SELECT (SELECT n.nspname FROM pg_catalog.pg_namespace n JOIN unnest(current_schemas(false)) WITH ORDINALITY p (name, place) ON p.name = n.nspname
				WHERE ` + holdsMaster + ` ORDER BY p.place LIMIT 1) AS nspname) here,
			(SELECT CASE WHEN count(*) = 1 THEN min(n.nspname::text) ELSE current_schema()::text END AS nspname
				FROM pg_catalog.pg_namespace n WHERE ` + holdsMaster + `) other,
			(SELECT string_agg(quote_ident(name), ', ' ORDER BY place) AS path FROM unnest(current_schemas(false)) WITH ORDINALITY p (name, place)
				WHERE name NOT LIKE 'pg!_%' ESCAPE '!') rest
		WHERE coalesce(here.nspname, other.nspname) IS NOT NULL`

// isolationSetting is the one setting of a session that the URL may give.
const isolationSetting = "default_transaction_isolation"

const readCommitted = "read committed"

// isolation takes the isolation level from the parameters of a URL. Every transaction is
// correct at read committed, the default, and at every stricter level: databases that are
// distributed may know only the strictest.
func isolation(parameters map[string]string) (level string, err error) {
	level = cmp.Or(parameters[isolationSetting], readCommitted)
	delete(parameters, isolationSetting) // poolers refuse it as a startup parameter
	if !slices.Contains([]string{readCommitted, "repeatable read", "serializable"}, level) {
		return "", fmt.Errorf("%s must be read committed, repeatable read or serializable", isolationSetting)
	}
	return level, nil
}

// holdsMaster is an SQL condition: Migrate has run in the schema n.
const holdsMaster = `EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_class s ON s.relnamespace = c.relnamespace AND s.relname = 'store_databases'
	WHERE c.relnamespace = n.oid AND c.relname = 'goose_db_version')`

// maxLifetime limits the lifetime of a connection, so that names are resolved anew. The jitter
// of a fifth keeps connections that were opened together from ending together.
const maxLifetime = 30 * time.Minute

// These are the idle times of a connection after which its socket is checked before use,
// and after which the server is pinged.
const (
	checkAfter = time.Second
	pingAfter  = time.Minute
)

// shouldPing reports whether an idle connection must be pinged before use. It detects a
// socket that the server has closed without a statement. The circuit breaker detects a
// server that is silent.
func shouldPing(_ context.Context, p pgxpool.ShouldPingParams) bool {
	return p.IdleDuration > pingAfter || p.IdleDuration > checkAfter && p.Conn.PgConn().CheckConn() != nil //nolint:staticcheck // a ping would be a statement
}

// server is a pool of connections to a PostgreSQL master, behind a circuit breaker.
type server struct {
	*pgxpool.Pool
	breaker *breaker
	stop    func() // stops the breaker
}

// serverConfig says how a server is reached.
type serverConfig struct {
	*pgxpool.Config
	breaker  *breaker      // all connections of the configuration go through it
	level    string        // the isolation level
	lifetime time.Duration // of a connection
}

func parsePostgres(url string) (*serverConfig, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err // pgx omits the password from the error
	}
	level, err := isolation(cfg.ConnConfig.RuntimeParams)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "stoa"
	cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	return &serverConfig{cfg, newBreaker(cfg.ConnConfig), level, maxLifetime}, nil
}

// connectServer opens a pool. begin is called with each new connection before its use.
func connectServer(ctx context.Context, cfg *serverConfig, begin func(context.Context, *pgx.Conn) error) (*server, error) {
	b := cfg.breaker
	cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return b.allow() } // fails before the name is resolved
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		if err := begin(ctx, c); err != nil {
			return err
		}
		// Times are returned in UTC, as they were written and as SQLite returns them.
		c.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID,
			Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		registerIDs(c.TypeMap())
		return nil
	}
	cfg.ShouldPing = shouldPing
	cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = cfg.lifetime, cfg.lifetime/5
	var open atomic.Pointer[pgxpool.Pool]
	cfg.ConnConfig.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool { return keepAfter(err, open.Load()) }
	pool, err := pgxpool.NewWithConfig(ctx, cfg.Config)
	if err != nil {
		return nil, err
	}
	opening, cancel := context.WithTimeout(ctx, 2*cfg.ConnConfig.ConnectTimeout) // a pooler may have no free session
	defer cancel()
	if err := pool.Ping(opening); err != nil {
		pool.Close()
		if !errors.Is(err, errSettings) {
			err = fmt.Errorf("it does not answer: %w", err)
		}
		return nil, err
	}
	open.Store(pool)
	b.callbacks = append(b.callbacks, func(error) { go pool.Reset() }) // the breaker has aborted its connections
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	go b.run(running)
	return &server{pool, b, stop}, nil
}

// connectSessions opens a pool whose connections have a session of the server each.
func connectSessions(ctx context.Context, cfg *serverConfig) (*server, error) {
	if err := refusePooler(ctx, cfg.ConnConfig); err != nil {
		return nil, err
	}
	statements := pin(cfg.level) + "; " + ownSession
	s, err := connectServer(ctx, cfg, func(ctx context.Context, c *pgx.Conn) error {
		// The settings are set in the session: poolers refuse them as startup parameters.
		session, err := sessionID(ctx, c, statements)
		if err == nil {
			cfg.breaker.identify(c.PgConn().Conn(), session)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := refuseSettings(ctx, s.Pool); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// end closes a server that nobody uses yet.
func (s *server) end() {
	s.stop()
	s.Close()
}

func openPostgres(ctx context.Context, url, sessionURL string) (*DB, error) {
	cfg, err := parsePostgres(url)
	if err != nil {
		return nil, fmt.Errorf("master database URL: %w", err)
	}
	db := &DB{Engine: Postgres, strict: cfg.level != readCommitted}
	if sessionURL == "" {
		s, err := connectSessions(ctx, cfg)
		if err != nil {
			return nil, openError{err}
		}
		db.pool, db.sessions, db.servers = s.Pool, s.Pool, []*server{s}
		return db, nil
	}
	pooled, sessions, err := connectPooled(ctx, cfg, sessionURL)
	if err != nil {
		return nil, openError{err}
	}
	db.pool, db.sessions, db.servers = pooled.Pool, sessions.Pool, []*server{pooled, sessions}
	return db, nil
}

// refuseSettings returns an error that names a setting which a session cannot change and
// with which no data may be stored.
func refuseSettings(ctx context.Context, pool *pgxpool.Pool) error {
	var encoding, replication, database string
	err := pool.QueryRow(ctx, `SELECT current_setting('server_encoding'), current_setting('session_replication_role'), current_database()`).
		Scan(&encoding, &replication, &database)
	switch {
	case err != nil:
		return err
	case encoding != "UTF8":
		return fmt.Errorf("the encoding of the database %q is %s, which cannot hold every character: create one with ENCODING 'UTF8' TEMPLATE template0", database, encoding)
	case replication == "replica":
		return errors.New("session_replication_role is replica for this role, so that no foreign key is checked and no trigger keeps the ledger: " +
			"remove it with ALTER ROLE … RESET session_replication_role")
	}
	return nil
}

// keepAfter reports whether a connection is still usable after the server's error. A
// read-only server (25006) was the primary before a failover: keepAfter then discards every
// connection to it, and new connections reach the current primary.
func keepAfter(err *pgconn.PgError, pool *pgxpool.Pool) bool {
	if err.Code == readOnly && pool != nil {
		go pool.Reset() // in a goroutine, because Reset may need a lock that the caller holds
	}
	return err.Code != readOnly && err.SeverityUnlocalized != "FATAL"
}

// readOnly is the SQLSTATE read_only_sql_transaction.
const readOnly = "25006"
