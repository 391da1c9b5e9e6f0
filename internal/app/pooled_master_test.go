package app_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// ownPooler is a PgBouncer in transaction mode before a server of the test.
type ownPooler struct {
	server  *ownPostgres
	address string
	process *exec.Cmd
	log     bytes.Buffer // read after the process has ended
}

// newOwnPooler starts a pooler with fewer sessions than a replica has connections.
func newOwnPooler(t *testing.T, server *ownPostgres) *ownPooler {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		testkit.Unavailable(t, "PgBouncer is not installed")
	}
	p := &ownPooler{server: server, address: closedPort(t)}
	_, port, _ := net.SplitHostPort(p.address)
	users, settings := filepath.Join(server.dir, "users"), filepath.Join(server.dir, "pgbouncer.ini")
	testkit.Must(t, os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", "stoa", server.password), 0o600))
	testkit.Must(t, os.WriteFile(settings, fmt.Appendf(nil, "[databases]\n* = host=127.0.0.1 port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
		"pool_mode = transaction\nauth_type = scram-sha-256\nauth_file = %s\nmax_client_conn = 500\ndefault_pool_size = 3\nserver_login_retry = 1\n", server.port, port, users), 0o600))
	server.give(users)
	server.give(settings)
	p.process = exec.Command(program, settings)
	p.process.SysProcAttr = server.as
	t.Cleanup(p.kill)
	p.start(t)
	return p
}

// start starts the pooler, also again.
func (p *ownPooler) start(t *testing.T) {
	t.Helper()
	process := exec.Command(p.process.Path, p.process.Args[1:]...)
	process.SysProcAttr, process.Stderr = p.process.SysProcAttr, &p.log
	testkit.Must(t, process.Start())
	p.process = process
	testkit.Eventually(t, testkit.Timeout, "the pooler listens", func() bool {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (p *ownPooler) kill() {
	if p.process.Process == nil {
		return
	}
	_ = p.process.Process.Kill()
	_ = p.process.Wait()
}

func (p *ownPooler) url() string {
	u, _ := url.Parse(p.server.url())
	u.Host = p.address
	return u.String()
}

// busyPooler keeps all sessions of the pooler busy for longer than it takes to find an outage. The
// calls wait, and are answered.
func busyPooler(t *testing.T, own *ownPostgres, c client) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), own.url())
	testkit.Must(t, err)
	_, err = conn.Exec(t.Context(), `BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE`)
	testkit.Must(t, err)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if a := c.call("GET", "/api/auth/me", nil); a.status != http.StatusOK {
				t.Errorf("while every session of the pooler is busy: %d: %s", a.status, a.raw)
			}
		})
	}
	<-time.After(4 * time.Second)
	testkit.Must(t, conn.Close(t.Context()))
	calls.Wait()
}

// TestMasterBehindPooler follows the main path on a master behind a pooler in transaction mode.
// Then the server, and the pooler, are away in each way: calls fail at once, shops stay open, and
// everything works again afterwards.
func TestMasterBehindPooler(t *testing.T) {
	t.Parallel()
	own := newOwnPostgres(t)
	pooler := newOwnPooler(t, own)
	cfg := testConfig(t, masterdb.SQLite)
	cfg.JWTExpiresIn = 15 * time.Minute
	cfg.MasterDBSessionURL = keyring.NewSecret(own.url())
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "MASTER_DB_URL must be postgres://") {
		t.Errorf("sessions of PostgreSQL beside SQLite: %v", err)
	}
	cfg.MasterDBURL, cfg.MasterDBSessionURL = keyring.NewSecret(pooler.url()), keyring.Secret{}
	if _, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "MASTER_DB_SESSION_URL") {
		t.Fatalf("without a URL for sessions: %v", err)
	}
	cfg.MasterDBSessionURL = keyring.NewSecret(own.url())
	other, _ := url.Parse(own.url())
	other.Path = "/template1"
	identity := filepath.Join(t.TempDir(), "identity")
	key, err := age.GenerateX25519Identity()
	testkit.Must(t, err)
	testkit.Must(t, os.WriteFile(identity, []byte(key.String()), 0o600))
	status, _, said := command(t, "restore", "--master", "no-such-file", "--identity="+identity, "--yes", "--data-dir="+cfg.DataDir,
		"--master-db-url="+pooler.url(), "--master-db-session-url="+other.String()+"\n")
	if status != 1 || !strings.Contains(said, "different databases") {
		t.Errorf("a restore into another database than the pooler's: %d, %s", status, said)
	}
	s := startServer(t, cfg)
	journey(t, s, credential.SQLite)

	c, _, host := connected(t, s, "outage@example.com")
	front := func() answer { return client{t: t, url: s.URL}.call("GET", "/api/storefront/store", nil, "Host", host) }
	front().want(http.StatusOK)
	busyPooler(t, own, c)
	for _, fault := range []struct {
		name       string
		begin, end func()
	}{
		{"the server is frozen", own.freeze, own.thaw},
		{"the server is stopped", own.stop, own.start},
		{"the pooler is frozen", func() { _ = pooler.process.Process.Signal(syscall.SIGSTOP) }, func() { _ = pooler.process.Process.Signal(syscall.SIGCONT) }},
		{"the pooler is killed", pooler.kill, func() { pooler.start(t) }},
	} {
		fault.begin()
		for range 3 {
			begin := time.Now()
			c.call("GET", "/api/auth/me", nil).problem(http.StatusServiceUnavailable, "platform_unavailable")
			if took := time.Since(begin); took > 8*time.Second { // without other tests beside it: 2.6 s
				t.Errorf("%s: the answer took %v", fault.name, took)
			}
			front().want(http.StatusOK)
		}
		fault.end()
		testkit.Eventually(t, testkit.Timeout, fault.name+" no longer", func() bool { return c.call("GET", "/api/auth/me", nil).status == http.StatusOK })
		front().want(http.StatusOK)
		testkit.Eventually(t, testkit.Timeout, "notifications after "+fault.name, func() bool { return s.Master.CheckListen(t.Context()) == nil })
	}
}
