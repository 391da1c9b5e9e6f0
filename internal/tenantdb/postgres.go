package tenantdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// PostgresRelease returns the release of a server that reports a version. The minimum is the
// oldest major version on which the schema is tested.
func PostgresRelease(version string) Release {
	return Release{Product: "PostgreSQL", Version: version, Minimum: "13"}
}

type postgresEngine struct{ log *slog.Logger }

// postgresBase sets every parameter that the process's environment could set,
// because these values take precedence. None of them comes from a merchant.
// Authentication never sends the password in clear text, whatever the server
// requests.
const postgresBase = `host=tenant port=5432 user=tenant password=tenant dbname=tenant
	connect_timeout=10 target_session_attrs=any min_protocol_version=3.0 max_protocol_version=3.0
	sslmode=disable sslnegotiation=postgres sslrootcert='' sslcertmode=disable channel_binding=prefer require_auth=scram-sha-256,md5,none
	default_query_exec_mode=cache_statement statement_cache_capacity=512 description_cache_capacity=512`

// Open sets every field that depends on the credentials explicitly. No
// merchant's input passes through a parser, and no setting of the process's
// environment (PGHOST, PGOPTIONS, …) remains.
func (e postgresEngine) Open(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error) {
	cfg, err := e.config(c, dial)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(&postgresConnector{cfg, c, state, e.log}), nil
}

func (postgresEngine) config(c credential.Credentials, dial dial.Func) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(postgresBase)
	if err != nil {
		return nil, fmt.Errorf("a PG… environment variable is in the way: %w", err)
	}
	if cfg.TLSConfig, err = c.TlsConfig(); err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port = c.Host, uint16(c.Port) //nolint:gosec // Validate keeps it within 1..65535
	cfg.Database, cfg.User, cfg.Password = c.Database, c.User, c.Password.Reveal()
	cfg.RuntimeParams = credentialParameters(c)
	cfg.ConnectTimeout = connectTimeout
	// The dialer resolves names, within its time limit.
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = pgconn.DialFunc(dial)
	if cfg.TLSConfig != nil {
		cfg.DialFunc = refuseWithoutTLS(dial)
	}
	cfg.Fallbacks, cfg.ValidateConnect, cfg.KerberosSrvName, cfg.KerberosSpn = nil, nil, "", ""
	cfg.MaxProtocolMessageBodyLen = screen.MaxAnswer // a server may announce any length
	// Stoa listens to no notification of a store's database. Without this
	// function the driver would store notifications.
	cfg.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	return cfg, nil
}

// credentialParameters returns the parameters that the credentials add to the
// log-in. Inspect checks that they lead to the expected schema.
func credentialParameters(c credential.Credentials) map[string]string {
	parameters := map[string]string{}
	if c.Schema != "" {
		parameters[searchPath] = pgx.Identifier{c.Schema}.Sanitize()
	}
	if c.Endpoint != "" {
		parameters[endpointParameter] = "endpoint=" + c.Endpoint
	}
	return parameters
}

// registerTypes makes the driver read times as UTC, and numerics only in text
// format.
func registerTypes(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
	conn.TypeMap().RegisterType(numericType())
	return nil
}

// refuseWithoutTLS turns the server's answer 'N' to the request for TLS into
// errNoTLS, because pgx has no error value for it.
// Source: PostgreSQL protocol, "SSL Session Encryption".
func refuseWithoutTLS(dial dial.Func) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &tlsAnswer{Conn: conn}, nil
	}
}

type tlsAnswer struct {
	net.Conn
	seen bool
}

func (c *tlsAnswer) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.seen && n > 0 {
		c.seen = true
		if p[0] == 'N' {
			return 0, errNoTLS
		}
	}
	return n, err
}

func (postgresEngine) Inspect(ctx context.Context, db *DB) (Inspection, error) {
	var in Inspection
	var row struct {
		Version  string
		Encoding string
		Create   bool `db:"may_create"`
		Schema   string
		Schemas  bool `db:"may_create_schemas"`
		Replica  bool
	}
	err := db.Get(ctx, &row, `SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding,
		coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create, coalesce(current_schema()::text, '') AS schema,
		has_database_privilege(current_database(), 'CREATE') AS may_create_schemas, pg_is_in_recovery() AS replica`)
	if err != nil {
		return in, err
	}
	if row.Replica {
		return in, faultReadOnly.because(nil)
	}
	switch current, wanted := row.Schema, db.credentials.Schema; {
	case wanted == "" || wanted == current:
	case current == "" && row.Schemas:
		row.Create = true // EnsureSchema creates the schema
	default:
		return in, db.schemaFault()
	}
	in.MayCreate = row.Create
	in.Encoding, in.Unicode = row.Encoding, row.Encoding == "UTF8"
	in.setRelease(PostgresRelease(row.Version))
	names, err := storeTables()
	if err != nil {
		return in, err
	}
	// information_schema would omit tables on which the user has no rights. A
	// member of an extension counts only if it has the name of one of the
	// store's tables.
	err = in.listTables(ctx, db, `SELECT c.relname FROM pg_catalog.pg_class c
		WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
		AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relname IN ('`+strings.Join(names, "', '")+`') OR NOT `+fromExtension+`)
		ORDER BY c.relname LIMIT ?`)
	return in, err
}

// schemaFault returns why tables would not be created in the schema that the
// credentials name.
func (db *DB) schemaFault() *stoa.Error {
	wanted := db.credentials.Schema
	if db.pinned.poolerOf(db.credentials) == credential.TransactionPooler {
		return stoa.Errorf(stoa.DatabasePermissionDenied, "Behind this connection pooler tables would not be in the schema %q. "+
			"Use the direct connection string, or set the schema for the user: ALTER ROLE the_user SET search_path = %q.", wanted, wanted)
	}
	return stoa.Errorf(stoa.DatabasePermissionDenied, "The database has no schema %q that this user may use. "+
		"Make it (CREATE SCHEMA %q AUTHORIZATION the_user), or leave out the schema.", wanted, wanted)
}

// EnsureSchema creates the schema that the credentials name, if they name one
// and it does not exist.
func (db *DB) EnsureSchema(ctx context.Context) error {
	name := db.credentials.Schema
	if name == "" || db.Engine != credential.PostgreSQL || db.pinned.poolerOf(db.credentials) == credential.TransactionPooler {
		return nil
	}
	var exists bool
	if err := db.Get(ctx, &exists, `SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = ?)`, name); err != nil || exists {
		return err
	}
	_, err := db.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{name}.Sanitize())
	if IsState(err, "42501") {
		return db.schemaFault().WithCause(err)
	}
	return err
}

// migrationLock is an arbitrary number that nothing else in a tenant database
// locks.
const migrationLock = 0x73746f61 // "stoa"

// Session implements Engine.
func (e postgresEngine) Session(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error) {
	return e.Open(c, dial, state)
}

// pin implements Engine.
func (postgresEngine) pin(ctx context.Context, db *DB, store stoa.StoreID) error {
	return db.pinPostgres(ctx, store)
}

// warnings implements Engine.
func (postgresEngine) warnings(ctx context.Context, db *DB) ([]Warning, error) {
	return db.postgresWarnings(ctx)
}

func (postgresEngine) sessions(credential.Credentials) bool { return true }

func (postgresEngine) migrator(c credential.Credentials, state *sessionState) migrator {
	m := migrator{dialect: &postgresDialect, take: acquireAdvisory, give: releaseAdvisory, isNew: hasNoTable}
	if state.poolerOf(c) == credential.TransactionPooler { // a session's lock would remain in another client's session
		m.take, m.give, m.hold = nil, nil, holdAdvisory
	}
	return m
}

func hasNoTable(ctx context.Context, conn *sql.Conn, table string) (missing bool, err error) {
	err = conn.QueryRowContext(ctx, `SELECT NOT EXISTS (SELECT 1 FROM pg_catalog.pg_class
		WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND relname = $1)`, table).Scan(&missing)
	return missing, err
}

func acquireAdvisory(ctx context.Context, conn *sql.Conn) error {
	return tryAdvisory(ctx, conn, `SELECT pg_try_advisory_lock($1)`)
}

// tryAdvisory polls for the lock. A statement that waits in the server would be
// a running statement, for which CREATE INDEX CONCURRENTLY waits in turn.
func tryAdvisory(ctx context.Context, at interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, query string) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var granted bool
		err := at.QueryRowContext(ctx, query, migrationLock).Scan(&granted)
		if err != nil || granted {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// releaseAdvisory releases the session's locks, because a pooler keeps the
// session.
func releaseAdvisory(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock_all()`)
	return err
}

// Fault implements Engine. It uses postgresFaults. The server may send any
// code, including an empty one.
func (postgresEngine) Fault(err error) *stoa.Error {
	var setting *settingError
	if errors.As(err, &setting) {
		return setting.fault()
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		if fault, ok := postgresFault(pgErr.Code); ok {
			return fault.because(err)
		}
	}
	switch {
	case errors.Is(err, screen.ErrIterations):
		return tooManyIterations(err)
	case errors.Is(err, screen.ErrHashing):
		return busy(err)
	}
	if fault := networkFault(err); fault != nil {
		return fault
	}
	var connectErr *pgconn.ConnectError
	if errors.As(err, &connectErr) || errors.Is(err, pgconn.ErrConnClosed) {
		return unreachable(err)
	}
	return nil
}
