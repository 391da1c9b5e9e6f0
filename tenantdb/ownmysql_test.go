package tenantdb_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net"
	"os"
	process "os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/tenantdb"
	"github.com/stoahq/stoa/tenantdb/tenantdbtest"
)

// hostileGlobals are settings of a MySQL or MariaDB server that SET GLOBAL takes
// and that a new session inherits, or what init_connect does to each session. A
// setting that one of the servers does not have is left out there.
var hostileGlobals = []string{
	`autocommit = 0`, `init_connect = 'SET autocommit = 0'`, `init_connect = 'SET NAMES latin1'`, `init_connect = 'SET sql_mode = ""'`,
	`init_connect = 'SET foreign_key_checks = 0, unique_checks = 0'`, `init_connect = 'SET SESSION TRANSACTION READ ONLY'`,
	`init_connect = 'SET time_zone = "+05:45"'`, `init_connect = 'SET default_storage_engine = MyISAM'`, `init_connect = 'SET sql_select_limit = 1'`,
	`sql_mode = ''`, `sql_mode = 'NO_BACKSLASH_ESCAPES'`, `sql_mode = 'ANSI'`, `sql_mode = 'PAD_CHAR_TO_FULL_LENGTH'`, `time_zone = '-08:00'`,
	`character_set_client = latin1`, `character_set_connection = latin1`, `character_set_results = latin1`, `character_set_server = latin1`,
	`collation_connection = latin1_swedish_ci`, `transaction_isolation = 'SERIALIZABLE'`, `tx_isolation = 'SERIALIZABLE'`, `transaction_isolation = 'READ-UNCOMMITTED'`,
	`transaction_read_only = 1`, `tx_read_only = 1`, `foreign_key_checks = 0`, `unique_checks = 0`, `sql_safe_updates = 1`, `sql_select_limit = 1`,
	`max_join_size = 1`, `group_concat_max_len = 4`, `max_execution_time = 1`, `max_statement_time = 0.0001`, `lock_wait_timeout = 1`, `innodb_lock_wait_timeout = 1`,
	`default_storage_engine = MyISAM`, `default_tmp_storage_engine = MyISAM`, `completion_type = CHAIN`, `completion_type = 2`, `sql_auto_is_null = 1`,
	`wait_timeout = 1`, `net_read_timeout = 1`, `net_write_timeout = 1`, `div_precision_increment = 0`, `explicit_defaults_for_timestamp = 0`,
	`max_sort_length = 8`, `sql_quote_show_create = 0`, `idle_transaction_timeout = 1`, `sql_require_primary_key = 1`, `innodb_strict_mode = 0`,
	`old_mode = 'ZERO_DATE_TIME_CAST'`, `auto_increment_increment = 7`, `max_heap_table_size = 16384`,
}

// refusedGlobals cannot be set by a session: they are refused by name.
var refusedGlobals = map[string]string{
	`max_allowed_packet = 1048576`: "max_allowed_packet", `init_connect = 'USE stoa_elsewhere'`: "init_connect", `init_connect = 'no such statement'`: "init_connect",
}

func TestGlobalSettings(t *testing.T) {
	for name, start := range map[string]func(*testing.T, string, string) *process.Cmd{"MariaDB": mariaDB, "MySQL 9": mySQL9} {
		t.Run(name, func(t *testing.T) {
			admin, at := ownMySQL(t, start)
			set := func(t *testing.T, setting string) {
				t.Helper()
				variable, _, _ := strings.Cut(setting, " ")
				var before string
				err := admin.QueryRowContext(t.Context(), `SELECT coalesce(@@global.`+variable+`, '')`).Scan(&before)
				if strings.HasPrefix(setting, "tx_") && name == "MySQL 9" || err != nil {
					t.Skip(name + " has no such setting")
				}
				t.Cleanup(func() {
					_, err := admin.ExecContext(context.Background(), `SET GLOBAL `+variable+` = DEFAULT`)
					must(t, err)
				})
				_, err = admin.ExecContext(t.Context(), `SET GLOBAL `+setting)
				must(t, err)
			}
			for _, setting := range some(hostileGlobals) {
				t.Run(setting, func(t *testing.T) {
					c := at(t)
					set(t, setting)
					checkKept(t, c)
				})
			}
			for setting, names := range refusedGlobals {
				t.Run(setting, func(t *testing.T) {
					c := at(t)
					set(t, setting)
					checkRefused(t, tenantdbtest.Open(t, c), names, c)
				})
			}
		})
	}
}

// A server that speaks MySQL's protocol and lacks one of the variables is used
// with what must hold.
func TestServerWithoutASetting(t *testing.T) { //nolint:paralleltest // every connection meets it
	defer tenantdb.LackMySQLSetting()()
	for name, env := range map[string]string{"MariaDB": tenantdbtest.MySQLEnv, "MySQL 9": "STOA_TEST_MYSQL9_URL"} {
		if os.Getenv(env) == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv(tenantdbtest.MySQLEnv, os.Getenv(env))
			checkKept(t, tenantdbtest.Create(t, tenantdb.MySQL))
		})
	}
}

// mariaDB makes a data folder and returns the command of its server.
func mariaDB(t *testing.T, dir, port string) *process.Cmd {
	t.Helper()
	install, err := process.LookPath("mariadb-install-db")
	if err != nil || len(servers()) < 2 {
		t.Skip("MariaDB is not installed here")
	}
	run(t, dir, install, "--no-defaults", "--datadir="+dir+"/data", "--skip-test-db", "--auth-root-authentication-method=normal")
	server, err := process.LookPath("mariadbd")
	if err != nil {
		server = "/usr/sbin/mariadbd"
	}
	return process.Command(server, "--no-defaults", "--datadir="+dir+"/data", "--init-file="+dir+"/users.sql", "--port="+port, "--bind-address=127.0.0.1",
		"--socket="+dir+"/socket", "--skip-log-bin", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2")
}

// mySQL9 is mariaDB for the server that scripts/fetch-servers has fetched.
func mySQL9(t *testing.T, dir, port string) *process.Cmd {
	t.Helper()
	if os.Getenv("STOA_TEST_MYSQL9_URL") == "" {
		t.Skip("there is no MySQL 9")
	}
	fetched, err := process.CommandContext(t.Context(), "../scripts/fetch-servers").Output()
	must(t, err)
	server := filepath.Join(strings.TrimSpace(string(fetched)), "mysql-9", "mysqld")
	run(t, dir, server, "--no-defaults", "--initialize-insecure", "--datadir="+dir+"/data")
	return process.Command(server, "--no-defaults", "--datadir="+dir+"/data", "--init-file="+dir+"/users.sql", "--port="+port, "--bind-address=127.0.0.1",
		"--socket="+dir+"/socket", "--mysqlx=OFF", "--skip-log-bin", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2", "--performance-schema=OFF", "--secure-file-priv=NULL")
}

func run(t *testing.T, dir string, name string, args ...string) {
	t.Helper()
	cmd := process.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.SysProcAttr = dir, unprivileged(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// unprivileged is who runs a server of a test that runs as root.
func unprivileged(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("mysql")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	must(t, err)
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// ownMySQL starts a server of this test alone. It returns a connection of its
// administrator, and what makes a database with a user of its own.
func ownMySQL(t *testing.T, start func(*testing.T, string, string) *process.Cmd) (*sql.DB, func(*testing.T) tenantdb.Credentials) {
	t.Helper()
	dir, err := os.MkdirTemp("", "stoa-own-mysql-") //nolint:usetesting // t.TempDir's parents are closed to another user
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	password := rand.Text()
	users := fmt.Sprintf("CREATE USER IF NOT EXISTS stoa@127.0.0.1 IDENTIFIED BY '%s';\nGRANT ALL PRIVILEGES ON *.* TO stoa@127.0.0.1 WITH GRANT OPTION;\n", password)
	must(t, os.WriteFile(filepath.Join(dir, "users.sql"), []byte(users), 0o600))
	if as := unprivileged(t); as != nil {
		for _, path := range []string{dir, filepath.Join(dir, "users.sql")} {
			must(t, os.Chown(path, int(as.Credential.Uid), int(as.Credential.Gid)))
		}
	}
	port := strconv.Itoa(closedPort(t))
	server := start(t, dir, port)
	var log bytes.Buffer
	server.Dir, server.SysProcAttr, server.Stdout, server.Stderr = dir, unprivileged(t), &log, &log
	must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	admin, err := sql.Open("mysql", fmt.Sprintf("stoa:%s@tcp(%s)/mysql", password, net.JoinHostPort("127.0.0.1", port)))
	must(t, err)
	t.Cleanup(func() { _ = admin.Close() })
	for deadline := time.Now().Add(time.Minute); admin.PingContext(t.Context()) != nil; <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = server.Process.Kill()
			_ = server.Wait()
			t.Fatalf("the server does not answer:\n%s", &log)
		}
	}
	_, err = admin.ExecContext(t.Context(), `CREATE DATABASE stoa_elsewhere`)
	must(t, err)
	return admin, func(t *testing.T) tenantdb.Credentials {
		t.Helper()
		name, word := "stoa_t_"+strings.ToLower(rand.Text()[:14]), rand.Text()
		for _, s := range []string{
			`CREATE DATABASE ` + name, fmt.Sprintf(`CREATE USER %s@'%%' IDENTIFIED BY '%s'`, name, word),
			fmt.Sprintf(`GRANT ALL PRIVILEGES ON %s.* TO %[1]s@'%%'`, name), fmt.Sprintf(`GRANT SELECT ON stoa_elsewhere.* TO %s@'%%'`, name),
		} {
			_, err := admin.ExecContext(t.Context(), s)
			must(t, err)
		}
		c, err := tenantdb.ParseConnectionString(tenantdb.MySQL, keyring.NewSecret(fmt.Sprintf("mysql://%s:%s@127.0.0.1:%s/%[1]s?sslmode=disable", name, word, port)))
		must(t, err)
		return c
	}
}
