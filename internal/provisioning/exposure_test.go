package provisioning

import (
	"context"
	"errors"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// project is a project of a stand-in for Supabase, with a connection as the server's
// superuser.
type project struct {
	supabasetest.Project
	sb    *supabasetest.Server
	admin *pgx.Conn
}

// inSupabase runs test on every master engine, with a replica that executes jobs and a
// stand-in for Supabase with one project.
func inSupabase(t *testing.T, test func(t *testing.T, b fixture, p project)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		sb := supabasetest.New(t, supabasetest.Options{})
		b := withRules(t, db, sb.Rules()).start(t)
		test(t, b, newProject(t, sb))
	})
}

func newProject(t *testing.T, sb *supabasetest.Server) project {
	t.Helper()
	added, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
	testkit.Must(t, err)
	all := sb.Projects()
	p := project{all[slices.IndexFunc(all, func(p supabasetest.Project) bool { return p.Ref == added.Ref })], sb, nil}
	p.admin, err = pgx.Connect(t.Context(), sb.DatabaseURL(p.Ref))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = p.admin.Close(context.Background()) })
	return p
}

// credentials returns the credentials that an owner would paste for a role of the
// project.
func (p project) credentials(t *testing.T, role, password string, mode credential.Pooler) credential.Credentials {
	t.Helper()
	c, err := p.sb.Rules().Parse(keyring.NewSecret(p.sb.ConnectionString(p.Ref, role, password, mode)))
	testkit.Must(t, err)
	return c
}

// owner returns the credentials of the project's postgres.
func (p project) owner(t *testing.T) credential.Credentials {
	t.Helper()
	return p.credentials(t, "postgres", p.Password, credential.TransactionPooler)
}

// exec runs statements as the server's superuser. $owner is replaced by the project's
// postgres and $role by the test's own role.
func (p project) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := p.admin.Exec(t.Context(), strings.NewReplacer("$owner", "postgres_"+p.Ref, "$role", p.role()).Replace(s))
		testkit.Must(t, err)
	}
}

func (p project) role() string { return "team_" + p.Ref }

// makeRole creates the test's own role, which cannot create other roles.
func (p project) makeRole(t *testing.T) {
	t.Helper()
	p.exec(t, `CREATE ROLE $role LOGIN PASSWORD 'of the team'`, `GRANT $role TO $owner`)
}

// count returns the result of a query that returns one number.
func (p project) count(t *testing.T, query string) (n int) {
	t.Helper()
	testkit.Must(t, p.admin.QueryRow(t.Context(), query).Scan(&n))
	return n
}

// may runs a statement as that role, rolls it back, and reports whether it was allowed.
func (p project) may(t *testing.T, role, statement string) bool {
	t.Helper()
	tx, err := p.admin.Begin(t.Context())
	testkit.Must(t, err)
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // the transaction is always rolled back
	_, err = tx.Exec(t.Context(), "SET LOCAL ROLE "+role)
	testkit.Must(t, err)
	_, err = tx.Exec(t.Context(), statement)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42501" {
		return false
	}
	testkit.Must(t, err)
	return true
}

// TestConnectRefusesAnExposedSchema checks that a store is refused for a role that cannot
// get a schema of its own, or only one that the project's HTTP API can reach. The owner
// is told what to do. After the correction the run continues.
func TestConnectRefusesAnExposedSchema(t *testing.T) {
	t.Parallel()
	inSupabase(t, func(t *testing.T, b fixture, p project) {
		p.makeRole(t)
		p.exec(t, `GRANT ALL ON SCHEMA public TO $role`)
		owner, s := b.store(t)
		c := p.credentials(t, p.role(), "of the team", credential.SessionPooler)
		run := b.connect(t, owner, s.ID, c)
		b.failed(t, owner, run, "connect", stoa.DatabaseExposed)
		if !strings.Contains(run.Fault.Message, "CREATE SCHEMA") {
			t.Errorf("the remedy is %q", run.Fault.Message)
		}
		if n := p.count(t, `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`); n > 0 {
			t.Errorf("%d tables in public", n)
		}

		// A schema of another role: the store's role cannot revoke the permissions of
		// others there.
		p.exec(t, `CREATE ROLE $role_2 LOGIN PASSWORD 'of the team'`, `CREATE SCHEMA team AUTHORIZATION $owner`,
			`GRANT ALL ON SCHEMA team TO $role_2`, `GRANT USAGE ON SCHEMA team TO anon`, `ALTER ROLE $role_2 SET search_path = team`)
		run = b.connect(t, owner, s.ID, p.credentials(t, p.role()+"_2", "of the team", credential.SessionPooler))
		b.failed(t, owner, run, "seed", stoa.DatabaseExposed)
		if !strings.Contains(run.Fault.Message, "schema team") || !strings.Contains(run.Fault.Message, "anon") {
			t.Errorf("the fault is %q", run.Fault.Message)
		}
		p.exec(t, `REVOKE ALL ON SCHEMA team FROM anon`)
		b.succeeded(t, owner, b.retry(t, owner, s.ID))
	})
}

// TestConnectToASchemaOfTheOwners checks that a schema that the owner has prepared for a
// role is used, and that default privileges of the API there are revoked.
func TestConnectToASchemaOfTheOwners(t *testing.T) {
	t.Parallel()
	inSupabase(t, func(t *testing.T, b fixture, p project) {
		p.makeRole(t)
		p.exec(t, `CREATE SCHEMA team AUTHORIZATION $role`, `ALTER ROLE $role SET search_path = team`,
			`GRANT ALL ON SCHEMA team TO anon, PUBLIC`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE $role IN SCHEMA team GRANT ALL ON TABLES TO anon, PUBLIC`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE $role IN SCHEMA team GRANT ALL ON SEQUENCES TO authenticated`,
			`CREATE FUNCTION team.secret() RETURNS text LANGUAGE sql AS $$SELECT 'word'$$`, `ALTER FUNCTION team.secret() OWNER TO $role`)
		owner, s := b.store(t)
		b.succeeded(t, owner, b.connect(t, owner, s.ID, p.credentials(t, p.role(), "of the team", credential.SessionPooler)))
		for _, statement := range []string{`SELECT * FROM team.users`, `DELETE FROM team.pages`, `SELECT team.secret()`} {
			if p.may(t, "anon", statement) {
				t.Errorf("anon may %s", statement)
			}
		}
		p.exec(t, `SET ROLE $role`, `CREATE TABLE team.later (id serial)`, `RESET ROLE`, `GRANT USAGE ON SCHEMA team TO anon, authenticated`)
		if p.may(t, "anon", `SELECT * FROM team.later`) || p.may(t, "authenticated", `SELECT nextval('team.later_id_seq')`) {
			t.Error("what is created later is open")
		}
		if n := p.count(t, `SELECT count(*) FROM pg_class WHERE relnamespace = 'team'::regnamespace AND relkind = 'r'
			AND relname <> 'later' AND NOT relrowsecurity`); n > 0 {
			t.Errorf("%d tables without row-level security", n)
		}
	})
}

// TestRoleIsMadeOnce checks that the next execution completes one that was interrupted
// after it had created the role, and that a second store in the project is separate.
func TestRoleIsMadeOnce(t *testing.T) {
	t.Parallel()
	inSupabase(t, func(t *testing.T, b fixture, p project) {
		owner, s := b.store(t)
		db, err := b.tenants.OpenUnleased(p.owner(t))
		testkit.Must(t, err)
		defer db.Close() //nolint:errcheck // no statement is pending
		in, err := b.tenants.PlanIsolation(t.Context(), db, s.ID)
		testkit.Must(t, err)
		if in.Role != tenantdb.SupabaseRole(s.ID) {
			t.Fatalf("the plan is %+v", in)
		}
		_, err = b.tenants.Isolate(t.Context(), db, in, keyring.NewSecret("of an execution before"))
		testkit.Must(t, err)
		b.succeeded(t, owner, b.connect(t, owner, s.ID, p.owner(t)))
		other, s2 := b.store(t)
		b.succeeded(t, other, b.connect(t, other, s2.ID, p.owner(t)))

		mine, theirs := tenantdb.SupabaseRole(s.ID), tenantdb.SupabaseRole(s2.ID)
		if p.may(t, mine, `SELECT * FROM `+theirs+`.users`) || !p.may(t, mine, `SELECT * FROM `+mine+`.users`) {
			t.Error("two stores in a project are not separate")
		}
		if !p.may(t, "postgres_"+p.Ref, `SELECT * FROM `+mine+`.credit_balance_cache`) {
			t.Error("the project's owner may not read the store's data")
		}
	})
}

// TestRotateWithTheProjectsString checks that the owner may send the project's own
// connection string again: the store keeps its role, whose permissions are restored.
func TestRotateWithTheProjectsString(t *testing.T) {
	t.Parallel()
	inSupabase(t, func(t *testing.T, b fixture, p project) {
		owner, s := b.store(t)
		b.succeeded(t, owner, b.connect(t, owner, s.ID, p.owner(t)))
		before, err := b.tenants.Load(t.Context(), b.db, s.ID)
		testkit.Must(t, err)
		if !before.RolePassword.IsZero() {
			t.Error("the planned password is still there")
		}
		role := tenantdb.SupabaseRole(s.ID)
		p.exec(t, `ALTER ROLE `+role+` PASSWORD 'changed by somebody' NOLOGIN`)
		_, errs := atOnce(2, func(int) (any, error) { return nil, b.Rotate(t.Context(), owner, s.ID, p.owner(t)) })
		testkit.Must(t, errors.Join(errs...))
		after, err := b.tenants.Load(t.Context(), b.db, s.ID)
		testkit.Must(t, err)
		if after != before {
			t.Errorf("connects as %s, before as %s", after.User, before.User)
		}
		b.checkOwner(t, owner, s.ID)
		u, err := url.Parse(p.sb.DatabaseURL(p.Ref)) // without the poolers, whose sessions continue
		testkit.Must(t, err)
		u.User = url.UserPassword(role, after.Password.Reveal())
		login, err := pgx.Connect(t.Context(), u.String())
		testkit.Must(t, err)
		testkit.Must(t, login.Close(t.Context()))

		elsewhere := newProject(t, p.sb)
		err = b.Rotate(t.Context(), owner, s.ID, elsewhere.owner(t))
		wantCode(t, err, stoa.InvalidRequest)
		if n := elsewhere.count(t, `SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'stoa\_%'`); n > 0 {
			t.Error("a refused rotation has made a schema")
		}
	})
}

// TestTestSaysWhatConnectWould checks that a test of the project's own connection string
// checks the future location of the store's tables and changes nothing.
func TestTestSaysWhatConnectWould(t *testing.T) {
	t.Parallel()
	inSupabase(t, func(t *testing.T, b fixture, p project) {
		p.exec(t, `CREATE TABLE public.blog (id int)`)
		owner, s := b.store(t)
		given := p.owner(t)
		found, err := b.Test(t.Context(), owner, s.ID, &given)
		testkit.Must(t, err)
		if found.Fault != nil || found.Schema.Version != 0 || len(found.Warnings) > 0 {
			t.Errorf("before: %+v", found)
		}
		if n := p.count(t, `SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'stoa\_%'`); n > 0 {
			t.Error("a test has made a schema")
		}
		b.succeeded(t, owner, b.connect(t, owner, s.ID, given))
		for name, c := range map[string]*credential.Credentials{"the project's": &given, "the stored": nil} {
			found, err := b.Test(t.Context(), owner, s.ID, c)
			testkit.Must(t, err)
			if found.Fault != nil || found.Schema.Version != tenantdb.LatestVersion() || len(found.Warnings) > 0 {
				t.Errorf("%s: %+v", name, found)
			}
		}
		elsewhere := newProject(t, p.sb).owner(t)
		found, err = b.Test(t.Context(), owner, s.ID, &elsewhere)
		testkit.Must(t, err)
		if found.Fault == nil || found.Fault.Code != stoa.InvalidRequest {
			t.Errorf("another project: %+v", found)
		}
		p.exec(t, `GRANT USAGE ON SCHEMA `+tenantdb.SupabaseRole(s.ID)+` TO anon`)
		found, err = b.Test(t.Context(), owner, s.ID, nil)
		testkit.Must(t, err)
		if len(found.Warnings) != 1 || found.Warnings[0].Code != stoa.DatabaseExposed {
			t.Errorf("opened: %+v", found)
		}
	})
}

// TestReconnectInPublic checks that a store whose tables are already in public uses them
// there, and that they are closed to the API.
func TestReconnectInPublic(t *testing.T) {
	t.Parallel()
	inSupabase(t, func(t *testing.T, b fixture, p project) {
		for _, marked := range []bool{true, false} {
			owner, s := b.store(t)
			p := newProject(t, p.sb)
			p.storeInPublic(t, b, s)
			if !marked { // as before markers existed
				p.exec(t, `DROP TABLE public.`+tenantdb.MarkerTable)
			}
			b.succeeded(t, owner, b.connect(t, owner, s.ID, p.owner(t)))
			if n := p.count(t, `SELECT count(*) FROM public.stores WHERE name = 'As it was'`); n != 1 {
				t.Error("the store's data is another's")
			}
			for _, role := range []string{"anon", "authenticated", "service_role"} {
				if p.may(t, role, `SELECT * FROM public.users`) {
					t.Errorf("%s reads users", role)
				}
			}
		}
	})
}

// storeInPublic creates a store's tables in public, accessible to all roles, as an
// earlier release did, before each store got its own schema.
func (p project) storeInPublic(t *testing.T, b fixture, s stores.Store) {
	t.Helper()
	db, err := b.tenants.OpenUnleased(p.owner(t))
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // no statement is pending
	testkit.Must(t, db.Mark(t.Context(), s.ID))
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, storedata.CreateStore(t.Context(), db, storedata.Profile{ID: s.ID, ProfileValues: storedata.ProfileValues{Name: "As it was", Slug: s.Slug}}))
	p.sb.Expose(t, p.Ref)
	if !p.may(t, "anon", `SELECT * FROM public.users`) {
		t.Fatal("the tables are closed")
	}
}

// TestWarningsAreKept checks that warnings about others that can read a database are
// returned with the run and by a test, and that they do not prevent the connection.
func TestWarningsAreKept(t *testing.T) {
	t.Parallel()
	want := map[credential.EngineName][]stoa.Code{
		credential.PostgreSQL: {tenantdb.PublicConnect},
		credential.MySQL:      {tenantdb.AnyHost, tenantdb.ReadersUnknown},
		credential.SQLite:     nil,
	}
	each(t, tenantdbtest.Engines(), func(t *testing.T, b fixture, engine credential.EngineName) {
		owner, s := b.store(t)
		run := b.connect(t, owner, s.ID, credentials(t, engine))
		b.succeeded(t, owner, run)
		found, err := b.Test(t.Context(), owner, s.ID, nil)
		testkit.Must(t, err)
		for name, list := range map[string][]tenantdb.Warning{"run": run.Warnings, "test": found.Warnings} {
			var got []stoa.Code
			for _, w := range list {
				got = append(got, w.Code)
			}
			if !slices.Equal(got, want[engine]) {
				t.Errorf("%s: %v, want %v", name, list, want[engine])
			}
		}
	})
}

// TestPastedAsPostgreSQL checks that a project's own server, given as an ordinary
// PostgreSQL server, is recognized by the permissions of its API's roles.
func TestPastedAsPostgreSQL(t *testing.T) {
	t.Parallel()
	inSupabase(t, func(t *testing.T, b fixture, p project) {
		u, err := url.Parse(os.Getenv(tenantdbtest.PostgresEnv))
		testkit.Must(t, err)
		u.User, u.Path, u.RawQuery = url.UserPassword("postgres_"+p.Ref, p.Password), "/supabase_"+p.Ref, "sslmode=disable"
		c, err := credential.ParseConnectionString(credential.PostgreSQL, keyring.NewSecret(u.String()))
		testkit.Must(t, err)
		owner, s := b.store(t)
		b.succeeded(t, owner, b.connect(t, owner, s.ID, c))
		if n := p.count(t, `SELECT count(*) FROM pg_tables WHERE schemaname = '`+tenantdb.SupabaseRole(s.ID)+`'`); n < 10 {
			t.Errorf("%d tables in the store's schema", n)
		}
		if p.may(t, "anon", `SELECT * FROM `+tenantdb.SupabaseRole(s.ID)+`.users`) {
			t.Error("anon reads users")
		}
		// An ordinary database has no such API, even on a server that has these roles.
		owner, s = b.store(t)
		plain := credentials(t, credential.PostgreSQL)
		b.succeeded(t, owner, b.connect(t, owner, s.ID, plain))
		kept, err := b.tenants.Load(t.Context(), b.db, s.ID)
		testkit.Must(t, err)
		if kept.User != plain.User {
			t.Errorf("connects as %s", kept.User)
		}
	})
}
