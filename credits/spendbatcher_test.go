package credits_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
)

// lock keeps the store's account locked until the returned function is called.
func (b bench) lock(t *testing.T) (unlock func()) {
	t.Helper()
	locked, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- b.db.Tx(context.Background(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(context.Background(), `UPDATE credit_balances SET updated_at = updated_at WHERE store_id = $1`, b.store)
			close(locked)
			<-release
			return err
		})
	}()
	<-locked
	return func() {
		close(release)
		must(t, <-ended)
	}
}

// A caller that gives up while its call waits takes it back: nothing is spent.
// One whose call is under way gets its error, and a retry with the same key
// finds out what came of it.
func TestCancelledSpends(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.give(t, 100*credits.Credit)
		unlock := b.lock(t)
		underWay := make(chan error, 1)
		underWayCtx, cancelUnderWay := context.WithCancel(t.Context())
		go func() {
			_, err := b.spend(underWayCtx, credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "under way"})
			underWay <- err
		}()
		eventually(t, "the first call is under way", func() bool { return credits.SpendInProgress(b.ledger, b.store) })
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan []error, 1)
		go func() {
			waiting <- concurrently(10, func(int) error {
				_, err := b.spend(ctx, credits.SpendRequest{Amount: credits.Credit})
				return err
			})
		}()
		eventually(t, "ten calls wait", func() bool { return credits.WaitingSpends(b.ledger, b.store) == 10 })
		cancel()
		for _, err := range <-waiting {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a caller that gave up got %v", err)
			}
		}
		cancelUnderWay()
		if err := <-underWay; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller under way got %v", err)
		}
		unlock()
		_, err := b.spend(t.Context(), credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "under way"})
		must(t, err)
		if got := b.balance(t); got.Balance != 99*credits.Credit {
			t.Errorf("balance %s, want 99: one call of eleven was carried out, once", got.Balance)
		}
		eventually(t, "nothing is kept", func() bool { return credits.SpendQueues(b.ledger) == 0 })
	})
}

// A caller whose context has ended changes nothing.
func TestSpendAfterTheEnd(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.give(t, credits.Credit)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			if _, err := b.spend(ctx, credits.SpendRequest{Amount: 1}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if got := b.balance(t).Balance; got != credits.Credit {
			t.Errorf("balance %s, want 1", got)
		}
	})
}

// A store whose account is locked, with a crowd waiting for it, does not
// delay the others. On SQLite there is one writer for all.
func TestHotStoreDelaysNoOther(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			return
		}
		hot, cold := setup(t, db), setup(t, db)
		cold.ledger = hot.ledger
		hot.give(t, 1000*credits.Credit)
		cold.give(t, 1000*credits.Credit)
		unlock := hot.lock(t)
		crowd := make(chan []error, 1)
		go func() {
			crowd <- concurrently(300, func(int) error {
				_, err := hot.spend(t.Context(), credits.SpendRequest{Amount: credits.Credit})
				return err
			})
		}()
		eventually(t, "a crowd waits", func() bool { return credits.WaitingSpends(hot.ledger, hot.store) > 200 })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for range 50 {
			_, err := cold.spend(ctx, credits.SpendRequest{Amount: credits.Credit})
			must(t, err)
		}
		unlock()
		must(t, errors.Join(<-crowd...))
		if got := hot.balance(t).Balance; got != 700*credits.Credit {
			t.Errorf("balance %s, want 700", got)
		}
	})
}

// Every caller of a batch gets its own answer: who comes first is served,
// who cannot be is told so, and who may not learns that the store is none.
func TestEveryCallerGetsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, stranger := setup(t, db), setup(t, db).owner
		viewer := b.member(t, access.Viewer)
		b.give(t, 60*credits.Credit)
		_, err := b.spend(t.Context(), credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "old"})
		must(t, err)
		unlock := b.lock(t) // so that they all meet in one batch
		var answers [6]map[stoa.Code]*atomic.Int64
		for i := range answers {
			answers[i] = map[stoa.Code]*atomic.Int64{}
			for _, code := range []stoa.Code{"", stoa.InsufficientCredits, stoa.IdempotencyConflict, stoa.Forbidden, stoa.StoreNotFound, stoa.InvalidRequest, stoa.Internal} {
				answers[i][code] = &atomic.Int64{}
			}
		}
		call := func(kind, i int) {
			p, req := b.owner, credits.SpendRequest{Amount: credits.Credit}
			switch kind {
			case 0: // 40 of these are served, or fewer if others come first
				req.IdempotencyKey = fmt.Sprint("new", i)
			case 1:
				req.IdempotencyKey = "old"
			case 2:
				req.IdempotencyKey, req.Amount = "old", 2*credits.Credit
			case 3:
				p = viewer
			case 4:
				p = stranger
			case 5:
				req = credits.SpendRequest{ServiceKey: "nothing"}
			}
			_, err := b.ledger.Spend(t.Context(), p, b.store, req)
			answers[kind][stoa.CodeOf(err)].Add(1)
		}
		all := make(chan []error, 1)
		const each = 80
		go func() { all <- concurrently(6*each, func(i int) error { call(i%6, i); return nil }) }()
		eventually(t, "a crowd waits", func() bool { return credits.WaitingSpends(b.ledger, b.store) > 200 })
		unlock()
		<-all
		for kind, want := range []map[stoa.Code]int64{
			{"": 59, stoa.InsufficientCredits: each - 59}, {"": each}, {stoa.IdempotencyConflict: each},
			{stoa.Forbidden: each}, {stoa.StoreNotFound: each}, {stoa.InvalidRequest: each},
		} {
			for code, n := range want {
				if got := answers[kind][code].Load(); got != n {
					t.Errorf("kind %d: %d answers %q, want %d", kind, got, code, n)
				}
			}
		}
		if got := b.balance(t); got.Balance != 0 || got.Seq != 61 {
			t.Errorf("%+v", got)
		}
		b.checkInvariants(t)
	})
}

// The one statement answers for those accounts of a batch for which it can,
// and leaves the others as they are.
func TestOneStatementForMany(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			return // it goes the locked way always
		}
		stores := map[string]bench{}
		for _, name := range []string{"rich", "keyed", "service", "poor", "reserved", "viewer", "stranger", "used", "lots", "locked", "unknown service"} {
			b := setup(t, db)
			b.give(t, 10*credits.Credit)
			stores[name] = b
		}
		requests, users := map[stoa.StoreID]credits.SpendRequest{}, map[stoa.StoreID]access.Principal{}
		for _, b := range stores {
			requests[b.store], users[b.store] = credits.SpendRequest{Amount: 2 * credits.Credit}, b.owner
		}
		request := func(name string, req credits.SpendRequest) { requests[stores[name].store] = req }
		request("keyed", credits.SpendRequest{Amount: 2 * credits.Credit, Description: "d", IdempotencyKey: "k"})
		request("service", credits.SpendRequest{ServiceKey: "product_translation"})
		request("poor", credits.SpendRequest{Amount: 2*credits.Credit + 5_001})
		request("unknown service", credits.SpendRequest{ServiceKey: "none"})
		stores["reserved"].hold(t, credits.SpendRequest{Amount: 5 * credits.Credit})
		users[stores["viewer"].store] = stores["viewer"].member(t, access.Viewer)
		users[stores["stranger"].store] = stores["rich"].owner
		request("used", credits.SpendRequest{Amount: 1, IdempotencyKey: "k#1"})
		_, err := stores["used"].spend(t.Context(), credits.SpendRequest{Amount: 1, IdempotencyKey: "k#1#1"})
		must(t, err)
		_, err = stores["lots"].grant(t.Context(), credits.Grant{Type: credits.TypeBonus, Amount: credits.Credit, Priority: 1, IdempotencyKey: "lot"})
		must(t, err)
		unlock := stores["locked"].lock(t)
		before := map[string]string{}
		for name, b := range stores {
			before[name] = b.dump(t)
		}
		const each = 4
		calls := map[stoa.StoreID][]credits.Call{}
		for store, req := range requests {
			calls[store] = credits.Repeated(each, users[store], req)
		}
		got := credits.SpendByStatement(t.Context(), stores["rich"].ledger, calls)
		for name, b := range stores {
			answers, served := got[b.store]
			if want := name == "rich" || name == "keyed" || name == "service"; served != want {
				t.Errorf("%s: answered %t, want %t", name, served, want)
			}
			if !served {
				if after := b.dump(t); after != before[name] {
					t.Errorf("%s: changed\n%s\nto\n%s", name, before[name], after)
				}
				continue
			}
			rows := b.rows(t)
			for i, outcome := range answers {
				s := outcome.Result
				if d := cmp.Diff(rows[1+i], s.Transaction); d != "" || s.Balance.Balance != s.Transaction.BalanceAfter || s.Balance.Seq != s.Transaction.Sequence {
					t.Errorf("%s, call %d: %s, %+v", name, i, d, s.Balance)
				}
			}
			if len(rows) != 1+each {
				t.Errorf("%s: %d rows", name, len(rows))
			}
			last, now := answers[each-1].Result.Balance, b.balance(t)
			if d := cmp.Diff(now, last); d != "" {
				t.Errorf("%s: the last answer is not the account: %s", name, d)
			}
			b.checkInvariants(t)
		}
		unlock()
	})
}

// Two processes spend on many accounts at random, also with keys that meet:
// nothing deadlocks, and what was answered is what is recorded.
func TestTwoProcessesOverManyStores(t *testing.T) {
	t.Parallel()
	eachTwice(t, func(t *testing.T, first bench, ledgers [2]*credits.Ledger) {
		stores := []bench{first}
		for range 9 {
			stores = append(stores, setup(t, first.db))
		}
		for _, b := range stores {
			b.give(t, 1000*credits.Credit)
		}
		var spent atomic.Int64
		must(t, errors.Join(concurrently(32, func(i int) error {
			for n := range 20 {
				b := stores[rand.IntN(len(stores))]
				req := credits.SpendRequest{Amount: credits.Credit}
				if n%4 == 0 {
					req.IdempotencyKey = fmt.Sprint(n) // the same from everyone
				}
				before := b
				before.ledger = ledgers[i%2]
				got, err := before.spend(t.Context(), req)
				if err != nil {
					return err
				}
				if req.IdempotencyKey == "" {
					spent.Add(1)
				} else if *got.Transaction.UserID != b.owner.UserID {
					return errors.New("another store's transaction")
				}
			}
			return nil
		})...))
		var rows, keyed int64
		for _, b := range stores {
			b.checkInvariants(t)
			rows += b.balance(t).Seq - 1
		}
		must(t, first.db.Get(t.Context(), &keyed, `SELECT count(*) FROM credit_transactions WHERE idempotency_key LIKE 'spend:%'`))
		if rows != spent.Load()+keyed {
			t.Errorf("%d spends are recorded, %d were answered and %d have a key", rows, spent.Load(), keyed)
		}
	})
}

// An account with lots goes the locked way, in the
// same batch as accounts that do not.
func TestSpendOnLots(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, plain := setup(t, db), setup(t, db)
		plain.ledger = b.ledger
		plain.give(t, 100*credits.Credit)
		later := time.Now().UTC().Add(time.Hour)
		for i, g := range []credits.Grant{{Priority: 1}, {}, {ExpiresAt: ptr(later.Add(time.Hour))}, {ExpiresAt: &later}, {Priority: -1}} {
			g.Type, g.Amount, g.IdempotencyKey = credits.TypeBonus, 10*credits.Credit, fmt.Sprint("grant:", i)
			_, err := b.grant(t.Context(), g)
			must(t, err)
		}
		if soon := b.balance(t).ExpiresSoon; soon == nil || soon.Amount != 20*credits.Credit || !soon.Next.Equal(later.Truncate(time.Microsecond)) {
			t.Errorf("expires soon: %+v, want 20 from %s on", soon, later)
		}
		left := func() (out [4]credits.Amount) { // of the lots, by sequence: transactions 1, 3, 4 and 5
			var rows []credits.Amount
			must(t, db.Select(t.Context(), &rows, `SELECT remaining FROM credit_lots WHERE store_id = $1 ORDER BY seq`, b.store))
			copy(out[:], rows)
			return out
		}
		const c = credits.Credit
		for _, want := range [][4]credits.Amount{ // what is left after 12 more
			{10 * c, 10 * c, 8 * c, 0}, {10 * c, 6 * c, 0, 0}, {10 * c, 0, 0, 0}, {2 * c, 0, 0, 0},
		} {
			must(t, errors.Join(concurrently(24, func(i int) error {
				who := b
				if i%2 == 0 {
					who = plain
				}
				_, err := who.spend(t.Context(), credits.SpendRequest{Amount: c})
				return err
			})...))
			if got := left(); got != want {
				t.Fatalf("left %v, want %v", got, want)
			}
		}
	})
}

// eventually polls until done, for 20 seconds at most.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

// A key is found by its index, on a table of any size.
func TestKeysAreFoundByIndex(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			explain, prepare := `EXPLAIN QUERY PLAN `, `SELECT 1`
			if tx.Postgres() != nil {
				explain, prepare = `EXPLAIN `, `SET LOCAL enable_seqscan = off`
			}
			if _, err := tx.Exec(t.Context(), prepare); err != nil {
				return err
			}
			var plan []map[string]any
			err := tx.Select(t.Context(), &plan, explain+`SELECT 1 FROM credit_transactions WHERE store_id = $1 AND idempotency_key = $2`, b.store, "k")
			if text := fmt.Sprint(plan); !strings.Contains(text, "credit_transactions_key") {
				t.Errorf("the plan is %s", text)
			}
			return err
		}))
	})
}

// The one statement finds its rows by their indexes among a thousand others,
// where a planner would rather read whole tables.
func TestOneStatementReadsNoWholeTable(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			return // it goes the locked way always
		}
		b := setup(t, db)
		for _, fill := range []string{
			`INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
				SELECT gen_random_uuid(), 's' || n, 'A store', 'active', $1, now(), now() FROM generate_series(1, 1000) n`,
			`INSERT INTO store_members (store_id, user_id, role, created_at)
				SELECT id, $1, 'owner', now() FROM stores ON CONFLICT DO NOTHING`,
			`INSERT INTO credit_balances (store_id, balance, updated_at)
				SELECT store_id, 1000, now() FROM store_members WHERE user_id = $1 ON CONFLICT DO NOTHING`,
		} {
			b.exec(t, fill, b.owner.UserID)
		}
		b.exec(t, `ANALYZE`)
		var stores []stoa.StoreID
		must(t, db.Select(t.Context(), &stores, `SELECT store_id FROM credit_balances ORDER BY store_id LIMIT 50`))
		plan, err := credits.Plan(t.Context(), b.ledger, stores, b.owner)
		must(t, err)
		if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan") || !strings.Contains(text, "credit_balances_pkey") {
			t.Error(text)
		}
	})
}
