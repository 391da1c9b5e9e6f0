// Package credits is the ledger: what each store owns in credits, every
// movement of it, and the price list of services.
//
// A store has one balance row and an append-only list of transactions,
// numbered without gaps. Three things always hold: the amounts add up to the
// balance, each balance_after is the one before plus the amount, and an
// idempotency key moves credits once.
package credits

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// Ledger reads and moves credits. It is safe for concurrent use, also by
// several processes on one master database.
type Ledger struct {
	db *masterdb.DB
}

// New returns the ledger kept in db.
func New(db *masterdb.DB) *Ledger { return &Ledger{db: db} }

// Balance is the state of a store's account.
type Balance struct {
	StoreID           stoa.StoreID
	Balance           Amount
	Reserved          Amount // held for spends that are not captured yet
	Debt              Amount // owed after a reversed payment; blocks spending
	LifetimePurchased Amount
	LifetimeSpent     Amount
	UpdatedAt         time.Time
}

// Available is what can be spent now, debt aside.
func (b Balance) Available() Amount { return b.Balance - b.Reserved }

// account is a balance row, locked by the transaction that read it.
type account struct {
	Balance
	Seq int64
}

const selectBalance = `
	SELECT store_id, balance, reserved, debt, lifetime_purchased, lifetime_spent, updated_at`

// Open creates the account of a new store, empty, in the transaction that
// creates the store.
func (l *Ledger) Open(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	_, err := tx.Exec(ctx, `INSERT INTO credit_balances (store_id, updated_at) VALUES ($1, $2)`, store, tx.Now)
	return err
}

// Balance returns the state of the store's account. It fails with
// store_not_found for anyone but a member.
func (l *Ledger) Balance(ctx context.Context, p access.Principal, store stoa.StoreID) (Balance, error) {
	if _, err := access.Check(ctx, l.db, p, store, access.ReadCredits); err != nil {
		return Balance{}, err
	}
	return l.ReadBalance(ctx, l.db, store)
}

// ReadBalance is Balance without the question who asks, for other domains
// that have already checked. It fails with store_not_found when there is no
// such account.
func (l *Ledger) ReadBalance(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (Balance, error) {
	var b Balance
	err := q.Get(ctx, &b, selectBalance+` FROM credit_balances WHERE store_id = $1`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Balance{}, access.ErrStoreNotFound()
	}
	return b, err
}

// lock reads the store's account and keeps every other writer of it waiting
// until tx ends. Whoever moves credits locks first and looks for the
// idempotency key afterwards, in a statement of its own: only then does
// PostgreSQL show what the writer before has committed.
func lock(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) (*account, error) {
	var a account
	err := tx.Get(ctx, &a, selectBalance+`, seq FROM credit_balances WHERE store_id = $1`+tx.ForUpdate(), store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, access.ErrStoreNotFound()
	}
	return &a, err
}

// entry is a movement about to be written: a Transaction without what the
// account gives it, and the key that makes it happen once.
type entry struct {
	Transaction
	key, hash string // both empty: not idempotent
}

// post appends e to the account and moves the balance. The caller has
// checked that the result is neither negative nor too large; the table's
// constraints would refuse it.
func (a *account) post(ctx context.Context, tx *masterdb.Tx, e entry) (Transaction, error) {
	a.Seq++
	a.Balance.Balance += e.Amount
	switch e.Type {
	case TypePurchase:
		a.LifetimePurchased += e.Amount
	case TypeSpend, TypeCapture:
		a.LifetimeSpent -= e.Amount
	default: // neither bought nor spent
	}
	a.UpdatedAt = tx.Now
	if _, err := tx.Exec(ctx, `
		UPDATE credit_balances SET balance = $2, seq = $3, lifetime_purchased = $4, lifetime_spent = $5, updated_at = $6
		WHERE store_id = $1`,
		a.StoreID, a.Balance.Balance, a.Seq, a.LifetimePurchased, a.LifetimeSpent, a.UpdatedAt); err != nil {
		return Transaction{}, err
	}
	t := e.Transaction
	t.ID, t.StoreID, t.Sequence, t.BalanceAfter, t.CreatedAt = stoa.NewID[stoa.TransactionID](), a.StoreID, a.Seq, a.Balance.Balance, tx.Now
	_, err := tx.Exec(ctx, `
		INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
			description, reference, user_id, idempotency_key, request_hash, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		t.ID, t.StoreID, t.Sequence, string(t.Type), t.Amount, t.BalanceAfter, t.ServiceKey, t.Quantity, t.UnitPrice,
		t.Description, t.Reference, t.UserID, nullable(e.key), nullable(e.hash), t.CreatedAt)
	return t, err
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
