package supabasetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// database and owner return the names, on the shared server, of the database and of the
// role that each project calls postgres.
func (p *project) database() string { return "supabase_" + p.ref }
func (p *project) owner() string    { return "postgres_" + p.ref }

// sharedRoles creates Supabase's own roles. They are never dropped, since other stand-ins
// may use them.
const sharedRoles = `
SELECT pg_catalog.pg_advisory_xact_lock(6543);
DO $$
DECLARE role text;
BEGIN
	FOREACH role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
		IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
			EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', role);
		END IF;
	END LOOP;
	ALTER ROLE service_role BYPASSRLS;
END $$`

// prepare creates the shared roles on the server and starts the poolers.
func (s *Server) prepare(ctx context.Context) error {
	if s.options.PostgresURL == "" {
		return nil
	}
	if err := s.admin(ctx, "", sharedRoles); err != nil {
		return fmt.Errorf("prepare PostgreSQL: %w", err)
	}
	return s.openPoolers(ctx)
}

// admin runs scripts as the server's own user in a database. An empty database means the
// one that the URL names.
func (s *Server) admin(ctx context.Context, database string, scripts ...string) error {
	conn, err := s.connect(ctx, database, "", "", false)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // no statement is pending
	for _, script := range scripts {
		if _, err := conn.PgConn().Exec(ctx, script).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) connect(ctx context.Context, database, user, password string, readOnly bool) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(s.options.PostgresURL)
	if err != nil {
		return nil, err
	}
	if database != "" {
		cfg.Database = database
	}
	if user != "" {
		cfg.User, cfg.Password = user, password
	}
	if readOnly {
		cfg.RuntimeParams["default_transaction_read_only"] = "on"
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// makeDatabase creates the database of a project as Supabase does. The role postgres owns
// it. It can create roles, but is not a superuser. Objects that it creates in public are
// accessible to the API's roles.
func (s *Server) makeDatabase(ctx context.Context, p *project) error {
	if s.options.PostgresURL == "" {
		return nil
	}
	names := strings.NewReplacer("$owner", p.owner(), "$database", p.database(), "$password", strings.ReplaceAll(p.password, "'", "''"))
	err := s.admin(ctx, "",
		names.Replace(`CREATE ROLE $owner LOGIN CREATEROLE CREATEDB BYPASSRLS PASSWORD '$password'`),
		names.Replace(`CREATE DATABASE $database OWNER $owner TEMPLATE template0 ENCODING 'UTF8'`),
		names.Replace(`GRANT anon, authenticated, service_role TO $owner`),
	)
	if err != nil {
		return err
	}
	return s.admin(ctx, p.database(), names.Replace(`
		ALTER SCHEMA public OWNER TO $owner;
		GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
		ALTER DEFAULT PRIVILEGES FOR ROLE $owner IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
		ALTER DEFAULT PRIVILEGES FOR ROLE $owner IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
		ALTER DEFAULT PRIVILEGES FOR ROLE $owner IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role`))
}

// madeHere selects the roles that a project has created, as far as the server can tell:
// those that own objects or have rights in its database and in no other, and those that
// its postgres has granted to itself.
const madeHere = `
SELECT r.rolname FROM pg_catalog.pg_roles r
WHERE NOT r.rolsuper AND r.rolname NOT IN ('anon', 'authenticated', 'service_role') AND r.rolname !~ '^(pg_|postgres_)'
AND (EXISTS (SELECT FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_database b ON b.oid = d.dbid OR b.oid = d.objid AND d.classid = 'pg_catalog.pg_database'::regclass
		WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass AND d.refobjid = r.oid AND b.datname = $1)
	OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid AND m.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $2)))`

func (s *Server) dropDatabase(ctx context.Context, p *project) error {
	if s.options.PostgresURL == "" {
		return nil
	}
	conn, err := s.connect(ctx, "", "", "", false)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // no statement is pending
	rows, _ := conn.Query(ctx, madeHere, p.database(), p.owner())
	roles, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	// DROP DATABASE waits until the poolers' connections have ended by themselves.
	// PgBouncer 1.18 terminates ("server in bad state") when a server connection is cut
	// right after a query of its client was cancelled.
	_, _ = conn.Exec(ctx, "DROP DATABASE "+p.database())
	if _, err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+p.database()+" WITH (FORCE)"); err != nil {
		return err
	}
	for _, role := range append(roles, p.owner()) {
		_, err := conn.Exec(ctx, "DROP ROLE "+pgx.Identifier{role}.Sanitize())
		if err != nil && !isState(err, "2BP01") { // dependent_objects_still_exist: the role has objects in another project
			return err
		}
	}
	return nil
}

func isState(err error, code string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code
}

// DatabaseURL returns the URL of a project's database for the server's own user, without
// the poolers. That user may read everything and take any role (SET ROLE anon).
func (s *Server) DatabaseURL(ref string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := url.Parse(s.options.PostgresURL)
	if err != nil {
		panic(err) // New has connected to it
	}
	u.Path = "/" + s.mustFind(ref).database()
	return u.String()
}

// Expose grants the API's roles all rights on all objects in the project's schema public,
// and disables row-level security there. Stores that kept their tables in public, before
// each store got its own schema, were in this state.
func (s *Server) Expose(t testing.TB, ref string) {
	t.Helper()
	s.mu.Lock()
	database := s.mustFind(ref).database()
	s.mu.Unlock()
	err := s.admin(t.Context(), database, `
		GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated, service_role;
		GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO anon, authenticated, service_role;
		DO $$
		DECLARE name text;
		BEGIN
			FOR name IN SELECT format('%I.%I', schemaname, tablename) FROM pg_catalog.pg_tables WHERE schemaname = 'public' LOOP
				EXECUTE 'ALTER TABLE ' || name || ' DISABLE ROW LEVEL SECURITY';
			END LOOP;
		END $$`)
	if err != nil {
		t.Fatal(err)
	}
}

// query runs the SQL of a request as the project's postgres.
func (s *Server) query(r *http.Request, p *project) *answer {
	var in struct {
		Query      string `json:"query"`
		Parameters []any  `json:"parameters"`
		ReadOnly   bool   `json:"read_only"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Query == "" {
		return problem(http.StatusBadRequest, "query: Required")
	}
	s.mu.Lock()
	status := s.status(p)
	s.mu.Unlock()
	switch {
	case s.options.PostgresURL == "":
		return problem(http.StatusInternalServerError, "this stand-in has no PostgreSQL")
	case status != healthy:
		return problem(http.StatusBadRequest, "Failed to run sql query: Connection terminated due to connection timeout")
	}
	// Supabase completes a query after its client has disconnected.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
	defer cancel()
	conn, err := s.connect(ctx, p.database(), p.owner(), p.password, in.ReadOnly)
	if err != nil {
		return problem(http.StatusInternalServerError, "the stand-in cannot connect: %v", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // no statement is pending
	out, err := run(ctx, conn, in.Query, in.Parameters)
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr):
		return problem(http.StatusBadRequest, "Failed to run sql query: %s: %s: %s\n", pgErr.Severity, pgErr.Code, pgErr.Message)
	case err != nil:
		return problem(http.StatusBadRequest, "Failed to run sql query: %v", err)
	}
	a := reply(out)
	a.status = http.StatusCreated
	return a
}

// run returns the rows of the last statement. Several statements run in one transaction,
// unless they contain transaction commands.
func run(ctx context.Context, conn *pgx.Conn, query string, parameters []any) (rows, error) {
	if len(parameters) == 0 {
		results, err := conn.PgConn().Exec(ctx, query).ReadAll()
		if err != nil || len(results) == 0 {
			return rows{}, err
		}
		return readRows(conn.TypeMap(), results[len(results)-1])
	}
	var values [][]byte
	for _, p := range parameters {
		switch v := p.(type) {
		case nil:
			values = append(values, nil)
		case string:
			values = append(values, []byte(v))
		default:
			b, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			values = append(values, b)
		}
	}
	result := conn.PgConn().ExecParams(ctx, query, values, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, result.Err
	}
	return readRows(conn.TypeMap(), result)
}

func readRows(types *pgtype.Map, result *pgconn.Result) (rows, error) {
	out := rows{}
	for _, row := range result.Rows {
		o := object{}
		for i, field := range result.FieldDescriptions {
			value, err := readValue(types, field.DataTypeOID, row[i])
			if err != nil {
				return nil, err
			}
			o[field.Name] = value
		}
		out = append(out, o)
	}
	return out, nil
}

// readValue converts a value in text form to JSON. It becomes a string unless JSON has
// the type.
func readValue(types *pgtype.Map, oid uint32, text []byte) (any, error) {
	if text == nil {
		return nil, nil
	}
	switch oid {
	case pgtype.JSONOID, pgtype.JSONBOID:
		return json.RawMessage(text), nil
	case pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.Float4OID, pgtype.Float8OID,
		pgtype.TextArrayOID, pgtype.NameArrayOID, pgtype.VarcharArrayOID, pgtype.Int4ArrayOID, pgtype.Int8ArrayOID, pgtype.BoolArrayOID:
		t, _ := types.TypeForOID(oid)
		return t.Codec.DecodeValue(types, oid, pgtype.TextFormatCode, text)
	}
	return string(text), nil
}
