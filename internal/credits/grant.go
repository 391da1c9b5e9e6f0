package credits

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Grant is credits given to a store.
type Grant struct {
	Type           Type // TypePurchase, TypeBonus or TypeAdjustment
	Amount         Amount
	Description    string
	Reference      string // what the credits were given for, such as a purchase's id; may be empty
	IdempotencyKey string // required; must not begin with "spend:"
	UserID         *stoa.UserID
	// By is the principal who grants, for the audit log. The zero value means UserID or,
	// without one, the platform.
	By authz.Principal
	// ExpiresAt is when unspent credits expire. Nil means never.
	ExpiresAt *time.Time
	// Priority determines the order of spending, -100 to 100, lower first. Within one
	// priority, credits that expire earlier are spent first, then older ones.
	Priority int
}

// maxReference is the maximum length in characters.
const maxReference = 255

var grantTypes = []Type{TypePurchase, TypeBonus, TypeAdjustment}

// Grant adds credits in the caller's transaction. It checks no permission: the caller has
// decided to grant them. They repay a debt first.
//
// The same grant under the same key again returns the first transaction and changes
// nothing. Another type, amount, reference, expiry or priority under that key fails with
// idempotency_conflict. An unknown store fails with store_not_found.
func (l *Ledger) Grant(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, g Grant) (Transaction, error) {
	if err := g.validate(tx.Now); err != nil {
		return Transaction{}, err
	}
	if g.ExpiresAt != nil { // both engines store microseconds
		at := g.ExpiresAt.UTC().Truncate(time.Microsecond)
		g.ExpiresAt = &at
	}
	hash := RequestHash("grant", g.Type, g.Amount, g.Reference, g.ExpiresAt, g.Priority)
	return l.move(ctx, tx, store, g.IdempotencyKey, hash, func(a *account) (Transaction, error) {
		if err := a.checkCapacity(g.Amount); err != nil {
			return Transaction{}, err
		}
		t := a.post(entry{
			Transaction: Transaction{
				Type: g.Type, Amount: g.Amount, Description: g.Description, Reference: nullable(g.Reference), UserID: g.UserID,
			},
			key: g.IdempotencyKey, hash: hash,
		})
		if g.ExpiresAt != nil || g.Priority != 0 {
			a.addLot(g, t)
		}
		tx.AfterCommit(func() { l.metrics.grants.WithLabelValues(string(g.Type)).Inc() })
		return t, g.record(ctx, tx, store)
	})
}

// record writes the grant to the audit log.
func (g Grant) record(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	by := g.By
	if g.UserID != nil && by.UserID.IsZero() {
		by.UserID = *g.UserID
	}
	return audit.Record(ctx, tx, by, audit.Event{Action: audit.CreditsGranted, Store: store, Details: map[string]string{
		"type": string(g.Type), "amount": g.Amount.String(), "reference": g.Reference,
	}})
}

// addLot adds a lot with the credits of t.
func (a *account) addLot(g Grant, t Transaction) {
	a.lots = append(a.lots, &lot{
		ID: stoa.NewID[lotID](), Seq: t.Sequence, Priority: g.Priority, ExpiresAt: g.ExpiresAt,
		Amount: t.Amount, Remaining: t.Amount, Reference: t.Reference, fresh: true,
	})
	a.Lotted += t.Amount
}

// move makes one change under an idempotency key. It locks the account, returns
// the first transaction if the key was used, and otherwise applies and writes the
// change.
func (l *Ledger) move(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, key, hash string, change func(*account) (Transaction, error)) (Transaction, error) {
	a, err := lockAccount(ctx, tx, store)
	if err != nil {
		return Transaction{}, err
	}
	first, err := findByKey(ctx, tx, store, key, hash)
	if err != nil {
		return Transaction{}, err
	}
	if first != nil {
		return *first, nil
	}
	t, err := change(a)
	if err != nil {
		return Transaction{}, err
	}
	return t, l.flush(ctx, tx, a)
}

// checkCapacity returns invalid_request when amount would overflow the account.
func (a *account) checkCapacity(amount Amount) error {
	var faults stoa.Invalid
	if !a.Balance.Balance.canAdd(amount) || !a.LifetimePurchased.canAdd(amount) {
		faults.Add("amount", "is more than an account can hold")
	}
	return faults.Err()
}

func (g Grant) validate(now time.Time) error {
	var faults stoa.Invalid
	if !slices.Contains(grantTypes, g.Type) {
		faults.Add("type", "must be one of %v", grantTypes)
	}
	if g.Amount <= 0 {
		faults.Add("amount", "must be above 0")
	}
	checkTexts(&faults, g.Description, g.Reference)
	if g.ExpiresAt != nil && !g.ExpiresAt.After(now) {
		faults.Add("expiresAt", "must be in the future")
	}
	if g.Priority < -maxPriority || g.Priority > maxPriority {
		faults.Add("priority", "must be between %d and %d", -maxPriority, maxPriority)
	}
	checkPlatformKey(&faults, g.IdempotencyKey)
	return faults.Err()
}

const maxPriority = 100

// checkPlatformKey adds a fault when an idempotency key that the platform has chosen is
// not valid.
func checkPlatformKey(faults *stoa.Invalid, key string) {
	switch {
	case key == "":
		faults.Add("idempotencyKey", "is required")
	case strings.HasPrefix(key, spendKeys):
		faults.Add("idempotencyKey", "must not begin with %q", spendKeys)
	}
	CheckIdempotencyKey(faults, key)
}
