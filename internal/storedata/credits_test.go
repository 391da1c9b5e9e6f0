package storedata_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// spending returns the seq-th transaction of a store that spends 1 each time.
func spending(store stoa.StoreID, seq int64) credits.Transaction {
	t := credits.Transaction{
		ID: stoa.NewID[stoa.TransactionID](), StoreID: store, Sequence: seq, Type: credits.TypeSpend, Amount: -credits.Credit,
		BalanceAfter: credits.Amount(1000-seq) * credits.Credit, Description: hostile, CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC),
	}
	if seq%2 == 0 {
		t.Type, t.ServiceKey, t.Quantity = credits.TypeCapture, ptr("product_import"), ptr(int64(10))
	}
	return t
}

// logged reads the spending log as transactions.
func logged(t *testing.T, db *tenantdb.DB, store stoa.StoreID) []credits.Transaction {
	t.Helper()
	var rows []struct {
		ID           stoa.TransactionID `db:"id"`
		Seq          int64              `db:"seq"`
		Type         credits.Type       `db:"entry_type"`
		Amount       credits.Amount     `db:"amount"`
		BalanceAfter credits.Amount     `db:"balance_after"`
		ServiceKey   string             `db:"service_key"`
		Quantity     *int64             `db:"quantity"`
		Description  string             `db:"description"`
		CreatedAt    time.Time          `db:"created_at"`
	}
	testkit.Must(t, db.Select(t.Context(), &rows, `
		SELECT id, seq, entry_type, amount, balance_after, service_key, quantity, description, created_at
		FROM credit_spending_log WHERE store_id = ? ORDER BY seq`, store))
	out := make([]credits.Transaction, len(rows))
	for i, r := range rows {
		out[i] = credits.Transaction{
			ID: r.ID, StoreID: store, Sequence: r.Seq, Type: r.Type, Amount: r.Amount, BalanceAfter: r.BalanceAfter,
			Quantity: r.Quantity, Description: r.Description, CreatedAt: r.CreatedAt.UTC(),
		}
		if r.ServiceKey != "" {
			out[i].ServiceKey = &r.ServiceKey
		}
	}
	return out
}

func position(t *testing.T, db *tenantdb.DB, store stoa.StoreID) storedata.CreditPosition {
	t.Helper()
	p, err := storedata.ReadCreditPosition(t.Context(), db, store)
	testkit.Must(t, err)
	return p
}

// TestCopyCredits checks that each step from position to position takes effect completely
// or not at all.
func TestCopyCredits(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		ctx, store := t.Context(), setup(t, db).ID
		start := position(t, db, store)
		if start != (storedata.CreditPosition{Version: -1}) || position(t, db, store) != start {
			t.Fatalf("it begins at %+v", start)
		}
		var all []credits.Transaction
		for seq := range int64(250) { // more than one statement can contain
			all = append(all, spending(store, seq+2)) // the first transaction is a purchase of credits
		}
		middle, end := storedata.CreditPosition{Version: -1, Seq: 121}, storedata.CreditPosition{Version: 7, Seq: 251}
		balance := credits.Balance{
			StoreID: store, Balance: 749 * credits.Credit, Reserved: 5, Debt: 0, LifetimePurchased: 1000 * credits.Credit,
			LifetimeSpent: 250 * credits.Credit, Seq: 251, Version: 7, UpdatedAt: all[0].CreatedAt,
		}
		step := func(want bool, moved bool, err error) {
			t.Helper()
			testkit.Must(t, err)
			if moved != want {
				t.Fatalf("moved %t, want %t", moved, want)
			}
		}
		moved, err := storedata.LogSpendings(ctx, db, store, start, middle, all[:120])
		step(true, moved, err)
		if diff := cmp.Diff(all[:120], logged(t, db, store)); diff != "" || count(t, db, "credit_balance_cache") != 0 {
			t.Fatalf("half-way: %s", diff)
		}
		moved, err = storedata.LogSpendings(ctx, db, store, start, middle, all[:120]) // a slow call that is too late
		step(false, moved, err)
		moved, err = storedata.CopyCredits(ctx, db, start, end, all, balance)
		step(false, moved, err)
		moved, err = storedata.CopyCredits(ctx, db, middle, end, all[120:], balance)
		step(true, moved, err)
		if diff := cmp.Diff(all, logged(t, db, store)); diff != "" {
			t.Fatal(diff)
		}
		if got := position(t, db, store); got != end {
			t.Errorf("position %+v", got)
		}
		checkCache(t, db, balance)

		// The platform's position is lost. All is copied again, and no row is duplicated.
		_, err = db.Exec(ctx, `DELETE FROM credit_copies`)
		testkit.Must(t, err)
		balance.Reserved, balance.Version = 0, 8
		moved, err = storedata.CopyCredits(ctx, db, position(t, db, store), storedata.CreditPosition{Version: 8, Seq: 251}, all, balance)
		step(true, moved, err)
		if diff := cmp.Diff(all, logged(t, db, store)); diff != "" {
			t.Fatal(diff)
		}
		checkCache(t, db, balance)
	})
}

func checkCache(t *testing.T, db *tenantdb.DB, want credits.Balance) {
	t.Helper()
	var got struct {
		StoreID   stoa.StoreID   `db:"store_id"`
		Balance   credits.Amount `db:"balance"`
		Reserved  credits.Amount `db:"reserved"`
		Debt      credits.Amount `db:"debt"`
		Purchased credits.Amount `db:"lifetime_purchased"`
		Spent     credits.Amount `db:"lifetime_spent"`
		Seq       int64          `db:"seq"`
		UpdatedAt time.Time      `db:"updated_at"`
	}
	testkit.Must(t, db.Get(t.Context(), &got, `SELECT store_id, balance, reserved, debt, lifetime_purchased, lifetime_spent, seq, updated_at FROM credit_balance_cache`))
	if got.StoreID != want.StoreID || got.Balance != want.Balance || got.Reserved != want.Reserved || got.Debt != want.Debt ||
		got.Purchased != want.LifetimePurchased || got.Spent != want.LifetimeSpent || got.Seq != want.Seq || !got.UpdatedAt.Equal(want.UpdatedAt) {
		t.Errorf("cached %+v, want %+v", got, want)
	}
}

// TestCopiesAtOnce checks that exactly one of several concurrent calls makes the same
// step.
func TestCopiesAtOnce(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		store := setup(t, db).ID
		var moves atomic.Int64
		for i, err := range atOnce(8, func(int) error {
			start, err := storedata.ReadCreditPosition(t.Context(), db, store)
			if err != nil || start.Version >= 1 {
				return err
			}
			moved, err := storedata.CopyCredits(t.Context(), db, start, storedata.CreditPosition{Version: 1, Seq: 2},
				[]credits.Transaction{spending(store, 2)}, credits.Balance{StoreID: store, Balance: 1, Seq: 2, Version: 1, UpdatedAt: time.Now().UTC()})
			if moved {
				moves.Add(1)
			}
			return err
		}) {
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		}
		if moves.Load() != 1 || count(t, db, "credit_spending_log") != 1 || count(t, db, "credit_balance_cache") != 1 {
			t.Errorf("%d moves, %d rows", moves.Load(), count(t, db, "credit_spending_log"))
		}
	})
}
