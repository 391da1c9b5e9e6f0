package payments

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// charge charges the saved card for p, off session.
func (c *stripeClient) charge(ctx context.Context, p purchase, r recharge) (*stripe.PaymentIntent, error) {
	params := &stripe.PaymentIntentCreateParams{
		Amount: stripe.Int64(p.AmountMinor), Currency: stripe.String(strings.ToLower(p.Currency)),
		Customer: r.CustomerRef, PaymentMethod: r.CardRef, PaymentMethodTypes: stripe.StringSlice([]string{"card"}),
		OffSession: stripe.Bool(true), Confirm: stripe.Bool(true),
		Description: stripe.String(p.title()), Metadata: p.metadata(),
	}
	params.IdempotencyKey = p.key()
	return c.api.V1PaymentIntents.Create(ctx, params)
}

// findCharge returns the charge that was made for p, or nil if there is none.
func (c *stripeClient) findCharge(ctx context.Context, p purchase, r recharge) (found *stripe.PaymentIntent, err error) {
	params := &stripe.PaymentIntentListParams{
		Customer: r.CustomerRef,
		// The range allows for a difference between the two clocks.
		CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: p.CreatedAt.Add(-time.Hour).Unix()},
	}
	for pi, err := range c.api.V1PaymentIntents.List(ctx, params).All(ctx) {
		if err != nil {
			return nil, err
		}
		if pi.Metadata["purchase_id"] != p.ID.String() {
			continue
		}
		if pi.Status == stripe.PaymentIntentStatusSucceeded {
			return pi, nil
		}
		if found == nil || found.Status == stripe.PaymentIntentStatusCanceled {
			found = pi
		}
	}
	return found, nil
}

func (c *stripeClient) cancel(ctx context.Context, intent string) error {
	_, err := c.api.V1PaymentIntents.Cancel(ctx, intent, nil)
	return err
}

// createCustomer creates the customer that the store's card belongs to.
func (c *stripeClient) createCustomer(ctx context.Context, store stoa.StoreID, name string) (string, error) {
	customer, err := withFreshKeys("customer:"+store.String(), func(key string) (*stripe.Customer, error) {
		params := &stripe.CustomerCreateParams{
			Name: stripe.String(name), Metadata: map[string]string{"store_id": store.String()},
		}
		params.IdempotencyKey = stripe.String(key)
		return c.api.V1Customers.Create(ctx, params)
	})
	if err != nil {
		return "", err
	}
	return customer.ID, nil
}

// createSetup creates the page where a card is saved.
func (c *stripeClient) createSetup(ctx context.Context, store stoa.StoreID, customer, key, baseURL string) (*stripe.CheckoutSession, error) {
	metadata := map[string]string{"store_id": store.String()}
	params := &stripe.CheckoutSessionCreateParams{
		Mode:               stripe.String(string(stripe.CheckoutSessionModeSetup)),
		Customer:           stripe.String(customer),
		ClientReferenceID:  stripe.String(store.String()),
		PaymentMethodTypes: stripe.StringSlice([]string{"card"}),
		Metadata:           metadata,
		SetupIntentData:    &stripe.CheckoutSessionCreateSetupIntentDataParams{Metadata: metadata},
		SuccessURL:         returnURL(baseURL, "saved", "store", store.String()),
		CancelURL:          returnURL(baseURL, "cancelled", "store", store.String()),
	}
	params.IdempotencyKey = stripe.String(key)
	return c.api.V1CheckoutSessions.Create(ctx, params)
}

// SaveCard returns the address of a page of the payment provider where a card is saved
// for automatic recharges. The new card replaces the previous one. The same key returns
// the same page for a day.
func (s *Service) SaveCard(ctx context.Context, p authz.Principal, store stoa.StoreID, idempotencyKey string) (url string, err error) {
	var faults stoa.Invalid
	credits.CheckIdempotencyKey(&faults, idempotencyKey)
	if err := faults.Err(); err != nil {
		return "", err
	}
	if _, err := authz.Check(ctx, s.db, p, store, authz.PurchaseCredits); err != nil {
		return "", err
	}
	if s.stripe == nil {
		return "", stoa.Errorf(stoa.PaymentsUnavailable, "Cards can only be saved at Stripe, which is not configured here. Ask the platform's operator.")
	}
	customer, err := s.customer(ctx, p.UserID, store)
	if err != nil {
		return "", err
	}
	key := fmt.Sprintf("card:%s:%s", store, rand.Text())
	if idempotencyKey != "" {
		key = "card:" + credits.RequestHash(store, customer, idempotencyKey)
	}
	session, err := withFreshKeys(key, func(key string) (*stripe.CheckoutSession, error) {
		return s.stripe.createSetup(ctx, store, customer, key, s.cfg.BaseURL)
	})
	if err != nil {
		return "", s.callError(ctx, "create a page to save a card", err)
	}
	// The state is recorded before the page's address is returned to anyone.
	return session.URL, s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.CardRequested, Store: store})
	})
}

// customer returns the store's customer at Stripe, and creates the customer if needed.
func (s *Service) customer(ctx context.Context, user stoa.UserID, store stoa.StoreID) (string, error) {
	var known struct {
		Name        string
		CustomerRef *string
	}
	if err := s.db.Get(ctx, &known, `
		SELECT s.name, r.customer_ref FROM stores s LEFT JOIN auto_recharges r ON r.store_id = s.id WHERE s.id = $1`, store); err != nil {
		return "", err
	}
	if known.CustomerRef != nil {
		return *known.CustomerRef, nil
	}
	made, err := s.stripe.createCustomer(ctx, store, known.Name)
	if err != nil {
		return "", s.callError(ctx, "create a customer", err)
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return tx.Get(ctx, &made, `
			INSERT INTO auto_recharges (store_id, user_id, customer_ref, updated_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (store_id) DO UPDATE SET customer_ref = coalesce(auto_recharges.customer_ref, excluded.customer_ref)
			RETURNING customer_ref`, store, user, made, tx.Now)
	})
	return made, err
}

// savedCard reads the card that was saved at a checkout. It returns nil if no card has
// been saved yet.
func (c *stripeClient) savedCard(ctx context.Context, checkout string) (*card, stoa.StoreID, error) {
	cs, err := c.session(ctx, checkout, "setup_intent.payment_method")
	if err != nil {
		return nil, stoa.StoreID{}, err
	}
	store, err := stoa.ParseID[stoa.StoreID](cs.ClientReferenceID)
	if err != nil {
		return nil, store, refuse("checkout %s names no store", checkout)
	}
	si := cs.SetupIntent
	if cs.Customer == nil || si == nil || si.Status != stripe.SetupIntentStatusSucceeded || si.PaymentMethod == nil {
		return nil, store, nil
	}
	saved := &card{customer: cs.Customer.ID, ref: si.PaymentMethod.ID, savedAt: time.Unix(cs.Created, 0).UTC()}
	if pc := si.PaymentMethod.Card; pc != nil {
		saved.brand, saved.last4, saved.expires = string(pc.Brand), pc.Last4, fmt.Sprintf("%04d-%02d", pc.ExpYear, pc.ExpMonth)
	}
	return saved, store, nil
}

// saveCard saves the card of a checkout, unless a later card is saved already.
// The same transaction marks event as applied.
func (s *Service) saveCard(ctx context.Context, checkout string, event string) error {
	if s.stripe == nil {
		return refuse("checkout %s saved a card at Stripe, and there is no key to ask Stripe with", checkout)
	}
	saved, store, err := s.stripe.savedCard(ctx, checkout)
	if err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if saved != nil {
			if err := saved.save(ctx, tx, store); err != nil {
				return err
			}
		}
		return markApplied(ctx, tx, event)
	})
}

// save stores the card as the store's card, unless a later card is saved already.
func (c *card) save(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	n, err := tx.Exec(ctx, `
		UPDATE auto_recharges SET card_ref = $3, card_brand = $4, card_last4 = $5, card_expires = $6, card_saved_at = $7, updated_at = $8
		WHERE store_id = $1 AND customer_ref = $2 AND (card_saved_at IS NULL OR card_saved_at <= $7)`,
		store, c.customer, c.ref, c.brand, c.last4, c.expires, c.savedAt, tx.Now)
	if err != nil || n == 0 {
		return err
	}
	return audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: audit.CardSaved, Store: store,
		Details: map[string]string{"brand": c.brand, "last4": c.last4}})
}
