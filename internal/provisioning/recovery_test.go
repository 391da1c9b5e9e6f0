package provisioning

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/testkit"
)

var managedCredentials = credential.Credentials{Kind: credential.Managed}

// setupQuick returns a replica with short leases.
func setupQuick(t *testing.T, db *masterdb.DB, shared platform) fixture {
	t.Helper()
	b := setupWith(t, db, shared, jobs.Options{}, dial.Loopback)
	b.opts.Lease = 3 * time.Second // long enough for a slow machine to renew it in time
	return b
}

// TestDeadProcess checks that another process finishes the run of a process that was
// killed together with the run's job, long before the queue would notice.
func TestDeadProcess(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		shared := newPlatform(t)
		dead := setupQuick(t, db, shared)
		p, s := dead.store(t)
		run, err := dead.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		w := dead.begin(t, run)
		w.doStep(t, 0)
		w.close()
		// This is the state in the queue of the job of a process that was killed.
		dead.exec(t, `UPDATE river_job SET state = 'running', attempt = 1, attempted_at = created_at`)

		living := setupQuick(t, db, shared).start(t)
		ctx, stop := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { living.Recovery().Watch(ctx) })
		t.Cleanup(watching.Wait)
		t.Cleanup(stop)
		living.succeeded(t, p, living.wait(t, run))
	})
}

// TestReconcile checks that each lost run gets one job when several replicas reconcile
// concurrently. A run that is executed or waits for its job gets none.
func TestReconcile(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		connect := func() Run {
			p, s := b.store(t)
			run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
			testkit.Must(t, err)
			return run
		}
		waiting, working, late, lost, jobless, overdue := connect(), connect(), connect(), connect(), connect(), connect()
		b.begin(t, working)
		b.expireLease(t, late.ID) // its job is still in the queue, behind others
		b.begin(t, lost)
		b.expireLease(t, lost.ID)
		b.expireLease(t, jobless.ID)
		for _, run := range []Run{working, lost, jobless} {
			b.exec(t, `DELETE FROM river_job WHERE id = (SELECT id FROM river_job WHERE `+argsText(db)+` LIKE $1)`, "%"+run.ID.String()+"%")
		}
		b.expireLease(t, overdue.ID) // the next attempt of its job is overdue too, since no leader has scheduled it
		b.exec(t, `UPDATE river_job SET state = 'retryable', scheduled_at = $2 WHERE `+argsText(db)+` LIKE $1`,
			"%"+overdue.ID.String()+"%", time.Now().UTC().Add(-time.Hour))
		look := func() (sum int) {
			counts, errs := atOnce(4, func(int) (int, error) { return b.Recovery().Reconcile(t.Context()) })
			testkit.Must(t, errors.Join(errs...))
			for _, n := range counts {
				sum += n
			}
			return sum
		}
		if n := look(); n != 3 {
			t.Errorf("%d runs were taken up again, want 3", n)
		}
		if n := look(); n != 0 {
			t.Errorf("%d runs were taken up again a second time", n)
		}
		for _, run := range []Run{waiting, late, lost, jobless} {
			if n := b.count(t, `river_job WHERE `+argsText(db)+` LIKE '%`+run.ID.String()+`%'`); n != 1 {
				t.Errorf("a run has %d jobs", n)
			}
		}
		if n := b.count(t, `river_job`); n != 6 {
			t.Errorf("%d jobs, want 6", n)
		}
	})
}

func argsText(db *masterdb.DB) string {
	if db.Engine == masterdb.SQLite {
		return `json(args)`
	}
	return `CAST(args AS text)`
}

// TestLeaseLostToAnotherOwner checks that an execution stops in the middle of a step and
// writes nothing more when another owner has its lease.
func TestLeaseLostToAnotherOwner(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setupQuick(t, db, newPlatform(t))
		p, s := b.store(t)
		c := credentials(t, servers(t)[0])
		g := stand(t, &c)
		run, err := b.Connect(t.Context(), p, s.ID, c)
		testkit.Must(t, err)
		slow := make(chan error, 1)
		go func() { slow <- b.Provision(t.Context(), job(run)) }()
		<-g.held
		b.exec(t, `UPDATE provisioning_runs SET claimed_by = 'another', claimed_until = $2 WHERE id = $1`, run.ID, time.Now().UTC().Add(time.Hour))
		select {
		case err := <-slow:
			testkit.Must(t, err)
		case <-time.After(time.Minute):
			t.Fatal("it goes on")
		}
		b.resumable(t, p, run)
		var by struct{ ClaimedBy string }
		testkit.Must(t, db.Get(t.Context(), &by, `SELECT claimed_by FROM provisioning_runs WHERE id = $1`, run.ID))
		if by.ClaimedBy != "another" {
			t.Errorf("the owner is %q", by.ClaimedBy)
		}
	})
}

// TestLeaseIsRenewed checks that a lease is renewed for as long as its execution works.
func TestLeaseIsRenewed(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setupQuick(t, db, newPlatform(t))
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		w := b.begin(t, run)
		var first, now struct{ ClaimedUntil time.Time }
		read := func(dst any) {
			testkit.Must(t, db.Get(t.Context(), dst, `SELECT claimed_until FROM provisioning_runs WHERE id = $1`, run.ID))
		}
		read(&first)
		_, stop := w.lease.Keep(t.Context(), w.db, w.log)
		defer stop()
		for deadline := time.Now().Add(time.Minute); !now.ClaimedUntil.After(first.ClaimedUntil.Add(b.opts.Lease)); {
			if time.Now().After(deadline) {
				t.Fatalf("the lease until %v was never renewed", now.ClaimedUntil)
			}
			<-time.After(10 * time.Millisecond)
			read(&now)
		}
	})
}

// TestTransientFault checks that a step is repeated after a transient fault, and that the
// fault is recorded.
func TestTransientFault(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, engine := range servers(t) {
			p, s := b.store(t)
			c := credentials(t, engine)
			g := stand(t, &c) // the first connection is closed, as by a server that is starting
			g.drop()
			run, err := b.Connect(t.Context(), p, s.ID, c)
			testkit.Must(t, err)
			testkit.Must(t, b.Provision(t.Context(), job(run)))
			run, err = b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.succeeded(t, p, run)
			events, ended, err := b.Events(t.Context(), p, s.ID, Position{})
			testkit.Must(t, err)
			retried := 0
			for _, e := range events {
				if e.Step == "connect" && e.State == Running && e.Fault != nil && e.Fault.Code == stoa.DatabaseUnreachable {
					retried++
				}
			}
			if retried != 1 || !ended {
				t.Errorf("%d further tries are on record: %+v", retried, events)
			}
		}
	})
}

// TestRetryIsSeen checks that the fault is recorded while a step is being repeated.
func TestRetryIsSeen(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.opts.Pauses = []time.Duration{5 * time.Second}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		testkit.Must(t, err)
		testkit.Must(t, listener.Close())
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{
			Kind: credential.KindMySQL, Engine: credential.MySQL, Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
			Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
		})
		testkit.Must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Provision(ctx, job(run)) }()
		for deadline := time.Now().Add(time.Minute); ; {
			now, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if step := now.Steps[0]; step.Fault != nil {
				if now.State != Running || step.State != Running || step.Fault.Code != stoa.DatabaseUnreachable || now.Fault != nil {
					t.Errorf("run %+v", now)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the fault is not on record")
			}
			<-time.After(5 * time.Millisecond)
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("stopped during a pause: %v", err)
		}
		b.resumable(t, p, run)
	})
}

// TestFinalFaultIsNotTriedAgain checks that a step is not repeated after a permanent
// fault, since a server that counts failed log-ins would lock the user out.
func TestFinalFaultIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, engine := range servers(t) {
			p, s := b.store(t)
			c := credentials(t, engine)
			c.Password = keyring.NewSecret("wrong")
			run, err := b.Connect(t.Context(), p, s.ID, c)
			testkit.Must(t, err)
			testkit.Must(t, b.Provision(t.Context(), job(run)))
			events, _, err := b.Events(t.Context(), p, s.ID, Position{})
			testkit.Must(t, err)
			if want := 5; len(events) != want { // queued, running; connect running, failed; failed
				t.Errorf("%d events, want %d: %+v", len(events), want, events)
			}
		}
	})
}

// TestEvents checks that Events returns each event once and in order from any position,
// across attempts and runs.
func TestEvents(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		_, _, err := b.Events(t.Context(), p, s.ID, Position{})
		wantCode(t, err, stoa.NotFound)
		_, _, err = b.Events(t.Context(), b.user(t), s.ID, Position{})
		wantCode(t, err, stoa.StoreNotFound)
		repair := b.takeHostname(t, s)
		first, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		if _, ended, err := b.Events(t.Context(), b.member(t, s.ID, authz.Viewer), s.ID, Position{}); err != nil || ended {
			t.Errorf("a run that has not begun: ended %t, %v", ended, err)
		}
		testkit.Must(t, b.Provision(t.Context(), job(first)))
		half := b.follow(t, p, s.ID, Position{})
		again, err := b.Retry(t.Context(), p, s.ID)
		testkit.Must(t, err)
		testkit.Must(t, b.Provision(t.Context(), job(again)))
		repair()
		whole := b.follow(t, p, s.ID, Position{})
		if len(whole) <= len(half) || whole[len(whole)-1].State != Failed || whole[len(whole)-1].Attempt != 2 {
			t.Errorf("%d events, then %d: %+v", len(half), len(whole), whole)
		}
		second, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		testkit.Must(t, b.Provision(t.Context(), job(second)))
		// Read from the middle of the first run to the end of the second.
		rest := b.follow(t, p, s.ID, half[3].Position)
		want := len(whole) - 4 + 2 + 2*len(order) + 1
		if len(rest) != want || rest[0].Seq != 5 || rest[len(rest)-1].Run != second.ID || rest[len(rest)-1].State != Succeeded {
			t.Errorf("%d events, want %d: %+v", len(rest), want, rest)
		}
		last := rest[len(rest)-1].Position
		if more, ended, err := b.Events(t.Context(), p, s.ID, last); err != nil || len(more) != 0 || !ended {
			t.Errorf("after the end there are %d events, ended %t, %v", len(more), ended, err)
		}
		for name, at := range map[string]Position{
			"a run of nobody": {Run: stoa.NewID[stoa.RunID](), Seq: 1}, "beyond": {Run: second.ID, Seq: last.Seq + 1}, "negative": {Run: second.ID, Seq: -1},
		} {
			if got, _, err := b.Events(t.Context(), p, s.ID, at); err != nil || len(got) != 3+2*len(order) || got[0].Seq != 1 {
				t.Errorf("%s: %d events, %v", name, len(got), err)
			}
		}
	})
}

// follow reads all events after a position and checks that none is missing.
func (b fixture) follow(t *testing.T, p authz.Principal, id stoa.StoreID, at Position) (all []Event) {
	t.Helper()
	for {
		events, ended, err := b.Events(t.Context(), p, id, at)
		testkit.Must(t, err)
		for _, e := range events {
			if e.Run == at.Run && e.Seq != at.Seq+1 || e.At.IsZero() {
				t.Errorf("event %+v after %+v", e, at)
			}
			at = e.Position
		}
		all = append(all, events...)
		if ended || len(events) == 0 {
			if !ended {
				t.Error("it does not end")
			}
			return all
		}
	}
}

// present registers a process, as package presence does.
func (b fixture) present(t *testing.T, process string) {
	t.Helper()
	b.exec(t, `INSERT INTO processes (name, host, lock_key, started_at) VALUES ($1, 'test', 1, $2)`, process, time.Now().UTC())
}

// TestLeasesOfAnEndedProcess checks that no lease of a registered process expires for
// other processes, whatever the clocks show. When the process has ended, its runs are
// resumed at once. A run that has a job is resumed by that job.
func TestLeasesOfAnEndedProcess(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		shared := newPlatform(t)
		dead, living := setupWith(t, db, shared, jobs.Options{}, dial.Loopback), setupWith(t, db, shared, jobs.Options{}, dial.Loopback)
		dead.present(t, dead.process.Name())
		living.present(t, living.process.Name())
		begin := func() (authz.Principal, Run) {
			p, s := dead.store(t)
			run, err := dead.Connect(t.Context(), p, s.ID, managedCredentials)
			testkit.Must(t, err)
			dead.begin(t, run).close()
			dead.expireLease(t, run.ID) // by the clock of a machine that is fast
			return p, run
		}
		p, jobless := begin()
		dead.exec(t, `DELETE FROM river_job`)
		q, queued := begin()
		for range 2 {
			n, err := living.Recovery().Reconcile(t.Context())
			if testkit.Must(t, err); n != 0 {
				t.Errorf("%d runs of a process that is present were taken up", n)
			}
			testkit.Must(t, living.Provision(t.Context(), job(queued))) // a second job for the run, if there is one
		}
		for _, run := range []Run{jobless, queued} {
			if n := living.count(t, `provisioning_runs WHERE id = '`+run.ID.String()+`' AND claimed_by LIKE '`+dead.process.Name()+`.%'`); n != 1 {
				t.Error("a run was taken from a process that is present")
			}
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return living.Recovery().Release(t.Context(), tx, "another") }))
		if n := living.count(t, `river_job`); n != 1 {
			t.Errorf("%d jobs, want 1", n)
		}
		for range 2 { // the second call finds nothing
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				if _, err := tx.Exec(t.Context(), `DELETE FROM processes WHERE name = $1`, dead.process.Name()); err != nil {
					return err
				}
				return living.Recovery().Release(t.Context(), tx, dead.process.Name())
			}))
		}
		if n := living.count(t, `river_job`); n != 2 {
			t.Errorf("%d jobs, want 2", n)
		}
		if n := living.starts(t, queued); n != 1 {
			t.Errorf("%d executions have died, want 1", n)
		}
		living.start(t)
		living.succeeded(t, p, living.wait(t, jobless))
		living.succeeded(t, q, living.wait(t, queued))
	})
}

// TestOwnLeaseExpires checks that the lease of an execution that ended within a live
// process, without a release, expires by the clock of that process.
func TestOwnLeaseExpires(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.present(t, b.process.Name())
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		b.begin(t, run).close()
		b.exec(t, `DELETE FROM river_job`)
		b.expireLease(t, run.ID)
		n, err := b.Recovery().Reconcile(t.Context())
		if testkit.Must(t, err); n != 1 {
			t.Errorf("%d runs were taken up, want 1", n)
		}
		b.start(t).succeeded(t, p, b.wait(t, run))
	})
}
