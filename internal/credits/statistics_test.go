package credits_test

import (
	"fmt"
	"slices"
	"sync"
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

// past is one row of a ledger that is written as if it were old.
type past struct {
	daysAgo int
	typ     credits.Type
	amount  credits.Amount
	service string
	n       int64 // quantity
}

// writeHistory inserts rows after those that the account has.
func writeHistory(t testing.TB, a creditstest.Account, rows []past) {
	t.Helper()
	have := a.Rows(t)
	seq, balance := int64(len(have)), credits.Amount(0)
	if len(have) > 0 {
		balance = have[len(have)-1].BalanceAfter
	}
	today := a.DB.Now().UTC().Truncate(24 * time.Hour)
	testkit.Must(t, a.DB.Tx(t.Context(), func(tx *masterdb.Tx) error {
		for _, row := range rows {
			seq++
			balance += row.amount
			var service, quantity any
			if row.service != "" {
				service, quantity = row.service, row.n
			}
			if _, err := tx.Exec(t.Context(), `
				INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, created_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, stoa.NewID[stoa.TransactionID](), a.Store, seq, string(row.typ), row.amount, balance,
				service, quantity, today.AddDate(0, 0, -row.daysAgo)); err != nil {
				return err
			}
		}
		_, err := tx.Exec(t.Context(), `UPDATE credit_balances SET balance = $2, seq = $3 WHERE store_id = $1`, a.Store, balance, seq)
		return err
	}))
}

func statistics(t testing.TB, a creditstest.Account, days int) credits.Statistics {
	t.Helper()
	s, err := a.Ledger.Statistics(t.Context(), a.Owner, a.Store, days)
	testkit.Must(t, err)
	return s
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := creditstest.New(t, db)
		empty := statistics(t, a, 0)
		if len(empty.Days) != 30 || len(empty.Services) != 0 || !empty.Complete || empty.Days[29].Balance != 0 {
			t.Errorf("an empty account: %+v", empty)
		}
		writeHistory(t, a, []past{
			{daysAgo: 40, typ: credits.TypePurchase, amount: 100},
			{daysAgo: 40, typ: credits.TypeSpend, amount: -10, service: "import", n: 10},
			{daysAgo: 3, typ: credits.TypeSpend, amount: -20, service: "import", n: 20},
			{daysAgo: 3, typ: credits.TypeSpend, amount: -5},
			{daysAgo: 3, typ: credits.TypeCapture, amount: -6, service: "export", n: 3},
			{daysAgo: 1, typ: credits.TypePurchase, amount: 50},
			{daysAgo: 1, typ: credits.TypeRefund, amount: -7},
			{daysAgo: 1, typ: credits.TypeBonus, amount: 8},
		})
		day := func(ago int, balance, purchased, spent credits.Amount) credits.Day {
			return credits.Day{Date: db.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -ago), Balance: balance, Purchased: purchased, Spent: spent}
		}
		want := credits.Statistics{
			Days:     []credits.Day{day(4, 90, 0, 0), day(3, 59, 0, 31), day(2, 59, 0, 0), day(1, 110, 50, 0), day(0, 110, 0, 0)},
			Services: []credits.ServiceSpend{{ServiceKey: "import", Spent: 20, Quantity: 20}, {ServiceKey: "export", Spent: 6, Quantity: 3}, {Spent: 5}},
			Complete: true,
		}
		if d := cmp.Diff(want, statistics(t, a, 5)); d != "" {
			t.Error(d)
		}
		writeHistory(t, a, []past{{typ: credits.TypeSpend, amount: -30, service: "import", n: 30}})
		want.Days[4] = day(0, 80, 0, 30)
		want.Services[0] = credits.ServiceSpend{ServiceKey: "import", Spent: 50, Quantity: 50}
		for range 2 { // adding up again adds nothing
			if d := cmp.Diff(want, statistics(t, a, 5)); d != "" {
				t.Error("after another spend:", d)
			}
		}
	})
}

// TestStatisticsAreExact checks that readers who add up at the same time add each
// transaction once.
func TestStatisticsAreExact(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := creditstest.New(t, db)
		a.Give(t, 1000*credits.Credit)
		var done sync.WaitGroup
		errs := make(chan error, 100)
		for i := range 40 {
			done.Go(func() {
				_, err := a.Spend(t.Context(), credits.SpendRequest{Amount: credits.Amount(i + 1)})
				errs <- err
			})
			done.Go(func() {
				_, err := a.Ledger.Statistics(t.Context(), a.Owner, a.Store, 1)
				errs <- err
			})
		}
		done.Wait()
		close(errs)
		for err := range errs {
			testkit.Must(t, err)
		}
		const want = 40 * 41 / 2
		got := statistics(t, a, 1)
		if d := got.Days[0]; d.Spent != want || d.Balance != 1000*credits.Credit-want || !got.Complete {
			t.Errorf("spent %s, balance %s, want %s spent", d.Spent, d.Balance, credits.Amount(want))
		}
	})
}

// TestSummarize checks that a long history is added up by the job, not by a reader, that
// the sums stay exact whatever part of the history they include, and that a store with few
// new transactions costs no write.
func TestSummarize(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a, quiet := creditstest.New(t, db), creditstest.New(t, db)
		quiet.Give(t, credits.Credit)
		spend := past{typ: credits.TypeSpend, amount: -1, service: "import", n: 2}
		yesterday := spend
		yesterday.daysAgo = 1
		rows := []past{{daysAgo: 2, typ: credits.TypePurchase, amount: 1_000_000}}
		writeHistory(t, a, append(rows, slices.Repeat([]past{yesterday}, 20_500)...))
		summarized := func() (n int64) {
			t.Helper()
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT coalesce(sum(seq), 0) FROM credit_day_positions`))
			return n
		}
		if got := statistics(t, a, 3); got.Complete || got.Days[1].Spent != 0 || summarized() != 0 {
			t.Errorf("before the job: complete: %v, %+v, %d transactions written", got.Complete, got.Days, summarized())
		}
		check := func(when string, today credits.Amount, written int64) {
			t.Helper()
			got := statistics(t, a, 3)
			spent := 20_500 + today
			if d := got.Days; !got.Complete || d[0].Purchased != 1_000_000 || d[0].Balance != 1_000_000 || d[1].Spent != 20_500 || d[2].Spent != today || d[2].Balance != 1_000_000-spent ||
				len(got.Services) != 1 || got.Services[0].Spent != spent || got.Services[0].Quantity != 2*int64(spent) || summarized() != written {
				t.Errorf("%s: %+v, %d transactions written, want %d", when, got, summarized(), written)
			}
			if one := statistics(t, a, 1).Days[0]; one.Balance != 1_000_000-spent || one.Spent != today {
				t.Errorf("%s, of today: %+v", when, one)
			}
		}
		testkit.Must(t, a.Ledger.SummarizeAll(t.Context(), credits.Summarize{}))
		check("after the job", 0, 20_000) // the rest is less than it writes
		writeHistory(t, a, slices.Repeat([]past{spend}, 400))
		testkit.Must(t, a.Ledger.SummarizeAll(t.Context(), credits.Summarize{}))
		check("with few new ones", 400, 20_000)
		writeHistory(t, a, slices.Repeat([]past{spend}, 1100))
		check("with more new ones", 1500, 20_000)
		var done sync.WaitGroup
		for range 3 { // processes that run the job at the same time add each transaction once
			done.Go(func() {
				if err := a.Ledger.SummarizeAll(t.Context(), credits.Summarize{}); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
		check("after another job", 1500, 22_001)
	})
}

// TestManyServices checks that a long price list makes no long answer.
func TestManyServices(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := creditstest.New(t, db)
		rows := []past{{typ: credits.TypeBonus, amount: 10_000}}
		for i := range 20 {
			rows = append(rows, past{typ: credits.TypeSpend, amount: -credits.Amount(i + 1), service: fmt.Sprintf("service_%d", i), n: 1})
		}
		writeHistory(t, a, rows)
		got := statistics(t, a, 1).Services
		if len(got) != 13 || got[0].Spent != 20 || !got[12].Others || got[12].Spent != 8*9/2 {
			t.Errorf("%+v", got)
		}
	})
}

func TestStatisticsRefuse(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := creditstest.New(t, db)
		for _, days := range []int{-1, credits.MaxStatisticDays + 1} {
			_, err := a.Ledger.Statistics(t.Context(), a.Owner, a.Store, days)
			wantCode(t, err, stoa.InvalidRequest)
		}
		_, err := a.Ledger.Statistics(t.Context(), authz.Principal{UserID: stoa.NewID[stoa.UserID]()}, a.Store, 30)
		wantCode(t, err, stoa.StoreNotFound)
		_, err = a.Ledger.Statistics(t.Context(), a.Member(t, authz.Viewer), a.Store, 30)
		testkit.Must(t, err)
	})
}
