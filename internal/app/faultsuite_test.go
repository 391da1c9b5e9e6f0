package app_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// faultSuite is a platform as it runs in production: three processes behind HAProxy, a
// PostgreSQL master with a synchronous standby, and stores on three engines. One of the
// stores is at a database server that the suite may freeze.
type faultSuite struct {
	t        *testing.T
	dir      string   // shared by the replicas; holds the embedded stores
	settings []string // the environment of the replicas
	primary  *ownPostgres
	standby  *ownPostgres
	tenants  *ownPostgres // the database server of one store
	replicas []*replica
	program  string                       // that replicas start; "" is this release
	http     *http.Client                 // nil, or the client for another release
	proxy    string                       // HAProxy's URL, with the hostname of the platform
	quiet    struct{ store, host string } // a store that the load leaves alone
	load     *faultLoad
}

// haproxyPath finds the program where scripts/with-servers finds it.
func haproxyPath(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/usr/sbin/haproxy", "/usr/local/sbin/haproxy"} {
		if !config.Missing(path) {
			return path
		}
	}
	if path, err := exec.LookPath("haproxy"); err == nil {
		return path
	}
	testkit.Unavailable(t, "HAProxy is not installed")
	return ""
}

// newFaultSuite starts the platform. program is the release that its replicas run; "" is
// this one.
func newFaultSuite(t *testing.T, drainDelay time.Duration, program string) *faultSuite {
	t.Helper()
	haproxy := haproxyPath(t)
	f := &faultSuite{t: t, program: program, dir: filepath.Join(t.TempDir(), "data")}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	size := "400m"
	if program != "" { // upgrades go on for half an hour, and write more
		size = "4g"
	}
	f.primary = newPrimary(t, size)
	f.tenants = newOwnPostgres(t)
	f.standby = f.attachStandby(closedPort(t))
	f.settings = []string{
		"STOA_ENV=production", "STOA_BASE_DOMAIN=shops.localhost", "STOA_BASE_URL=http://shops.localhost", "STOA_DATA_DIR=" + f.dir, "MASTER_DB_URL=" + f.masterURL(),
		"ENCRYPTION_KEY=" + keyring.Generate("e").Reveal(), "JWT_SECRET=" + keyring.Generate("j").Reveal(),
		"STOA_ALLOW_NETWORKS=127.0.0.0/8", "STOA_TRUSTED_PROXIES=127.0.0.0/8", "STOA_DRAIN_DELAY=" + drainDelay.String(),
		"STOA_RATE_LIMIT_AUTH=0", "STOA_RATE_LIMIT_ADDRESS=0", "STOA_RATE_LIMIT_USER=0", "STOA_RATE_LIMIT_KEY=0",
		"STOA_RATE_LIMIT_STORE=0", "STOA_RATE_LIMIT_DATABASE=0",
		"STOA_QUOTA_STORES_UNVERIFIED=0", "STOA_QUOTA_STORES=0", "STOA_QUOTA_STORES_PER_HOUR=0",
		"STOA_QUOTA_MANAGED_DATABASES_UNVERIFIED=0", "STOA_QUOTA_MANAGED_DATABASES=0",
	}
	for range 3 {
		r := &replica{f: f, address: closedPort(t)}
		f.replicas = append(f.replicas, r)
		r.start() // one after the other: the first creates the schema
	}
	if program != "" { // another release answers as its own document says
		f.http = &http.Client{Transport: &http.Transport{}}
	}
	f.startProxy(haproxy)
	f.load = newFaultLoad(f)
	return f
}

// newPrimary starts a primary whose data is on a small file system of its own, so that
// a test can fill it, of at most size. Without the right to mount one, the data is in an ordinary
// directory.
func newPrimary(t *testing.T, size string) *ownPostgres {
	t.Helper()
	p := &ownPostgres{t: t, bin: postgresBin(t), password: "fault-suite", settings: []string{"max_wal_size=64MB", "min_wal_size=32MB", "wal_retrieve_retry_interval=200ms"}}
	p.makeDir()
	if syscall.Mount("tmpfs", p.dir, "tmpfs", 0, "size="+size) == nil {
		t.Cleanup(func() { _ = syscall.Unmount(p.dir, syscall.MNT_DETACH) })
		p.give(p.dir)
	}
	p.initialise()
	p.start()
	return p
}

// attachStandby copies the primary to a new server at address, and makes each commit
// wait for that server.
func (f *faultSuite) attachStandby(address string) *ownPostgres {
	f.t.Helper()
	s := &ownPostgres{t: f.t, bin: f.primary.bin, password: f.primary.password, settings: f.primary.settings}
	s.makeDir()
	if address != "" {
		_, s.port, _ = net.SplitHostPort(address)
	}
	copying := s.command("pg_basebackup", "-h", "127.0.0.1", "-p", f.primary.port, "-U", "stoa", "-D", s.data(), "-R", "-X", "stream", "-c", "fast")
	copying.Env = append(copying.Env, "PGPASSWORD="+s.password)
	if out, err := copying.CombinedOutput(); err != nil {
		f.t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	if err := os.Chmod(s.data(), 0o700); err != nil {
		f.t.Fatal(err)
	}
	s.start()
	f.exec(f.primary, `ALTER SYSTEM SET synchronous_standby_names = '*'`)
	f.exec(f.primary, `SELECT pg_reload_conf()`)
	testkit.Eventually(f.t, testkit.Timeout, "the standby is synchronous", func() bool {
		return f.ask(f.primary, `SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'`) == 1
	})
	return s
}

// promote makes the standby the primary. renewStandby later ends the other server,
// which is stopped or frozen.
func (f *faultSuite) promote() {
	f.t.Helper()
	f.exec(f.standby, `SELECT pg_promote()`)
	f.primary, f.standby = f.standby, f.primary
}

// renewStandby replaces the former primary after a failover by a copy of the current
// one, at the same address.
func (f *faultSuite) renewStandby() {
	f.t.Helper()
	if f.standby.server != nil {
		f.standby.kill()
	}
	f.standby = f.attachStandby("127.0.0.1:" + f.standby.port)
}

func (f *faultSuite) connect(p *ownPostgres) *pgx.Conn {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.url())
	if err != nil {
		f.t.Fatal(err)
	}
	return conn
}

func (f *faultSuite) exec(p *ownPostgres, query string) {
	f.t.Helper()
	conn := f.connect(p)
	defer conn.Close(context.Background()) //nolint:errcheck // the query has reported any error
	if _, err := conn.Exec(context.Background(), query); err != nil {
		f.t.Fatal(err)
	}
}

func (f *faultSuite) ask(p *ownPostgres, query string) (n int) {
	f.t.Helper()
	conn := f.connect(p)
	defer conn.Close(context.Background()) //nolint:errcheck // the query has reported any error
	if err := conn.QueryRow(context.Background(), query).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

// masterURL returns a URL that names both servers. The one that accepts writes is the
// master.
func (f *faultSuite) masterURL() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("stoa", f.primary.password), Path: "/postgres",
		Host:     "127.0.0.1:" + f.primary.port + ",127.0.0.1:" + f.standby.port,
		RawQuery: "sslmode=disable&target_session_attrs=read-write",
	}
	return u.String()
}

// startProxy runs HAProxy with the configuration that the documentation shows, except
// for its addresses.
func (f *faultSuite) startProxy(program string) {
	f.t.Helper()
	text, err := os.ReadFile("../../docs/haproxy.cfg")
	if err != nil {
		f.t.Fatal(err)
	}
	address := closedPort(f.t)
	pairs := []string{"127.0.0.1:8080", address}
	for i, r := range f.replicas {
		pairs = append(pairs, fmt.Sprintf("127.0.0.1:%d", 3001+i), r.address)
	}
	file := filepath.Join(f.t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o600); err != nil {
		f.t.Fatal(err)
	}
	proxy := exec.Command(program, "-db", "-f", file)
	var log bytes.Buffer
	proxy.Stderr = &log
	if err := proxy.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = proxy.Process.Kill()
		_ = proxy.Wait()
		if f.t.Failed() {
			f.t.Logf("HAProxy:\n%s", tail(log.String(), 40))
		}
	})
	_, port, _ := net.SplitHostPort(address)
	f.proxy = "http://localhost:" + port
	testkit.Eventually(f.t, testkit.Timeout, "HAProxy sends requests to a replica", func() bool { return status(f.proxy+"/readyz") == http.StatusOK })
}

// replica is one of the server processes.
type replica struct {
	f       *faultSuite
	address string
	process *process
	log     *os.File
}

// start starts the process. It returns when the process is ready.
func (r *replica) start() {
	t := r.f.t
	t.Helper()
	var err error
	if r.log == nil {
		if r.log, err = os.CreateTemp(t.TempDir(), "replica-*.log"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.end(t.Failed()) })
	}
	_, port, _ := net.SplitHostPort(r.address)
	p := &process{cmd: r.f.command(t), url: "http://" + r.address}
	p.cmd.Env = append(os.Environ(), commandProcess+"=serve", "PORT="+port)
	p.cmd.Env = append(p.cmd.Env, r.f.settings...)
	p.cmd.Stderr = r.log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.process = p
	testkit.Eventually(t, testkit.Timeout, "the replica is ready", func() bool { return status("http://localhost:"+port+"/readyz") == http.StatusOK })
}

// command returns the command that starts a server of the suite's release.
func (f *faultSuite) command(t *testing.T) *exec.Cmd {
	t.Helper()
	if f.program != "" {
		return exec.Command(f.program, "serve")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(self, "-test.run="+onlyCommandProcess)
}

// end stops the process at the end of the suite.
func (r *replica) end(failed bool) {
	r.process.kill()
	if text, err := os.ReadFile(r.log.Name()); err == nil && failed {
		var lines []string
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, `"msg":"request"`) {
				lines = append(lines, line)
			}
		}
		r.f.t.Logf("replica %s:\n%s", r.address, tail(strings.Join(lines, ""), 60))
	}
}

// restart stops the process as an operator does, and starts another one.
func (r *replica) restart() {
	r.f.t.Helper()
	begun := time.Now()
	if err := r.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.f.t.Fatal(err)
	}
	if err := r.process.cmd.Wait(); err != nil {
		r.f.t.Errorf("a stop under load ended with %v", err)
	}
	if took := time.Since(begun); took > 27*time.Second {
		r.f.t.Errorf("a stop under load took %v", took)
	}
	_ = r.process.stdin.Close()
	r.start()
}

// status sends one request without keeping the connection. It returns the status, or 0
// without an answer.
func status(url string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return 0
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// stores creates the stores of the suite. The last one is at the server that the suite
// may freeze.
func (f *faultSuite) stores() (fronts []string, accounts [2]account) {
	f.t.Helper()
	platform := serverAt(f.proxy)
	platform.http = f.http
	owner, first := register(f.t, platform, "owner@example.com")
	f.exec(f.primary, `UPDATE users SET email_verified = true`)
	ids := []string{first}
	bodies := []object{
		connectBody(f.t, credential.SQLite), connectBody(f.t, credential.SQLite), connectBody(f.t, credential.MySQL),
		{"type": "postgresql", "connectionString": f.tenants.url()},
	}
	for i, body := range bodies {
		id := first
		if i > 0 {
			id = owner.call("POST", "/api/stores", object{"name": fmt.Sprintf("Shop %d", i)}).want(http.StatusCreated).text("id")
			ids = append(ids, id)
		}
		a := owner.call("POST", "/api/stores/"+id+"/connect-database", body).want(http.StatusOK)
		fronts = append(fronts, a.list("hostnames")[0].(object)["hostname"].(string))
	}
	f.quiet.store = owner.call("POST", "/api/stores", object{"name": "Quiet"}).want(http.StatusCreated).text("id")
	a := owner.call("POST", "/api/stores/"+f.quiet.store+"/connect-database", connectBody(f.t, credential.SQLite)).want(http.StatusOK)
	f.quiet.host = a.list("hostnames")[0].(object)["hostname"].(string)
	for i := range accounts {
		accounts[i] = account{store: ids[i], key: owner.call("POST", "/api/stores/"+ids[i]+"/api-keys", object{
			"name": "fault suite", "scopes": []string{"credits:read", "credits:spend"},
		}).want(http.StatusCreated).text("key")}
		f.stoa("credits", "grant", ids[i], "1000000", "--reason=fault suite")
	}
	return fronts, accounts
}

// stoa runs a command of the suite's release on the master.
func (f *faultSuite) stoa(args ...string) {
	f.t.Helper()
	args = append(args, "--data-dir="+f.dir, "--master-db-url="+f.masterURL())
	if f.program != "" {
		if out, err := exec.Command(f.program, args...).CombinedOutput(); err != nil {
			f.t.Errorf("the previous release's stoa %s: %v: %s", strings.Join(args[:2], " "), err, out)
		}
		return
	}
	if status, out, errOut := command(f.t, args...); status != 0 {
		f.t.Errorf("stoa %s: status %d: %s%s", strings.Join(args[:2], " "), status, out, errOut)
	}
}
