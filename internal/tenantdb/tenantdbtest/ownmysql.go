package tenantdbtest

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// MySQLServer creates a data folder in dir and returns the command of its
// server, which must listen on port. It skips the test if the server is not
// installed.
type MySQLServer func(t *testing.T, dir, port string) *exec.Cmd

// MySQLServers are the servers that OwnMySQL can start.
var MySQLServers = map[string]MySQLServer{"MariaDB": mariaDB, "MySQL 9": mySQL9}

// Many servers start at once here. Each has its own folder for temporary files: a server that
// starts deletes every temporary table it finds there, also one of another server. With native
// asynchronous input and output each would reserve part of a number that the kernel limits
// (fs.aio-max-nr), and the last ones would not start; a small buffer pool spares memory.
const (
	noNativeAIO = "--innodb-use-native-aio=0"
	smallPool   = "--innodb-buffer-pool-size=32M"
)

// mariaDB creates a data folder and returns the command of its server.
func mariaDB(t *testing.T, dir, port string) *exec.Cmd {
	t.Helper()
	install, err := exec.LookPath("mariadb-install-db")
	if err != nil || os.Getenv(MySQLEnv) == "" {
		t.Skip("MariaDB is not installed here")
	}
	run(t, dir, install, "--no-defaults", "--datadir="+dir+"/data", "--tmpdir="+dir, "--skip-test-db", "--auth-root-authentication-method=normal", noNativeAIO, smallPool)
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		server = "/usr/sbin/mariadbd"
	}
	return exec.Command(server, "--no-defaults", "--datadir="+dir+"/data", "--tmpdir="+dir, "--init-file="+dir+"/users.sql", "--port="+port, "--bind-address=127.0.0.1",
		"--socket="+dir+"/socket", "--skip-log-bin", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2", noNativeAIO, smallPool)
}

// mySQL9 does the same as mariaDB for the server that scripts/fetch-servers has
// fetched.
func mySQL9(t *testing.T, dir, port string) *exec.Cmd {
	t.Helper()
	if os.Getenv(NewerMySQLEnv) == "" {
		t.Skip("there is no MySQL 9")
	}
	fetched, err := exec.CommandContext(t.Context(), filepath.Join(moduleRoot(t), "scripts", "fetch-servers")).Output()
	must(t, err)
	server := filepath.Join(strings.TrimSpace(string(fetched)), "mysql-9", "mysqld")
	run(t, dir, server, "--no-defaults", "--initialize-insecure", "--datadir="+dir+"/data", "--tmpdir="+dir, noNativeAIO, smallPool)
	return exec.Command(server, "--no-defaults", "--datadir="+dir+"/data", "--tmpdir="+dir, "--init-file="+dir+"/users.sql", "--port="+port, "--bind-address=127.0.0.1",
		"--socket="+dir+"/socket", "--mysqlx=OFF", "--skip-log-bin", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2", "--performance-schema=OFF", "--secure-file-priv=NULL", noNativeAIO, smallPool)
}

func run(t *testing.T, dir string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.SysProcAttr = dir, unprivileged(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// unprivileged returns the attributes with which a test that runs as root
// starts a server.
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

// OwnMySQL starts a server that only this test uses. It returns an
// administrator's connection, and a function that creates a database with its
// own user.
func OwnMySQL(t *testing.T, start MySQLServer) (*sql.DB, func(*testing.T) credential.Credentials) {
	t.Helper()
	dir, err := os.MkdirTemp("", "stoa-own-mysql-") //nolint:usetesting // the parents of t.TempDir are closed to another user
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
	port := freePort(t)
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
	return admin, func(t *testing.T) credential.Credentials {
		t.Helper()
		name, word := "stoa_t_"+strings.ToLower(rand.Text()[:14]), rand.Text()
		for _, s := range []string{
			`CREATE DATABASE ` + name, fmt.Sprintf(`CREATE USER %s@'%%' IDENTIFIED BY '%s'`, name, word),
			fmt.Sprintf(`GRANT ALL PRIVILEGES ON %s.* TO %[1]s@'%%'`, name), fmt.Sprintf(`GRANT SELECT ON stoa_elsewhere.* TO %s@'%%'`, name),
		} {
			_, err := admin.ExecContext(t.Context(), s)
			must(t, err)
		}
		c, err := credential.ParseConnectionString(credential.MySQL, keyring.NewSecret(fmt.Sprintf("mysql://%s:%s@127.0.0.1:%s/%[1]s?sslmode=disable", name, word, port)))
		must(t, err)
		return c
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	must(t, l.Close())
	return port
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// moduleRoot returns the folder of go.mod, which is above that of the tested package.
func moduleRoot(t *testing.T) string {
	t.Helper()
	start, err := os.Getwd()
	must(t, err)
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod above %s", start)
		}
	}
}
