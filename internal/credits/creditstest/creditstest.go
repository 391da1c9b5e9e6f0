// Package creditstest creates stores with a credit account for tests.
package creditstest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Account is the account of one store, with the store's owner.
type Account struct {
	DB     *masterdb.DB
	Ledger *credits.Ledger
	Store  stoa.StoreID
	Owner  authz.Principal
}

// New creates a store with an empty account and an owner.
func New(t testing.TB, db *masterdb.DB) Account {
	t.Helper()
	a := Account{DB: db, Ledger: credits.New(db), Store: stoa.NewID[stoa.StoreID]()}
	a.Owner = authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := InsertUser(t.Context(), tx, a.Owner.UserID); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `
			INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'A store', 'active', $3, $4, $4)`, a.Store, a.Store.String(), a.Owner.UserID, tx.Now)
		if err != nil {
			return err
		}
		if err := authz.Grant(t.Context(), tx, a.Store, a.Owner.UserID, authz.Owner); err != nil {
			return err
		}
		return a.Ledger.Open(t.Context(), tx, a.Store)
	}))
	return a
}

// InsertUser adds a user whose address is verified.
func InsertUser(ctx context.Context, tx *masterdb.Tx, id stoa.UserID) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users (id, email, password_hash, first_name, last_name, email_verified, created_at, updated_at)
		VALUES ($1, $2, 'x', 'A', 'B', true, $3, $3)`, id, id.String()+"@example.com", tx.Now)
	return err
}

// Member adds a user with that role to the store.
func (a Account) Member(t testing.TB, role authz.Role) authz.Principal {
	t.Helper()
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	must(t, a.DB.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := InsertUser(t.Context(), tx, p.UserID); err != nil {
			return err
		}
		return authz.Grant(t.Context(), tx, a.Store, p.UserID, role)
	}))
	return p
}

// Grant grants credits in a transaction of its own.
func (a Account) Grant(ctx context.Context, g credits.Grant) (t credits.Transaction, err error) {
	err = a.DB.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err = a.Ledger.Grant(ctx, tx, a.Store, g)
		return err
	})
	return t, err
}

// Give grants a bonus under a new key.
func (a Account) Give(t testing.TB, amount credits.Amount) {
	t.Helper()
	_, err := a.Grant(t.Context(), credits.Grant{
		Type: credits.TypeBonus, Amount: amount, IdempotencyKey: stoa.NewID[stoa.TransactionID]().String(),
	})
	must(t, err)
}

// Spend spends credits as the owner.
func (a Account) Spend(ctx context.Context, req credits.SpendRequest) (credits.SpendResult, error) {
	return a.Ledger.Spend(ctx, a.Owner, a.Store, req)
}

// Balance reads the balance as the owner.
func (a Account) Balance(t testing.TB) credits.Balance {
	t.Helper()
	got, err := a.Ledger.Balance(t.Context(), a.Owner, a.Store)
	must(t, err)
	return got
}

// Rows reads all transactions of the store, oldest first, from the table.
func (a Account) Rows(t testing.TB) []credits.Transaction {
	t.Helper()
	var out []credits.Transaction
	must(t, a.DB.Select(t.Context(), &out, `
		SELECT id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price, description, reference, user_id, created_at
		FROM credit_transactions WHERE store_id = $1 ORDER BY seq`, a.Store))
	return out
}

// CheckInvariants requires that the sequence has no gap, that each balance is
// the one before plus the amount, and that the amounts add up to the balance.
func (a Account) CheckInvariants(t testing.TB) {
	t.Helper()
	var sum credits.Amount
	for i, row := range a.Rows(t) {
		sum += row.Amount
		if row.Sequence != int64(i+1) || row.BalanceAfter != sum {
			t.Fatalf("row %d: seq %d, balance after %s, want seq %d, balance after %s",
				i, row.Sequence, row.BalanceAfter, i+1, sum)
		}
	}
	if got := a.Balance(t).Balance; got != sum {
		t.Fatalf("balance %s, the amounts add up to %s", got, sum)
	}
}

// Price adds a price to the price list.
func (a Account) Price(t testing.TB, service string, unit credits.Amount, from time.Time) {
	t.Helper()
	must(t, a.DB.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `
			INSERT INTO service_credit_costs (service_key, effective_from, unit_price, unit, description)
			VALUES ($1, $2, $3, 'item', 'A service')`, service, from, unit)
		return err
	}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Hold reserves credits as the owner.
func (a Account) Hold(t testing.TB, req credits.SpendRequest) credits.HoldResult {
	t.Helper()
	held, err := a.Ledger.Hold(t.Context(), a.Owner, a.Store, credits.HoldRequest{SpendRequest: req})
	must(t, err)
	return held
}

// Exec runs a statement in a transaction.
func (a Account) Exec(t testing.TB, query string, args ...any) {
	t.Helper()
	must(t, a.DB.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// Dump returns every row that the ledger has of the store, as text.
func (a Account) Dump(t testing.TB) string {
	t.Helper()
	var out string
	for _, query := range []string{
		`SELECT * FROM credit_balances WHERE store_id = $1`,
		`SELECT * FROM credit_transactions WHERE store_id = $1 ORDER BY seq`,
		`SELECT * FROM credit_holds WHERE store_id = $1 ORDER BY id`,
		`SELECT * FROM credit_lots WHERE store_id = $1 ORDER BY seq`,
		`SELECT * FROM credit_lot_uses WHERE store_id = $1 ORDER BY seq, lot_id`,
		`SELECT * FROM credit_freezes WHERE store_id = $1 ORDER BY reference`,
	} {
		var rows []map[string]any
		must(t, a.DB.Select(t.Context(), &rows, query, a.Store))
		for _, row := range rows {
			out += fmt.Sprintln(row)
		}
	}
	return out
}
