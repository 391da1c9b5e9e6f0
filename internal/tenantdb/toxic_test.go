package tenantdb_test

import (
	"context"
	"errors"
	"net"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// ways is a proxy to a store's database server that injects faults.
type ways struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// newWays returns c with its server behind a proxy.
func newWays(t *testing.T, c credential.Credentials) (*ways, credential.Credentials) {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	w := &ways{t, toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))}
	testkit.Must(t, w.proxy.Start())
	t.Cleanup(w.proxy.Stop)
	_, port, err := net.SplitHostPort(w.proxy.Listen)
	testkit.Must(t, err)
	c.Port, err = strconv.Atoi(port)
	testkit.Must(t, err)
	return w, c
}

func (w *ways) poison(kind, attributes string) {
	w.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		_, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(`{"name": "` + kind + stream + `", "type": "` + kind +
			`", "stream": "` + stream + `", "attributes": {` + attributes + `}}`))
		testkit.Must(w.t, err)
	}
}

func (w *ways) cure() { w.proxy.Toxics.ResetToxics(w.t.Context()) }

// comesBack waits until the store can be used again, without a new manager.
func (h *testManager) comesBack(t *testing.T, store stoa.StoreID) {
	t.Helper()
	var err error
	testkit.Eventually(t, testkit.Timeout, "the store can be used", func() bool {
		err = h.ask(t.Context(), store)
		return err == nil
	}, &err)
}

// ask makes one request to the store.
func (h *testManager) ask(ctx context.Context, store stoa.StoreID) error {
	l, err := h.Acquire(ctx, store)
	if err != nil {
		return err
	}
	defer l.Release()
	var one int
	return l.Get(ctx, &one, `SELECT 1`)
}

// TestBlackHole checks that a server that accepts connections and never answers
// delays its store's callers by one deadline or a few. After that, calls are
// refused at once without dialling. Other stores on the same server are not
// affected.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		for _, when := range []string{"while open", "before it is opened"} {
			t.Run(string(engine)+" "+when, func(t *testing.T) {
				t.Parallel()
				h := setup(t, tenantdb.Options{StatementTimeout: 300 * time.Millisecond, OpenTimeout: time.Second, Cooldown: 2 * time.Second})
				victim, other := h.store(t), h.store(t)
				way, c := newWays(t, tenantdbtest.Create(t, engine))
				h.save(t, victim, c)
				h.save(t, other, tenantdbtest.Create(t, engine))
				testkit.Must(t, h.ask(t.Context(), other))
				if when == "while open" {
					testkit.Must(t, h.ask(t.Context(), victim))
				}
				way.poison("timeout", `"timeout": 0`)
				var err error
				testkit.Eventually(t, testkit.Timeout, "the breaker opens", func() bool {
					err = h.ask(t.Context(), victim)
					checkUnavailable(t, err)
					return errors.Is(err, tenantdb.ErrOpen)
				}, &err)
				before := h.opened()
				for range 100 {
					if err := h.ask(t.Context(), victim); !errors.Is(err, tenantdb.ErrOpen) {
						break // the cooldown has ended
					}
					testkit.Must(t, h.ask(t.Context(), other))
				}
				if n := h.opened(); n > before+1 {
					t.Errorf("%d pools were opened for a store that is left alone", n-before)
				}
				way.cure()
				way.proxy.Stop() // pending connections are closed
				testkit.Must(t, way.proxy.Start())
				h.comesBack(t, victim)
			})
		}
	}
}

func TestResetInMidQuery(t *testing.T) {
	t.Parallel()
	for engine, query := range map[credential.EngineName]string{
		credential.PostgreSQL: `SELECT 1 FROM pg_sleep(30)`, credential.MySQL: `SELECT SLEEP(30)`,
	} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{StatementTimeout: time.Minute, Cooldown: time.Millisecond})
			store := h.store(t)
			way, c := newWays(t, tenantdbtest.Create(t, engine))
			h.save(t, store, c)
			l := h.lease(t, store)
			defer l.Release()
			done := make(chan error, 1)
			go func() {
				var n int
				done <- l.Get(t.Context(), &n, query)
			}()
			testkit.Eventually(t, testkit.Timeout, "the query is under way", func() bool { return l.SQL().Stats().InUse == 1 })
			way.poison("reset_peer", `"timeout": 0`)
			checkUnavailable(t, <-done)
			way.cure()
			h.comesBack(t, store)
			works(t, l)
		})
	}
}

// TestSlowServer checks that a slow server is used and opens no breaker.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			store := h.store(t)
			way, c := newWays(t, tenantdbtest.Create(t, engine))
			h.save(t, store, c)
			way.poison("latency", `"latency": 50`)
			for range 2 * tenantdb.TripAfter {
				start := time.Now()
				testkit.Must(t, h.ask(t.Context(), store))
				if took := time.Since(start); took < 100*time.Millisecond {
					t.Errorf("an answer after %v came another way", took)
				}
			}
		})
	}
}

func TestRefusedConnections(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Cooldown: time.Millisecond})
			store := h.store(t)
			way, c := newWays(t, tenantdbtest.Create(t, engine))
			h.save(t, store, c)
			testkit.Must(t, h.ask(t.Context(), store))
			way.proxy.Stop()
			for range 5 {
				checkUnavailable(t, h.ask(t.Context(), store))
			}
			testkit.Must(t, way.proxy.Start())
			h.comesBack(t, store)
		})
	}
}

// TestServerRefuses checks a server that has no free connection, or no longer
// knows the user: the store's callers get 503, the owner can see the cause, and
// the store recovers by itself.
func TestServerRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		engine         credential.EngineName
		name           string
		refuse, repair string
	}{
		{credential.PostgreSQL, "too many connections", `ALTER ROLE %s CONNECTION LIMIT 0`, `ALTER ROLE %s CONNECTION LIMIT -1`},
		{credential.MySQL, "too many connections", `GRANT USAGE ON *.* TO %s@'%%' WITH MAX_USER_CONNECTIONS 1`, `GRANT USAGE ON *.* TO %s@'%%' WITH MAX_USER_CONNECTIONS 0`},
		{credential.PostgreSQL, "user revoked", `ALTER ROLE %s NOLOGIN`, `ALTER ROLE %s LOGIN`},
		{credential.MySQL, "user revoked", `ALTER USER %s@'%%' ACCOUNT LOCK`, `ALTER USER %s@'%%' ACCOUNT UNLOCK`},
	} {
		t.Run(string(tt.engine)+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Cooldown: 10 * time.Millisecond})
			store, c := h.store(t), tenantdbtest.Create(t, tt.engine)
			h.save(t, store, c)
			testkit.Must(t, h.ask(t.Context(), store))
			tenantdbtest.Admin(t, tt.engine, strings.ReplaceAll(strings.Replace(tt.refuse, "%s", c.User, 1), "%%", "%"))
			h.Forget(store) // as eviction does
			if tt.name == "too many connections" && tt.engine == credential.MySQL {
				db := tenantdbtest.Open(t, c) // uses the only connection that the server allows
				db.SQL().SetMaxOpenConns(1)
				testkit.Eventually(t, testkit.Timeout, "the server answers", func() bool { return db.Ping(t.Context()) == nil })
			}
			for range 5 {
				checkUnavailable(t, h.ask(t.Context(), store))
			}
			tenantdbtest.Admin(t, tt.engine, strings.ReplaceAll(strings.Replace(tt.repair, "%s", c.User, 1), "%%", "%"))
			h.comesBack(t, store)
		})
	}
}

// TestServerRestarts kills a PostgreSQL server of the test while stores are
// open, and starts it again. It checks that the stores work again within
// seconds, without a restart of Stoa.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	s := newPrivatePostgres(t)
	h := setup(t, tenantdb.Options{Cooldown: 100 * time.Millisecond})
	store := h.store(t)
	h.save(t, store, s.credentials)
	held := h.lease(t, store)
	works(t, held)
	s.kill()
	for range 2 * tenantdb.TripAfter {
		checkUnavailable(t, h.ask(t.Context(), store))
	}
	s.start()
	h.comesBack(t, store)
	works(t, held)
	held.Release()
}

type privatePostgres struct {
	t           *testing.T
	bin, dir    string
	as          *syscall.SysProcAttr
	cmd         *osexec.Cmd
	credentials credential.Credentials
}

func newPrivatePostgres(t *testing.T) *privatePostgres {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(bins) == 0 {
		testkit.Unavailable(t, "needs PostgreSQL's programs")
	}
	dir := t.TempDir()
	s := &privatePostgres{t: t, bin: filepath.Dir(bins[len(bins)-1]), dir: dir}
	t.Cleanup(s.kill)
	if os.Geteuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		testkit.Must(t, err)
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		testkit.Must(t, os.Chown(dir, uid, gid))
		testkit.Must(t, os.Chmod(filepath.Dir(dir), 0o711)) // gives the server's user access to the folder
		s.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "password"), []byte(marker), 0o644))
	s.run("initdb", "-D", dir+"/data", "-U", "stoa", "--pwfile="+dir+"/password", "--auth=scram-sha-256", "--locale=C.UTF-8", "--encoding=UTF8", "--no-sync")
	s.credentials = credential.Credentials{
		Kind: credential.KindPostgreSQL, Engine: credential.PostgreSQL, Host: "127.0.0.1", Port: closedPort(t),
		Database: "postgres", User: "stoa", Password: keyring.NewSecret(marker), TLS: credential.TLSDisable,
	}
	s.start()
	return s
}

func (s *privatePostgres) command(name string, args ...string) *osexec.Cmd {
	cmd := osexec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, s.as
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}

func (s *privatePostgres) run(name string, args ...string) {
	s.t.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func (s *privatePostgres) start() {
	s.t.Helper()
	s.cmd = s.command("postgres", "-D", s.dir+"/data", "-p", strconv.Itoa(s.credentials.Port), "-k", s.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB")
	testkit.Must(s.t, s.cmd.Start())
	db := tenantdbtest.Open(s.t, s.credentials)
	testkit.Eventually(s.t, testkit.Timeout, "the server answers", func() bool { return db.Ping(s.t.Context()) == nil })
	testkit.Must(s.t, db.SQL().Close())
}

// kill ends the server as a crash does: SIGQUIT is its immediate shutdown.
func (s *privatePostgres) kill() {
	if s.cmd != nil && s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		_ = s.cmd.Wait()
	}
}
