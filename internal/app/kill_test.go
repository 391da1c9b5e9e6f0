package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// commandProcess makes the test binary run as stoa: see TestCommandProcess.
const commandProcess = "STOA_TEST_COMMAND_PROCESS"

// TestCommandProcess runs a command of stoa in a separate process, which a test can
// kill. The process ends with the test that started it.
func TestCommandProcess(t *testing.T) {
	command := os.Getenv(commandProcess)
	if command == "" {
		t.Skip("the other tests start it")
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	limitOpenFiles(t)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // as main does
	status := cli.Run(ctx, strings.Fields(command), os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// process is a running server.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	url   string
	log   *bytes.Buffer // read after the process has ended
}

// startProcess starts 'stoa serve' with the additional environment variables in more.
func startProcess(t *testing.T, cfg *config.Config, more ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(self, "-test.run="+onlyCommandProcess), log: &bytes.Buffer{}}
	p.cmd.Env = append(os.Environ(), commandProcess+"=serve", "PORT=0", "STOA_DATA_DIR="+cfg.DataDir,
		"MASTER_DB_URL="+cfg.MasterDBURL.Reveal(), "STOA_PROVISIONING_CLAIM="+cfg.ProvisioningClaim.String())
	p.cmd.Env = append(p.cmd.Env, "STOA_QUOTA_STORES_UNVERIFIED=0", "STOA_QUOTA_STORES=0", "STOA_QUOTA_STORES_PER_HOUR=0",
		"STOA_QUOTA_MANAGED_DATABASES_UNVERIFIED=0", "STOA_QUOTA_MANAGED_DATABASES=0") // one owner has all the stores
	p.cmd.Env = append(p.cmd.Env, more...)
	p.cmd.Stderr = p.log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if url, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "Start here"); ok {
			p.url = strings.TrimSpace(url)
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return p
		}
	}
	p.kill()
	t.Fatalf("the server does not start:\n%s", p.log)
	return nil
}

// kill ends the process at once, as 'kill -9' does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.stdin.Close()
}

// end stops the process cleanly and returns its log.
func (p *process) end(t *testing.T) string {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v:\n%s", err, p.log)
	}
	return p.log.String()
}

// victim is a store that is being connected when its server is killed.
type victim struct {
	id   string
	body any
}

// moment is when to kill the server: as soon as a step reaches a state or, without a
// step, after a delay.
type moment struct {
	step, state string
	after       time.Duration
}

// moments returns every boundary between steps, the beginning of each step, and random
// delays, some of which end during the call to connect.
func moments(n int) (all []moment) {
	steps := []string{"connect", "inspect", "migrate", "seed", "store_record", "owner_record", "hostname", "activate"}
	for i := range n {
		m := moment{step: steps[(i/3)%len(steps)]}
		switch i % 3 {
		case 0:
			m.state = "running"
		case 1:
			m.state = "succeeded"
		default:
			m = moment{after: rand.N(300 * time.Millisecond)}
		}
		all = append(all, m)
	}
	return all
}

// TestKilled connects fifty stores, two by two, on both masters and all engines, and
// kills their server meanwhile. In the end every store is active: without help, by a
// retry, or by repeating a call that did not reach the server. Everything exists exactly
// once, and every credential can be read.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		kills := map[masterdb.Engine]int{masterdb.SQLite: 16, masterdb.Postgres: 9}[engine]
		if testing.Short() {
			kills = 4
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			cfg.ProvisioningClaim = 5 * time.Second // long enough for a slow machine to renew it in time
			k := &killing{t: t, cfg: cfg, db: masterdbtest.Open(t, cfg.MasterDBURL.Reveal())}
			p := startProcess(t, cfg)
			k.prepare(p, 2*kills)
			for i, m := range moments(kills) {
				k.connect(p, k.victims[2*i:2*i+2], m)
				p = startProcess(t, cfg)
			}
			p.kill()
			t.Logf("of %d runs %d were under way when their server died", 2*kills, k.interrupted)
			if k.interrupted < kills/2 {
				t.Error("too few of them to say anything")
			}
			k.finish()
		})
	}
}

type killing struct {
	t           *testing.T
	cfg         *config.Config
	db          *masterdb.DB
	owner       client
	victims     []victim
	interrupted int
}

// prepare creates the stores and the databases at their servers.
func (k *killing) prepare(p *process, n int) {
	k.t.Helper()
	k.owner, _ = register(k.t, serverAt(p.url), "owner@example.com")
	engines := tenantdbtest.Engines()
	for i := range n { // with three engines, each is the first of a pair in turn
		id := k.owner.call("POST", "/api/stores", object{"name": fmt.Sprintf("Shop %d", i)}).want(http.StatusCreated).text("id")
		k.victims = append(k.victims, victim{id, connectBody(k.t, engines[i%len(engines)])})
	}
}

// connect has p connect the stores, and kills it at that moment of the first one.
func (k *killing) connect(p *process, pair []victim, m moment) {
	k.t.Helper()
	var calls sync.WaitGroup
	for _, v := range pair {
		calls.Go(func() { k.post(p, v) })
	}
	if m.step == "" {
		<-time.After(m.after)
	} else {
		k.await(pair[0].id, m)
	}
	p.kill()
	calls.Wait()
	for _, v := range pair {
		k.interrupted += k.count(`provisioning_runs WHERE store_id = $1 AND state IN ('queued', 'running')`, v.id)
	}
}

// post asks p to connect a store. The server may be killed before it answers.
func (k *killing) post(p *process, v victim) {
	payload, err := json.Marshal(v.body)
	if err != nil {
		k.t.Error(err)
		return
	}
	req, err := http.NewRequestWithContext(k.t.Context(), "POST", p.url+"/api/stores/"+v.id+"/connect-database", bytes.NewReader(payload))
	if err != nil {
		k.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+k.owner.token)
	req.Header.Set("Prefer", "wait=0")
	if res, err := http.DefaultClient.Do(req); err == nil { // otherwise the server was killed before the answer
		_ = res.Body.Close()
	}
}

// await polls the master until the moment has come, the run has ended, or the time
// limit for a slow machine has passed.
func (k *killing) await(id string, m moment) {
	k.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if k.count(`provisioning_runs r JOIN provisioning_events e ON e.run_id = r.id
			WHERE r.store_id = $1 AND (r.state IN ('succeeded', 'failed') OR e.step = $2 AND e.state IN ($3, 'succeeded'))`, id, m.step, m.state) > 0 {
			return
		}
	}
}

func (k *killing) count(what string, args ...any) (n int) {
	k.t.Helper()
	if err := k.db.Get(k.t.Context(), &n, `SELECT count(*) FROM `+what, args...); err != nil {
		k.t.Fatal(err)
	}
	return n
}

// finish starts a last server that completes what the killed ones began.
func (k *killing) finish() {
	k.t.Helper()
	s, err := launch(k.t.Context(), k.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			k.t.Errorf("stop: %v", err)
		}
	})
	k.owner.url = s.URL
	for deadline := time.Now().Add(2 * time.Minute); k.count(`provisioning_runs WHERE state IN ('queued', 'running')`) > 0; <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatal("runs are left that nobody works on")
		}
	}
	for _, v := range k.victims {
		path := "/api/stores/" + v.id
		store := k.owner.call("GET", path, nil).want(http.StatusOK)
		switch {
		case store.at("status") == "active":
		case store.at("provisioning") == nil: // the call did not take effect
			store = k.owner.call("POST", path+"/connect-database", v.body).want(http.StatusOK)
		default:
			k.t.Logf("a store needs a retry: %s", store.raw)
			store = k.owner.call("POST", path+"/provisioning/retry", nil).want(http.StatusOK)
		}
		store.is("active", "status")
		k.whole(s, v.id)
	}
}

// whole checks that everything of a store exists exactly once.
func (k *killing) whole(s *server, id string) {
	k.t.Helper()
	for _, table := range []string{"provisioning_runs", "store_databases", "store_hostnames", "credit_balances"} {
		if n := k.count(table+` WHERE store_id = $1`, id); n != 1 {
			k.t.Errorf("%d rows of %s", n, table)
		}
	}
	store, err := stoa.ParseID[stoa.StoreID](id)
	if err != nil {
		k.t.Fatal(err)
	}
	lease, err := s.Tenants.Acquire(k.t.Context(), store) // reads the credentials
	if err != nil {
		k.t.Fatalf("the store's database cannot be opened: %v", err)
	}
	defer lease.Release()
	for table, want := range map[string]int{"stores": 1, "users": 1, "stoa_tenant": 1, "categories": 1, "pages": 5} {
		var n int
		if err := lease.Get(k.t.Context(), &n, `SELECT count(*) FROM `+table); err != nil || n != want {
			k.t.Errorf("%d rows of the tenant's %s, want %d: %v", n, table, want, err)
		}
	}
}

// TestKilledTwiceByOneRun kills a server twice while it works on one run, as a database
// that crashes the process would. The third server does not resume the run, the owner
// is told, and the store becomes active with another database.
func TestKilledTwiceByOneRun(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			cfg := testConfig(t, engine)
			cfg.ProvisioningClaim = time.Second
			k := &killing{t: t, cfg: cfg, db: masterdbtest.Open(t, cfg.MasterDBURL.Reveal())}
			p := startProcess(t, cfg)
			k.prepare(p, 1)
			port := listener.Addr().(*net.TCPAddr).Port
			k.victims[0].body = object{"type": "postgresql", "connectionString": fmt.Sprintf("postgres://u:p@127.0.0.1:%d/d?sslmode=disable", port)}
			id := k.victims[0].id
			calls := make(chan struct{})
			go func() {
				defer close(calls)
				k.post(p, k.victims[0])
			}()
			for range 2 {
				conn, err := listener.Accept() // the run has connected to its database and hangs
				if err != nil {
					t.Fatal(err)
				}
				p.kill()
				_ = conn.Close()
				p = startProcess(t, cfg)
			}
			<-calls
			k.owner.url = p.url
			testkit.Eventually(t, testkit.Timeout, "the run has failed", func() bool {
				return k.count(`provisioning_runs WHERE store_id = $1 AND state = 'failed' AND error_code = 'provisioning_crashed'`, id) == 1
			})
			store := k.owner.call("GET", "/api/stores/"+id, nil).want(http.StatusOK)
			store.is("pending_database", "status")
			store.is("provisioning_crashed", "provisioning", "error", "code")
			k.owner.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK).is("active", "status")
			if log := p.end(t); !strings.Contains(log, id) || !strings.Contains(log, "provisioning_crashed") {
				t.Errorf("the log does not name the store and the cause:\n%s", log)
			}
		})
	}
}
