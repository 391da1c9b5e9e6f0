package app_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// connectionBodies returns bodies of connect-database for an owner who pastes a
// connection string of a Supabase project, by the way in which the string is passed.
func connectionBodies(t *testing.T, sb *supabasetest.Server, p supabasetest.Project) map[string]object {
	t.Helper()
	u, err := url.Parse(os.Getenv(tenantdbtest.PostgresEnv))
	if err != nil {
		t.Fatal(err)
	}
	// The stub's server replaces db.<ref>.supabase.co, which does not resolve in tests.
	u.User, u.Path, u.RawQuery = url.UserPassword("postgres_"+p.Ref, p.Password), "/supabase_"+p.Ref, "sslmode=disable"
	session := sb.ConnectionString(p.Ref, "postgres", p.Password, credential.SessionPooler)
	transaction := sb.ConnectionString(p.Ref, "postgres", p.Password, credential.TransactionPooler)
	return map[string]object{
		"session pooler":                 {"type": "supabase", "connectionString": session},
		"transaction pooler":             {"type": "supabase", "connectionString": transaction},
		"session pooler as PostgreSQL":   {"type": "postgresql", "connectionString": session},
		"transaction pooler, PostgreSQL": {"type": "postgresql", "connectionString": transaction},
		"direct as PostgreSQL":           {"type": "postgresql", "connectionString": u.String()},
	}
}

// addProject creates a project with a database.
func addProject(t *testing.T, sb *supabasetest.Server) supabasetest.Project {
	t.Helper()
	added, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range sb.Projects() {
		if p.Ref == added.Ref {
			return p
		}
	}
	t.Fatal("the project is not listed")
	return added
}

// projectDatabase returns a connection to a project's database as the server's
// superuser, which may assume any role.
func projectDatabase(t *testing.T, sb *supabasetest.Server, ref string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), sb.DatabaseURL(ref))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// storeSchema returns the schema that contains the store's tables.
func storeSchema(t *testing.T, admin *pgx.Conn, store string) string {
	t.Helper()
	rows, _ := admin.Query(t.Context(), `SELECT schemaname FROM pg_tables WHERE tablename = 'stoa_tenant'`)
	schemas, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, schema := range schemas {
		var owner string
		if err := admin.QueryRow(t.Context(), `SELECT store_id FROM `+pgx.Identifier{schema, "stoa_tenant"}.Sanitize()).Scan(&owner); err != nil {
			t.Fatal(err)
		}
		if owner == store {
			return schema
		}
	}
	t.Fatalf("no schema of %v holds store %s", schemas, store)
	return ""
}

// restRequests are the statements that PostgREST would run for an anonymous caller of
// the project's HTTP API: read the owner's address, rename the store, delete pages.
var restRequests = []string{
	`SELECT email FROM %s.users`,
	`UPDATE %s.stores SET name = 'Mine'`,
	`DELETE FROM %s.pages`,
	`INSERT INTO %s.settings DEFAULT VALUES`,
	`SELECT * FROM %s.stoa_tenant`,
	`DELETE FROM %s.stoa_schema_migrations`,
	`SELECT nextval('%s.stoa_schema_migrations_id_seq')`,
}

// wantClosed checks that none of the API's roles has a privilege on the store's tables:
// each request fails with insufficient_privilege.
func wantClosed(t *testing.T, admin *pgx.Conn, schema string) {
	t.Helper()
	for _, role := range []string{"anon", "authenticated", "service_role"} {
		for _, request := range restRequests {
			statement := fmt.Sprintf(request, pgx.Identifier{schema}.Sanitize())
			if err := asAPIRole(t, admin, role, statement); !isInsufficientPrivilege(err) {
				t.Errorf("%s: %s: %v", role, statement, err)
			}
		}
	}
}

// asAPIRole runs a statement as the role and rolls it back.
func asAPIRole(t *testing.T, admin *pgx.Conn, role, statement string) error {
	t.Helper()
	tx, err := admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // the transaction is never committed
	if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+role); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), statement)
	return err
}

func isInsufficientPrivilege(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "42501"
}

// TestConnectionStringIsPrivate checks that, however an owner pastes the connection
// string of a Supabase project, the README's example included, the store works and gets
// a schema that the project's HTTP API cannot read.
func TestConnectionStringIsPrivate(t *testing.T) {
	t.Parallel()
	onEachSupabase(t, func(t *testing.T, s *server, sb *supabasetest.Server) {
		project := addProject(t, sb)
		admin := projectDatabase(t, sb, project.Ref)
		c, _ := register(t, s, "owner@example.com")
		seen := map[string]string{}
		for way, body := range connectionBodies(t, sb, project) {
			id := c.call("POST", "/api/stores", object{"name": way}).want(http.StatusCreated).text("id")
			store := c.call("POST", "/api/stores/"+id+"/connect-database", body).want(http.StatusOK).is("active", "status")
			schema := storeSchema(t, admin, id)
			if other := seen[schema]; other != "" || schema == "public" {
				t.Errorf("%s: in schema %s, as %q", way, schema, other)
			}
			seen[schema] = way
			host := store.list("hostnames")[0].(object)["hostname"].(string)
			c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK).is(id, "id")
			c.call("PATCH", "/api/stores/"+id, object{"name": "Renamed"}).want(http.StatusOK)
			wantClosed(t, admin, schema)

			creds, err := s.Tenants.Load(t.Context(), s.Master, mustID(t, id))
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(creds.User, "postgres") || creds.Password.Reveal() == project.Password {
				t.Errorf("%s: the store works as %s", way, creds.User)
			}
		}
		var others int
		if err := admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&others); err != nil || others > 0 {
			t.Errorf("%d tables in public, %v", others, err)
		}
	})
}

// TestDoctorClosesExposedStores checks that doctor names the stores that the HTTP API
// of a Supabase project can read, and that --repair revokes that access.
func TestDoctorClosesExposedStores(t *testing.T) {
	t.Parallel()
	sb := supabasetest.New(t, supabasetest.Options{})
	project := addProject(t, sb)
	admin := projectDatabase(t, sb, project.Ref)
	cfg := supabaseConfig(t, masterdb.SQLite, sb)
	s := startServer(t, cfg)
	c, id := register(t, s, "owner@example.com")
	c.call("POST", "/api/stores/"+id+"/connect-database", object{
		"type": "supabase", "connectionString": sb.ConnectionString(project.Ref, "postgres", project.Password, credential.TransactionPooler),
	}).want(http.StatusOK).is("active", "status")
	schema := storeSchema(t, admin, id)
	doctor := func(flags ...string) (int, string) {
		status, stdout, stderr := command(t, append([]string{
			"doctor", "--fleet", "--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal(),
			"--supabase-pooler=" + cfg.SupabasePooler, "--supabase-ca=" + cfg.SupabaseCA,
		}, flags...)...)
		return status, stdout + stderr
	}
	if _, said := doctor(); strings.Contains(said, "database_exposed") || !strings.Contains(said, "nothing is out of place") {
		t.Errorf("of a closed store: %s", said)
	}
	for _, grant := range []string{"GRANT USAGE ON SCHEMA %s TO anon", "GRANT SELECT ON %s.users TO anon"} {
		if _, err := admin.Exec(t.Context(), fmt.Sprintf(grant, schema)); err != nil {
			t.Fatal(err)
		}
	}
	if asAPIRole(t, admin, "anon", "SELECT * FROM "+schema+".users") != nil {
		t.Fatal("the store is closed")
	}
	status, said := doctor()
	if status != 1 || !strings.Contains(said, "database_exposed") || !strings.Contains(said, "anon") || !strings.Contains(said, "--repair") {
		t.Errorf("%d: %s", status, said)
	}
	if status, said := doctor("--repair"); status != 1 || !strings.Contains(said, "repair  database_exposed") {
		t.Errorf("%d: %s", status, said)
	}
	wantClosed(t, admin, schema)
	if _, said := doctor(); strings.Contains(said, "database_exposed") {
		t.Errorf("of a store that was closed: %s", said)
	}
}
