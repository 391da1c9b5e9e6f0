package tenantdb_test

import (
	"context"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// project is a project of a stand-in for Supabase, with a connection as the
// server's own user.
type project struct {
	supabasetest.Project
	sb    *supabasetest.Server
	admin *pgx.Conn
}

func newProject(t *testing.T) project {
	t.Helper()
	sb := supabasetest.New(t, supabasetest.Options{})
	_, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
	testkit.Must(t, err)
	p := project{sb.Projects()[0], sb, nil}
	p.admin, err = pgx.Connect(t.Context(), sb.DatabaseURL(p.Ref))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = p.admin.Close(context.Background()) })
	return p
}

func (p project) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := p.admin.Exec(t.Context(), s)
		testkit.Must(t, err)
	}
}

// direct returns credentials of the project's user postgres at the server
// itself. The server's name is not one of Supabase's.
func (p project) direct(t *testing.T) credential.Credentials {
	t.Helper()
	u, err := url.Parse(os.Getenv(tenantdbtest.PostgresEnv))
	testkit.Must(t, err)
	u.User, u.Path, u.RawQuery = url.UserPassword("postgres_"+p.Ref, p.Password), "/supabase_"+p.Ref, "sslmode=disable"
	c, err := credential.ParseConnectionString(credential.PostgreSQL, keyring.NewSecret(u.String()))
	testkit.Must(t, err)
	return c
}

// manager returns a manager with the custom migrations of dir, if any.
func (p project) manager(t *testing.T, dir string) *tenantdb.Manager {
	t.Helper()
	own, err := tenantdb.LoadCustomMigrations(dir)
	testkit.Must(t, err)
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{Dialer: dial.Dialer{Allow: dial.Loopback}, Supabase: p.sb.Rules(), Custom: own})
	t.Cleanup(func() { testkit.Must(t, m.Close(context.Background())) })
	return m
}

func open(t *testing.T, m *tenantdb.Manager, c credential.Credentials) *tenantdb.DB {
	t.Helper()
	db, err := m.OpenUnleased(c)
	testkit.Must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// isolated gives a new store its own role and schema, with its tables.
func (p project) isolated(t *testing.T, m *tenantdb.Manager) (role string, db *tenantdb.DB) {
	t.Helper()
	owner := open(t, m, p.direct(t))
	in, err := m.PlanIsolation(t.Context(), owner, stoa.NewID[stoa.StoreID]())
	testkit.Must(t, err)
	c, err := m.Isolate(t.Context(), owner, in, keyring.NewSecret("of the store"))
	testkit.Must(t, err)
	db = open(t, m, c)
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	return in.Role, db
}

// TestProveClosed checks that each way in which one of the API's roles may
// reach a store's tables is detected, and that CloseToAPI ends those ways that
// the store's role can end.
func TestProveClosed(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	role, db := p.isolated(t, p.manager(t, ""))
	testkit.Must(t, db.ProveClosed(t.Context()))
	for name, tt := range map[string]struct{ grant, says string }{
		"schema":              {`GRANT USAGE ON SCHEMA @ TO anon`, "schema " + role},
		"schema, to make":     {`GRANT CREATE ON SCHEMA @ TO authenticated`, "authenticated"},
		"schema, to all":      {`GRANT USAGE ON SCHEMA @ TO PUBLIC`, "PUBLIC"},
		"table":               {`GRANT SELECT ON @.users TO anon`, ".users"},
		"table, to all":       {`GRANT SELECT ON @.users TO PUBLIC`, "PUBLIC"},
		"table, to write":     {`GRANT INSERT ON @.orders TO service_role`, "service_role"},
		"one column":          {`GRANT SELECT (email) ON @.users TO anon`, ".users"},
		"one column, to all":  {`GRANT UPDATE (email) ON @.users TO PUBLIC`, "PUBLIC"},
		"with grant option":   {`GRANT ALL ON @.pages TO authenticated WITH GRANT OPTION`, ".pages"},
		"sequence":            {`GRANT USAGE ON SEQUENCE @.stoa_schema_migrations_id_seq TO anon`, "_id_seq"},
		"tables to come":      {`ALTER DEFAULT PRIVILEGES FOR ROLE @ IN SCHEMA @ GRANT SELECT ON TABLES TO anon`, "default tables"},
		"sequences to come":   {`ALTER DEFAULT PRIVILEGES FOR ROLE @ IN SCHEMA @ GRANT ALL ON SEQUENCES TO PUBLIC`, "default sequences"},
		"functions to come":   {`ALTER DEFAULT PRIVILEGES FOR ROLE @ IN SCHEMA @ GRANT ALL ON FUNCTIONS TO anon`, "default functions"},
		"function":            {`CREATE FUNCTION @.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION @.f() OWNER TO @; GRANT EXECUTE ON FUNCTION @.f() TO PUBLIC`, "routine"},
		"view":                {`CREATE VIEW @.v AS SELECT 1 AS one; ALTER VIEW @.v OWNER TO @; GRANT SELECT ON @.v TO anon`, ".v"},
		"name that is hard":   {`CREATE TABLE @."a""b'c; \ ü" (x int); ALTER TABLE @."a""b'c; \ ü" OWNER TO @; GRANT ALL ON @."a""b'c; \ ü" TO anon`, "anon"},
		"overloaded function": {`CREATE FUNCTION @.g(a text, b int) RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION @.g(text, int) OWNER TO @; GRANT ALL ON FUNCTION @.g(text, int) TO anon`, "routine"},
	} {
		p.exec(t, strings.ReplaceAll(tt.grant, "@", role))
		err := db.ProveClosed(t.Context())
		if stoa.CodeOf(err) != stoa.DatabaseExposed || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want one that says %q", name, err, tt.says)
		}
		testkit.Must(t, db.CloseToAPI(t.Context()))
		if err := db.ProveClosed(t.Context()); err != nil {
			t.Errorf("%s, closed: %v", name, err)
		}
	}
	// Objects that the role creates later are closed from the start.
	_, err := db.Exec(t.Context(), `CREATE FUNCTION later() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
	testkit.Must(t, err)
	_, err = db.Exec(t.Context(), `CREATE TABLE later_too (id serial)`)
	testkit.Must(t, err)
	testkit.Must(t, db.ProveClosed(t.Context()))
}

// TestProveClosedReadsAsTheAPI checks that each table is read as one of the
// API's roles if the connected role may become that role.
func TestProveClosedReadsAsTheAPI(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	db := open(t, p.manager(t, ""), p.direct(t))
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, db.ProveClosed(t.Context()))
	testkit.Must(t, tenantdb.AskAsAPI(t.Context(), db, []string{"public.users"}))
	p.exec(t, `GRANT SELECT ON public.users TO anon`)
	err = tenantdb.AskAsAPI(t.Context(), db, []string{"public.pages", "public.users"})
	if stoa.CodeOf(err) != stoa.DatabaseExposed || !strings.Contains(err.Error(), "public.users (anon)") {
		t.Errorf("got %v", err)
	}
	var user string
	testkit.Must(t, db.Get(t.Context(), &user, `SELECT current_user::text`))
	if user != "postgres_"+p.Ref {
		t.Errorf("the session goes on as %s", user)
	}
}

// TestCloseInPublic checks that for a store in the schema public, all objects
// that the migrations create are closed, including those of custom migrations,
// and that nothing else is changed.
func TestCloseInPublic(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	dir := t.TempDir()
	testkit.Must(t, os.MkdirAll(filepath.Join(dir, "postgres"), 0o700))
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "postgres", "00001_own.sql"), []byte(`-- +goose Up
CREATE TABLE Notes (id serial PRIMARY KEY, body text);
CREATE TABLE public."Odd Name" (id int);
CREATE VIEW "note_view" AS SELECT * FROM notes;
CREATE FUNCTION note_count() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM notes';
`), 0o600))
	db := open(t, p.manager(t, dir), p.direct(t))
	p.exec(t, `SET ROLE postgres_`+p.Ref, `CREATE TABLE public.blog (id serial, body text)`,
		`CREATE FUNCTION public.blog_count() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM blog'`, `RESET ROLE`)
	_, err := db.MigrateTo(t.Context(), tenantdb.MigrateOptions{})
	testkit.Must(t, err)
	testkit.Must(t, db.ProveClosed(t.Context()))
	reads := func(role, what string) bool {
		var may bool
		testkit.Must(t, p.admin.QueryRow(t.Context(), `SELECT has_table_privilege($1, $2::regclass, 'SELECT')`, role, what).Scan(&may))
		return may
	}
	for _, role := range []string{"anon", "authenticated", "service_role"} {
		for _, table := range []string{"users", "stoa_schema_migrations", "stoa_own_migrations", "notes", "note_view", `"Odd Name"`} {
			if reads(role, "public."+table) {
				t.Errorf("%s reads %s", role, table)
			}
		}
		if !reads(role, "public.blog") {
			t.Errorf("%s no longer reads the owner's own table", role)
		}
		for function, want := range map[string]bool{"public.note_count()": false, "public.blog_count()": true} {
			var may bool
			testkit.Must(t, p.admin.QueryRow(t.Context(), `SELECT has_function_privilege($1, $2, 'EXECUTE')`, role, function).Scan(&may))
			if may != want {
				t.Errorf("%s executes %s: %v", role, function, may)
			}
		}
	}
	var rls int
	testkit.Must(t, p.admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
		AND relrowsecurity <> (relname <> 'blog')`).Scan(&rls))
	if rls != 0 {
		t.Errorf("row-level security of %d tables is not as it should be", rls)
	}
}

// TestCloseToAPISparesOthers checks that a role to which the owner has granted
// a table can still read it and sees its rows.
func TestCloseToAPISparesOthers(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	db := open(t, p.manager(t, ""), p.direct(t))
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	reader := "reader_" + p.Ref
	p.exec(t, `ALTER TABLE public.users DISABLE ROW LEVEL SECURITY`, `CREATE ROLE `+reader, `GRANT SELECT ON public.users TO `+reader, `GRANT ALL ON public.users TO anon`)
	testkit.Must(t, db.CloseToAPI(t.Context()))
	testkit.Must(t, db.ProveClosed(t.Context()))
	var spared bool
	testkit.Must(t, p.admin.QueryRow(t.Context(), `SELECT NOT relrowsecurity AND has_table_privilege($1, oid, 'SELECT') FROM pg_class WHERE oid = 'public.users'::regclass`, reader).Scan(&spared))
	if !spared {
		t.Error("the owner's other role reads users no more")
	}
}

// TestLocksEnd checks that a locked table prevents row-level security for now,
// but does not prevent revoking the rights of the API's roles.
func TestLocksEnd(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	db := open(t, p.manager(t, ""), p.direct(t))
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	p.sb.Expose(t, p.Ref)
	p.exec(t, `BEGIN`, `SELECT * FROM public.users`)
	if err := db.CloseToAPI(t.Context()); err == nil {
		t.Error("row-level security is on for a table that is locked")
	}
	testkit.Must(t, db.ProveClosed(t.Context()))
	p.exec(t, `COMMIT`)
	testkit.Must(t, db.CloseToAPI(t.Context()))
}

// TestServesAPI checks that a database is treated as one with an HTTP API if
// the API's roles have rights in it, and not merely because the server has such
// roles.
func TestServesAPI(t *testing.T) {
	t.Parallel()
	supabasetest.New(t, supabasetest.Options{}) // the server has the roles
	for name, grant := range map[string]string{
		"":                   "",
		"tables to come":     `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO anon`,
		"sequences to come":  `ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO authenticated`,
		"the schema":         `GRANT USAGE ON SCHEMA public TO service_role`,
		"a table":            `CREATE TABLE public.t (x int); GRANT SELECT ON public.t TO anon`,
		"to somebody else's": `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO pg_monitor`,
	} {
		c := tenantdbtest.Create(t, credential.PostgreSQL)
		if grant != "" {
			tenantdbtest.AdminIn(t, c.Database, grant)
		}
		serves, err := tenantdbtest.Open(t, c).ServesAPI(t.Context())
		testkit.Must(t, err)
		if want := name != "" && name != "to somebody else's"; serves != want {
			t.Errorf("%q: %v", name, serves)
		}
	}
	for _, engine := range []credential.EngineName{credential.SQLite, credential.MySQL} {
		serves, err := tenantdbtest.Open(t, tenantdbtest.Create(t, engine)).ServesAPI(t.Context())
		if err != nil || serves {
			t.Errorf("%s: %v, %v", engine, serves, err)
		}
	}
}

// TestIsolateDirectly checks that a role's name has no suffix at a project's
// own host, and has the project's suffix at a pooler. The test provides its own
// connection to the host.
func TestIsolateDirectly(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	m := p.manager(t, "")
	at := p.direct(t)
	c := credential.Credentials{
		Kind: credential.KindSupabase, Engine: credential.PostgreSQL, Host: "db." + p.Ref + ".supabase.invalid", Port: 5432,
		Database: at.Database, User: at.User, Password: at.Password, TLS: credential.TLSDisable,
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, postgresAddress(t))
	}
	engines := tenantdb.NewEngines(tenantdb.Options{Supabase: p.sb.Rules()})
	db, err := tenantdb.OpenWith(engines, c, dial)
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing is pending
	store := stoa.NewID[stoa.StoreID]()
	in, err := m.PlanIsolation(t.Context(), db, store)
	testkit.Must(t, err)
	made, err := m.Isolate(t.Context(), db, in, keyring.NewSecret("of the store"))
	testkit.Must(t, err)
	if want := tenantdb.SupabaseRole(store); made.User != want || made.Host != c.Host || made.Port != c.Port {
		t.Errorf("connects as %s at %s:%d", made.User, made.Host, made.Port)
	}
	own, err := tenantdb.OpenWith(engines, made, dial)
	testkit.Must(t, err)
	defer own.Close() //nolint:errcheck // nothing is pending
	_, err = own.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, own.ProveClosed(t.Context()))
	held, _, err := db.Isolated(t.Context(), store)
	if err != nil || held {
		t.Errorf("holds a store that nobody has marked: %v, %v", held, err)
	}
	testkit.Must(t, own.Mark(t.Context(), store))
	held, schema, err := db.Isolated(t.Context(), store)
	if err != nil || !held || schema.Version != tenantdb.LatestVersion() {
		t.Errorf("held %v at %+v, %v", held, schema, err)
	}
}

func postgresAddress(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(os.Getenv(tenantdbtest.PostgresEnv))
	testkit.Must(t, err)
	return u.Host
}

// TestSupabasePastedAsPostgreSQL checks that the connection string of a project
// that is pasted as PostgreSQL connects a Supabase project.
func TestSupabasePastedAsPostgreSQL(t *testing.T) {
	t.Parallel()
	const pooler = "aws-0-eu-central-1.pooler.supabase.com"
	for raw, want := range map[string]credential.Kind{
		"postgres@db." + ref + ".supabase.co":               credential.KindSupabase,
		"postgres@DB." + ref + ".Supabase.co.:6543":         credential.KindSupabase,
		"postgres." + ref + "@" + pooler:                    credential.KindSupabase,
		"shop.owner." + ref + "@" + pooler + ":6543":        credential.KindSupabase,
		"postgres." + ref + "@" + pooler + ":5433":          credential.KindPostgreSQL,
		"postgres@" + pooler:                                credential.KindPostgreSQL,
		"postgres@db.example.com":                           credential.KindPostgreSQL,
		"postgres@db." + ref + ".supabase.co.example.com":   credential.KindPostgreSQL,
		"postgres." + ref + "@evilpooler.supabase.com:6543": credential.KindPostgreSQL,
	} {
		user, host, _ := strings.Cut(raw, "@")
		c, err := credential.ParseConnectionString(credential.PostgreSQL, keyring.NewSecret("postgres://"+user+":"+marker+"@"+host+"/postgres"))
		if err != nil || c.Kind != want || (c.Pooler == credential.TransactionPooler) != (c.Port == 6543) {
			t.Errorf("%s: %s %q, %v; want %s", raw, c.Kind, c.Pooler, err, want)
		}
	}
}

// warned returns the codes of the warnings and checks that no message is empty.
func warned(t *testing.T, db *tenantdb.DB) (codes []stoa.Code, text string) {
	t.Helper()
	list, err := db.Warnings(t.Context())
	testkit.Must(t, err)
	for _, w := range list {
		codes, text = append(codes, w.Code), text+w.Message+"\n"
	}
	return codes, text
}

// TestPostgresWarnings checks who else may read a database on PostgreSQL.
func TestPostgresWarnings(t *testing.T) {
	t.Parallel()
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	db := tenantdbtest.Open(t, c)
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	guest := tenantdbtest.Guest(t, c).User
	for _, tt := range []struct {
		change string
		want   []stoa.Code
	}{
		{`SELECT 1`, []stoa.Code{tenantdb.PublicConnect}},
		{`REVOKE CONNECT ON DATABASE ` + c.Database + ` FROM PUBLIC`, nil},
		{`GRANT CREATE ON SCHEMA public TO PUBLIC`, []stoa.Code{tenantdb.PublicRights}},
		{`GRANT SELECT ON users TO PUBLIC`, []stoa.Code{tenantdb.PublicRights}},
		{`REVOKE ALL ON users FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM PUBLIC`, nil},
		{`GRANT SELECT (email) ON users TO ` + guest, []stoa.Code{tenantdb.OtherReaders}},
		{`REVOKE ALL ON users FROM ` + guest + `; GRANT DELETE ON pages TO ` + guest, []stoa.Code{tenantdb.OtherReaders}},
		{`REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO "` + c.User + `"`, nil}, // not readable by the guest
		{`GRANT USAGE ON SCHEMA public TO PUBLIC; REVOKE ALL ON pages FROM ` + guest, nil},
		// The guest gets the right through a role that it must become first.
		{`CREATE ROLE group_` + guest + ` NOLOGIN; GRANT SELECT ON orders TO group_` + guest, nil},
		{`GRANT group_` + guest + ` TO ` + guest + `; ALTER ROLE ` + guest + ` NOINHERIT`, []stoa.Code{tenantdb.OtherReaders}},
		{`DROP OWNED BY group_` + guest + `; DROP ROLE group_` + guest, nil},
		// The owner of the database is a member of pg_database_owner, without a row that says so.
		{`GRANT SELECT ON orders TO pg_database_owner`, nil},
		{`ALTER DATABASE ` + c.Database + ` OWNER TO ` + guest, []stoa.Code{tenantdb.OtherReaders}},
		{`ALTER DATABASE ` + c.Database + ` OWNER TO "` + c.User + `"`, nil},
	} {
		tenantdbtest.AdminIn(t, c.Database, tt.change)
		got, text := warned(t, db)
		if !slices.Equal(got, tt.want) || slices.Contains(got, tenantdb.OtherReaders) != strings.Contains(text, guest) {
			t.Errorf("%s: %v %s, want %v", tt.change, got, text, tt.want)
		}
	}
}

// TestMySQLWarnings checks who else may read a database on MySQL or MariaDB.
func TestMySQLWarnings(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.MySQL) {
		t.Skip("needs a MySQL server")
	}
	c := tenantdbtest.Create(t, credential.MySQL)
	db := tenantdbtest.Open(t, c)
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	got, _ := warned(t, db)
	if !slices.Equal(got, []stoa.Code{tenantdb.AnyHost, tenantdb.ReadersUnknown}) {
		t.Errorf("%v", got)
	}
	tenantdbtest.Admin(t, credential.MySQL, `GRANT SELECT ON mysql.* TO `+c.User+`@'%'`)
	_, text := warned(t, db)
	guest := tenantdbtest.Guest(t, c)
	if strings.Contains(text, guest.User) {
		t.Errorf("before there is a guest: %s", text)
	}
	for _, grant := range []string{
		"SELECT 1", // Guest may read the whole database
		"REVOKE ALL ON " + c.Database + ".* FROM " + guest.User + "@'%'; GRANT SELECT ON `" + c.Database[:len(c.Database)-3] + "%`.* TO " + guest.User + "@'%'",
		"REVOKE ALL PRIVILEGES, GRANT OPTION FROM " + guest.User + "@'%'; GRANT SELECT (email) ON " + c.Database + ".users TO " + guest.User + "@'%'",
		"REVOKE ALL PRIVILEGES, GRANT OPTION FROM " + guest.User + "@'%'; GRANT UPDATE ON *.* TO " + guest.User + "@'%'",
	} {
		tenantdbtest.Admin(t, credential.MySQL, strings.Split(grant, "; ")...)
		if got, text := warned(t, db); !slices.Contains(got, tenantdb.OtherReaders) || !strings.Contains(text, guest.User) {
			t.Errorf("%s: %v %s", grant, got, text)
		}
	}
	tenantdbtest.Admin(t, credential.MySQL, "REVOKE ALL PRIVILEGES, GRANT OPTION FROM "+guest.User+"@'%'")
	if _, text := warned(t, db); strings.Contains(text, guest.User) {
		t.Errorf("without rights: %s", text)
	}
}
