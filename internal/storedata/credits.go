package storedata

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// CreditPosition is the position of the copies of the store's credits.
type CreditPosition struct {
	Version int64 `db:"version"` // of the account in credit_balance_cache; -1 for none
	Seq     int64 `db:"seq"`     // of the last transaction that credit_spending_log has seen
}

// Before reports whether p is before q. The position of the copies only increases.
func (p CreditPosition) Before(q CreditPosition) bool {
	return p.Seq < q.Seq || p.Seq == q.Seq && p.Version < q.Version
}

// ReadCreditPosition returns the position. It inserts the initial one if there is
// none.
func ReadCreditPosition(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) (CreditPosition, error) {
	const query = `SELECT version, seq FROM credit_copies WHERE store_id = ? LIMIT 1`
	var p CreditPosition
	err := db.Get(ctx, &p, query, store)
	if !errors.Is(err, tenantdb.ErrNotFound) {
		return p, err
	}
	_, err = db.Exec(ctx, `INSERT INTO credit_copies (store_id, version, seq) VALUES (?, -1, 0)`, store)
	if err != nil && !tenantdb.IsUnique(err) { // unique: a concurrent call has inserted it
		return p, err
	}
	if err = db.Get(ctx, &p, query, store); errors.Is(err, tenantdb.ErrNotFound) {
		err = tenantdb.NoProgress(errors.New("credit_copies does not keep its row"))
	}
	return p, err
}

// CopyCredits moves the copies from one position to a later one in one transaction:
// it adds the spendings between the two to the log and stores the balance. It reports
// false, and changes nothing, when the copies are no longer at the first position.
func CopyCredits(ctx context.Context, db *tenantdb.DB, from, to CreditPosition, spent []credits.Transaction, balance credits.Balance) (moved bool, err error) {
	return moveCredits(ctx, db, balance.StoreID, from, to, func(tx *tenantdb.Tx) error {
		if err := logSpendings(ctx, tx, balance.StoreID, from, to, spent); err != nil {
			return err
		}
		return cacheBalance(ctx, tx, balance)
	})
}

// LogSpendings is CopyCredits without the balance, for a position in between.
func LogSpendings(ctx context.Context, db *tenantdb.DB, store stoa.StoreID, from, to CreditPosition, spent []credits.Transaction) (moved bool, err error) {
	return moveCredits(ctx, db, store, from, to, func(tx *tenantdb.Tx) error {
		return logSpendings(ctx, tx, store, from, to, spent)
	})
}

// moveCredits moves the position and runs write in the same transaction, unless the
// copies are no longer at from.
func moveCredits(ctx context.Context, db *tenantdb.DB, store stoa.StoreID, from, to CreditPosition, write func(*tenantdb.Tx) error) (moved bool, err error) {
	err = db.Tx(ctx, func(tx *tenantdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE credit_copies SET version = ?, seq = ? WHERE store_id = ? AND version = ? AND seq = ?`,
			to.Version, to.Seq, store, from.Version, from.Seq)
		moved = n > 0
		if err != nil || !moved {
			return err
		}
		return write(tx)
	})
	return moved && err == nil, err
}

// spendingsAtOnce keeps a statement's parameters below every engine's limit.
const spendingsAtOnce = 100

func logSpendings(ctx context.Context, tx *tenantdb.Tx, store stoa.StoreID, from, to CreditPosition, spent []credits.Transaction) error {
	// The position is authoritative: rows beyond it were not written by this package.
	_, err := tx.Exec(ctx, `DELETE FROM credit_spending_log WHERE store_id = ? AND seq > ? AND seq <= ?`, store, from.Seq, to.Seq)
	if err != nil {
		return err
	}
	row := ", (" + marks(10) + ")"
	for part := range slices.Chunk(spent, spendingsAtOnce) {
		var args []any
		for _, t := range part {
			service := ""
			if t.ServiceKey != nil {
				service = *t.ServiceKey
			}
			args = append(args, t.ID, store, t.Sequence, string(t.Type), int64(t.Amount), int64(t.BalanceAfter), service, t.Quantity, t.Description, t.CreatedAt)
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO credit_spending_log (id, store_id, seq, entry_type, amount, balance_after, service_key, quantity, description, created_at)
			VALUES `+strings.TrimPrefix(strings.Repeat(row, len(part)), ", "), args...)
		if err != nil {
			return err
		}
	}
	return nil
}

func cacheBalance(ctx context.Context, tx *tenantdb.Tx, b credits.Balance) error {
	args := []any{
		int64(b.Balance), int64(b.Reserved), int64(b.Debt), int64(b.LifetimePurchased), int64(b.LifetimeSpent), b.Seq, b.UpdatedAt, b.StoreID,
	}
	n, err := tx.Exec(ctx, `
		UPDATE credit_balance_cache SET balance = ?, reserved = ?, debt = ?, lifetime_purchased = ?, lifetime_spent = ?, seq = ?, updated_at = ?
		WHERE store_id = ?`, args...)
	if err != nil || n > 0 {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO credit_balance_cache (balance, reserved, debt, lifetime_purchased, lifetime_spent, seq, updated_at, store_id)
		VALUES (`+marks(len(args))+`)`, args...)
	return err
}
