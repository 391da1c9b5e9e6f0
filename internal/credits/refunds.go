package credits

import (
	"context"
	"errors"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Reversal is credits that are taken back because their payment was reversed, or
// that are returned because the reversal ended.
type Reversal struct {
	Type           Type // TypeRefund or TypeDispute
	Amount         Amount
	Description    string
	Reference      string // what it refers to, such as a purchase's id; may be empty
	IdempotencyKey string // required; must not begin with "spend:"
}

// ClawBack takes credits back in the caller's transaction. What is not available
// becomes a debt, which the next credits repay. Keys work as with Grant.
func (l *Ledger) ClawBack(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, r Reversal) (Transaction, error) {
	if err := r.validate(); err != nil {
		return Transaction{}, err
	}
	hash := RequestHash("clawback", r.Type, r.Amount, r.Reference)
	return l.move(ctx, tx, store, r.IdempotencyKey, hash, func(a *account) (Transaction, error) {
		taken := min(r.Amount, a.Available())
		owed := r.Amount - taken
		if !a.Debt.canAdd(owed) {
			var faults stoa.Invalid
			faults.Add("amount", "is more than an account can owe")
			return Transaction{}, faults.Err()
		}
		return a.post(r.entry(-taken, owed, hash)), nil
	})
}

// Reinstate returns credits that ClawBack took, in the caller's transaction. They
// do not return to their lot and no longer expire. Keys work as with Grant.
func (l *Ledger) Reinstate(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, r Reversal) (Transaction, error) {
	if err := r.validate(); err != nil {
		return Transaction{}, err
	}
	hash := RequestHash("reinstate", r.Type, r.Amount, r.Reference)
	return l.move(ctx, tx, store, r.IdempotencyKey, hash, func(a *account) (Transaction, error) {
		if err := a.checkCapacity(r.Amount); err != nil {
			return Transaction{}, err
		}
		return a.post(r.entry(r.Amount, 0, hash)), nil
	})
}

func (r Reversal) entry(amount, debt Amount, hash string) entry {
	return entry{
		Transaction: Transaction{
			Type: r.Type, Amount: amount, DebtChange: debt, Description: r.Description, Reference: nullable(r.Reference),
		},
		key: r.IdempotencyKey, hash: hash,
	}
}

func (r Reversal) validate() error {
	var faults stoa.Invalid
	if !slices.Contains([]Type{TypeRefund, TypeDispute}, r.Type) {
		faults.Add("type", "must be refund or dispute")
	}
	if r.Amount <= 0 {
		faults.Add("amount", "must be above 0")
	}
	checkTexts(&faults, r.Description, r.Reference)
	checkPlatformKey(&faults, r.IdempotencyKey)
	return faults.Err()
}

// checkTexts adds a fault for each text that cannot be stored.
func checkTexts(faults *stoa.Invalid, description, reference string) {
	if !storable(description, maxDescription) {
		faults.Add("description", "must be text of at most %d characters", maxDescription)
	}
	if !storable(reference, maxReference) {
		faults.Add("reference", "must be text of at most %d characters", maxReference)
	}
}

// Freeze reserves credits in the caller's transaction while the payment for them
// is disputed: amount, or what is available if that is less. It happens once for
// each reference.
func (l *Ledger) Freeze(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, reference string, amount Amount) error {
	var faults stoa.Invalid
	if amount <= 0 {
		faults.Add("amount", "must be above 0")
	}
	if reference == "" {
		faults.Add("reference", "is required")
	}
	checkTexts(&faults, "", reference)
	if err := faults.Err(); err != nil {
		return err
	}
	a, err := lockAccount(ctx, tx, store)
	if err != nil {
		return err
	}
	amount = min(amount, a.Available())
	inserted, err := tx.Exec(ctx, `
		INSERT INTO credit_freezes (store_id, reference, amount, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (store_id, reference) DO NOTHING`, store, reference, amount, tx.Now)
	if err != nil || inserted == 0 {
		return err
	}
	a.reserve(amount)
	return l.flush(ctx, tx, a)
}

// Unfreeze makes frozen credits available again, in the caller's transaction.
// Without an open freeze of that reference it changes nothing.
func (l *Ledger) Unfreeze(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, reference string) error {
	a, err := lockAccount(ctx, tx, store)
	if err != nil {
		return err
	}
	var amount Amount
	err = tx.Get(ctx, &amount, `
		UPDATE credit_freezes SET resolved_at = $3 WHERE store_id = $1 AND reference = $2 AND resolved_at IS NULL
		RETURNING amount`, store, reference, tx.Now)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	a.reserve(-amount)
	return l.flush(ctx, tx, a)
}
