// Package masterdbtest gives each test a separate, fully migrated master database, on every
// available engine.
package masterdbtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// PostgresEnv is the environment variable with the URL of a PostgreSQL server whose role
// may create databases. `make test` sets it.
const PostgresEnv = "STOA_TEST_POSTGRES_URL"

// ParametersEnv is the environment variable with parameters for the URL of every master
// database, such as default_transaction_isolation=serializable.
const ParametersEnv = "STOA_TEST_MASTER_PARAMETERS"

// WithoutNotificationsEnv is the environment variable under which no notification of
// PostgreSQL reaches the test masters, as behind a server without LISTEN. `make
// test-without-listen` sets it.
const WithoutNotificationsEnv = "STOA_TEST_MASTER_WITHOUT_NOTIFICATIONS"

// PoolerEnv is the environment variable with the URL of a pooler in transaction mode before the
// server. `make test-pooled` sets it: the test masters are then reached through the pooler.
const PoolerEnv = "STOA_TEST_MASTER_POOLER_URL"

// NeedsSessions skips a test of what only a session of the server has, such as prepared
// statements, where a pooler gives each transaction another one. why says what that is.
func NeedsSessions(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(PoolerEnv) != "" {
		t.Skip("a pooler shares the sessions: " + why)
	}
}

// NeedsNotifications skips a test of notifications themselves where none arrive. What such a
// test checks may come later there, or not at all. why says what that is.
func NeedsNotifications(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(WithoutNotificationsEnv) != "" {
		t.Skip("notifications do not arrive: " + why)
	}
}

// withoutNotifications is how many times longer something may take where no notification
// arrives: River looks for jobs every 15 s, and a job may be tried several times.
const withoutNotifications = 5

// Deadline returns how long a test waits for something that takes at most d where
// notifications arrive.
func Deadline(d time.Duration) time.Duration {
	if os.Getenv(WithoutNotificationsEnv) != "" {
		return withoutNotifications * d
	}
	return d
}

// Engines returns the engines that tests can run on: SQLite always, PostgreSQL when
// PostgresEnv is set. It panics if STOA_TEST_REQUIRE_SERVERS is set, as by `make test`, and
// PostgresEnv is not.
func Engines() []masterdb.Engine {
	if os.Getenv(PostgresEnv) == "" {
		if os.Getenv("STOA_TEST_REQUIRE_SERVERS") != "" {
			panic(PostgresEnv + " is not set; run the tests with scripts/with-servers")
		}
		return []masterdb.Engine{masterdb.SQLite}
	}
	return []masterdb.Engine{masterdb.SQLite, masterdb.Postgres}
}

// NeedsPostgres skips a test of PostgreSQL masters where there is no server for them.
func NeedsPostgres(t testing.TB) {
	t.Helper()
	if !slices.Contains(Engines(), masterdb.Postgres) {
		t.Skip(PostgresEnv + " is not set")
	}
}

// Each runs test as a parallel subtest on every available engine, each with a new database.
func Each(t *testing.T, test func(t *testing.T, db *masterdb.DB)) {
	t.Helper()
	for _, engine := range Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(t, Open(t, URL(t, engine)))
		})
	}
}

// Open opens url and closes it at the end of the test.
func Open(t testing.TB, url string) *masterdb.DB {
	t.Helper()
	sessions := ""
	if pooler := os.Getenv(PoolerEnv); pooler != "" && strings.HasPrefix(url, "postgres") && !strings.Contains(url, isolationParameter) {
		url, sessions = Pooled(t, pooler, url), url
	}
	db, err := masterdb.OpenPooled(t.Context(), url, sessions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// Pooled returns the URL of the same database behind a pooler.
func Pooled(t testing.TB, pooler, at string) string {
	t.Helper()
	u, err := url.Parse(at)
	fatal(t, err)
	p, err := url.Parse(pooler)
	fatal(t, err)
	u.Host = p.Host
	return u.String()
}

// URL creates a migrated master database and returns its URL. The database is removed at
// the end of the test.
func URL(t testing.TB, engine masterdb.Engine) string {
	t.Helper()
	if engine == masterdb.SQLite {
		return sqliteCopy(t)
	}
	return postgresClone(t)
}

// sqliteTemplate returns a database file that is migrated once per test process. Each test
// gets a copy.
var sqliteTemplate = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "stoa-master-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	path := filepath.Join(dir, "master.db")
	if err := migrate("sqlite:" + path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

func sqliteCopy(t testing.TB) string {
	t.Helper()
	content, err := sqliteTemplate()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "master.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + path
}

// template returns the name of a PostgreSQL database that is migrated once per test
// process. CREATE DATABASE … TEMPLATE copies it file by file.
var template = sync.OnceValues(func() (string, error) {
	name := "stoa_template_" + random()
	if err := admin("CREATE DATABASE " + name); err != nil {
		return "", err
	}
	return name, migrate(databaseURL(name))
})

func postgresClone(t testing.TB) string {
	t.Helper()
	source, err := template()
	if err != nil {
		t.Fatal(err)
	}
	name := "stoa_test_" + random()
	if err := admin("CREATE DATABASE " + name + " TEMPLATE " + source); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return databaseURL(name)
}

// adminLock serializes copies, because PostgreSQL refuses to copy one template twice at the
// same time.
var adminLock sync.Mutex

func admin(sql string) error {
	adminLock.Lock()
	defer adminLock.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, os.Getenv(PostgresEnv))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is pending
	_, err = conn.Exec(ctx, sql)
	return err
}

func databaseURL(name string) string {
	u, err := url.Parse(os.Getenv(PostgresEnv))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", PostgresEnv, err))
	}
	if os.Getenv(WithoutNotificationsEnv) != "" {
		u.Host = silentServer()
	}
	u.Path = "/" + name
	query := u.Query()
	more, err := url.ParseQuery(os.Getenv(ParametersEnv))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", ParametersEnv, err))
	}
	maps.Copy(query, more)
	u.RawQuery = query.Encode()
	return u.String()
}

// silentServer returns the address of the server behind a filter that lets no notification
// through. The filter runs until the process ends.
var silentServer = sync.OnceValue(func() string {
	u, err := url.Parse(os.Getenv(PostgresEnv))
	if err != nil {
		panic(fmt.Sprintf("%s: %v", PostgresEnv, err))
	}
	f, err := newNotificationFilter(u.Host)
	if err != nil {
		panic(err)
	}
	f.SetSilent(true)
	return f.listener.Addr().String()
})

// isolationParameter is the parameter of a URL for the isolation level, which no pooler in
// transaction mode sets.
const isolationParameter = "default_transaction_isolation"

// SerializableURL is URL for a PostgreSQL database whose transactions are serializable.
func SerializableURL(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(postgresClone(t))
	fatal(t, err)
	query := u.Query()
	query.Set(isolationParameter, "serializable")
	u.RawQuery = query.Encode()
	return u.String()
}

func migrate(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := masterdb.Open(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Migrate(ctx); err != nil {
		return err
	}
	_, err = jobs.Migrate(ctx, db)
	return err
}

func random() string { return strings.ToLower(rand.Text()[:16]) }
