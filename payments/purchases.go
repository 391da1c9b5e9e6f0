package payments

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/masterdb"
)

// Provider is who takes the money.
type Provider string

// The providers that the table knows.
const (
	Stripe  Provider = "stripe"
	Sandbox Provider = "sandbox"
)

// Status is where a purchase stands.
type Status string

// The states of a purchase.
const (
	Pending  Status = "pending"
	Paid     Status = "paid"
	Expired  Status = "expired"
	Refunded Status = "refunded"
)

// Purchase is credits that a store buys, or has bought.
type Purchase struct {
	ID          stoa.PurchaseID
	StoreID     stoa.StoreID
	UserID      stoa.UserID
	Provider    Provider
	ProviderRef string // the provider's id of the checkout; whoever knows it may pay
	Status      Status
	Credits     credits.Amount
	AmountMinor int64  // in the currency's minor unit, such as cents
	Currency    string // ISO 4217
	CheckoutURL string
	CreatedAt   time.Time
	UpdatedAt   time.Time
	PaidAt      *time.Time
}

const selectPurchase = `
	SELECT id, store_id, user_id, provider, provider_ref, status, credits, amount_minor, currency, checkout_url,
		created_at, updated_at, paid_at`

// decimals lists the currencies whose minor unit is not a hundredth, as
// Stripe charges them: https://docs.stripe.com/currencies#zero-decimal
var decimals = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "JPY": 0, "KMF": 0, "KRW": 0, "MGA": 0,
	"PYG": 0, "RWF": 0, "VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "JOD": 3, "KWD": 3, "OMR": 3, "TND": 3,
}

// AmountDecimal is the price as a person writes it: "10.00", or "1000" in
// yen.
func (p Purchase) AmountDecimal() string {
	places, special := decimals[p.Currency]
	if !special {
		places = 2
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(places)), nil)
	return new(big.Rat).SetFrac(big.NewInt(p.AmountMinor), unit).FloatString(places)
}

// PurchaseRequest says how much to buy.
type PurchaseRequest struct {
	Credits        credits.Amount // whole credits, 1 to 1,000,000
	IdempotencyKey string         // empty for none
}

// maxCredits bounds one purchase.
const maxCredits = 1_000_000 * credits.Credit

// Purchase begins a purchase: it is pending until its CheckoutURL has been
// visited and paid. The same request under the same key makes one purchase,
// another one is idempotency_conflict. Without a provider it fails with
// payments_unavailable.
func (s *Service) Purchase(ctx context.Context, p access.Principal, store stoa.StoreID, req PurchaseRequest) (Purchase, error) {
	if err := req.validate(); err != nil {
		return Purchase{}, err
	}
	var out Purchase
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := access.Check(ctx, tx, p, store, access.PurchaseCredits); err != nil {
			return err
		}
		if !s.cfg.Sandbox {
			return stoa.Errorf(stoa.PaymentsUnavailable, "Credits cannot be bought here: no payment provider is configured. "+
				"To try purchases in development, the operator starts the platform with STOA_ENV=development, which offers the sandbox.")
		}
		var err error
		out, err = insertPurchase(ctx, tx, s.sandboxPurchase(tx.Now, p.UserID, store, req.Credits), req)
		return err
	})
	if err != nil {
		return Purchase{}, err
	}
	return out, nil
}

// sandboxPurchase fills in a purchase at the sandbox. As with Stripe, the
// checkout's id cannot be guessed, and knowing it is the right to pay.
func (s *Service) sandboxPurchase(now time.Time, user stoa.UserID, store stoa.StoreID, amount credits.Amount) Purchase {
	ref := "cs_sandbox_" + rand.Text()
	return Purchase{
		ID: stoa.NewID[stoa.PurchaseID](), StoreID: store, UserID: user,
		Provider: Sandbox, ProviderRef: ref, Status: Pending, Credits: amount,
		AmountMinor: int64(amount/credits.Credit) * s.cfg.CreditPrice.MinorPerCredit, Currency: s.cfg.CreditPrice.Currency,
		CheckoutURL: s.cfg.BaseURL + "/sandbox/checkout/" + ref,
		CreatedAt:   now, UpdatedAt: now,
	}
}

// insertPurchase stores p, or returns the purchase that the request's key
// made before. The unique key decides between two at once: the second waits
// for the first and then finds its row.
func insertPurchase(ctx context.Context, tx *masterdb.Tx, p Purchase, req PurchaseRequest) (Purchase, error) {
	var key, hash *string
	if req.IdempotencyKey != "" {
		h := credits.RequestHash("purchase", req.Credits)
		key, hash = &req.IdempotencyKey, &h
	}
	inserted, err := tx.Exec(ctx, `
		INSERT INTO purchases (id, store_id, user_id, provider, provider_ref, status, credits, amount_minor, currency,
			checkout_url, idempotency_key, request_hash, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)
		ON CONFLICT (store_id, idempotency_key) DO NOTHING`,
		p.ID, p.StoreID, p.UserID, string(p.Provider), p.ProviderRef, string(p.Status), p.Credits, p.AmountMinor, p.Currency,
		p.CheckoutURL, key, hash, p.CreatedAt)
	if err != nil || inserted == 1 {
		return p, err
	}
	var first struct {
		Purchase
		RequestHash string
	}
	err = tx.Get(ctx, &first, selectPurchase+`, request_hash FROM purchases WHERE store_id = $1 AND idempotency_key = $2`, p.StoreID, *key)
	if err != nil {
		return Purchase{}, err
	}
	if first.RequestHash != *hash {
		return Purchase{}, credits.ErrIdempotencyConflict()
	}
	return first.Purchase, nil
}

func (r PurchaseRequest) validate() error {
	var faults stoa.Invalid
	if r.Credits < credits.Credit || r.Credits > maxCredits || r.Credits%credits.Credit != 0 {
		faults.Add("credits", "must be a whole number from 1 to %s", maxCredits)
	}
	credits.CheckIdempotencyKey(&faults, r.IdempotencyKey)
	return faults.Err()
}

// Get returns a purchase of the store. It fails with not_found when the
// store has no such purchase, and with store_not_found for anyone but a
// member.
func (s *Service) Get(ctx context.Context, p access.Principal, store stoa.StoreID, id stoa.PurchaseID) (Purchase, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ReadCredits); err != nil {
		return Purchase{}, err
	}
	var out Purchase
	err := s.db.Get(ctx, &out, selectPurchase+` FROM purchases WHERE id = $1 AND store_id = $2`, id, store)
	return out, orNotFound(err)
}

func orNotFound(err error) error {
	if errors.Is(err, masterdb.ErrNotFound) {
		return stoa.Errorf(stoa.NotFound, "There is no such purchase.")
	}
	return err
}

// title names the purchase in the ledger.
func (p Purchase) title() string {
	noun := "credits"
	if p.Credits == credits.Credit {
		noun = "credit"
	}
	return fmt.Sprintf("Purchase of %s %s", p.Credits, noun)
}
