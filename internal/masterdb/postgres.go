package masterdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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

// pinned sets every setting that a role, a database or the server may change and that
// affects what is stored or read, or how long a statement may take. Settings that only
// newer servers know are set only if the server knows them.
//
// The isolation level is set apart: see isolation.
var pinned = `SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET TimeZone = 'UTC'; SET standard_conforming_strings = on;
	SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1; SET array_nulls = on; SET backslash_quote = safe_encoding;
	SET quote_all_identifiers = off; SET transform_null_equals = off; SET xmlbinary = 'base64'; SET xmloption = 'content';
	SET default_transaction_read_only = off; SET default_transaction_deferrable = off;
	SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET row_security = on;
	SET synchronous_commit = on; SET default_tablespace = ''; SET default_table_access_method = heap; SET check_function_bodies = on;
	SET gin_fuzzy_search_limit = 0; SET exit_on_error = off; SET client_min_messages = notice;
	SELECT CASE WHEN current_setting(n, true) IS NOT NULL THEN set_config(n, '0', false) END FROM unnest(ARRAY['idle_session_timeout', 'transaction_timeout']) n;
	SELECT set_config('search_path', concat_ws(', ', quote_ident(coalesce(here.nspname, other.nspname)), nullif(rest.path, '')), false)
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

// maxLifetime and its jitter limit the lifetime of a connection, so that names are resolved
// anew. The jitter keeps connections that were opened together from ending together.
const (
	maxLifetime    = 30 * time.Minute
	lifetimeJitter = 6 * time.Minute
)

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

func openPostgres(ctx context.Context, url string) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("master database URL: %w", err) // pgx omits the password from the error
	}
	level, err := isolation(cfg.ConnConfig.RuntimeParams)
	if err != nil {
		return nil, fmt.Errorf("master database URL: %w", err)
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "stoa"
	cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	b := newBreaker(cfg.ConnConfig)
	if err := refusePooler(ctx, cfg.ConnConfig); err != nil {
		return nil, fmt.Errorf("master database: %w", err)
	}
	cfg.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return b.allow() } // fails before the name is resolved
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		// The settings are set in the session: poolers refuse them as startup parameters.
		session, err := sessionID(ctx, c, planning+"; SET "+isolationSetting+" = '"+level+"'; "+pinned+"; "+ownSession)
		if err != nil {
			return err
		}
		b.identify(c.PgConn().Conn(), session)
		// Times are returned in UTC, as they were written and as SQLite returns them.
		c.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID,
			Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		registerIDs(c.TypeMap())
		return nil
	}
	cfg.ShouldPing = shouldPing
	cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = maxLifetime, lifetimeJitter
	var open atomic.Pointer[pgxpool.Pool]
	cfg.ConnConfig.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool { return keepAfter(err, open.Load()) }
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("master database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("master database does not answer: %w", err)
	}
	if err := refuseSettings(ctx, pool); err != nil {
		pool.Close()
		return nil, fmt.Errorf("master database: %w", err)
	}
	open.Store(pool)
	b.callbacks = append(b.callbacks, func(error) { go pool.Reset() }) // the breaker has aborted its connections
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	go b.run(running)
	return &DB{Engine: Postgres, pool: pool, breaker: b, stopBreaker: stop, strict: level != readCommitted}, nil
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
