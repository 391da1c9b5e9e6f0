package managed_test

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// works checks that the server supports managed databases: CheckServer
// succeeds, and a database can be created, created again with the same
// password, used and dropped.
func (h hosting) works(t *testing.T) {
	t.Helper()
	if version, err := h.CheckServer(t.Context()); err != nil || version == "" {
		t.Errorf("%q, %v", version, err)
	}
	id, c := h.plan(t)
	for range 2 {
		h.make(t, c)
		if err := h.enter(t, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range credential.Accesses {
		h.resets(t, &c, a)
	}
	if err := h.Drop(t.Context(), id, infoOf(c)); err != nil {
		t.Error(err)
	}
	if left := h.names(t); left != "[]" {
		t.Errorf("left: %s", left)
	}
}

// resets changes the password of a role twice, the second time with a session open, and
// ends that session.
func (h hosting) resets(t *testing.T, c *credential.Credentials, a credential.Access) {
	t.Helper()
	var open *tenantdb.DB
	for range 2 {
		next := credential.NewPassword()
		mark, err := h.SetPassword(t.Context(), *c, a, next, func() (bool, error) { return true, nil })
		if err != nil {
			t.Fatal(a, err)
		}
		c.SetPassword(a, next)
		if open == nil {
			open, err = h.tenants.OpenUnleased(c.As(a))
			testkit.Must(t, err)
			defer open.Close() //nolint:errcheck // the server ends its session
			testkit.Must(t, open.Ping(t.Context()))
			continue
		}
		found, err := h.EndSessions(t.Context(), *c, a, mark, managed.IdleSessions)
		if err != nil || found == 0 { // the session that has tried the password may be among them
			t.Errorf("%s: %d sessions with the old password, %v", a, found, err)
		}
		for found > 0 && err == nil && t.Context().Err() == nil {
			found, err = h.EndSessions(t.Context(), *c, a, mark, managed.NoSessions)
		}
		testkit.Must(t, err)
	}
}

// strictMySQL are policies by which a server requires passwords that are
// longer, have more characters of each class than by default, and are new each
// time. Each policy needs a plugin, which the server may not have.
var strictMySQL = map[string][]string{
	"MariaDB/simple_password_check": {
		`INSTALL SONAME 'simple_password_check'`, `SET GLOBAL simple_password_check_minimal_length = 24`, `SET GLOBAL simple_password_check_digits = 4`,
		`SET GLOBAL simple_password_check_letters_same_case = 4`, `SET GLOBAL simple_password_check_other_characters = 4`,
	},
	"MariaDB/password_reuse_check": {`INSTALL SONAME 'password_reuse_check'`},
	"MySQL 9/validate_password": {
		`INSTALL COMPONENT 'file://component_validate_password'`, `SET GLOBAL validate_password.policy = STRONG`, `SET GLOBAL validate_password.length = 24`,
		`SET GLOBAL validate_password.mixed_case_count = 4`, `SET GLOBAL validate_password.number_count = 4`, `SET GLOBAL validate_password.special_char_count = 4`,
	},
	"MySQL 9/password_history": {`SET GLOBAL password_history = 5`, `SET GLOBAL password_reuse_interval = 365`},
}

// TestManagedUnderAPasswordPolicy checks that managed databases can be created
// on servers with a strict password policy, also if a run is repeated.
func TestManagedUnderAPasswordPolicy(t *testing.T) {
	for name, start := range tenantdbtest.MySQLServers {
		t.Run(name, func(t *testing.T) {
			admin, at := tenantdbtest.OwnMySQL(t, start)
			port := at(t).Port
			execOn(t, admin, `CREATE USER op@'%' IDENTIFIED BY 'Of-The-0perator-Alone'`, `GRANT ALL PRIVILEGES ON *.* TO op@'%' WITH GRANT OPTION`)
			t.Setenv(tenantdbtest.MySQLEnv, fmt.Sprintf("mysql://127.0.0.1:%d/", port))
			for policy, statements := range strictMySQL {
				if !strings.HasPrefix(policy, name) {
					continue
				}
				t.Run(policy, func(t *testing.T) {
					if _, err := admin.ExecContext(t.Context(), statements[0]); err != nil {
						t.Skipf("the server has no such policy: %v", err)
					}
					execOn(t, admin, statements[1:]...)
					if strings.HasSuffix(policy, "check") || strings.HasSuffix(policy, "validate_password") {
						if _, err := admin.ExecContext(t.Context(), `CREATE USER weak@'%' IDENTIFIED BY ''`); err == nil && !strings.Contains(policy, "reuse") {
							t.Fatal("the policy is not in force")
						}
					}
					newHosting(t, credential.MySQL, url.UserPassword("op", "Of-The-0perator-Alone")).works(t)
					var left int
					testkit.Must(t, admin.QueryRowContext(t.Context(), `SELECT count(*) FROM mysql.user WHERE user LIKE 'stoa!_selftest!_%' ESCAPE '!'`).Scan(&left))
					if left > 0 {
						t.Errorf("%d users of a self-test are left", left)
					}
				})
			}
		})
	}
}

func execOn(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// TestManagedThroughRoles checks that the operator's user may have its rights
// through a role that need not be a default role. Without the rights,
// CheckServer returns what to grant.
func TestManagedThroughRoles(t *testing.T) {
	for name, env := range map[string]string{"MariaDB": tenantdbtest.MySQLEnv, "MySQL 9": "STOA_TEST_MYSQL9_URL"} {
		if os.Getenv(env) == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv(tenantdbtest.MySQLEnv, os.Getenv(env))
			admin := func(statement string) { t.Helper(); tenantdbtest.Admin(t, credential.MySQL, statement) }
			role, user := "stoa_r_"+strings.ToLower(rand.Text()[:14]), "stoa_u_"+strings.ToLower(rand.Text()[:14])
			admin(`CREATE ROLE ` + role)
			admin(`CREATE USER ` + user + `@'%' IDENTIFIED BY 'p'`)
			admin(`GRANT ` + role + ` TO ` + user + `@'%'`)
			t.Cleanup(func() { admin(`DROP USER ` + user + `@'%'`); admin(`DROP ROLE ` + role) })
			h := newHosting(t, credential.MySQL, url.UserPassword(user, "p"))
			version, err := h.CheckServer(t.Context())
			if err == nil || !strings.Contains(err.Error(), "GRANT ALL PRIVILEGES") {
				t.Errorf("without rights: %s, %v", version, err)
			}
			admin(`GRANT ALL PRIVILEGES ON *.* TO ` + role + ` WITH GRANT OPTION`)
			h.works(t)
			if name == "MariaDB" {
				admin(`SET DEFAULT ROLE ` + role + ` FOR ` + user + `@'%'`)
			} else {
				admin(`SET DEFAULT ROLE ` + role + ` TO ` + user + `@'%'`)
			}
			newHosting(t, credential.MySQL, url.UserPassword(user, "p")).works(t)
		})
	}
}

// TestManagedWithoutInheritance checks a rented PostgreSQL server, on which no
// user is superuser and the operator's user need not inherit from the roles
// that it creates. Before PostgreSQL 16 it must inherit, and CheckServer says
// so.
func TestManagedWithoutInheritance(t *testing.T) {
	tenantdbtest.EachPostgres(t, func(t *testing.T) {
		name := "stoa_t_" + strings.ToLower(rand.Text()[:14])
		tenantdbtest.Admin(t, credential.PostgreSQL, `CREATE ROLE `+name+` LOGIN NOINHERIT CREATEROLE CREATEDB PASSWORD 'p'`)
		t.Cleanup(func() { tenantdbtest.Admin(t, credential.PostgreSQL, `DROP ROLE `+name) })
		h := newHosting(t, credential.PostgreSQL, url.UserPassword(name, "p"))
		admin := tenantdbtest.Postgres(t)
		var grants bool
		testkit.Must(t, admin.QueryRowContext(t.Context(), `SELECT current_setting('server_version_num')::int >= 160000`).Scan(&grants))
		if !grants {
			if version, err := h.CheckServer(t.Context()); err == nil || !strings.Contains(err.Error(), "INHERIT") {
				t.Errorf("%s, %v", version, err)
			}
			tenantdbtest.Admin(t, credential.PostgreSQL, `ALTER ROLE `+name+` INHERIT`)
		}
		h.works(t)
		id, c := h.plan(t)
		h.make(t, c)
		if grants { // as an older release may have created it
			tenantdbtest.Admin(t, credential.PostgreSQL, `REVOKE `+c.User+` FROM `+name+` GRANTED BY `+name)
		}
		testkit.Must(t, h.Drop(t.Context(), id, infoOf(c)))
		var left int
		testkit.Must(t, admin.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_auth_members WHERE member = $1::regrole OR grantor = $1::regrole`, name).Scan(&left))
		if left > 0 {
			t.Errorf("%d roles are left", left)
		}
	})
}

// TestManagedIsPrivate checks that only the store's own role may connect to a
// managed database, whatever other accounts the server has.
func TestManagedIsPrivate(t *testing.T) {
	t.Parallel()
	eachHosting(t, func(t *testing.T, h hosting) {
		_, c := h.plan(t)
		_, other := h.plan(t)
		h.make(t, c)
		h.make(t, other)
		testkit.Must(t, h.enter(t, c))
		stranger := other
		stranger.Database = c.Database
		if err := h.ping(t, stranger); err == nil {
			t.Error("another store enters")
		}
		db, err := h.tenants.OpenUnleased(c)
		testkit.Must(t, err)
		defer db.Close() //nolint:errcheck // nothing is pending
		if warnings, err := db.Warnings(t.Context()); err != nil || len(warnings) > 0 {
			t.Errorf("a managed database is warned of: %v, %v", warnings, err)
		}
		if h.engine == credential.PostgreSQL {
			var public, tables bool
			testkit.Must(t, db.Get(t.Context(), &public, `SELECT has_database_privilege('public', current_database(), 'CONNECT, TEMPORARY')`))
			testkit.Must(t, db.Get(t.Context(), &tables, `SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'users'
				AND has_table_privilege('public', oid, 'SELECT, INSERT, UPDATE, DELETE'))`))
			if public || tables {
				t.Errorf("PUBLIC may connect: %v, use tables: %v", public, tables)
			}
		}
	})
}
