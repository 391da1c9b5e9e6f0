package fleet_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/riverqueue/river"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestJob checks that a new release queues one job for any number of replicas, and that
// the job migrates the stores that lag. While migrations are paused it does nothing.
func TestJob(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		list := b.stores(t, 2)
		held, s := b.release(t, fleet.Options{Paused: true}), b.release(t, fleet.Options{})
		jobs.Handle(b.queue, fleet.Timeout, s.Run)
		queued := func() (n int) {
			t.Helper()
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM river_job WHERE kind = 'fleet.migrations'`))
			return n
		}
		testkit.Must(t, held.Start(t.Context(), b.queue))
		if n := queued(); n != 0 {
			t.Errorf("%d jobs although held back", n)
		}
		for range 3 {
			testkit.Must(t, s.Start(t.Context(), b.queue))
		}
		if n := queued(); n != 1 {
			t.Errorf("%d jobs for three replicas", n)
		}
		var snooze *river.JobSnoozeError
		for name, err := range map[string]error{
			"held back":             held.Run(t.Context(), s.Job()),
			"of a newer release":    s.Run(t.Context(), fleet.Migrations{Schema: tenantdb.LatestVersion() + 1}),
			"with newer migrations": s.Run(t.Context(), fleet.Migrations{Own: 2}),
		} {
			if !errors.As(err, &snooze) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if b.hasNotes(t, list[0]) {
			t.Error("migrated although held back")
		}
		testkit.Must(t, b.queue.Start(t.Context()))
		defer b.queue.Stop(t.Context()) //nolint:errcheck // no job is in progress
		testkit.Eventually(t, time.Minute, "both stores are migrated", func() bool { return b.hasNotes(t, list[0]) && b.hasNotes(t, list[1]) })
	})
}

// TestJobLeavesFailedStoresForAWhile checks that the job retries a store that failed
// after a pause, and an operator's run at once.
func TestJobLeavesFailedStoresForAWhile(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	list := b.stores(t, 2)
	repair := b.usurp(t, list[0])
	s := b.release(t, fleet.Options{})
	migrate(t, s, fleet.MigrateOptions{MaxFailures: many})
	repair()
	testkit.Must(t, s.Run(t.Context(), s.Job()))
	if b.hasNotes(t, list[0]) {
		t.Error("tried again at once")
	}
	b.exec(t, `UPDATE store_databases SET migrated_at = $1`, time.Now().UTC().Add(-6*time.Minute))
	testkit.Must(t, s.Run(t.Context(), s.Job()))
	if !b.hasNotes(t, list[0]) {
		t.Error("never tried again")
	}
}

// TestUnreadableStores checks that a store whose schema is too old for this binary is
// refused until it is migrated. A replica that has it open then opens it again.
func TestUnreadableStores(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		st := b.store(t, credential.SQLite)
		m := b.manager(t, b.ownDir) // the manager of a replica that serves requests
		lease, err := m.Acquire(t.Context(), st.ID)
		testkit.Must(t, err)
		lease.Release()
		m.Forget(st.ID)
		b.exec(t, `UPDATE store_databases SET schema_version = $1`, tenantdb.OldestReadable-1)
		_, err = m.Acquire(t.Context(), st.ID)
		var refused *stoa.Error
		if !errors.As(err, &refused) || refused.Code != stoa.TenantUnavailable || refused.RetryAfter <= 0 {
			t.Fatalf("%v", err)
		}
		sum, _ := migrate(t, b.release(t, fleet.Options{}), fleet.MigrateOptions{})
		if !sum.OK() {
			t.Fatalf("%+v", sum)
		}
		lease, err = m.Acquire(t.Context(), st.ID)
		testkit.Must(t, err)
		lease.Release()

		b.write(t, "00002_more.sql", `CREATE TABLE more (n integer)`)
		migrate(t, b.release(t, fleet.Options{}), fleet.MigrateOptions{})
		if m.Open() != 0 {
			t.Error("a store with a new schema is still open as it was")
		}
	})
}

// TestCheck checks that drift is reported per store, and only where it exists.
func TestCheck(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	s := fleet.New(b.db, b.old, nil, fleet.Options{})
	want := map[string]string{}
	for _, engine := range tenantdbtest.Engines() {
		want[b.store(t, engine).Slug] = ""
		drifted := b.store(t, engine)
		b.tenant(t, drifted, `DROP TABLE credit_spending_log`)
		want[drifted.Slug] = "table credit_spending_log is missing"
	}
	foreign, lagging := b.store(t, credential.SQLite), b.store(t, credential.SQLite)
	b.usurp(t, foreign)
	want[foreign.Slug] = string(stoa.DatabaseNotEmpty)
	b.exec(t, `UPDATE store_databases SET schema_version = 3 WHERE store_id = $1`, lagging.ID)
	want[lagging.Slug] = "lagging"
	check := func(only ...stoa.StoreID) map[string]string {
		got := map[string]string{}
		testkit.Must(t, s.Check(t.Context(), only, 3, func(c fleet.Checked) {
			got[c.Store.Slug] = string(c.Code) + strings.Join(c.Drift, "; ")
			if c.Lagging {
				got[c.Store.Slug] = "lagging"
			}
		}))
		return got
	}
	if diff := cmp.Diff(want, check()); diff != "" {
		t.Error(diff)
	}
	if got := check(foreign.ID); len(got) != 1 {
		t.Errorf("asked for one, got %v", got)
	}
}
