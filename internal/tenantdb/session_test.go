package tenantdb_test

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestRoleSettings(t *testing.T) {
	for name, env := range tenantdbtest.PostgresServers {
		if os.Getenv(env) == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv(tenantdbtest.PostgresEnv, os.Getenv(env))
			for _, setting := range append([]string{strings.Join(tenantdbtest.HostileRole, "; ")}, some(tenantdbtest.HostileRole)...) {
				t.Run(fmt.Sprintf("%.60s", setting), func(t *testing.T) {
					c := tenantdbtest.Create(t, credential.PostgreSQL)
					for s := range strings.SplitSeq(setting, "; ") {
						if name == "PostgreSQL" || !strings.HasPrefix(s, "password_encryption") {
							tenantdbtest.Admin(t, credential.PostgreSQL, `ALTER ROLE `+c.User+` SET `+s)
						}
					}
					checkKept(t, c)
				})
			}
		})
	}
}

// some returns one in six of the settings in short mode, and all of them
// otherwise.
func some(settings []string) (out []string) {
	for i, s := range settings {
		if !testing.Short() || i%6 == 0 {
			out = append(out, s)
		}
	}
	return out
}

// checkKept connects, migrates and checks that what is stored is what was
// written.
func checkKept(t *testing.T, c credential.Credentials) {
	t.Helper()
	db, store := tenantdbtest.Open(t, c), stoa.NewID[stoa.StoreID]()
	testkit.Must(t, db.PinSession(t.Context(), store))
	testkit.Must(t, db.Mark(t.Context(), store))
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, db.SelfTest(t.Context()))
	if n := db.SQL().Stats().MaxIdleClosed; n > 0 {
		t.Errorf("%d connections were closed that the next statement needs", n)
	}
	testkit.Must(t, db.PinSession(t.Context(), store))
	in, err := db.Inspect(t.Context())
	testkit.Must(t, err)
	for _, name := range in.Tables {
		if strings.HasPrefix(name, "stoa_selftest") {
			t.Errorf("%s was left behind", name)
		}
	}
}

// TestRefusedSettings checks that a setting that a superuser sets for a role,
// and that the role cannot set, is refused by name.
func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	c := tenantdbtest.Create(t, servers()[0])
	tenantdbtest.Admin(t, credential.PostgreSQL, `ALTER ROLE `+c.User+` SET session_replication_role = replica`)
	checkRefused(t, tenantdbtest.Open(t, c), "session_replication_role", c)
}

// TestPooledSettings checks a transaction pooler, behind which nothing can be
// set: settings that Stoa cannot work with are refused by name, and others are
// not.
func TestPooledSettings(t *testing.T) {
	t.Parallel()
	if os.Getenv(tenantdbtest.PgBouncerEnv) == "" {
		t.Skip("needs PgBouncer")
	}
	for setting, refused := range map[string]bool{
		`default_transaction_read_only = on`: true, `statement_timeout = '1s'`: true, `lock_timeout = '10ms'`: true, `row_security = off`: true,
		`synchronous_commit = off`: true, `statement_timeout = '2min'`: false, `TimeZone = 'Asia/Kathmandu'`: false, `DateStyle = 'German'`: false,
		`client_encoding = 'LATIN1'`: false, `standard_conforming_strings = off`: false, `default_transaction_isolation = 'serializable'`: false,
		`bytea_output = 'escape'`: false, `IntervalStyle = 'sql_standard'`: false,
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			c := tenantdbtest.Create(t, credential.Supabase)
			tenantdbtest.Admin(t, credential.PostgreSQL, fmt.Sprintf(`ALTER ROLE %q SET %s`, c.User, setting))
			if !refused {
				checkKept(t, c)
				return
			}
			name, _, _ := strings.Cut(setting, " ")
			checkRefused(t, tenantdbtest.Open(t, c), name, c)
		})
	}
}

// TestUnannouncedPooler checks that a database is used behind a pooler in
// session mode that the credentials do not name and that refuses startup
// parameters. The settings are set in each session.
func TestUnannouncedPooler(t *testing.T) {
	t.Parallel()
	if os.Getenv(tenantdbtest.PgBouncerSessionEnv) == "" {
		t.Skip("needs PgBouncer")
	}
	for _, setting := range []string{"", "default_transaction_read_only = on", "DateStyle = 'German'"} {
		c := tenantdbtest.Create(t, credential.Supabase)
		c.Kind, c.Pooler, c.Port = credential.KindPostgreSQL, credential.NoPooler, tenantdbtest.SupabaseRules().SessionPort
		if setting != "" {
			tenantdbtest.Admin(t, credential.PostgreSQL, fmt.Sprintf(`ALTER ROLE %q SET %s`, c.User, setting))
		}
		checkKept(t, c)
	}
}

func checkRefused(t *testing.T, db *tenantdb.DB, name string, c credential.Credentials) {
	t.Helper()
	err := db.PinSession(t.Context(), stoa.NewID[stoa.StoreID]())
	checkFault(t, err, stoa.DatabaseSettingRefused, c)
	if err != nil && !strings.Contains(err.Error(), name) {
		t.Errorf("%v does not name %s", err, name)
	}
}

// TestSchemaIsPinned checks that the schema with the store's tables is used
// after any change of the search path, and that a schema of another store is
// not used.
func TestSchemaIsPinned(t *testing.T) {
	t.Parallel()
	c := tenantdbtest.Create(t, servers()[0])
	store := stoa.NewID[stoa.StoreID]()
	db := tenantdbtest.Open(t, c)
	testkit.Must(t, db.PinSession(t.Context(), store))
	testkit.Must(t, db.Mark(t.Context(), store))
	_, err := db.MigrateTo(t.Context(), tenantdb.MigrateOptions{To: 3})
	testkit.Must(t, err)

	tenantdbtest.Exec(t, c, `CREATE SCHEMA `+c.User) // "$user" now names this schema
	for _, open := range []func() *tenantdb.DB{func() *tenantdb.DB { return db }, func() *tenantdb.DB { return tenantdbtest.Open(t, c) }} {
		db := open()
		testkit.Must(t, db.PinSession(t.Context(), store))
		_, err = db.Migrate(t.Context())
		testkit.Must(t, err)
		db.SQL().SetMaxIdleConns(-1) // the next connections are new
		var schema string
		testkit.Must(t, db.Get(t.Context(), &schema, `SELECT current_schema()::text`))
		if schema != "public" {
			t.Errorf("current schema is %s", schema)
		}
	}
	var orphans int
	testkit.Must(t, db.Get(t.Context(), &orphans, `SELECT count(*) FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = ?)`, c.User))
	if orphans != 0 {
		t.Errorf("%d objects were made in the new schema", orphans)
	}

	second := stoa.NewID[stoa.StoreID]()
	other := tenantdbtest.Open(t, c)
	testkit.Must(t, other.PinSession(t.Context(), second)) // the first store's schema does not concern the second
	var schema string
	testkit.Must(t, other.Get(t.Context(), &schema, `SELECT current_schema()::text`))
	if schema != c.User {
		t.Errorf("another store's schema is %s", schema)
	}
}

// TestPooledSchema checks that behind a transaction pooler, which cannot pin
// the search path, a search path that does not lead to the store is refused.
func TestPooledSchema(t *testing.T) {
	t.Parallel()
	if os.Getenv(tenantdbtest.PgBouncerEnv) == "" {
		t.Skip("needs PgBouncer")
	}
	c := tenantdbtest.Create(t, credential.Supabase)
	store := stoa.NewID[stoa.StoreID]()
	db := tenantdbtest.Open(t, c)
	testkit.Must(t, db.PinSession(t.Context(), store))
	testkit.Must(t, db.Mark(t.Context(), store))
	tenantdbtest.Exec(t, c, `CREATE SCHEMA elsewhere`)
	tenantdbtest.Admin(t, credential.PostgreSQL, fmt.Sprintf(`ALTER ROLE %q IN DATABASE %s SET search_path = elsewhere`, c.User, c.Database))
	testkit.Must(t, db.Close())
	var err error
	testkit.Eventually(t, testkit.Timeout, "the setting is refused", func() bool { // PgBouncer detects the end of its own connections a little later
		tenantdbtest.Admin(t, credential.PostgreSQL, fmt.Sprintf(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%s'`, c.User))
		db := tenantdbtest.Open(t, c)
		defer db.Close() //nolint:errcheck // nothing is pending
		err = db.PinSession(t.Context(), store)
		return stoa.CodeOf(err) == stoa.DatabaseSettingRefused && strings.Contains(err.Error(), "search_path")
	}, &err)
}

// TestSessionsEndedByServer checks that no call fails because the server has
// ended an unused connection.
func TestSessionsEndedByServer(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
			testkit.Must(t, db.PinSession(t.Context(), stoa.NewID[stoa.StoreID]()))
			_, err := db.Exec(t.Context(), `CREATE TABLE notes (n integer NOT NULL)`)
			testkit.Must(t, err)
			identify, end := `SELECT pg_backend_pid()`, `SELECT pg_terminate_backend(%d)`
			count := `SELECT count(*) FROM pg_stat_activity WHERE pid = %d`
			if engine == credential.MySQL {
				identify, end, count = `SELECT CONNECTION_ID()`, `KILL %d`, `SELECT count(*) FROM information_schema.processlist WHERE id = %d`
			}
			for i, use := range []func() error{
				func() error { _, err := db.Exec(t.Context(), `INSERT INTO notes (n) VALUES (1)`); return err },
				func() error { var n int; return db.Get(t.Context(), &n, `SELECT count(*) FROM notes`) },
				func() error { var n []int; return db.Select(t.Context(), &n, `SELECT n FROM notes`) },
				func() error {
					return db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
						_, err := tx.Exec(t.Context(), `INSERT INTO notes (n) VALUES (2)`)
						return err
					})
				},
			} {
				var id int
				testkit.Must(t, db.Get(t.Context(), &id, identify))
				tenantdbtest.Admin(t, engine, fmt.Sprintf(end, id))
				testkit.Eventually(t, testkit.Timeout, "the session is gone", func() bool { return gone(t, engine, fmt.Sprintf(count, id)) })
				if err := use(); err != nil {
					t.Errorf("use %d: %v", i, err)
				}
			}
		})
	}
}

// TestConnectionsLeaveReadOnlyServer checks that all connections to a server
// that has become read-only are discarded.
func TestConnectionsLeaveReadOnlyServer(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
			_, err := db.Exec(t.Context(), `CREATE TABLE notes (n integer NOT NULL)`)
			testkit.Must(t, err)
			identify, demote := `SELECT pg_backend_pid()`, `SET default_transaction_read_only = on`
			if engine == credential.MySQL {
				identify, demote = `SELECT CONNECTION_ID()`, `SET SESSION tx_read_only = 1`
			}
			old := map[int]bool{}
			var open []*sql.Conn
			for range 3 {
				conn, err := db.SQL().Conn(t.Context())
				testkit.Must(t, err)
				var id int
				testkit.Must(t, conn.QueryRowContext(t.Context(), identify).Scan(&id))
				_, err = conn.ExecContext(t.Context(), demote)
				testkit.Must(t, err)
				old[id], open = true, append(open, conn)
			}
			for _, conn := range open {
				testkit.Must(t, conn.Close())
			}
			if _, err := db.Exec(t.Context(), `INSERT INTO notes (n) VALUES (1)`); err != nil {
				t.Error(err)
			}
			for range 3 {
				conn, err := db.SQL().Conn(t.Context())
				testkit.Must(t, err)
				defer conn.Close() //nolint:errcheck // the test no longer needs it
				var id int
				testkit.Must(t, conn.QueryRowContext(t.Context(), identify).Scan(&id))
				if old[id] {
					t.Errorf("session %d of the server that was left is in use", id)
				}
			}
		})
	}
}

// gone reports whether a count on the engine's server is 0.
func gone(t *testing.T, engine credential.EngineName, count string) bool {
	t.Helper()
	server := tenantdbtest.Postgres
	if engine == credential.MySQL {
		server = tenantdbtest.MySQL
	}
	var n int
	testkit.Must(t, server(t).QueryRowContext(t.Context(), count).Scan(&n))
	return n == 0
}
