package app_test

import (
	"fmt"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// recoveryLimit is the limit on a slow machine. The test logs the measured time.
const recoveryLimit = 8 * time.Second

// hungRun is a provisioning run that waits for a server that never answers.
type hungRun struct {
	*killing
	listener   net.Listener
	executions int
	conns      []net.Conn // of the run's latest execution
}

// hang makes p start a run that hangs.
func hang(t *testing.T, cfg *config.Config, p *process) *hungRun {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	h := &hungRun{killing: &killing{t: t, cfg: cfg, db: masterdbtest.Open(t, cfg.MasterDBURL.Reveal())}, listener: listener}
	h.prepare(p, 1)
	port := listener.Addr().(*net.TCPAddr).Port
	h.victims[0].body = object{"type": "postgresql", "connectionString": fmt.Sprintf("postgres://u:p@127.0.0.1:%d/d?sslmode=disable", port)}
	go h.post(p, h.victims[0])
	h.accept()
	return h
}

// accept waits until the run's next execution connects to its server. An execution
// after the first may take as long to start as a slow machine needs. Further connections
// of the execution before it are kept open, so that it goes on waiting.
func (h *hungRun) accept() {
	h.t.Helper()
	before := h.conns
	h.conns, h.executions = nil, h.executions+1
	_ = h.listener.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			h.t.Fatalf("execution %d of the run did not come to its server: %v", h.executions, err)
		}
		h.t.Cleanup(func() { _ = conn.Close() })
		h.conns = append(h.conns, conn)
		if h.count(`provisioning_runs WHERE store_id = $1 AND unended_starts = $2`, h.victims[0].id, h.executions) == 1 {
			break
		}
	}
	for _, conn := range before {
		_ = conn.Close()
	}
}

// TestWorkOfAKilledProcessGoesOn kills one of two servers while its run hangs. The
// other one takes the run over within seconds, with the default lease duration, and so
// does a server that is started after both were killed. Each death of the run's process
// is counted.
func TestWorkOfAKilledProcessGoesOn(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			first := startProcess(t, cfg)
			second := startProcess(t, cfg)
			h := hang(t, cfg, first)
			first.kill()
			h.taken(time.Now(), "by a server that runs")
			if n := h.count(`provisioning_runs WHERE store_id = $1 AND unended_starts = 2`, h.victims[0].id); n != 1 {
				t.Error("it is not counted that the run's process died")
			}
			second.kill()
			third := startProcess(t, cfg) // on the third execution the run fails
			started := time.Now()         // how long a process takes to start is not what is measured
			h.owner.url = third.url
			testkit.Eventually(t, testkit.Timeout, "the run has failed", func() bool {
				return h.count(`provisioning_runs WHERE store_id = $1 AND error_code = 'provisioning_crashed'`, h.victims[0].id) == 1
			})
			h.within(started, "by a server started anew")
			h.owner.call("POST", "/api/stores/"+h.victims[0].id+"/connect-database", object{"type": "managed"}).want(http.StatusOK).is("active", "status")
			if n := h.count(`processes`); n != 1 {
				t.Errorf("%d processes are on record, want 1", n)
			}
		})
	}
}

// taken waits until the run's next execution has connected to its server, and checks
// the time.
func (h *hungRun) taken(killed time.Time, by string) {
	h.t.Helper()
	h.accept()
	h.within(killed, by)
}

func (h *hungRun) within(killed time.Time, by string) {
	h.t.Helper()
	h.t.Logf("work of a killed process goes on after %v, %s", time.Since(killed).Round(10*time.Millisecond), by)
	if d := time.Since(killed); d > recoveryLimit {
		h.t.Errorf("went on after %v", d)
	}
}

// TestWorkOfAFrozenProcessGoesOn freezes a process whose session the database server
// keeps, so that only its missing heartbeats show the failure. When the process
// resumes, it changes nothing and reports that other processes have its work.
func TestWorkOfAFrozenProcessGoesOn(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	cfg := testConfig(t, masterdb.Postgres)
	first := startProcess(t, cfg)
	startProcess(t, cfg)
	h := hang(t, cfg, first)
	if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	frozen := time.Now()
	h.accept()
	t.Logf("work of a frozen process goes on after %v", time.Since(frozen).Round(10*time.Millisecond))
	if d := time.Since(frozen); d > 30*time.Second {
		t.Errorf("went on after %v", d)
	}
	if err := first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Timeout, "it is on record again", func() bool { return h.count(`processes`) == 2 })
	if n := h.count(`provisioning_runs WHERE store_id = $1 AND state = 'running' AND unended_starts = 2`, h.victims[0].id); n != 1 {
		t.Error("the run is not the second execution's any more")
	}
}

// TestLostSessionsCountNoCrash cuts the sessions of two servers at the master
// repeatedly while a run hangs. No process is counted as crashed.
func TestLostSessionsCountNoCrash(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	cfg := testConfig(t, masterdb.Postgres)
	first := startProcess(t, cfg)
	startProcess(t, cfg)
	h := hang(t, cfg, first)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-time.After(time.Second) {
		h.count(`(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()) t`)
	}
	if n := h.count(`provisioning_runs WHERE store_id = $1 AND state = 'running' AND unended_starts = 1`, h.victims[0].id); n != 1 {
		t.Error("a process that lives was counted as crashed")
	}
	if n := h.count(`processes`); n != 2 {
		t.Errorf("%d processes are on record, want 2", n)
	}
}
