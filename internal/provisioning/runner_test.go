package provisioning

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/testkit"
)

// startInProcess enables the execution of runs in b's process. The queue is not started.
func (b fixture) startInProcess(t *testing.T) {
	t.Helper()
	b.Start(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		testkit.Must(t, b.Stop(ctx))
	})
}

// TestRunBeginsInProcess checks that a run, and the next attempt of a failed run, need no
// job.
func TestRunBeginsInProcess(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.startInProcess(t)
		p, s := b.store(t)
		repair := b.takeHostname(t, s)
		begun, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		if begun.State != Running || begun.Step != order[0] || begun.StartedAt == nil || begun.Steps[0].State != Running || len(begun.Steps) != len(order) {
			t.Errorf("the run is %+v", begun)
		}
		b.failed(t, p, b.wait(t, begun), "hostname", "hostname_taken")
		repair()
		b.succeeded(t, p, b.retry(t, p, s.ID))
		if n := b.count(t, `river_job`); n != 0 {
			t.Errorf("%d jobs", n)
		}
		if got, want := len(b.follow(t, p, s.ID, Position{})), 2+2*7+1+2+4+1; got != want {
			t.Errorf("%d events, want %d", got, want)
		}
	})
}

// TestNoFreeSlot checks that a run starts in the queue when the process has no free slot.
func TestNoFreeSlot(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.startInProcess(t)
		c := credentials(t, servers(t)[0])
		g := stand(t, &c)
		p, s := b.store(t)
		held, err := b.Connect(t.Context(), p, s.ID, c)
		testkit.Must(t, err)
		<-g.held
		b.slots.mu.Lock()
		b.slots.free = 0
		b.slots.mu.Unlock()
		other, o := b.store(t)
		queued, err := b.Connect(t.Context(), other, o.ID, managedCredentials)
		testkit.Must(t, err)
		if n := b.count(t, `river_job`); n != 1 || queued.State != Queued {
			t.Errorf("%d jobs for a run that is %s", n, queued.State)
		}
		testkit.Must(t, b.Provision(t.Context(), job(queued)))
		b.succeeded(t, other, b.wait(t, queued))
		g.drop() // the step connect is repeated
		b.succeeded(t, p, b.wait(t, held))
		third, r := b.store(t)
		here, err := b.Connect(t.Context(), third, r.ID, managedCredentials) // in the slot that is free again
		testkit.Must(t, err)
		b.succeeded(t, third, b.wait(t, here))
		if n := b.count(t, `river_job`); n != 1 {
			t.Errorf("%d jobs", n)
		}
	})
}

// TestStopHandsOver checks that a stop waits for the runs in progress, and hands a run
// that takes longer over to the queue, where another replica finds it at once.
func TestStopHandsOver(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		shared := newPlatform(t)
		first := setupWith(t, db, shared, jobs.Options{}, dial.Loopback)
		first.opts.Drain = time.Millisecond
		first.Start(t.Context())
		c := credentials(t, servers(t)[0])
		g := stand(t, &c)
		p, s := first.store(t)
		run, err := first.Connect(t.Context(), p, s.ID, c)
		testkit.Must(t, err)
		<-g.held
		testkit.Must(t, first.Stop(t.Context()))
		first.resumable(t, p, run)
		if n := first.count(t, `provisioning_runs WHERE claimed_by IS NULL`); n != 1 || first.count(t, `river_job`) != 1 {
			t.Errorf("%d runs are without an owner, %d jobs", n, first.count(t, `river_job`))
		}
		other, o := first.store(t)
		late, err := first.Connect(t.Context(), other, o.ID, managedCredentials) // by a request that is still in progress
		testkit.Must(t, err)
		second := setupWith(t, db, shared, jobs.Options{}, dial.Loopback).start(t)
		second.succeeded(t, p, second.wait(t, run))
		second.succeeded(t, other, second.wait(t, late))
	})
}

// TestStopCountsWhatItCannotHandOver checks that Stop reports how many runs could not be
// handed over, in this test because the master database refuses the job.
func TestStopCountsWhatItCannotHandOver(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.opts.Drain = time.Millisecond
		b.Start(t.Context())
		c := credentials(t, servers(t)[0])
		g := stand(t, &c)
		p, s := b.store(t)
		_, err := b.Connect(t.Context(), p, s.ID, c)
		testkit.Must(t, err)
		<-g.held
		if n := b.UnderWay(); n != 1 {
			t.Errorf("%d runs are under way", n)
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `ALTER TABLE river_job RENAME TO river_job_away`)
			return err
		}))
		err = b.Stop(t.Context())
		if err == nil || !strings.Contains(err.Error(), "could not be handed over: 1") {
			t.Errorf("Stop: %v", err)
		}
		g.drop()
	})
}

// TestStopWaits checks that a stop with enough time lets a run end.
func TestStopWaits(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.Start(t.Context())
		b.opts.Drain = time.Hour
		c := credentials(t, servers(t)[0])
		g := stand(t, &c)
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, c)
		testkit.Must(t, err)
		<-g.held
		stopped := make(chan error)
		go func() { stopped <- b.Stop(context.WithoutCancel(t.Context())) }()
		g.drop()
		testkit.Must(t, <-stopped)
		run, err = b.Latest(t.Context(), p, run.StoreID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
	})
}

// TestPanicBeforeTheRun checks that a panic while a run is being recorded releases the
// slot, since a stop would otherwise wait for it.
func TestPanicBeforeTheRun(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	b.startInProcess(t)
	p, s := b.store(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		tenants := b.tenants
		defer func() { b.tenants = tenants }()
		b.tenants = nil
		_, _ = b.Service.start(t.Context(), request{principal: p, store: s.ID, credentials: managedCredentials})
	}()
	if b.slots.free != maxInProcess {
		t.Errorf("%d of %d slots are free", b.slots.free, maxInProcess)
	}
}

// TestPanicInProcess checks that a panic in a run ends neither the process nor the store:
// the run fails at once, and the owner can retry it.
func TestPanicInProcess(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		repair := b.takeHostname(t, s)
		run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		repair()
		logged := &logBuffer{}
		broken := New(db, b.registry, nil, b.queue, slog.New(slog.NewTextHandler(logged, nil)), b.opts)
		broken.Start(t.Context())
		_, err = broken.Retry(t.Context(), p, s.ID)
		testkit.Must(t, err)
		testkit.Must(t, broken.Stop(t.Context()))
		for _, want := range []string{"panic in a provisioning run", "tenantdb.(*Manager)", "goroutine", run.ID.String(), s.ID.String()} {
			if !strings.Contains(logged.String(), want) {
				t.Errorf("logged without %q: %s", want, logged.String())
			}
		}
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.failed(t, p, run, "hostname", stoa.Internal)
		b.succeeded(t, p, b.retryNow(t, p, s.ID))
	})
}
