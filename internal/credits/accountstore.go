package credits

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// lockAccount locks the store's account until tx ends, reads it and settles what is due.
// It fails with store_not_found when there is no account. Callers look up the idempotency
// key afterwards, in a separate statement: only then does PostgreSQL return what the
// previous writer has committed.
func lockAccount(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) (*account, error) {
	a := &account{now: tx.Now}
	err := tx.Get(ctx, a, selectBalance+`, b.lotted FROM credit_balances b WHERE store_id = $1`+tx.ForUpdate(), store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, authz.ErrStoreNotFound()
	}
	if err != nil {
		return nil, err
	}
	if a.Reserved > 0 {
		if err := tx.Select(ctx, &a.overdue, `
			SELECT id, amount FROM credit_holds WHERE store_id = $1 AND state = 'open' AND expires_at <= $2 ORDER BY id`, store, a.now); err != nil {
			return nil, err
		}
	}
	if a.Lotted > 0 {
		if err := tx.Select(ctx, &a.lots, `
			SELECT l.id, l.seq, l.priority, l.expires_at, l.amount, l.remaining, t.reference
			FROM credit_lots l JOIN credit_transactions t ON t.store_id = l.store_id AND t.seq = l.seq
			WHERE l.store_id = $1 AND l.remaining > 0 ORDER BY l.seq`, store); err != nil {
			return nil, err
		}
	}
	a.settle()
	return a, nil
}

// flush settles the account once more and writes all changes.
func (l *Ledger) flush(ctx context.Context, tx *masterdb.Tx, a *account) error {
	a.settle()
	if !a.changed {
		return nil
	}
	if err := tx.ExecLater(ctx, `
		UPDATE credit_balances SET balance = $2, reserved = $3, debt = $4, seq = $5, version = $6, lotted = $7,
			lifetime_purchased = $8, lifetime_spent = $9, updated_at = $10
		WHERE store_id = $1`,
		a.StoreID, a.Balance.Balance, a.Reserved, a.Debt, a.Seq, a.Version, a.Lotted,
		a.LifetimePurchased, a.LifetimeSpent, a.UpdatedAt); err != nil {
		return err
	}
	if err := insertEntries(ctx, tx, a.entries); err != nil {
		return err
	}
	for _, h := range a.ended {
		if err := tx.ExecLater(ctx, `UPDATE credit_holds SET state = 'expired', resolved_at = $2 WHERE id = $1`, h.ID, tx.Now); err != nil {
			return err
		}
	}
	if err := a.flushLots(ctx, tx); err != nil {
		return err
	}
	tx.AfterCommit(func() { l.changed(a.StoreID) })
	tx.NotifyServers(changeTopic, a.StoreID.String())
	return nil
}

func (a *account) flushLots(ctx context.Context, tx *masterdb.Tx) error {
	for _, l := range a.lots {
		var err error
		switch {
		case l.fresh:
			err = tx.ExecLater(ctx, `
				INSERT INTO credit_lots (id, store_id, seq, priority, expires_at, amount, remaining) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
				l.ID, a.StoreID, l.Seq, l.Priority, l.ExpiresAt, l.Amount, l.Remaining)
		case l.touched:
			err = tx.ExecLater(ctx, `UPDATE credit_lots SET remaining = $2 WHERE id = $1`, l.ID, l.Remaining)
		}
		if err != nil {
			return err
		}
	}
	for _, u := range a.uses {
		if err := tx.ExecLater(ctx, `INSERT INTO credit_lot_uses (lot_id, store_id, seq, amount) VALUES ($1, $2, $3, $4)`,
			u.lot, a.StoreID, u.seq, u.amount); err != nil {
			return err
		}
	}
	return nil
}

const insertEntry = `
	INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, debt_change, service_key, quantity,
		unit_price, description, reference, user_id, hold_id, idempotency_key, request_hash, account_after, created_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`

func (e entry) args() []any {
	return []any{e.ID, e.StoreID, e.Sequence, string(e.Type), e.Amount, e.BalanceAfter, e.DebtChange, e.ServiceKey, e.Quantity,
		e.UnitPrice, e.Description, e.Reference, e.UserID, e.HoldID, nullable(e.key), nullable(e.hash), e.accountAfter, e.CreatedAt}
}

func insertEntries(ctx context.Context, tx *masterdb.Tx, entries []entry) error {
	for _, e := range entries {
		if err := tx.ExecLater(ctx, insertEntry, e.args()...); err != nil {
			return err
		}
	}
	return nil
}
