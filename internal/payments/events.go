package payments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v86"
	"github.com/stripe/stripe-go/v86/webhook"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Receive stores an event of the payment provider and enqueues a job that applies it,
// since providers wait for a few seconds at most. body is the unchanged body of the
// request, and signature is its Stripe-Signature header. An event that is already stored
// is acknowledged again. It fails with invalid_request when the signature is wrong or
// more than 5 minutes old, and with payments_unavailable when no webhook secret is
// configured.
func (s *Service) Receive(ctx context.Context, body []byte, signature string) error {
	if s.cfg.WebhookSecret.IsZero() {
		return stoa.Errorf(stoa.PaymentsUnavailable, "No webhook secret is configured: events cannot be verified.")
	}
	// ConstructEvent also refuses an API version whose objects this stripe-go would
	// misread. Stripe then retries for 3 days, in which the operator can set the
	// endpoint's version.
	event, err := webhook.ConstructEvent(body, signature, s.cfg.WebhookSecret.Reveal())
	if err != nil {
		return refuseDelivery(err)
	}
	if event.ID == "" || event.Data == nil {
		return stoa.Errorf(stoa.InvalidRequest, "The event has no id or no data.")
	}
	_, err = s.store(ctx, event.ID, string(event.Type), string(body))
	return err
}

// store inserts an event and enqueues its job. It does nothing for an event that is
// already stored. It reports whether the event is new.
func (s *Service) store(ctx context.Context, id, typ, payload string) (fresh bool, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		inserted, err := tx.Exec(ctx, `
			INSERT INTO stripe_events (id, type, payload, received_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO NOTHING`, id, typ, payload, tx.Now)
		if fresh = inserted == 1; err != nil || !fresh {
			return err
		}
		return s.queue.Enqueue(ctx, tx, ApplyEvent{EventID: id})
	})
	return fresh, err
}

func refuseDelivery(err error) error {
	for _, fault := range []error{webhook.ErrNotSigned, webhook.ErrInvalidHeader, webhook.ErrNoValidSignature, webhook.ErrTooOld} {
		if errors.Is(err, fault) {
			return stoa.Errorf(stoa.InvalidRequest, "The webhook signature is missing, wrong or too old.").WithCause(err)
		}
	}
	return stoa.Errorf(stoa.InvalidRequest, "The event cannot be read. The webhook endpoint must use API version %s.", stripe.APIVersion).WithCause(err)
}

// ApplyEvent is the job that applies a stored event.
type ApplyEvent struct {
	EventID string `json:"event_id"`
}

// Kind implements jobs.Args.
func (ApplyEvent) Kind() string { return "payments.apply_event" }

// errRefused marks an event that no later attempt can apply.
var errRefused = errors.New("payment event refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errRefused, fmt.Sprintf(format, args...))
}

// storedEvent is a row of stripe_events.
type storedEvent struct {
	ID        string
	Type      string
	Payload   string
	AppliedAt *time.Time
}

// Apply applies an event once. Two attempts at one event, and two events about one
// payment, wait for each other and have one effect. An event that contradicts what was
// sold changes nothing, stays unapplied, is logged as an error and is not retried.
// Reconcile checks it every day.
func (s *Service) Apply(ctx context.Context, job ApplyEvent) error {
	err := s.apply(ctx, job.EventID)
	outcome := "applied"
	switch {
	case errors.Is(err, errRefused):
		outcome = "refused"
	case err != nil:
		outcome = "failed"
	}
	s.metrics.events.WithLabelValues(outcome).Inc()
	if errors.Is(err, errRefused) {
		s.cfg.Log.ErrorContext(ctx, "a payment event cannot be applied and needs a person", "event", job.EventID, "error", err)
		return jobs.Cancel(err)
	}
	return s.jobFailed(ctx, job, err)
}

func (s *Service) apply(ctx context.Context, id string) error {
	var event storedEvent
	err := s.db.Get(ctx, &event, `SELECT id, type, payload, applied_at FROM stripe_events WHERE id = $1`, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return refuse("it is not stored")
	}
	if err != nil || event.AppliedAt != nil {
		return err
	}
	sub, err := s.subject(ctx, event)
	switch {
	case err != nil:
		return err
	case sub.setup != "":
		return s.saveCard(ctx, sub.setup, id)
	case sub.purchase.IsZero():
		return s.markApplied(ctx, id)
	}
	return s.syncPurchase(ctx, sub, id)
}

// markApplied marks an event as applied in a transaction of its own.
func (s *Service) markApplied(ctx context.Context, event string) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return markApplied(ctx, tx, event) })
}

// markApplied marks an event as applied. It does nothing for an empty event.
func markApplied(ctx context.Context, tx *masterdb.Tx, event string) error {
	if event == "" {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE stripe_events SET applied_at = $2 WHERE id = $1 AND applied_at IS NULL`, event, tx.Now)
	return err
}

// subject describes what an event is about.
type subject struct {
	purchase         stoa.PurchaseID // zero for an event that is not about a purchase of Stoa's
	setup            string          // the checkout where a card was saved
	checkout, intent string          // the ids that the event names
	reversal         bool            // the event is about a refund or dispute of intent
	state            providerState   // the state that the event itself contains
}

// subject reads what the event is about. The account at the provider may sell other
// things too. Events about those have a zero subject.
func (s *Service) subject(ctx context.Context, e storedEvent) (sub subject, err error) {
	var event stripe.Event
	if err := json.Unmarshal([]byte(e.Payload), &event); err != nil { // Receive has parsed the event with its data
		return sub, refuse("its payload cannot be read: %v", err)
	}
	switch {
	case !slices.Contains(eventTypes, e.Type):
		return sub, nil
	case strings.HasPrefix(e.Type, "checkout.session."):
		var cs stripe.CheckoutSession
		if err := json.Unmarshal(event.Data.Raw, &cs); err != nil {
			return sub, refuse("its checkout session cannot be read: %v", err)
		}
		return s.sessionSubject(&cs)
	case strings.HasPrefix(e.Type, "payment_intent."):
		var pi stripe.PaymentIntent
		if err := json.Unmarshal(event.Data.Raw, &pi); err != nil {
			return sub, refuse("its payment intent cannot be read: %v", err)
		}
		sub.intent, sub.state = pi.ID, intentState(&pi)
		sub.purchase, err = named(pi.Metadata)
		return sub, err
	case strings.HasPrefix(e.Type, "refund."):
		var r stripe.Refund
		if err := json.Unmarshal(event.Data.Raw, &r); err != nil {
			return sub, refuse("its refund cannot be read: %v", err)
		}
		return s.reversalSubject(ctx, r.PaymentIntent, refundReversal(&r))
	default:
		var d stripe.Dispute
		if err := json.Unmarshal(event.Data.Raw, &d); err != nil {
			return sub, refuse("its dispute cannot be read: %v", err)
		}
		return s.reversalSubject(ctx, d.PaymentIntent, disputeReversal(&d))
	}
}

// eventTypes are the types of events that change a purchase or a card. Stripe
// lists undelivered events of at most 20 types.
var eventTypes = []string{
	string(stripe.EventTypeCheckoutSessionCompleted), string(stripe.EventTypeCheckoutSessionExpired),
	string(stripe.EventTypeCheckoutSessionAsyncPaymentSucceeded), string(stripe.EventTypeCheckoutSessionAsyncPaymentFailed),
	string(stripe.EventTypePaymentIntentSucceeded), string(stripe.EventTypePaymentIntentPaymentFailed), string(stripe.EventTypePaymentIntentCanceled),
	string(stripe.EventTypeRefundCreated), string(stripe.EventTypeRefundUpdated), string(stripe.EventTypeRefundFailed),
	string(stripe.EventTypeChargeDisputeCreated), string(stripe.EventTypeChargeDisputeUpdated), string(stripe.EventTypeChargeDisputeClosed),
	string(stripe.EventTypeChargeDisputeFundsWithdrawn), string(stripe.EventTypeChargeDisputeFundsReinstated),
}

func (s *Service) sessionSubject(cs *stripe.CheckoutSession) (sub subject, err error) {
	if s.stripe != nil && cs.Metadata["store_id"] == "" { // checkouts of Stoa always have it
		return sub, nil
	}
	if cs.Mode == stripe.CheckoutSessionModeSetup {
		return subject{setup: cs.ID}, nil
	}
	sub = subject{checkout: cs.ID, state: sessionState(cs)}
	if sub.purchase, err = stoa.ParseID[stoa.PurchaseID](cs.ClientReferenceID); err != nil {
		return sub, refuse("it names no purchase")
	}
	return sub, nil
}

// reversalSubject finds the purchase of a refund or dispute by its payment. It reads a
// payment whose own event has not been applied yet from Stripe.
func (s *Service) reversalSubject(ctx context.Context, pi *stripe.PaymentIntent, r reversal) (sub subject, err error) {
	if pi == nil || pi.ID == "" {
		return sub, nil
	}
	sub = subject{intent: pi.ID, reversal: true, state: providerState{reversals: []reversal{r}}}
	err = s.db.Get(ctx, &sub.purchase, `SELECT id FROM purchases WHERE payment_ref = $1`, pi.ID)
	if !errors.Is(err, masterdb.ErrNotFound) {
		return sub, err
	}
	if s.stripe == nil {
		return sub, fmt.Errorf("payment %s is not known yet", pi.ID)
	}
	if pi, err = s.stripe.intent(ctx, pi.ID); err != nil {
		return sub, err
	}
	sub.purchase, err = named(pi.Metadata)
	return sub, err
}

// named returns the purchase that a payment's metadata contains, or zero if it contains
// none.
func named(metadata map[string]string) (id stoa.PurchaseID, err error) {
	text := metadata["purchase_id"]
	if text == "" {
		return id, nil
	}
	if id, err = stoa.ParseID[stoa.PurchaseID](text); err != nil {
		return id, refuse("its payment names no purchase")
	}
	return id, nil
}

// Expiry returns the rule by which applied events are deleted. A deleted event that is
// delivered again is stored and applied again, which changes nothing. An event that was
// not applied is kept, since it needs a manual decision.
func Expiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{Table: "stripe_events", Key: []string{"id"}, Age: "applied_at", Keep: keep}
}
