// Package tenantdbtest gives each test its own empty or migrated tenant
// database on every available engine.
package tenantdbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // registers "mysql"
	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// These environment variables contain the URLs of servers whose user may create
// databases and users, the URLs of the poolers in front of the first server,
// and the file of the authority that signed the servers' certificates. `make
// test` sets all of them.
const (
	PostgresEnv         = "STOA_TEST_POSTGRES_URL"
	MySQLEnv            = "STOA_TEST_MYSQL_URL"
	PgBouncerEnv        = "STOA_TEST_PGBOUNCER_URL"
	PgBouncerSessionEnv = "STOA_TEST_PGBOUNCER_SESSION_URL"
	CAEnv               = "STOA_TEST_CA"
)

// Engines returns the engines on which tests can run: always SQLite, and the
// others if their server is available.
func Engines() []credential.EngineName {
	engines := []credential.EngineName{credential.SQLite}
	if os.Getenv(PostgresEnv) != "" {
		engines = append(engines, credential.PostgreSQL)
	}
	if os.Getenv(MySQLEnv) != "" {
		engines = append(engines, credential.MySQL)
	}
	return engines
}

// All returns Engines and, if a pooler is available, Supabase: PostgreSQL
// behind PgBouncer in transaction mode. A test needs to run on both Supabase
// and PostgreSQL only if it is about the use of SQL through the driver.
func All() []credential.EngineName {
	if os.Getenv(PgBouncerEnv) == "" || os.Getenv(PgBouncerSessionEnv) == "" {
		return Engines()
	}
	return append(Engines(), credential.Supabase)
}

// SupabaseRules returns rules that treat the test's poolers as Supabase's.
func SupabaseRules() credential.SupabaseRules {
	port := func(env string) int {
		u, err := url.Parse(os.Getenv(env))
		if err != nil {
			return 0
		}
		n, _ := strconv.Atoi(u.Port()) // 0 selects the default
		return n
	}
	return credential.SupabaseRules{PoolerDomain: "127.0.0.1", SessionPort: port(PgBouncerSessionEnv), TransactionPort: port(PgBouncerEnv)}
}

// Each runs test as a parallel subtest on every available engine, each with a
// new, migrated database.
func Each(t *testing.T, test func(t *testing.T, db *tenantdb.DB)) {
	t.Helper()
	for _, engine := range All() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := Open(t, Create(t, engine))
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			test(t, db)
		})
	}
}

// embedded contains the data directory of each embedded database that Create
// made, so that all callers open the same file.
var embedded sync.Map

// Open opens c and closes it at the end of the test.
func Open(t testing.TB, c credential.Credentials) *tenantdb.DB {
	t.Helper()
	dir, _ := embedded.Load(c.Database)
	if dir == nil {
		dir = t.TempDir()
	}
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{
		DataDir: dir.(string), Dialer: dial.Dialer{Allow: dial.Loopback}, Supabase: SupabaseRules(),
	})
	db, err := m.OpenUnleased(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(context.Background()); err != nil { // the test's context is done by now
			t.Error(err)
		}
	})
	return db
}

// Create creates an empty database with its own user and returns its
// credentials. It removes the database at the end of the test.
func Create(t testing.TB, engine credential.EngineName) credential.Credentials {
	t.Helper()
	if engine == credential.SQLite {
		c := credential.ManagedSQLite(stoa.NewID[stoa.StoreID]())
		embedded.Store(c.Database, t.TempDir())
		t.Cleanup(func() { embedded.Delete(c.Database) })
		return c
	}
	rules, raw := SupabaseRules(), keyring.NewSecret(create(t, engine))
	c, err := rules.Parse(raw)
	if engine != credential.Supabase {
		c, err = credential.ParseConnectionString(engine, raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Guest creates a second user of c's database, who may connect and create
// nothing. c must come from Create and must not be SQLite's.
func Guest(t testing.TB, c credential.Credentials) credential.Credentials {
	t.Helper()
	guest := c
	guest.User = "stoa_g_" + strings.ToLower(rand.Text()[:14])
	exec, user, statements := execPostgres, guest.User, []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", guest.User, c.Password.Reveal()),
	}
	if c.Engine == credential.MySQL {
		exec, user = execMySQL, guest.User+"@'%'"
		statements = []string{
			fmt.Sprintf("CREATE USER %s IDENTIFIED BY '%s'", user, c.Password.Reveal()),
			fmt.Sprintf("GRANT SELECT ON %s.* TO %s", c.Database, user),
		}
	}
	if err := exec(statements); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		drop := "DROP ROLE "
		if c.Engine == credential.MySQL {
			drop = "DROP USER "
		}
		if err := exec([]string{drop + user}); err != nil {
			t.Error(err)
		}
	})
	return guest
}

// ConnectionString creates an empty database as Create does and returns the
// string that a merchant would paste.
func ConnectionString(t testing.TB, engine credential.EngineName) string {
	t.Helper()
	return create(t, engine)
}

func create(t testing.TB, engine credential.EngineName) string {
	t.Helper()
	name := "stoa_t_" + strings.ToLower(rand.Text()[:14])
	user, password := name, rand.Text()
	env := PostgresEnv
	if engine == credential.Supabase { // a pooler identifies the project by its users' names
		env, user = PgBouncerEnv, name+".abcdefghijklmnopqrst"
	}
	statements, cleanup := []string{
		fmt.Sprintf("CREATE ROLE %q LOGIN PASSWORD '%s'", user, password),
		fmt.Sprintf("CREATE DATABASE %s OWNER %q", name, user),
	}, []string{
		fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", name),
		fmt.Sprintf("DROP ROLE %q", user),
	}
	exec := execPostgres
	if engine == credential.MySQL {
		exec = execMySQL
		env, statements, cleanup = MySQLEnv, []string{
			fmt.Sprintf("CREATE DATABASE %s CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", name),
			fmt.Sprintf("CREATE USER %s@'%%' IDENTIFIED BY '%s'", name, password),
			fmt.Sprintf("GRANT ALL PRIVILEGES ON %s.* TO %s@'%%'", name, name),
		}, []string{
			fmt.Sprintf("DROP DATABASE %s", name),
			fmt.Sprintf("DROP USER %s@'%%'", name),
		}
	}
	if err := exec(statements); err != nil {
		t.Fatal(err)
	}
	if engine == credential.Supabase {
		// The role may not create other roles: it needs a schema that is not
		// public.
		err := execPostgresIn(name, []string{
			fmt.Sprintf("CREATE SCHEMA shop AUTHORIZATION %q", user),
			fmt.Sprintf("ALTER ROLE %q IN DATABASE %s SET search_path = shop", user, name),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if engine == credential.Supabase {
			// The pooler's connections end by themselves, and the server waits
			// for that. PgBouncer 1.18 crashes ("server in bad state") if a
			// connection is cut off just after a query of its client was
			// cancelled.
			_ = exec([]string{"DROP DATABASE " + name})
		}
		if err := exec(cleanup); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(os.Getenv(env))
	if err != nil {
		t.Fatalf("%s is not a URL", env)
	}
	u.User, u.Path, u.RawQuery = url.UserPassword(user, password), "/"+name, "sslmode=disable"
	return u.String()
}

// Exec runs statements in the database that c names.
func Exec(t testing.TB, c credential.Credentials, statements ...string) {
	t.Helper()
	db := Open(t, c)
	for _, s := range statements {
		if _, err := db.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

// Postgres returns a connection to the PostgreSQL server as the user who may
// see everything there.
func Postgres(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", os.Getenv(PostgresEnv))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// MySQL returns a connection to the MySQL server as the user who may see
// everything there.
func MySQL(t testing.TB) *sql.DB {
	t.Helper()
	db, err := openMySQL()
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Admin runs statements on the engine's server as the user who may do
// everything there.
func Admin(t testing.TB, engine credential.EngineName, statements ...string) {
	t.Helper()
	exec := execPostgres
	if engine == credential.MySQL {
		exec = execMySQL
	}
	if err := exec(statements); err != nil {
		t.Fatal(err)
	}
}

// AdminIn does the same as Admin in a database of the PostgreSQL server. A
// statement may be a text of several statements.
func AdminIn(t testing.TB, database string, statements ...string) {
	t.Helper()
	if err := execPostgresIn(database, statements); err != nil {
		t.Fatal(err)
	}
}

func execPostgres(statements []string) error { return execPostgresIn("", statements) }

// execPostgresIn runs statements in a database, or in the one that the URL
// names if database is "".
func execPostgresIn(database string, statements []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg, err := pgx.ParseConfig(os.Getenv(PostgresEnv))
	if err != nil {
		return err
	}
	if database != "" {
		cfg.Database = database
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is pending
	for _, s := range statements {
		if _, err := conn.PgConn().Exec(ctx, s).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

func execMySQL(statements []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := openMySQL()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func openMySQL() (*sql.DB, error) {
	u, err := url.Parse(os.Getenv(MySQLEnv))
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", MySQLEnv)
	}
	password, _ := u.User.Password()
	return sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(%s)%s", u.User.Username(), password, u.Host, u.Path))
}
