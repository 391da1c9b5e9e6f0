package payments

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/quotas"
)

// Provider is a payment provider.
type Provider string

// The providers that the database accepts.
const (
	Stripe  Provider = "stripe"
	Sandbox Provider = "sandbox"
)

// Status is the state of a purchase.
type Status string

// The states of a purchase. An expired purchase becomes paid when its money arrives late.
// Refunded means that all the money was taken back. Mismatched means that the paid amount
// or currency differs from that of the purchase: no credits were granted, and a person
// has to refund the money at the provider. The purchase then becomes refunded.
const (
	Pending    Status = "pending"
	Paid       Status = "paid"
	Expired    Status = "expired"
	Refunded   Status = "refunded"
	Mismatched Status = "mismatched"
)

// Purchase is a number of credits that a store buys or has bought.
type Purchase struct {
	ID            stoa.PurchaseID
	StoreID       stoa.StoreID
	UserID        stoa.UserID
	Provider      Provider
	ProviderRef   *string // the provider's id of the checkout; at the sandbox, anyone who knows it can pay
	PaymentRef    *string // the provider's id of the payment
	Status        Status
	Credits       credits.Amount
	AmountMinor   int64  // in the currency's minor unit, such as cents
	Currency      string // ISO 4217
	PaidMinor     *int64 // the amount paid, if it differs from the price
	PaidCurrency  *string
	CheckoutURL   string // empty when there is no page to visit
	Automatic     bool   // made by an automatic recharge
	ReversedMinor int64  // the money that refunds and disputes have taken back
	ClawedBack    credits.Amount
	CreatedAt     time.Time
	UpdatedAt     time.Time
	PaidAt        *time.Time
}

// purchase is a row of purchases with the columns that only this package needs.
type purchase struct {
	Purchase
	Attempt int   // numbers the idempotency keys at Stripe
	Version int64 // the number of applied provider states
	Frozen  credits.Amount
	Freezes int
}

const purchaseColumns = `
	id, store_id, user_id, provider, provider_ref, payment_ref, status, credits, amount_minor, currency, paid_minor, paid_currency,
	checkout_url, automatic, reversed_minor, clawed_back, created_at, updated_at, paid_at`

const selectPurchase = `SELECT ` + purchaseColumns + ` FROM purchases`

const selectPurchaseRow = `SELECT ` + purchaseColumns + `, attempt, version, frozen, freezes FROM purchases`

// AmountDecimal returns the price in decimal notation: "10.00", or "1000" in
// yen.
func (p Purchase) AmountDecimal() string { return decimalAmount(p.AmountMinor, p.Currency) }

// ReversedDecimal returns the money that was taken back, in the same form.
func (p Purchase) ReversedDecimal() string { return decimalAmount(p.ReversedMinor, p.MoneyCurrency()) }

// MoneyCurrency returns the currency of the money that was received. It differs
// from Currency for some payments that do not match.
func (p Purchase) MoneyCurrency() string {
	if p.PaidCurrency != nil {
		return *p.PaidCurrency
	}
	return p.Currency
}

// PaidDecimal returns the money that was received, in the form of AmountDecimal.
func (p Purchase) PaidDecimal() string { return decimalAmount(p.receivedMinor(), p.MoneyCurrency()) }

// receivedMinor returns the money that was received or is expected.
func (p Purchase) receivedMinor() int64 {
	if p.PaidMinor != nil {
		return *p.PaidMinor
	}
	return p.AmountMinor
}

// PurchaseRequest describes how much to buy.
type PurchaseRequest struct {
	Credits        credits.Amount // whole credits, 1 to 1,000,000
	IdempotencyKey string         // empty: no key
}

// PurchaseResult is the purchase that a call has begun, or as it is now when an earlier call
// with the key has begun it. Purchase.AsMade is what that call returned.
type PurchaseResult struct {
	Purchase
	Replayed bool
}

// maxCredits bounds one purchase.
const maxCredits = 1_000_000 * credits.Credit

// Purchase creates a purchase. It is pending until the buyer pays at its CheckoutURL. The
// same request under the same key creates one purchase. Another request under that key
// fails with idempotency_conflict. Without a provider, or when the provider does not
// answer, it fails with payments_unavailable. The same request under the same key then
// continues the same purchase.
func (s *Service) Purchase(ctx context.Context, p authz.Principal, store stoa.StoreID, req PurchaseRequest) (PurchaseResult, error) {
	if err := req.validate(); err != nil {
		return PurchaseResult{}, err
	}
	var row purchase
	var fresh Purchase
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := authz.Check(ctx, tx, p, store, authz.PurchaseCredits); err != nil {
			return err
		}
		var err error
		if fresh, err = s.newPurchase(tx.Now, p.UserID, store, req.Credits); err != nil {
			return err
		}
		if err := quotas.LockStore(ctx, tx, store); err != nil {
			return err
		}
		row, err = insertPurchase(ctx, tx, fresh, req)
		if err != nil || row.ID != fresh.ID { // the key has created this purchase before
			return err
		}
		if err := s.checkMinimum("credits", req.Credits); err != nil {
			return err
		}
		if err := checkPending(ctx, tx, store); err != nil {
			return err
		}
		s.reached(tx, Pending)
		return recordPurchase(ctx, tx, p, fresh, audit.Success)
	})
	switch {
	case err != nil:
		return PurchaseResult{}, err
	case row.ProviderRef != nil:
		return PurchaseResult{Purchase: row.Purchase, Replayed: row.ID != fresh.ID}, nil
	case row.Status != Pending: // no call has come as far as the checkout
		return PurchaseResult{Purchase: row.Purchase}, nil
	}
	opened, err := s.openCheckout(ctx, row)
	return PurchaseResult{Purchase: opened}, err
}

// AsMade returns the purchase as it was when its checkout was opened.
func (p Purchase) AsMade() Purchase {
	p.Status, p.PaymentRef, p.PaidMinor, p.PaidCurrency, p.PaidAt = Pending, nil, nil, nil, nil
	p.ReversedMinor, p.ClawedBack = 0, 0
	return p
}

// maxPending is the maximum number of purchases of a store that wait for payment. A
// purchase that is older than a day does not count, since its checkout has expired.
const maxPending = 100

// checkPending fails with quota_exceeded when the purchase that tx has just inserted
// exceeds maxPending. The caller has locked the store.
func checkPending(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	var pending int
	err := tx.Get(ctx, &pending, `SELECT count(*) FROM purchases WHERE store_id = $1 AND status = 'pending' AND NOT automatic AND created_at > $2`,
		store, tx.Now.Add(-24*time.Hour))
	if err != nil || !quotas.Exceeded(maxPending, pending-1) {
		return err
	}
	return quotas.Error(quotas.PendingPurchases, maxPending, pending-1,
		"This store has %d purchases that wait for payment. Pay one of them, or wait until they expire.", pending-1)
}

// checkMinimum calls Price.checkMinimum when Stripe is the provider. The sandbox
// accepts any amount.
func (s *Service) checkMinimum(field string, amount credits.Amount) error {
	if s.stripe == nil {
		return nil
	}
	return s.cfg.CreditPrice.checkMinimum(field, amount)
}

func (s *Service) newPurchase(now time.Time, user stoa.UserID, store stoa.StoreID, amount credits.Amount) (Purchase, error) {
	p := Purchase{
		ID: stoa.NewID[stoa.PurchaseID](), StoreID: store, UserID: user, Provider: Stripe, Status: Pending, Credits: amount,
		AmountMinor: s.cfg.CreditPrice.of(amount), Currency: s.cfg.CreditPrice.Currency,
		CreatedAt: now, UpdatedAt: now,
	}
	switch {
	case s.stripe != nil:
		return p, nil
	case s.cfg.Sandbox:
		return s.atSandbox(p), nil
	}
	return p, errNoProvider()
}

// recordPurchase writes the start of a purchase, or its failure, to the audit log.
func recordPurchase(ctx context.Context, tx *masterdb.Tx, by authz.Principal, p Purchase, o audit.Outcome) error {
	return audit.Record(ctx, tx, by, audit.Event{Action: audit.PurchaseStarted, Store: p.StoreID, Outcome: o, Details: map[string]string{
		"purchase": p.ID.String(), "credits": p.Credits.String(), "amount": p.AmountDecimal(), "currency": p.Currency,
		"provider": string(p.Provider), "automatic": strconv.FormatBool(p.Automatic),
	}})
}

func errNoProvider() error {
	return stoa.Errorf(stoa.PaymentsUnavailable, "Credits cannot be bought here: no payment provider is configured. Ask the platform's operator.")
}

// insertPurchase stores p, or returns the purchase that the request's key created before.
// The unique key serializes two concurrent requests: the second waits for the first and
// then finds its row.
func insertPurchase(ctx context.Context, tx *masterdb.Tx, p Purchase, req PurchaseRequest) (purchase, error) {
	var key, hash *string
	if req.IdempotencyKey != "" {
		h := credits.RequestHash("purchase", req.Credits)
		key, hash = &req.IdempotencyKey, &h
	}
	inserted, err := tx.Exec(ctx, `
		INSERT INTO purchases (id, store_id, user_id, provider, provider_ref, status, credits, amount_minor, currency,
			checkout_url, automatic, idempotency_key, request_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)
		ON CONFLICT (store_id, idempotency_key) DO NOTHING`,
		p.ID, p.StoreID, p.UserID, string(p.Provider), p.ProviderRef, string(p.Status), p.Credits, p.AmountMinor, p.Currency,
		p.CheckoutURL, p.Automatic, key, hash, p.CreatedAt)
	if err != nil || inserted == 1 {
		return purchase{Purchase: p, Attempt: 1}, err
	}
	var known string
	if err := tx.Get(ctx, &known, `SELECT request_hash FROM purchases WHERE store_id = $1 AND idempotency_key = $2`, p.StoreID, *key); err != nil {
		return purchase{}, err
	}
	if known != *hash {
		return purchase{}, credits.ErrIdempotencyConflict()
	}
	var first purchase
	err = tx.Get(ctx, &first, selectPurchaseRow+` WHERE store_id = $1 AND idempotency_key = $2`, p.StoreID, *key)
	return first, err
}

func (r PurchaseRequest) validate() error {
	var faults stoa.Invalid
	checkWholeCredits(&faults, "credits", r.Credits)
	credits.CheckIdempotencyKey(&faults, r.IdempotencyKey)
	return faults.Err()
}

// checkWholeCredits adds a fault for field unless amount is whole credits within
// the limits of a purchase.
func checkWholeCredits(faults *stoa.Invalid, field string, amount credits.Amount) {
	if amount < credits.Credit || amount > maxCredits || amount%credits.Credit != 0 {
		faults.Add(field, "must be a whole number from 1 to %s", maxCredits)
	}
}

// Get returns a purchase of the store. It fails with not_found when the store has no such
// purchase, and with store_not_found for a caller who is not a member.
func (s *Service) Get(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.PurchaseID) (Purchase, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadCredits); err != nil {
		return Purchase{}, err
	}
	var out Purchase
	err := s.db.Get(ctx, &out, selectPurchase+` WHERE id = $1 AND store_id = $2`, id, store)
	return out, orNotFound(err)
}

// Find returns a purchase of any store that the caller may see the credits of. It fails
// with not_found for all others, so that an id says nothing.
func (s *Service) Find(ctx context.Context, p authz.Principal, id stoa.PurchaseID) (Purchase, error) {
	var out Purchase
	if err := s.db.Get(ctx, &out, selectPurchase+` WHERE id = $1`, id); err != nil {
		return Purchase{}, orNotFound(err)
	}
	_, err := authz.Check(ctx, s.db, p, out.StoreID, authz.ReadCredits)
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are faults of the platform
	case stoa.StoreNotFound, stoa.Forbidden:
		return Purchase{}, orNotFound(masterdb.ErrNotFound)
	case "":
		return out, nil
	}
	return Purchase{}, err
}

// Page is one page of purchases, newest first. NextCursor is nil on the last page.
type Page struct {
	Purchases  []Purchase
	NextCursor *string
}

// List returns a page of the store's purchases, newest first. limit is 1 to 100; 0 means
// 20. cursor is the NextCursor of the previous page. It fails with invalid_request for an
// invalid limit or cursor and with store_not_found for a caller who is not a member.
func (s *Service) List(ctx context.Context, p authz.Principal, store stoa.StoreID, limit int, cursor string) (Page, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.PurchaseID](limit, cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadCredits); err != nil {
		return Page{}, err
	}
	rows := []Purchase{}
	err := s.db.Select(ctx, &rows, selectPurchase+` WHERE store_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`,
		store, bounds.Before, bounds.Rows())
	if err != nil {
		return Page{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(p Purchase) string { return p.ID.String() })
	return Page{Purchases: rows, NextCursor: next}, nil
}

func orNotFound(err error) error {
	if errors.Is(err, masterdb.ErrNotFound) {
		return stoa.Errorf(stoa.NotFound, "There is no such purchase.")
	}
	return err
}

// title returns the purchase's name in the ledger and on the checkout page.
func (p Purchase) title() string {
	noun := "credits"
	if p.Credits == credits.Credit {
		noun = "credit"
	}
	return fmt.Sprintf("Purchase of %s %s", p.Credits, noun)
}
