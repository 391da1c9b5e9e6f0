package credits

import (
	"context"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Grant is credits given to a store.
type Grant struct {
	Type           Type // TypePurchase, TypeBonus or TypeAdjustment
	Amount         Amount
	Description    string
	Reference      string // what it was given for, such as a purchase's id; may be empty
	IdempotencyKey string // required; must not begin with "spend:"
	UserID         *stoa.UserID
}

// maxReference is counted in characters.
const maxReference = 255

var grantTypes = []Type{TypePurchase, TypeBonus, TypeAdjustment}

// Grant adds credits in the caller's transaction. The caller has decided
// that they are due: there is no principal to check.
//
// The same grant under the same key again returns the first transaction and
// changes nothing; another type, amount or reference under that key is
// idempotency_conflict. An unknown store is store_not_found.
func (l *Ledger) Grant(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, g Grant) (Transaction, error) {
	if err := g.validate(); err != nil {
		return Transaction{}, err
	}
	acct, err := lock(ctx, tx, store)
	if err != nil {
		return Transaction{}, err
	}
	hash := RequestHash("grant", g.Type, g.Amount, g.Reference)
	first, err := findByKey(ctx, tx, store, g.IdempotencyKey, hash)
	if err != nil {
		return Transaction{}, err
	}
	if first != nil {
		return *first, nil
	}
	if err := acct.holds(g.Amount); err != nil {
		return Transaction{}, err
	}
	return acct.post(ctx, tx, entry{
		Transaction: Transaction{
			Type: g.Type, Amount: g.Amount, Description: g.Description,
			Reference: nullable(g.Reference), UserID: g.UserID,
		},
		key: g.IdempotencyKey, hash: hash,
	})
}

// holds returns invalid_request when amount would overflow the account.
func (a *account) holds(amount Amount) error {
	var faults stoa.Invalid
	if !a.Balance.Balance.canAdd(amount) || !a.LifetimePurchased.canAdd(amount) {
		faults.Add("amount", "is more than an account can hold")
	}
	return faults.Err()
}

func (g Grant) validate() error {
	var faults stoa.Invalid
	if !slices.Contains(grantTypes, g.Type) {
		faults.Add("type", "must be one of %v", grantTypes)
	}
	if g.Amount <= 0 {
		faults.Add("amount", "must be above 0")
	}
	if !storable(g.Description, maxDescription) {
		faults.Add("description", "must be text of at most %d characters", maxDescription)
	}
	if !storable(g.Reference, maxReference) {
		faults.Add("reference", "must be text of at most %d characters", maxReference)
	}
	switch {
	case g.IdempotencyKey == "":
		faults.Add("idempotencyKey", "is required")
	case strings.HasPrefix(g.IdempotencyKey, spendKeys):
		faults.Add("idempotencyKey", "must not begin with %q", spendKeys)
	}
	CheckIdempotencyKey(&faults, g.IdempotencyKey)
	return faults.Err()
}
