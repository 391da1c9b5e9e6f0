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
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// lockAccount keeps the store's account locked until the returned function is called.
func lockAccount(t *testing.T, b creditstest.Account) (unlock func()) {
	t.Helper()
	locked, release, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- b.DB.Tx(context.Background(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(context.Background(), `UPDATE credit_balances SET updated_at = updated_at WHERE store_id = $1`, b.Store)
			close(locked)
			<-release
			return err
		})
	}()
	<-locked
	return func() {
		close(release)
		testkit.Must(t, <-ended)
	}
}

// TestCancelledSpends checks that a cancelled call that still waits is withdrawn and
// spends nothing. A caller whose call is in progress gets its context's error, and a
// retry with the same key returns the outcome.
func TestCancelledSpends(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 100*credits.Credit)
		unlock := lockAccount(t, b)
		underWay := make(chan error, 1)
		underWayCtx, cancelUnderWay := context.WithCancel(t.Context())
		go func() {
			_, err := b.Spend(underWayCtx, credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "under way"})
			underWay <- err
		}()
		testkit.Eventually(t, testkit.Timeout, "the first call is under way", func() bool { return credits.SpendInProgress(b.Ledger, b.Store) })
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan []error, 1)
		go func() {
			waiting <- concurrently(10, func(int) error {
				_, err := b.Spend(ctx, credits.SpendRequest{Amount: credits.Credit})
				return err
			})
		}()
		testkit.Eventually(t, testkit.Timeout, "ten calls wait", func() bool { return credits.WaitingSpends(b.Ledger, b.Store) == 10 })
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
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "under way"})
		testkit.Must(t, err)
		if got := b.Balance(t); got.Balance != 99*credits.Credit {
			t.Errorf("balance %s, want 99: one call of eleven was carried out, once", got.Balance)
		}
		testkit.Eventually(t, testkit.Timeout, "nothing is kept", func() bool { return credits.SpendQueues(b.Ledger) == 0 })
	})
}

// TestSpendWithEndedContext checks that a call whose context has ended changes nothing.
func TestSpendWithEndedContext(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, credits.Credit)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			if _, err := b.Spend(ctx, credits.SpendRequest{Amount: 1}); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if got := b.Balance(t).Balance; got != credits.Credit {
			t.Errorf("balance %s, want 1", got)
		}
	})
}

// TestBusyStoreDelaysNoOther checks that a store whose account is locked, with many calls
// waiting for it, does not delay the others. SQLite has one writer for all.
func TestBusyStoreDelaysNoOther(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			t.Skip("SQLite has one writer: a locked account delays all others")
		}
		hot, cold := creditstest.New(t, db), creditstest.New(t, db)
		cold.Ledger = hot.Ledger
		hot.Give(t, 1000*credits.Credit)
		cold.Give(t, 1000*credits.Credit)
		unlock := lockAccount(t, hot)
		crowd := make(chan []error, 1)
		go func() {
			crowd <- concurrently(300, func(int) error {
				_, err := hot.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit})
				return err
			})
		}()
		testkit.Eventually(t, testkit.Timeout, "a crowd waits", func() bool { return credits.WaitingSpends(hot.Ledger, hot.Store) > 200 })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for range 50 {
			_, err := cold.Spend(ctx, credits.SpendRequest{Amount: credits.Credit})
			testkit.Must(t, err)
		}
		unlock()
		testkit.Must(t, errors.Join(<-crowd...))
		if got := hot.Balance(t).Balance; got != 700*credits.Credit {
			t.Errorf("balance %s, want 700", got)
		}
	})
}

// TestEachCallGetsItsOwnOutcome checks that every call of a batch gets its own outcome:
// the first calls succeed, those that cannot be paid fail, and callers without permission
// are refused.
func TestEachCallGetsItsOwnOutcome(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, stranger := creditstest.New(t, db), creditstest.New(t, db).Owner
		viewer := b.Member(t, authz.Viewer)
		b.Give(t, 60*credits.Credit)
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "old"})
		testkit.Must(t, err)
		unlock := lockAccount(t, b) // so that all calls are in one batch
		var answers [6]map[stoa.Code]*atomic.Int64
		for i := range answers {
			answers[i] = map[stoa.Code]*atomic.Int64{}
			for _, code := range []stoa.Code{"", stoa.InsufficientCredits, stoa.IdempotencyConflict, stoa.Forbidden, stoa.StoreNotFound, stoa.InvalidRequest, stoa.Internal} {
				answers[i][code] = &atomic.Int64{}
			}
		}
		call := func(kind, i int) {
			p, req := b.Owner, credits.SpendRequest{Amount: credits.Credit}
			switch kind {
			case 0: // 40 of these succeed, or fewer if others come first
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
			_, err := b.Ledger.Spend(t.Context(), p, b.Store, req)
			answers[kind][stoa.CodeOf(err)].Add(1)
		}
		all := make(chan []error, 1)
		const each = 80
		go func() { all <- concurrently(6*each, func(i int) error { call(i%6, i); return nil }) }()
		testkit.Eventually(t, testkit.Timeout, "a crowd waits", func() bool { return credits.WaitingSpends(b.Ledger, b.Store) > 200 })
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
		if got := b.Balance(t); got.Balance != 0 || got.Seq != 61 {
			t.Errorf("%+v", got)
		}
		b.CheckInvariants(t)
	})
}

// TestSpendStatement checks that the spend statement carries out those accounts of a
// batch that it can decide about, and leaves the others unchanged.
func TestSpendStatement(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			t.Skip("SQLite has no spend statement")
		}
		stores := map[string]creditstest.Account{}
		for _, name := range []string{"rich", "keyed", "service", "poor", "reserved", "viewer", "stranger", "used", "lots", "locked", "unknown service"} {
			b := creditstest.New(t, db)
			b.Give(t, 10*credits.Credit)
			stores[name] = b
		}
		requests, users := map[stoa.StoreID]credits.SpendRequest{}, map[stoa.StoreID]authz.Principal{}
		for _, b := range stores {
			requests[b.Store], users[b.Store] = credits.SpendRequest{Amount: 2 * credits.Credit}, b.Owner
		}
		request := func(name string, req credits.SpendRequest) { requests[stores[name].Store] = req }
		request("keyed", credits.SpendRequest{Amount: 2 * credits.Credit, Description: "d", IdempotencyKey: "k"})
		request("service", credits.SpendRequest{ServiceKey: "product_translation"})
		request("poor", credits.SpendRequest{Amount: 2*credits.Credit + 5_001})
		request("unknown service", credits.SpendRequest{ServiceKey: "none"})
		stores["reserved"].Hold(t, credits.SpendRequest{Amount: 5 * credits.Credit})
		users[stores["viewer"].Store] = stores["viewer"].Member(t, authz.Viewer)
		users[stores["stranger"].Store] = stores["rich"].Owner
		request("used", credits.SpendRequest{Amount: 1, IdempotencyKey: "k#1"})
		_, err := stores["used"].Spend(t.Context(), credits.SpendRequest{Amount: 1, IdempotencyKey: "k#1#1"})
		testkit.Must(t, err)
		_, err = stores["lots"].Grant(t.Context(), credits.Grant{Type: credits.TypeBonus, Amount: credits.Credit, Priority: 1, IdempotencyKey: "lot"})
		testkit.Must(t, err)
		unlock := lockAccount(t, stores["locked"])
		before := map[string]string{}
		for name, b := range stores {
			before[name] = b.Dump(t)
		}
		const each = 4
		calls := map[stoa.StoreID][]credits.Call{}
		for store, req := range requests {
			calls[store] = credits.Repeated(each, users[store], req)
		}
		got := credits.SpendByStatement(t.Context(), stores["rich"].Ledger, calls)
		for name, b := range stores {
			answers, served := got[b.Store]
			if want := name == "rich" || name == "keyed" || name == "service"; served != want {
				t.Errorf("%s: answered %t, want %t", name, served, want)
			}
			if !served {
				if after := b.Dump(t); after != before[name] {
					t.Errorf("%s: changed\n%s\nto\n%s", name, before[name], after)
				}
				continue
			}
			rows := b.Rows(t)
			for i, outcome := range answers {
				s := outcome.Result
				if d := cmp.Diff(rows[1+i], s.Transaction); d != "" || s.Balance.Balance != s.Transaction.BalanceAfter || s.Balance.Seq != s.Transaction.Sequence {
					t.Errorf("%s, call %d: %s, %+v", name, i, d, s.Balance)
				}
			}
			if len(rows) != 1+each {
				t.Errorf("%s: %d rows", name, len(rows))
			}
			last, now := answers[each-1].Result.Balance, b.Balance(t)
			if d := cmp.Diff(now, last); d != "" {
				t.Errorf("%s: the last answer is not the account: %s", name, d)
			}
			b.CheckInvariants(t)
		}
		unlock()
	})
}

// TestTwoProcessesOverManyStores checks that two processes that spend from many accounts
// at random, also with the same keys, do not deadlock, and that the outcomes match the
// recorded transactions.
func TestTwoProcessesOverManyStores(t *testing.T) {
	t.Parallel()
	eachTwice(t, func(t *testing.T, first creditstest.Account, ledgers [2]*credits.Ledger) {
		stores := []creditstest.Account{first}
		for range 9 {
			stores = append(stores, creditstest.New(t, first.DB))
		}
		for _, b := range stores {
			b.Give(t, 1000*credits.Credit)
		}
		var spent atomic.Int64
		testkit.Must(t, errors.Join(concurrently(32, func(i int) error {
			for n := range 20 {
				b := stores[rand.IntN(len(stores))]
				req := credits.SpendRequest{Amount: credits.Credit}
				if n%4 == 0 {
					req.IdempotencyKey = fmt.Sprint(n) // the same keys for all callers
				}
				before := b
				before.Ledger = ledgers[i%2]
				got, err := before.Spend(t.Context(), req)
				if err != nil {
					return err
				}
				if req.IdempotencyKey == "" {
					spent.Add(1)
				} else if *got.Transaction.UserID != b.Owner.UserID {
					return errors.New("another store's transaction")
				}
			}
			return nil
		})...))
		var rows, keyed int64
		for _, b := range stores {
			b.CheckInvariants(t)
			rows += b.Balance(t).Seq - 1
		}
		testkit.Must(t, first.DB.Get(t.Context(), &keyed, `SELECT count(*) FROM credit_transactions WHERE idempotency_key LIKE 'spend:%'`))
		if rows != spent.Load()+keyed {
			t.Errorf("%d spends are recorded, %d were answered and %d have a key", rows, spent.Load(), keyed)
		}
	})
}

// TestSpendOnLots checks that an account with lots is spent from under its lock, in the
// same batch as accounts that the statement carries out.
func TestSpendOnLots(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, plain := creditstest.New(t, db), creditstest.New(t, db)
		plain.Ledger = b.Ledger
		plain.Give(t, 100*credits.Credit)
		later := time.Now().UTC().Add(time.Hour)
		for i, g := range []credits.Grant{{Priority: 1}, {}, {ExpiresAt: ptr(later.Add(time.Hour))}, {ExpiresAt: &later}, {Priority: -1}} {
			g.Type, g.Amount, g.IdempotencyKey = credits.TypeBonus, 10*credits.Credit, fmt.Sprint("grant:", i)
			_, err := b.Grant(t.Context(), g)
			testkit.Must(t, err)
		}
		if soon := b.Balance(t).ExpiresSoon; soon == nil || soon.Amount != 20*credits.Credit || !soon.Next.Equal(later.Truncate(time.Microsecond)) {
			t.Errorf("expires soon: %+v, want 20 from %s on", soon, later)
		}
		left := func() (out [4]credits.Amount) { // what is left of the lots, by sequence: transactions 1, 3, 4 and 5
			var rows []credits.Amount
			testkit.Must(t, db.Select(t.Context(), &rows, `SELECT remaining FROM credit_lots WHERE store_id = $1 ORDER BY seq`, b.Store))
			copy(out[:], rows)
			return out
		}
		const c = credits.Credit
		for _, want := range [][4]credits.Amount{ // the rest after 12 more
			{10 * c, 10 * c, 8 * c, 0}, {10 * c, 6 * c, 0, 0}, {10 * c, 0, 0, 0}, {2 * c, 0, 0, 0},
		} {
			testkit.Must(t, errors.Join(concurrently(24, func(i int) error {
				who := b
				if i%2 == 0 {
					who = plain
				}
				_, err := who.Spend(t.Context(), credits.SpendRequest{Amount: c})
				return err
			})...))
			if got := left(); got != want {
				t.Fatalf("left %v, want %v", got, want)
			}
		}
	})
}

// TestKeysAreFoundByIndex checks that a key is looked up by its index on a table of any
// size.
func TestKeysAreFoundByIndex(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			explain, prepare := `EXPLAIN QUERY PLAN `, `SELECT 1`
			if tx.Postgres() != nil {
				explain, prepare = `EXPLAIN `, `SET LOCAL enable_seqscan = off`
			}
			if _, err := tx.Exec(t.Context(), prepare); err != nil {
				return err
			}
			var plan []map[string]any
			err := tx.Select(t.Context(), &plan, explain+`SELECT 1 FROM credit_transactions WHERE store_id = $1 AND idempotency_key = $2`, b.Store, "k")
			if text := fmt.Sprint(plan); !strings.Contains(text, "credit_transactions_key") {
				t.Errorf("the plan is %s", text)
			}
			return err
		}))
	})
}

// TestSpendStatementReadsNoWholeTable checks that the spend statement finds its rows by
// index among a thousand others, where the planner would prefer to read whole tables.
func TestSpendStatementReadsNoWholeTable(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsSessions(t, "no setting keeps the planner from reading a small table whole")
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			t.Skip("SQLite has no spend statement")
		}
		b := creditstest.New(t, db)
		for _, fill := range []string{
			`INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
				SELECT gen_random_uuid(), 's' || n, 'A store', 'active', $1, now(), now() FROM generate_series(1, 1000) n`,
			`INSERT INTO store_members (store_id, user_id, role, created_at)
				SELECT id, $1, 'owner', now() FROM stores ON CONFLICT DO NOTHING`,
			`INSERT INTO credit_balances (store_id, balance, updated_at)
				SELECT store_id, 1000, now() FROM store_members WHERE user_id = $1 ON CONFLICT DO NOTHING`,
		} {
			b.Exec(t, fill, b.Owner.UserID)
		}
		b.Exec(t, `ANALYZE`)
		var stores []stoa.StoreID
		testkit.Must(t, db.Select(t.Context(), &stores, `SELECT store_id FROM credit_balances ORDER BY store_id LIMIT 50`))
		plan, err := credits.Plan(t.Context(), b.Ledger, stores, b.Owner)
		testkit.Must(t, err)
		if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan") || !strings.Contains(text, "credit_balances_pkey") {
			t.Error(text)
		}
	})
}
