package payments

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v86"
	"github.com/stripe/stripe-go/v86/webhook"

	"github.com/stoahq/stoa"
)

// atSandbox gives p a checkout at the sandbox. As at Stripe, the checkout's id cannot be
// guessed, and anyone who knows it can pay.
func (s *Service) atSandbox(p Purchase) Purchase {
	ref := "cs_sandbox_" + rand.Text()
	p.Provider, p.ProviderRef, p.CheckoutURL = Sandbox, &ref, s.cfg.BaseURL+"/sandbox/checkout/"+ref
	return p
}

// Checkout returns the purchase of a sandbox checkout page. Anyone who knows ref can read
// it. Without the sandbox every ref is not_found.
func (s *Service) Checkout(ctx context.Context, ref string) (Purchase, error) {
	var p Purchase
	if !s.cfg.Sandbox || !strings.HasPrefix(ref, "cs_sandbox_") {
		return p, stoa.Errorf(stoa.NotFound, "There is no such purchase.")
	}
	err := s.db.Get(ctx, &p, selectPurchase+` WHERE provider = $1 AND provider_ref = $2`, string(Sandbox), ref)
	return p, orNotFound(err)
}

// Pay handles the Pay button of the sandbox's page. It delivers the event that Stripe
// sends after a payment and applies it before it returns, so that the buyer sees the
// outcome at once and can spend the credits. Should that fail, the event's job applies it
// later. Paying again changes nothing.
func (s *Service) Pay(ctx context.Context, ref string) error {
	p, err := s.Checkout(ctx, ref)
	if err != nil {
		return err
	}
	switch p.Status {
	case Paid:
		return nil
	case Pending:
	default:
		return stoa.Errorf(stoa.InvalidRequest, "This purchase is %s and can no longer be paid. Begin a new one.", p.Status)
	}
	id := "evt_sandbox_" + rand.Text()
	body, err := json.Marshal(paidEvent(p, id, ref, time.Now()))
	if err != nil {
		return err
	}
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: s.cfg.WebhookSecret.Reveal()})
	if err := s.Receive(ctx, body, signed.Header); err != nil {
		return err
	}
	return s.apply(ctx, id)
}

// paidEvent returns an event in the format of Stripe's checkout.session.completed:
// https://docs.stripe.com/api/checkout/sessions/object
func paidEvent(p Purchase, id, ref string, now time.Time) map[string]any {
	return map[string]any{
		"id":          id,
		"object":      "event",
		"api_version": stripe.APIVersion,
		"created":     now.Unix(),
		"livemode":    false,
		"type":        stripe.EventTypeCheckoutSessionCompleted,
		"data": map[string]any{"object": map[string]any{
			"id":                  ref,
			"object":              "checkout.session",
			"mode":                stripe.CheckoutSessionModePayment,
			"client_reference_id": p.ID,
			"status":              stripe.CheckoutSessionStatusComplete,
			"payment_status":      stripe.CheckoutSessionPaymentStatusPaid,
			"payment_intent":      sandboxIntent(ref),
			"amount_total":        p.AmountMinor,
			"currency":            strings.ToLower(p.Currency),
			"metadata":            p.metadata(),
		}},
	}
}

// sandboxIntent returns the payment id of a checkout. It is the same each time, so that a
// double click pays once. It is a hash of ref, since everyone who may read the ledger
// sees it, and anyone who knows ref can pay.
func sandboxIntent(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return "pi_sandbox_" + hex.EncodeToString(sum[:16])
}
