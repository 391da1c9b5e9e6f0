package provisioning

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/testkit"
)

// waitFor calls Wait without its poll, and returns when the call waits. The returned
// function returns the result of the call.
func (b fixture) waitFor(t *testing.T, run Run) (ended func() Run) {
	t.Helper()
	b.poll = time.Hour
	heard := make(chan Run, 1)
	go func() {
		got, err := b.Wait(t.Context(), run.ID, time.Hour)
		if err != nil {
			t.Error(err)
		}
		heard <- got
	}()
	for deadline := time.Now().Add(time.Minute); ; {
		if b.waiters.Len() > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("Wait does not wait")
		}
		<-time.After(time.Millisecond)
	}
	return func() Run {
		t.Helper()
		select {
		case got := <-heard:
			return got
		case <-time.After(20 * time.Second):
			t.Fatal("Wait was not woken")
			return Run{}
		}
	}
}

// TestWaitIsWoken checks that Wait is woken by the end of its run, whether it succeeds or
// fails.
func TestWaitIsWoken(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		repair := b.takeHostname(t, s)
		run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		ended := b.waitFor(t, run)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		got := ended()
		b.failed(t, p, got, "hostname", stoa.HostnameTaken)
		repair()
		run, err = b.Retry(t.Context(), p, s.ID)
		testkit.Must(t, err)
		ended = b.waitFor(t, run)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		b.succeeded(t, p, ended())
		if n := b.waiters.Len(); n != 0 {
			t.Errorf("%d calls are still waited for", n)
		}
	})
}

// TestWaitAtAnotherReplica checks that Wait is woken by the end of a run that another
// replica executes.
func TestWaitAtAnotherReplica(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	url, shared := masterdbtest.URL(t, masterdb.Postgres), newPlatform(t)
	worker := setupWith(t, masterdbtest.Open(t, url), shared, jobs.Options{}, dial.Loopback)
	b := setupWith(t, masterdbtest.Open(t, url), shared, jobs.Options{}, dial.Loopback)
	listening := make(chan struct{}, 10)
	b.db.Subscribe("another_topic", func(string) {}, func() { listening <- struct{}{} })
	ctx, stop := context.WithCancel(context.Background())
	var listener sync.WaitGroup
	listener.Go(func() { b.db.Listen(ctx, slog.New(slog.DiscardHandler)) })
	t.Cleanup(func() {
		stop()
		listener.Wait()
	})
	<-listening
	p, s := b.store(t)
	run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
	testkit.Must(t, err)
	ended := b.waitFor(t, run)
	testkit.Must(t, worker.Provision(t.Context(), job(run)))
	b.succeeded(t, p, ended())
}
