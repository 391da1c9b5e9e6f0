package stores

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/riverqueue/river/rivertype"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/feed"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// follow makes a replica copy changes, as 'stoa serve' does.
func (b replica) follow(t *testing.T) *feed.Feed {
	t.Helper()
	changes := feed.New(b.db, b.ledger, b.queue, b.log)
	b.FollowCredits(changes)
	jobs.Handle(b.queue, SyncCreditsTimeout, b.SyncCredits)
	jobs.Handle(b.queue, time.Minute, changes.Sweep)
	b.start(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { changes.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return changes
}

// migrated records a schema version in the master, which connect does not do.
func (b replica) migrated(t *testing.T, id stoa.StoreID, version int64) {
	t.Helper()
	b.exec(t, `UPDATE store_databases SET schema_version = $2 WHERE store_id = $1`, id, version)
}

func (b replica) give(t *testing.T, id stoa.StoreID, amount credits.Amount) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := b.ledger.Grant(t.Context(), tx, id, credits.Grant{
			Type: credits.TypeBonus, Amount: amount, IdempotencyKey: stoa.NewID[stoa.TransactionID]().String(),
		})
		return err
	}))
}

func (b replica) spend(t *testing.T, p authz.Principal, id stoa.StoreID) {
	t.Helper()
	if _, err := b.ledger.Spend(t.Context(), p, id, credits.SpendRequest{Amount: 1, Description: "Käse ☕"}); err != nil {
		t.Error(err)
	}
}

// spendMany spends n times concurrently.
func (b replica) spendMany(t *testing.T, p authz.Principal, id stoa.StoreID, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { b.spend(t, p, id) })
	}
	wg.Wait()
}

// copied is the copy of a store's credits in its own database.
type copied struct {
	Balance  credits.Amount `db:"balance"`
	Reserved credits.Amount `db:"reserved"`
	Seq      int64          `db:"seq"`
	log      []logRow
}

type logRow struct {
	ID     stoa.TransactionID `db:"id"`
	Seq    int64              `db:"seq"`
	Amount credits.Amount     `db:"amount"`
	After  credits.Amount     `db:"balance_after"`
}

// cached reads the copied balance directly. It is zero if there is none.
func cached(t *testing.T, db *tenantdb.DB) copied {
	t.Helper()
	c, err := readCached(t, db)
	testkit.Must(t, err)
	return c
}

func readCached(t *testing.T, db *tenantdb.DB) (c copied, err error) {
	t.Helper()
	err = db.Get(t.Context(), &c, `SELECT balance, reserved, seq FROM credit_balance_cache`)
	if errors.Is(err, tenantdb.ErrNotFound) {
		err = nil
	}
	return c, err
}

// converge waits until the copies equal the ledger in every row.
func (b replica) converge(t *testing.T, id stoa.StoreID) (got copied) {
	t.Helper()
	testkit.Eventually(t, testkit.Timeout, "the copies are those of the ledger", func() bool {
		want, err := b.ledger.ReadBalance(t.Context(), b.db, id)
		testkit.Must(t, err)
		lease, err := b.tenants.Acquire(t.Context(), id)
		if err != nil {
			return false
		}
		defer lease.Release()
		// A connection from before an outage may be detected as broken only now.
		if got, err = readCached(t, lease.DB); stoa.CodeOf(err) == stoa.TenantUnavailable {
			return false
		}
		testkit.Must(t, err)
		if got.Balance != want.Balance || got.Reserved != want.Reserved || got.Seq != want.Seq {
			return false
		}
		testkit.Must(t, lease.Select(t.Context(), &got.log, `SELECT id, seq, amount, balance_after FROM credit_spending_log ORDER BY seq`))
		return true
	})
	_, spent, err := b.ledger.ReadAccount(t.Context(), id, 0, 100_000)
	testkit.Must(t, err)
	var want []logRow
	for _, s := range spent {
		want = append(want, logRow{s.ID, s.Sequence, s.Amount, s.BalanceAfter})
	}
	if diff := cmp.Diff(want, got.log); diff != "" {
		t.Fatal(diff)
	}
	return got
}

// TestCreditsAreCopied copies a thousand spends, in more than one step, and holds.
func TestCreditsAreCopied(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s, _ := b.open(t, p, engine, "Bakery")
		b.migrated(t, s.ID, syncMinSchema)
		b.follow(t)
		b.give(t, s.ID, 5000)
		b.spendMany(t, p, s.ID, 1000)
		if got := b.converge(t, s.ID); len(got.log) != 1000 || got.Balance != 4000 {
			t.Errorf("%d rows, balance %s", len(got.log), got.Balance)
		}
		held, err := b.ledger.Hold(t.Context(), p, s.ID, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: 9}})
		testkit.Must(t, err)
		if got := b.converge(t, s.ID); got.Reserved != 9 {
			t.Errorf("%s reserved", got.Reserved)
		}
		_, err = b.ledger.Capture(t.Context(), p, s.ID, held.Hold.ID, credits.CaptureRequest{})
		testkit.Must(t, err)
		if got := b.converge(t, s.ID); len(got.log) != 1001 || got.Balance != 3991 {
			t.Errorf("%d rows, balance %s", len(got.log), got.Balance)
		}
		var version, want int64
		testkit.Eventually(t, testkit.Timeout, "the master knows", func() bool {
			testkit.Must(t, b.db.Get(t.Context(), &version, `SELECT version FROM credit_copies WHERE store_id = $1`, s.ID))
			testkit.Must(t, b.db.Get(t.Context(), &want, `SELECT version FROM credit_balances WHERE store_id = $1`, s.ID))
			return version == want
		})
	})
}

// TestCopiesNeedNoJob checks that the copies of a database that answers are made without jobs,
// also after a job has ended an outage.
func TestCopiesNeedNoJob(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		b.migrated(t, s.ID, syncMinSchema)
		b.follow(t)
		b.give(t, s.ID, 5000)
		b.converge(t, s.ID)
		b.spendMany(t, p, s.ID, 20)
		if got := b.converge(t, s.ID); len(got.log) != 20 {
			t.Errorf("%d rows", len(got.log))
		}
		if n := b.count(t, `river_job WHERE kind = 'stores.copy_credits'`); n != 0 {
			t.Errorf("%d jobs", n)
		}
		b.exec(t, `UPDATE credit_copies SET failures = 1 WHERE store_id = $1`, s.ID)
		b.spend(t, p, s.ID)
		b.converge(t, s.ID)
		testkit.Eventually(t, testkit.Timeout, "the outage is forgotten", func() bool { return b.count(t, `credit_copies WHERE failures > 0`) == 0 })
		b.spend(t, p, s.ID)
		b.converge(t, s.ID)
		if n := b.count(t, `river_job WHERE kind = 'stores.copy_credits'`); n != 1 {
			t.Errorf("%d jobs, want one: that of the outage", n)
		}
	})
}

// TestCopiesOutliveAnOutage checks that spends and the copies of other stores continue
// while the store's database is unreachable, and that all changes are copied in order
// afterwards.
func TestCopiesOutliveAnOutage(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s, tn := b.open(t, p, engine, "Bakery")
		healthy, _ := b.open(t, p, credential.SQLite, "Dairy")
		for _, id := range []stoa.StoreID{s.ID, healthy.ID} {
			b.migrated(t, id, syncMinSchema)
			b.give(t, id, 5000)
		}
		b.follow(t)
		b.spendMany(t, p, s.ID, 40)
		b.converge(t, s.ID)
		if engine == credential.SQLite {
			b.tenants.Forget(s.ID) // its file can only be moved while no pool is open
			testkit.Eventually(t, testkit.Timeout, "the file is free", func() bool { return !b.fileInUse(t, s.ID) })
		}
		tn.down()
		b.spendMany(t, p, s.ID, 600)
		testkit.Eventually(t, testkit.Timeout, "a copy has failed", func() bool { return b.count(t, `credit_copies WHERE failures > 0`) == 1 })
		b.spendMany(t, p, healthy.ID, 20)
		b.converge(t, healthy.ID)
		b.spendMany(t, p, s.ID, 20)
		if n := b.count(t, `river_job WHERE kind = 'stores.copy_credits' AND CAST(state AS text) NOT IN ('completed', 'cancelled', 'discarded')`); n > 2 {
			t.Errorf("%d jobs are open for two stores", n)
		}
		tn.up()
		if got := b.converge(t, s.ID); len(got.log) != 660 {
			t.Errorf("%d rows", len(got.log))
		}
		testkit.Eventually(t, testkit.Timeout, "the outage is forgotten", func() bool { return b.count(t, `credit_copies WHERE failures > 0`) == 0 })
	})
}

// TestCopiersAtOnce runs two replicas and duplicate jobs. It checks that the visible
// copies never go back, and that they end equal to the ledger.
func TestCopiersAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for _, engine := range tenantdbtest.Engines() {
			if engine == credential.SQLite {
				continue // only one process can use its file
			}
			t.Run(string(engine), func(t *testing.T) {
				b := setup(t, db)
				p := b.user(t)
				s, tn := b.open(t, p, engine, "Bakery")
				b.migrated(t, s.ID, syncMinSchema)
				other := setup(t, db)
				other.tenants = b.tenants // the same connection manager, with the keys to the same databases
				b.follow(t)
				other.follow(t)
				b.give(t, s.ID, 5000)
				watch := tenantdbtest.Open(t, tn.Credentials)
				var background sync.WaitGroup
				var seen atomic.Int64
				for i := range 10 {
					for range 3 {
						background.Go(func() {
							err := b.SyncCredits(t.Context(), SyncCredits{StoreID: s.ID})
							var later *rivertype.JobSnoozeError // the database has no free connection; converge checks that the copy is made
							if err != nil && !errors.As(err, &later) {
								t.Error(err)
							}
							before := seen.Load()
							now := cached(t, watch).Seq
							if now < before {
								t.Errorf("the copy went from %d back to %d", before, now)
							}
							seen.Store(max(now, seen.Load()))
						})
					}
					[]replica{b, other}[i%2].spendMany(t, p, s.ID, 60)
				}
				background.Wait()
				if got := b.converge(t, s.ID); len(got.log) != 600 {
					t.Errorf("%d rows", len(got.log))
				}
			})
		}
	})
}

// TestCopiesWait checks that the copies wait for a database, for its schema, and for the
// change of a process that was killed before it could notify.
func TestCopiesWait(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		silent := credits.New(db) // its changes are not followed
		changes := b.follow(t)
		sweep := func() {
			t.Helper()
			testkit.Must(t, changes.Sweep(t.Context(), feed.Sweep{}))
			b.settle(t)
		}
		b.give(t, s.ID, 100)
		spend := func() {
			t.Helper()
			_, err := silent.Spend(t.Context(), p, s.ID, credits.SpendRequest{Amount: 1})
			testkit.Must(t, err)
		}
		spend()
		sweep()
		if n := b.count(t, `river_job WHERE kind = 'stores.copy_credits'`); n != 0 {
			t.Fatalf("%d jobs for a store without a database", n)
		}
		testkit.Must(t, b.SyncCredits(t.Context(), SyncCredits{StoreID: s.ID})) // an explicit job does nothing either
		b.connect(t, s, b.tenant(t, credential.SQLite, s.ID).Credentials)
		b.migrated(t, s.ID, syncMinSchema-1)
		sweep()
		testkit.Must(t, b.SyncCredits(t.Context(), SyncCredits{StoreID: s.ID}))
		if n := b.count(t, `credit_copies`); n != 0 {
			t.Fatalf("a store of an older schema was copied to")
		}
		b.migrated(t, s.ID, syncMinSchema)
		spend()
		sweep()
		if got := b.converge(t, s.ID); len(got.log) != 2 || got.Seq != 3 {
			t.Errorf("%+v", got)
		}
		jobsBefore := b.count(t, `river_job WHERE kind = 'stores.copy_credits'`)
		sweep()
		if n := b.count(t, `river_job WHERE kind = 'stores.copy_credits'`); n != jobsBefore {
			t.Error("a sweep found work where there was none")
		}
		b.setStatus(t, s.ID, Deleting)
		spend()
		sweep()
		if n := b.count(t, `river_job WHERE kind = 'stores.copy_credits'`); n != jobsBefore {
			t.Error("a sweep found work for a store that is being deleted")
		}
		testkit.Must(t, b.SyncCredits(t.Context(), SyncCredits{StoreID: s.ID}))
		lease, err := b.tenants.Acquire(t.Context(), s.ID)
		testkit.Must(t, err)
		defer lease.Release()
		if got := cached(t, lease.DB); got.Seq != 3 {
			t.Errorf("a store that is being deleted was copied to: %+v", got)
		}
	})
}

// TestBrokenTablesAffectNoOtherStore checks that the job waits until a merchant has repaired the
// tables, and that nothing else is affected.
func TestBrokenTablesAffectNoOtherStore(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s, _ := b.open(t, p, engine, "Bakery")
		b.migrated(t, s.ID, syncMinSchema)
		b.follow(t)
		b.give(t, s.ID, 100)
		b.converge(t, s.ID)
		lease, err := b.tenants.Acquire(t.Context(), s.ID)
		testkit.Must(t, err)
		defer lease.Release()
		exec := func(statement string) {
			t.Helper()
			_, err := lease.Exec(t.Context(), statement)
			testkit.Must(t, err)
		}
		exec(`ALTER TABLE credit_spending_log RENAME TO taken_away`)
		b.spend(t, p, s.ID)
		testkit.Eventually(t, testkit.Timeout, "a copy has failed", func() bool { return b.count(t, `credit_copies WHERE failures > 0`) == 1 })
		var balance credits.Amount
		testkit.Must(t, lease.Get(t.Context(), &balance, `SELECT balance FROM credit_balance_cache`))
		if balance != 100 {
			t.Errorf("balance %s without its log", balance)
		}
		exec(`ALTER TABLE taken_away RENAME TO credit_spending_log`)
		if got := b.converge(t, s.ID); !slices.ContainsFunc(got.log, func(r logRow) bool { return r.Seq == 2 }) {
			t.Errorf("%+v", got)
		}
	})
}
