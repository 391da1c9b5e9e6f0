package credits

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
)

// SpendRequest describes what to pay for: either an Amount, or a service of the price
// list.
type SpendRequest struct {
	Amount         Amount // 0 when ServiceKey is given
	ServiceKey     string
	Quantity       *int64 // of ServiceKey; nil means 1
	Description    string // at most 500 characters
	IdempotencyKey string // empty: no key
}

// SpendResult is the result of a spend. When it is a replay, Transaction and Balance are
// those of the first call.
type SpendResult struct {
	Transaction Transaction
	Balance     Balance
	Replayed    bool
}

// Spend takes credits from the store. When it fails, it changes nothing: invalid_request
// names the invalid fields, insufficient_credits says how much is missing, and
// idempotency_conflict means that the key belongs to another request. The same request
// under the same key spends once, however often and through whichever process it is sent.
// After a failed attempt its key can be used again. When ctx ends first, the outcome is
// unknown until the request is sent again with its key.
func (l *Ledger) Spend(ctx context.Context, p authz.Principal, store stoa.StoreID, req SpendRequest) (SpendResult, error) {
	out, err := l.spend(ctx, p, store, req)
	l.metrics.spends.WithLabelValues(outcomeOf(err, "spent")).Inc()
	return out, err
}

func (l *Ledger) spend(ctx context.Context, p authz.Principal, store stoa.StoreID, req SpendRequest) (SpendResult, error) {
	if err := req.validate(); err != nil {
		return SpendResult{}, err
	}
	// The SQL form of the rules checks the user only. The scope of an API key is known
	// without the database.
	if err := p.Within(store, authz.SpendCredits); err != nil {
		return SpendResult{}, err
	}
	call := &spendCall{user: p, store: store, req: req}
	call.key, call.hash = req.idempotency()
	return l.spends.spend(ctx, call)
}

// price returns a transaction with the cost of the request: Amount and, for a service,
// its key, quantity and unit price. prices are those in force.
func (r SpendRequest) price(prices map[string]Amount) (Transaction, error) {
	if r.ServiceKey == "" {
		return Transaction{Amount: r.Amount}, nil
	}
	var faults stoa.Invalid
	unit, found := prices[r.ServiceKey]
	quantity := r.quantity()
	total, ok := unit.Times(quantity)
	switch {
	case !found:
		faults.Add("serviceKey", "there is no such service in the price list")
	case unit == 0:
		faults.Add("serviceKey", "this service is free: there is nothing to spend")
	case !ok:
		faults.Add("quantity", "is too large")
	}
	return Transaction{Amount: total, ServiceKey: &r.ServiceKey, Quantity: &quantity, UnitPrice: &unit}, faults.Err()
}

// validate reports every fault that can be detected without the database.
func (r SpendRequest) validate() error {
	var faults stoa.Invalid
	r.check(&faults)
	return faults.Err()
}

func (r SpendRequest) check(faults *stoa.Invalid) {
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
	CheckIdempotencyKey(faults, r.IdempotencyKey)
}

// maxDescription is the maximum length in characters, not bytes.
const maxDescription = 500

// storable reports whether s is at most limit characters of text that both engines
// accept: PostgreSQL refuses the zero byte and invalid UTF-8.
func storable(s string, limit int) bool {
	return utf8.ValidString(s) && !strings.Contains(s, "\x00") && utf8.RuneCountInString(s) <= limit
}

func (r SpendRequest) quantity() int64 {
	if r.Quantity == nil {
		return 1
	}
	return *r.Quantity
}

// spendKeys is the prefix of the key of every spend in the ledger. It prevents a caller
// from using the key that a grant will need, such as that of a payment in progress.
const spendKeys = "spend:"

// idempotency returns the key under which the spend is recorded and the
// request's hash, both empty when the caller gave no key.
func (r SpendRequest) idempotency() (key, hash string) {
	if r.IdempotencyKey == "" {
		return "", ""
	}
	return spendKeys + r.IdempotencyKey, RequestHash("spend", r.Amount, r.ServiceKey, r.quantity(), r.Description)
}
