package provisioning

import (
	"errors"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// crash ends an execution as the end of its process does: nothing is recorded, and the
// lease expires.
func (b fixture) crash(t *testing.T, w *execution) {
	t.Helper()
	w.close()
	b.expireLease(t, w.run.ID)
}

// starts returns how many executions of the run have started and not ended.
func (b fixture) starts(t *testing.T, run Run) int {
	t.Helper()
	var row struct{ UnendedStarts int }
	testkit.Must(t, b.db.Get(t.Context(), &row, `SELECT unended_starts FROM provisioning_runs WHERE id = $1`, run.ID))
	return row.UnendedStarts
}

// crashed checks that the run failed because its processes crashed, that the log contains
// its id, and that the store can be connected again.
func (b fixture) crashed(t *testing.T, p authz.Principal, run Run, step string) {
	t.Helper()
	got, err := b.Latest(t.Context(), p, run.StoreID)
	testkit.Must(t, err)
	b.failed(t, p, got, step, stoa.ProvisioningCrashed)
	if log := b.logged.String(); !strings.Contains(log, run.ID.String()) || !strings.Contains(log, run.StoreID.String()) || !strings.Contains(log, string(stoa.ProvisioningCrashed)) {
		t.Errorf("the log does not name the run and its store:\n%s", log)
	}
	if n := b.starts(t, run); n != 0 {
		t.Errorf("%d starts are counted of a run that has ended", n)
	}
	b.succeeded(t, p, b.retryNow(t, p, run.StoreID))
}

// retryNow resumes the store's run and executes it as a job does.
func (b fixture) retryNow(t *testing.T, p authz.Principal, store stoa.StoreID) Run {
	t.Helper()
	run, err := b.Retry(t.Context(), p, store)
	testkit.Must(t, err)
	testkit.Must(t, b.Provision(t.Context(), job(run)))
	run, err = b.Latest(t.Context(), p, store)
	testkit.Must(t, err)
	return run
}

// TestRunIsNotResumedAfterTwoCrashes checks that a run whose process has crashed twice is
// not resumed a third time, since it may be the cause of the crashes.
func TestRunIsNotResumedAfterTwoCrashes(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for name, first := range map[string]func(*testing.T, fixture, stoa.StoreID, authz.Principal) Run{
			"of a job": func(t *testing.T, b fixture, store stoa.StoreID, p authz.Principal) Run {
				t.Helper()
				run, err := b.Connect(t.Context(), p, store, managedCredentials)
				testkit.Must(t, err)
				w, err := b.Service.begin(t.Context(), job(run))
				testkit.Must(t, err)
				b.crash(t, w)
				return run
			},
			"in the process that was asked": func(t *testing.T, b fixture, store stoa.StoreID, _ authz.Principal) (run Run) {
				t.Helper()
				testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) (err error) {
					if err = b.registry.BeginProvisioning(t.Context(), tx, store); err != nil {
						return err
					}
					if err = b.tenants.Save(t.Context(), tx, store, credential.ManagedSQLite(store)); err != nil {
						return err
					}
					run, err = b.insertRun(t.Context(), tx, store, false, "dead.1")
					return err
				}))
				b.expireLease(t, run.ID)
				return run
			},
		} {
			t.Run(name, func(t *testing.T) {
				b := setup(t, db)
				p, s := b.store(t)
				run := first(t, b, s.ID, p)
				if n, err := b.Recovery().Reconcile(t.Context()); n != 1 && name != "of a job" || err != nil {
					t.Fatalf("%d runs are taken up again, %v", n, err)
				}
				w, err := b.Service.begin(t.Context(), job(run))
				testkit.Must(t, err)
				if n := b.starts(t, run); n != 2 {
					t.Errorf("%d starts are counted, want 2", n)
				}
				b.crash(t, w)
				b.resumable(t, p, run)
				testkit.Must(t, b.Provision(t.Context(), job(run)))
				b.crashed(t, p, run, "connect")
			})
		}
	})
}

// TestProgressForgivesACrash checks that a run whose process crashed once, or that
// finished a step between two crashes, is resumed.
func TestProgressForgivesACrash(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		for i := range 4 {
			w, err := b.Service.begin(t.Context(), job(run))
			testkit.Must(t, err)
			w.doStep(t, i)
			b.crash(t, w)
		}
		for range maxCrashes - 1 { // the last of the first four executions is the first of these
			w, err := b.Service.begin(t.Context(), job(run))
			testkit.Must(t, err)
			b.crash(t, w)
		}
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		b.crashed(t, p, run, steps[4].name)
	})
}

// TestHandOverIsNoCrash checks that a run that is handed over does not count as a crash.
func TestHandOverIsNoCrash(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		for range 2 * maxCrashes {
			w, err := b.Service.begin(t.Context(), job(run))
			testkit.Must(t, err)
			if _, err := b.Service.begin(t.Context(), job(run)); !errors.Is(err, lease.ErrLost) {
				t.Fatalf("a claimed run is claimed: %v", err)
			}
			w.close()
			w.handOver(t.Context())
			if n := b.starts(t, run); n != 0 {
				t.Fatalf("%d starts are counted after a release", n)
			}
		}
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
	})
}

// TestRetryForgetsCrashes checks that the next attempt of a run does not count the
// crashes of the previous one.
func TestRetryForgetsCrashes(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
		testkit.Must(t, err)
		for range maxCrashes {
			w, err := b.Service.begin(t.Context(), job(run))
			testkit.Must(t, err)
			b.crash(t, w)
		}
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Retry(t.Context(), p, s.ID)
		testkit.Must(t, err)
		w, err := b.Service.begin(t.Context(), job(run))
		testkit.Must(t, err)
		b.crash(t, w)
		if status := b.status(t, s.ID); status != stores.Provisioning {
			t.Errorf("the store is %s", status)
		}
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
	})
}
