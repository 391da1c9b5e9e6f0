package payments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v86"
	"github.com/stripe/stripe-go/v86/webhook"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
)

// Receive stores an event of the payment provider and leaves the rest to a
// job, since providers wait seconds at most. Body is the request's, byte for
// byte, and signature its Stripe-Signature header. An event that is already
// stored is acknowledged again. It fails with invalid_request when the
// signature is wrong or more than 5 minutes old, and with
// payments_unavailable when no webhook secret is configured.
func (s *Service) Receive(ctx context.Context, body []byte, signature string) error {
	if s.cfg.WebhookSecret.IsZero() {
		return stoa.Errorf(stoa.PaymentsUnavailable, "No webhook secret is configured: events cannot be verified.")
	}
	// ConstructEvent also refuses an API version whose objects this stripe-go
	// would misread. Stripe then tries again for 3 days: time to set the
	// endpoint's version.
	event, err := webhook.ConstructEvent(body, signature, s.cfg.WebhookSecret.Reveal())
	if err != nil {
		return refuseDelivery(err)
	}
	if event.ID == "" || event.Data == nil {
		return stoa.Errorf(stoa.InvalidRequest, "The event has no id or no data.")
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		inserted, err := tx.Exec(ctx, `
			INSERT INTO stripe_events (id, type, payload, received_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (id) DO NOTHING`, event.ID, string(event.Type), string(body), tx.Now)
		if err != nil || inserted == 0 {
			return err
		}
		return s.queue.Enqueue(ctx, tx, ApplyEvent{EventID: event.ID})
	})
}

func refuseDelivery(err error) error {
	for _, fault := range []error{webhook.ErrNotSigned, webhook.ErrInvalidHeader, webhook.ErrNoValidSignature, webhook.ErrTooOld} {
		if errors.Is(err, fault) {
			return stoa.Errorf(stoa.InvalidRequest, "The webhook signature is missing, wrong or too old.").Because(err)
		}
	}
	return stoa.Errorf(stoa.InvalidRequest, "The event cannot be read. The webhook endpoint must use API version %s.", stripe.APIVersion).Because(err)
}

// ApplyEvent is the job that carries out a stored event.
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
	Type      string
	Payload   string
	AppliedAt *time.Time
}

// Apply carries out an event, once. Two attempts at one event, and two
// events about one payment, wait for each other and have one effect. An
// event that contradicts what was sold changes nothing, stays unapplied, is
// logged as an error and is not tried again.
func (s *Service) Apply(ctx context.Context, job ApplyEvent) error {
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.apply(ctx, tx, job.EventID) })
	if errors.Is(err, errRefused) {
		s.cfg.Log.ErrorContext(ctx, "a payment event cannot be applied and needs a person", "event", job.EventID, "error", err)
		return jobs.Cancel(err)
	}
	return err
}

func (s *Service) apply(ctx context.Context, tx *masterdb.Tx, id string) error {
	var event storedEvent
	err := tx.Get(ctx, &event, `SELECT type, payload, applied_at FROM stripe_events WHERE id = $1`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return refuse("it is not stored")
	}
	if err != nil || event.AppliedAt != nil {
		return err
	}
	// Refunds, disputes, expiry and late payments have no effect: the sandbox
	// sends none of them.
	if stripe.EventType(event.Type) == stripe.EventTypeCheckoutSessionCompleted {
		if err := s.completed(ctx, tx, event.Payload); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `UPDATE stripe_events SET applied_at = $2 WHERE id = $1`, id, tx.Now)
	return err
}

// completed handles a checkout that its customer has finished. It is paid
// unless the money comes later, of which another event tells.
func (s *Service) completed(ctx context.Context, tx *masterdb.Tx, payload string) error {
	var event stripe.Event
	var session stripe.CheckoutSession
	if err := json.Unmarshal([]byte(payload), &event); err != nil { // Receive has read it, data and all
		return refuse("its payload cannot be read: %v", err)
	}
	if err := json.Unmarshal(event.Data.Raw, &session); err != nil {
		return refuse("its checkout session cannot be read: %v", err)
	}
	if session.PaymentStatus != stripe.CheckoutSessionPaymentStatusPaid {
		return nil
	}
	p, err := lockPurchase(ctx, tx, session.ClientReferenceID)
	if err != nil {
		return err
	}
	if err := p.matches(session); err != nil {
		return err
	}
	return s.settle(ctx, tx, p, session.PaymentIntent.ID)
}

func lockPurchase(ctx context.Context, tx *masterdb.Tx, reference string) (Purchase, error) {
	id, err := stoa.ParseID[stoa.PurchaseID](reference)
	if err != nil {
		return Purchase{}, refuse("it names no purchase")
	}
	var p Purchase
	err = tx.Get(ctx, &p, selectPurchase+` FROM purchases WHERE id = $1`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return p, refuse("purchase %s does not exist", id)
	}
	return p, err
}

// matches refuses a payment that is not for what was sold.
func (p Purchase) matches(session stripe.CheckoutSession) error {
	switch {
	case session.ID != p.ProviderRef:
		return refuse("purchase %s belongs to another checkout", p.ID)
	case session.AmountTotal != p.AmountMinor || !strings.EqualFold(string(session.Currency), p.Currency):
		return refuse("purchase %s costs %d %s (minor units), but %d %s were paid",
			p.ID, p.AmountMinor, p.Currency, session.AmountTotal, strings.ToUpper(string(session.Currency)))
	case session.PaymentIntent == nil || session.PaymentIntent.ID == "":
		return refuse("purchase %s was paid without a payment intent", p.ID)
	}
	return nil
}

// settle turns a payment into credits, once for each payment intent: several
// events may tell of one payment.
func (s *Service) settle(ctx context.Context, tx *masterdb.Tx, p Purchase, intent string) error {
	if p.PaidAt != nil {
		return checkPaidBy(ctx, tx, p, intent)
	}
	if _, err := tx.Exec(ctx, `UPDATE purchases SET status = $2, paid_at = $3, updated_at = $3 WHERE id = $1`,
		p.ID, string(Paid), tx.Now); err != nil {
		return err
	}
	_, err := s.ledger.Grant(ctx, tx, p.StoreID, credits.Grant{
		Type: credits.TypePurchase, Amount: p.Credits, Description: p.title(), Reference: p.ID.String(),
		IdempotencyKey: "grant:" + intent, UserID: &p.UserID,
	})
	if stoa.CodeOf(err) == stoa.IdempotencyConflict {
		return refuse("payment %s has already paid for something else", intent)
	}
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO billing_transactions (id, store_id, purchase_id, type, amount_minor, currency, provider, provider_ref, created_at)
		VALUES ($1, $2, $3, 'payment', $4, $5, $6, $7, $8)`,
		stoa.NewID[stoa.TransactionID](), p.StoreID, p.ID, p.AmountMinor, p.Currency, string(p.Provider), intent, tx.Now)
	if masterdb.IsUnique(err) {
		return refuse("payment %s has already paid for something else", intent)
	}
	return err
}

// checkPaidBy refuses a second payment of one purchase: nothing is owed for
// it, and somebody has to give it back.
func checkPaidBy(ctx context.Context, tx *masterdb.Tx, p Purchase, intent string) error {
	var known int
	err := tx.Get(ctx, &known, `
		SELECT count(*) FROM billing_transactions
		WHERE provider = $1 AND type = 'payment' AND provider_ref = $2 AND purchase_id = $3`, string(p.Provider), intent, p.ID)
	if err == nil && known == 0 {
		return refuse("purchase %s has already been paid by another payment than %s", p.ID, intent)
	}
	return err
}
