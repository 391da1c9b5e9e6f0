package credits

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// SpendRequest says what to pay for: either an Amount, or a service of the
// price list.
type SpendRequest struct {
	Amount         Amount // 0 when ServiceKey is given
	ServiceKey     string
	Quantity       *int64 // of ServiceKey; nil means 1
	Description    string // at most 500 characters
	IdempotencyKey string // empty for none
}

// Spent is the outcome of a spend. When the answer is a replay, Transaction
// is the first one, with the balance right after it in BalanceAfter, while
// Balance is the account as it is now.
type Spent struct {
	Transaction Transaction
	Balance     Balance
}

// Spend takes credits from the store, or fails and changes nothing:
// invalid_request names the fields at fault, insufficient_credits says what
// is missing, idempotency_conflict that the key belongs to another request.
// The same request under the same key spends once, however often and from
// wherever it is sent; a failed attempt leaves its key free.
func (l *Ledger) Spend(ctx context.Context, p access.Principal, store stoa.StoreID, req SpendRequest) (Spent, error) {
	if err := req.validate(); err != nil {
		return Spent{}, err
	}
	var out Spent
	err := l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := access.Check(ctx, tx, p, store, access.SpendCredits); err != nil {
			return err
		}
		var err error
		out, err = spend(ctx, tx, p.UserID, store, req)
		return err
	})
	if err != nil {
		return Spent{}, err
	}
	return out, nil
}

func spend(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, store stoa.StoreID, req SpendRequest) (Spent, error) {
	acct, err := lock(ctx, tx, store)
	if err != nil {
		return Spent{}, err
	}
	key, hash := req.idempotency()
	first, err := findByKey(ctx, tx, store, key, hash)
	if err != nil {
		return Spent{}, err
	}
	if first != nil {
		return Spent{Transaction: *first, Balance: acct.Balance}, nil
	}
	t, err := price(ctx, tx, req)
	if err != nil {
		return Spent{}, err
	}
	if err := acct.covers(t.Amount); err != nil {
		return Spent{}, err
	}
	t.Type, t.Amount, t.Description, t.UserID = TypeSpend, -t.Amount, req.Description, &user
	t, err = acct.post(ctx, tx, entry{Transaction: t, key: key, hash: hash})
	return Spent{Transaction: t, Balance: acct.Balance}, err
}

// covers returns insufficient_credits when the account cannot pay amount.
func (a *account) covers(amount Amount) error {
	if a.Debt > 0 {
		return stoa.Errorf(stoa.InsufficientCredits,
			"This needs %s credits, but the store owes %s from a payment that was reversed. Buy credits to settle it.", amount, a.Debt)
	}
	if amount > a.Available() {
		return stoa.Errorf(stoa.InsufficientCredits,
			"This needs %s credits and %s are available. Buy credits and try again.", amount, a.Available())
	}
	return nil
}

// price fills in what the request costs at the transaction's time: Amount,
// and for a service its key, quantity and unit price.
func price(ctx context.Context, tx *masterdb.Tx, req SpendRequest) (Transaction, error) {
	if req.ServiceKey == "" {
		return Transaction{Amount: req.Amount}, nil
	}
	var faults stoa.Invalid
	unit, found, err := unitPrice(ctx, tx, req.ServiceKey, tx.Now)
	if err != nil {
		return Transaction{}, err
	}
	quantity := req.quantity()
	total, ok := unit.times(quantity)
	switch {
	case !found:
		faults.Add("serviceKey", "there is no such service in the price list")
	case unit == 0:
		faults.Add("serviceKey", "this service is free: there is nothing to spend")
	case !ok:
		faults.Add("quantity", "is too large")
	}
	return Transaction{Amount: total, ServiceKey: &req.ServiceKey, Quantity: &quantity, UnitPrice: &unit}, faults.Err()
}

// validate finds every fault that can be seen without the database.
func (r SpendRequest) validate() error {
	var faults stoa.Invalid
	switch {
	case r.Amount < 0:
		faults.Add("amount", "must be above 0")
	case r.Amount == 0 && r.ServiceKey == "":
		faults.Add("amount", "give an amount above 0, or a serviceKey")
	case r.Amount > 0 && r.ServiceKey != "":
		faults.Add("amount", "give either an amount or a serviceKey, not both")
	}
	switch {
	case r.Quantity == nil:
	case *r.Quantity < 1:
		faults.Add("quantity", "must be at least 1")
	case r.ServiceKey == "":
		faults.Add("quantity", "goes with a serviceKey only")
	}
	if !storable(r.ServiceKey, maxServiceKey) {
		faults.Add("serviceKey", "there is no such service in the price list")
	}
	if !storable(r.Description, maxDescription) {
		faults.Add("description", "must be text of at most %d characters", maxDescription)
	}
	CheckIdempotencyKey(&faults, r.IdempotencyKey)
	return faults.Err()
}

// maxDescription is counted in characters, not bytes.
const maxDescription = 500

// storable reports whether s is at most limit characters of text that both
// engines take: PostgreSQL refuses the zero byte and invalid UTF-8.
func storable(s string, limit int) bool {
	return utf8.ValidString(s) && !strings.Contains(s, "\x00") && utf8.RuneCountInString(s) <= limit
}

func (r SpendRequest) quantity() int64 {
	if r.Quantity == nil {
		return 1
	}
	return *r.Quantity
}

// spendKeys begins the key of every spend in the ledger. It keeps a caller
// from taking the key that a grant will need, such as that of a payment on
// its way.
const spendKeys = "spend:"

// idempotency returns the key under which the spend is recorded and the
// request's hash, both empty when the caller gave no key.
func (r SpendRequest) idempotency() (key, hash string) {
	if r.IdempotencyKey == "" {
		return "", ""
	}
	return spendKeys + r.IdempotencyKey, RequestHash("spend", r.Amount, r.ServiceKey, r.quantity(), r.Description)
}
