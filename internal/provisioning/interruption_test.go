package provisioning

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// eachIdle runs test on the same pairs as each, with a replica whose queue is not started.
func eachIdle(t *testing.T, test func(t *testing.T, b fixture, engine credential.EngineName)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for _, engine := range partners(db, tenantdbtest.Engines()) {
			t.Run(string(engine), func(t *testing.T) { test(t, setup(t, db), engine) })
		}
	})
}

// begin acquires the lease of the run, as its job does.
func (b fixture) begin(t *testing.T, run Run) *execution {
	t.Helper()
	b.expireLease(t, run.ID) // of the execution that crashed
	w, err := b.Service.begin(t.Context(), job(run))
	testkit.Must(t, err)
	t.Cleanup(w.close)
	return w
}

// doStep executes one step and records it.
func (w *execution) doStep(t *testing.T, i int) {
	t.Helper()
	testkit.Must(t, w.record(t.Context(), transition{begun: steps[i].name}))
	testkit.Must(t, w.runStep(t.Context(), steps[i], "")) // there is no next step with whose start it could be recorded
}

// TestCrashInEveryStep ends the process in each step, after the work of the step and
// before its record. It checks that the run has the same result as one without a crash.
func TestCrashInEveryStep(t *testing.T) {
	t.Parallel()
	eachIdle(t, func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credentials(t, engine))
		testkit.Must(t, err)
		for i := range len(steps) - 1 { // the step activate is its own record
			w := b.begin(t, run)
			for _, again := range []int{i - 1, i} {
				if again >= 0 {
					w.doStep(t, again)
				}
			}
			w.close()
			b.exec(t, `DELETE FROM provisioning_events WHERE run_id = $1 AND step = $2 AND state = 'succeeded'`, run.ID, steps[i].name)
			b.resumable(t, p, run)
		}
		b.expireLease(t, run.ID)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
		b.checkOwner(t, p, s.ID)
	})
}

// TestCrashBeforeTheRecord ends the process after each number of steps that are done and
// not recorded. It checks that the run is resumed, and that its events show each step
// once and ordered by time.
func TestCrashBeforeTheRecord(t *testing.T) {
	t.Parallel()
	eachIdle(t, func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credentials(t, engine))
		testkit.Must(t, err)
		for n := 1; n < len(steps); n++ { // activate is recorded when it is done
			w := b.begin(t, run)
			for i, step := range steps[:n] {
				if w.run.did(step.name) {
					continue
				}
				w.recordedAt = time.Now().Add(time.Hour)
				testkit.Must(t, w.runStep(t.Context(), step, steps[i+1].name))
			}
			if long := steps[n].name == "migrate" && engine != credential.SQLite; long != (len(w.pending) == 0) {
				t.Errorf("%d of the first %d steps are not on record", len(w.pending), n)
			}
			w.close()
			b.resumable(t, p, run)
			b.exec(t, `UPDATE provisioning_runs SET unended_starts = 0 WHERE id = $1`, run.ID) // otherwise one run could not crash this often
		}
		b.expireLease(t, run.ID)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
		b.checkOwner(t, p, s.ID)
		ended := map[string]int{}
		var last time.Time
		for _, e := range b.follow(t, p, s.ID, Position{}) {
			if e.State == Succeeded {
				ended[e.Step]++
			}
			if e.At.Before(last) {
				t.Errorf("%s %s at %v, after what was at %v", e.Step, e.State, e.At, last)
			}
			last = e.At
		}
		for _, name := range order {
			if ended[name] != 1 {
				t.Errorf("%s ended %d times", name, ended[name])
			}
		}
	})
}

// TestStepsAreIdempotent checks that each step changes nothing when it is executed a
// second time.
func TestStepsAreIdempotent(t *testing.T) {
	t.Parallel()
	eachIdle(t, func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credentials(t, engine))
		testkit.Must(t, err)
		w := b.begin(t, run)
		for i := range len(steps) - 1 {
			w.doStep(t, i)
		}
		tenant, store := rowsOf(t, w.tenant), b.get(t, p, s.ID)
		for i := range len(steps) - 1 {
			w.doStep(t, i)
		}
		if diff := cmp.Diff(tenant, rowsOf(t, w.tenant)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(store, b.get(t, p, s.ID)); diff != "" {
			t.Error(diff)
		}
		w.doStep(t, len(steps)-1)
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
		lease, err := b.tenants.Acquire(t.Context(), s.ID)
		testkit.Must(t, err)
		defer lease.Release()
		if diff := cmp.Diff(tenant, rowsOf(t, lease.DB)); diff != "" {
			t.Error(diff)
		}
	})
}

func (b fixture) get(t *testing.T, p authz.Principal, id stoa.StoreID) stores.Store {
	t.Helper()
	s, err := b.registry.Get(t.Context(), p, id)
	testkit.Must(t, err)
	return s
}

// TestStoppedBetweenSteps stops the process before each of the steps.
func TestStoppedBetweenSteps(t *testing.T) {
	t.Parallel()
	eachIdle(t, func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credentials(t, engine))
		testkit.Must(t, err)
		for i := range steps {
			w := b.begin(t, run)
			ctx, stop := context.WithCancel(t.Context())
			stop()
			if err := w.runSteps(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("stopped before %s: %v", steps[i].name, err)
			}
			b.resumable(t, p, run)
			w.doStep(t, i)
			w.close()
		}
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
	})
}

// resumable checks that the run is neither lost nor failed.
func (b fixture) resumable(t *testing.T, p authz.Principal, run Run) {
	t.Helper()
	got, err := b.Latest(t.Context(), p, run.StoreID)
	testkit.Must(t, err)
	if got.ID != run.ID || got.State != Running || got.Fault != nil || got.FinishedAt != nil {
		t.Errorf("the run is %s at %s with %+v", got.State, got.Step, got.Fault)
	}
	if status := b.status(t, run.StoreID); status != stores.Provisioning {
		t.Errorf("the store is %s", status)
	}
}

// TestStoppedWithinAStep stops the process during a step.
func TestStoppedWithinAStep(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, engine := range servers(t) {
			p, s := b.store(t)
			c := credentials(t, engine)
			g := stand(t, &c)
			run, err := b.Connect(t.Context(), p, s.ID, c)
			testkit.Must(t, err)
			ctx, stop := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- b.Provision(ctx, job(run)) }()
			<-g.held
			stop()
			// The error must tell the queue that this is not a failure, so that it runs
			// the job again at once.
			if err := <-result; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", engine, err)
			}
			b.resumable(t, p, run)
			testkit.Must(t, b.Provision(t.Context(), job(run)))
			run, err = b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.succeeded(t, p, run)
		}
	})
}

// TestStopAndStart checks that one replica stops while it executes a run, and that the
// next replica that starts finishes the run.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		shared := newPlatform(t)
		first := setupWith(t, db, shared, jobs.Options{Drain: time.Millisecond}, dial.Loopback)
		p, s := first.store(t)
		c := credentials(t, servers(t)[0])
		g := stand(t, &c)
		testkit.Must(t, first.queue.Start(t.Context()))
		run, err := first.Connect(t.Context(), p, s.ID, c)
		testkit.Must(t, err)
		<-g.held
		testkit.Must(t, first.queue.Stop(t.Context()))
		first.resumable(t, p, run)

		second := setupWith(t, db, shared, jobs.Options{}, dial.Loopback).start(t)
		second.succeeded(t, p, second.wait(t, run))
	})
}

// expiring is a context whose deadline passes when the test decides.
type expiring struct {
	context.Context
	done chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.done }

func (e expiring) Err() error {
	select {
	case <-e.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// TestOutOfTime checks that a run that does not end within the timeout of a job fails.
// While it is in progress, nobody can connect the store.
func TestOutOfTime(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, engine := range servers(t) {
			p, s := b.store(t)
			c := credentials(t, engine)
			g := stand(t, &c)
			run, err := b.Connect(t.Context(), p, s.ID, c)
			testkit.Must(t, err)
			ctx := expiring{t.Context(), make(chan struct{})}
			result := make(chan error, 1)
			go func() { result <- b.Provision(ctx, job(run)) }()
			<-g.held
			close(ctx.done)
			testkit.Must(t, <-result)
			run, err = b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.failed(t, p, run, "connect", stoa.DatabaseUnreachable)
			again, err := b.Retry(t.Context(), p, s.ID)
			testkit.Must(t, err)
			testkit.Must(t, b.Provision(t.Context(), job(again)))
			run, err = b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.succeeded(t, p, run)
		}
	})
}

// TestLeaseLostInStep checks that an execution that loses its lease while it hangs does
// not undo the work of the next one. The queue may deliver a job twice.
func TestLeaseLostInStep(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, engine := range servers(t) {
			p, s := b.store(t)
			c := credentials(t, engine)
			g := stand(t, &c)
			run, err := b.Connect(t.Context(), p, s.ID, c)
			testkit.Must(t, err)
			slow := make(chan error, 1)
			go func() { slow <- b.Provision(t.Context(), job(run)) }()
			<-g.held
			testkit.Must(t, b.Provision(t.Context(), job(run))) // the slow execution has the lease
			b.resumable(t, p, run)
			b.expireLease(t, run.ID)
			testkit.Must(t, b.Provision(t.Context(), job(run)))
			before, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.succeeded(t, p, before)
			g.drop() // connect fails in the slow execution
			testkit.Must(t, <-slow)
			after, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.succeeded(t, p, after)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// TestLeaseLostBetweenSteps checks that an execution that loses its lease between two
// steps stops and does not repeat the steps.
func TestLeaseLostBetweenSteps(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, i := range []int{0, 4, len(steps) - 1} {
			p, s := b.store(t)
			run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
			testkit.Must(t, err)
			w := b.begin(t, run)
			for done := range i {
				w.doStep(t, done)
				w.run.Steps[done].State = Succeeded
			}
			b.expireLease(t, run.ID)
			testkit.Must(t, b.Provision(t.Context(), job(run)))
			before, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if err := w.runSteps(t.Context()); !errors.Is(err, lease.ErrLost) {
				t.Errorf("overtaken before %s: %v", steps[i].name, err)
			}
			after, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.succeeded(t, p, after)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func TestExecutionsAtOnce(t *testing.T) {
	t.Parallel()
	eachIdle(t, func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credentials(t, engine))
		testkit.Must(t, err)
		_, errs := atOnce(3, func(int) (any, error) { return nil, b.Provision(t.Context(), job(run)) })
		testkit.Must(t, errors.Join(errs...))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
		b.checkOwner(t, p, s.ID)
	})
}

// TestFailureThatCannotBeRecorded checks that, when the master fails while a failure is
// being recorded, the job reports it, so that the queue runs it again. The next execution
// finds the step in progress and repeats it.
func TestFailureThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, repaired := range []bool{false, true} {
			p, s := b.store(t)
			release := b.takeHostname(t, s)
			run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
			testkit.Must(t, err)
			repair := b.breakRecord(t)
			if err := b.Provision(t.Context(), job(run)); err == nil || jobs.IsCancelled(err) {
				t.Errorf("the queue would not run the job again: %v", err)
			}
			b.resumable(t, p, run)
			now, err := b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if now.Step != "hostname" || now.Steps[6].State != Running {
				t.Errorf("the run is at %s, which is %s", now.Step, now.Steps[6].State)
			}
			repair()
			if repaired {
				release()
			}
			testkit.Must(t, b.Provision(t.Context(), job(run)))
			now, err = b.Latest(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if repaired {
				b.succeeded(t, p, now)
			} else {
				b.failed(t, p, now, "hostname", stoa.HostnameTaken)
			}
		}
	})
}

// breakRecord makes the master refuse to record a failed step. repair ends that.
func (b fixture) breakRecord(t *testing.T) (repair func()) {
	t.Helper()
	if b.db.Engine == masterdb.SQLite {
		b.exec(t, `CREATE TRIGGER away BEFORE INSERT ON provisioning_events WHEN NEW.state = 'failed'
			BEGIN SELECT RAISE(ABORT, 'the master is away'); END`)
		return func() { b.exec(t, `DROP TRIGGER away`) }
	}
	b.exec(t, `CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the master is away'; END $$`)
	b.exec(t, `CREATE TRIGGER away BEFORE INSERT ON provisioning_events FOR EACH ROW WHEN (NEW.state = 'failed') EXECUTE FUNCTION away()`)
	return func() {
		b.exec(t, `DROP TRIGGER away ON provisioning_events`)
		b.exec(t, `DROP FUNCTION away`)
	}
}

// TestRunOfAnotherVersion checks a run that another version of the program recorded, with
// other steps.
func TestRunOfAnotherVersion(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		b.exec(t, `INSERT INTO provisioning_events (run_id, seq, attempt, step, state, created_at) VALUES ($1, 2, 1, 'polish', 'succeeded', $2)`, run.ID, run.CreatedAt)
		b.exec(t, `UPDATE provisioning_runs SET changes = 2 WHERE id = $1`, run.ID)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		got, err := b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, got)
	})
}
