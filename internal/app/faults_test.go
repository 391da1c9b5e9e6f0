package app_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/testkit"
)

// recoverWithin is the maximum time from the end of a fault until spends succeed again.
// A failover ends with the promotion of the standby.
const recoverWithin = 10 * time.Second

// scenario is one fault. It returns when the fault is over.
type scenario struct {
	name   string
	long   bool // omitted in the short form
	fault  func(f *faultSuite, long bool)
	frozen bool // the database server of one store is frozen: that store's storefront may fail
}

var scenarios = []scenario{
	{name: "rolling restart", fault: rollingRestart},
	{name: "kill -9", fault: killReplicas},
	{name: "disk full and freed", long: true, fault: fillDisk},
	{name: "master restarted, fast", long: true, fault: func(f *faultSuite, _ bool) { f.restartMaster(syscall.SIGINT) }},
	{name: "master restarted, immediate", fault: func(f *faultSuite, _ bool) { f.restartMaster(syscall.SIGQUIT) }},
	{name: "master frozen", fault: freezeMaster},
	{name: "master refuses", long: true, fault: stopMaster},
	{name: "one store's server frozen", long: true, fault: freezeTenant, frozen: true},
	{name: "fail-over, clean", long: true, fault: func(f *faultSuite, _ bool) { f.failOver((*ownPostgres).stopFast) }},
	{name: "fail-over, frozen", fault: func(f *faultSuite, _ bool) { f.failOver((*ownPostgres).freeze) }},
}

// TestFaults checks that faults of the master, of a process or of one store's database
// server fail no request of a cached storefront, lose or double no spend with a key,
// and leave the ledger consistent. `make faults` runs the long form.
func TestFaults(t *testing.T) {
	long := !testing.Short()
	drain := 3 * time.Second
	if long {
		drain = 5 * time.Second
	}
	f := newFaultSuite(t, drain, "")
	only := os.Getenv("STOA_TEST_FAULTS") // part of the names of the scenarios to run
	var rows []string
	for _, s := range scenarios {
		if s.long && !long && only == "" || !strings.Contains(s.name, only) {
			continue
		}
		rows = append(rows, f.try(s, long))
	}
	t.Logf("\n%-30s %8s %7s %8s %8s %6s %8s %9s\n%s", "scenario", "fronts", "failed", "spends", "attempts", "lost", "gap", "recovery", strings.Join(rows, "\n"))
	f.settle()
}

// try runs a scenario and returns its row of the table.
func (f *faultSuite) try(s scenario, long bool) string {
	t := f.t
	t.Helper()
	f.load.warm()
	before := f.load.begin()
	s.fault(f, long)
	over := time.Now()
	testkit.Eventually(t, testkit.Timeout, "spends go on", func() bool { return f.load.acknowledged().After(over) })
	recovery := f.load.acknowledged().Sub(over)
	<-time.After(2 * time.Second) // late requests and errors belong to this scenario
	c, gap, errors := f.load.since(before)
	if c.frontsFailed > 0 || c.ownFailed > 0 && !s.frozen {
		t.Errorf("%s: %d of %d requests of warm fronts failed", s.name, c.frontsFailed+c.ownFailed, c.fronts+c.own)
	}
	if c.lost > 0 {
		t.Errorf("%s: %d spends were lost", s.name, c.lost)
	}
	if c.onceFailed > 0 {
		t.Errorf("%s: %d of %d spends without a key failed", s.name, c.onceFailed, c.once)
	}
	if c.internal > 0 {
		t.Errorf("%s: %d spends were answered 500", s.name, c.internal)
	}
	if recovery > recoverWithin {
		t.Errorf("%s: spends went on %v after the fault, want at most %v", s.name, recovery, recoverWithin)
	}
	for _, what := range slices.Sorted(maps.Keys(errors)) {
		t.Logf("%s: %5d × %s", s.name, errors[what], what)
	}
	f.verify()
	row := fmt.Sprintf("%-30s %8d %7d %8d %8d %6d %8s %9s", s.name, c.fronts+c.own, c.frontsFailed+c.ownFailed, c.spends, c.attempts, c.lost,
		gap.Round(10*time.Millisecond), recovery.Round(10*time.Millisecond))
	t.Log(row)
	if f.standby.server == nil || s.name[:4] == "fail" {
		f.renewStandby()
	}
	return row
}

// verify checks that the ledger is consistent and contains each acknowledged spend. It
// returns the recorded spends.
func (f *faultSuite) verify() map[string]string {
	f.t.Helper()
	paid := f.load.paidSoFar()
	f.stoa("credits", "verify")
	conn := f.connect(f.primary)
	defer conn.Close(context.Background()) //nolint:errcheck // the query has reported any error
	rows, err := conn.Query(context.Background(), `SELECT idempotency_key, CAST(id AS text) FROM credit_transactions WHERE store_id = $1 AND type = 'spend'`, f.load.keyed.store)
	if err != nil {
		f.t.Fatal(err)
	}
	recorded := map[string]string{}
	for rows.Next() {
		var key, id string
		if err := rows.Scan(&key, &id); err != nil {
			f.t.Fatal(err)
		}
		key = strings.TrimPrefix(key, "spend:")
		if _, twice := recorded[key]; twice {
			f.t.Errorf("spend %s is recorded twice", key)
		}
		recorded[key] = id
	}
	if err := rows.Err(); err != nil {
		f.t.Fatal(err)
	}
	for key, id := range paid {
		if recorded[key] != id {
			f.t.Errorf("spend %s was acknowledged as %s and is recorded as %q", key, id, recorded[key])
		}
	}
	return recorded
}

// settle ends the load and checks that the ledger contains no spend that was not
// acknowledged.
func (f *faultSuite) settle() {
	f.t.Helper()
	f.load.stop()
	recorded := f.verify()
	for key := range f.load.paidSoFar() {
		delete(recorded, key)
	}
	if len(recorded) > 0 {
		f.t.Errorf("%d spends are recorded and were never acknowledged", len(recorded))
	}
}

// rollingRestart restarts the replicas one by one. It loses no request, not even those
// that nobody may repeat.
func rollingRestart(f *faultSuite, long bool) {
	done := make(chan struct{})
	var once sync.WaitGroup
	for range spenders {
		once.Go(func() { f.load.spendOnce(done) })
	}
	defer once.Wait()
	defer close(done)
	times := 1
	if long {
		times = 3
	}
	for range times {
		for _, r := range f.replicas {
			r.restart()
		}
	}
}

func killReplicas(f *faultSuite, long bool) {
	times := 3
	if long {
		times = 10
	}
	for range times {
		r := f.replicas[rand.N(len(f.replicas))]
		r.process.kill()
		r.start()
	}
}

// restartMaster stops the master with the signal and starts it again.
func (f *faultSuite) restartMaster(how syscall.Signal) {
	f.primary.end(how)
	f.primary.start()
}

// end stops the server with a signal. SIGINT is PostgreSQL's fast shutdown, which rolls
// back open transactions. SIGQUIT is the immediate shutdown, which does not.
func (p *ownPostgres) end(how syscall.Signal) {
	_ = p.server.Process.Signal(how)
	_ = p.server.Wait()
	p.server = nil
}

func (p *ownPostgres) stopFast() { p.end(syscall.SIGINT) }

func freezeMaster(f *faultSuite, long bool) {
	f.primary.freeze()
	<-time.After(ifLong(long, 30*time.Second, 5*time.Second))
	f.primary.thaw()
}

func stopMaster(f *faultSuite, long bool) {
	f.primary.stopFast()
	<-time.After(ifLong(long, 60*time.Second, 5*time.Second))
	f.primary.start()
}

func freezeTenant(f *faultSuite, long bool) {
	f.tenants.freeze()
	<-time.After(ifLong(long, 30*time.Second, 5*time.Second))
	f.tenants.thaw()
}

// failOver makes the primary unavailable with away, and promotes the standby five
// seconds later, as a failover manager would.
func (f *faultSuite) failOver(away func(*ownPostgres)) {
	away(f.primary)
	<-time.After(5 * time.Second)
	f.promote()
}

// fillDisk fills the master's disk for 20 seconds. If the server has exited for lack of
// space, it is started again once there is space, as an operator would do.
func fillDisk(f *faultSuite, _ bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(f.primary.dir, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) > 1<<30 {
		f.t.Log("disk full: not tried, since no small file system could be mounted here")
		return
	}
	file := filepath.Join(f.primary.dir, "filling")
	for size := 1 << 20; size > 4<<10; size /= 2 {
		filling, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			f.t.Fatal(err)
		}
		for piece := make([]byte, size); err == nil; {
			_, err = filling.Write(piece)
		}
		_ = filling.Close()
	}
	<-time.After(20 * time.Second)
	if err := os.Remove(file); err != nil {
		f.t.Fatal(err)
	}
	if f.primary.ended() {
		f.primary.server = nil
		f.primary.start()
	}
}

// ended reports whether the server has exited on its own.
func (p *ownPostgres) ended() bool {
	var status syscall.WaitStatus
	pid, _ := syscall.Wait4(p.server.Process.Pid, &status, syscall.WNOHANG, nil)
	return pid == p.server.Process.Pid
}

func ifLong(long bool, in, otherwise time.Duration) time.Duration {
	if long {
		return in
	}
	return otherwise
}
