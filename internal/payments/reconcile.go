package payments

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Reconcile is the job that compares the purchases with the payment provider.
type Reconcile struct{}

// Kind implements jobs.Args.
func (Reconcile) Kind() string { return "payments.reconcile" }

// RetryWithin implements jobs.RetryWithin. Payments are compared within an hour
// after the operator has corrected the key.
func (Reconcile) RetryWithin() time.Duration { return time.Hour }

// The job's interval, and the timeout of one attempt.
const (
	ReconcileEvery   = 24 * time.Hour
	ReconcileTimeout = time.Hour
)

// Report is the result of a reconciliation.
type Report struct {
	Events   int      `json:"events"`   // that Stripe could not deliver and that were not stored here
	Applied  int      `json:"applied"`  // events applied now, including ones that were stored before
	Compared int      `json:"compared"` // open and mismatched purchases looked up at Stripe
	Paid     int      `json:"paid"`     // of the compared purchases: paid at Stripe
	Expired  int      `json:"expired"`  // of the compared purchases, and of those without a checkout: ended now
	Refused  []string `json:"refused"`  // events and purchases that need a manual decision, with the reason
}

// RunReconcile handles the job Reconcile.
func (s *Service) RunReconcile(ctx context.Context, job Reconcile) error {
	if s.stripe == nil {
		return nil
	}
	report, err := s.Reconcile(ctx)
	if err != nil {
		return s.jobFailed(ctx, job, err)
	}
	s.cfg.Log.InfoContext(ctx, "payments compared with Stripe", "events", report.Events, "applied", report.Applied,
		"compared", report.Compared, "paid", report.Paid, "expired", report.Expired, "refused", len(report.Refused))
	return nil
}

// Reconcile compensates for lost events. It fetches the events of the last 30 days that
// Stripe could not deliver, applies those that are stored but not applied, compares each
// pending purchase with Stripe, and expires those that have no checkout. It may run at
// any time, also concurrently. The report contains what was done before an error. It
// fails with payments_unavailable without Stripe.
func (s *Service) Reconcile(ctx context.Context) (Report, error) {
	report := Report{Refused: []string{}}
	if s.stripe == nil {
		return report, stoa.Errorf(stoa.PaymentsUnavailable, "There is nothing to compare with: no payment provider is configured.")
	}
	err := s.fetchEvents(ctx, &report)
	if !isUnauthorized(err) { // otherwise every other call would be refused too
		err = errors.Join(err, s.applyStored(ctx, &report), s.compareOpen(ctx, &report))
	}
	return report, errors.Join(err, s.expireUnbegun(ctx, &report))
}

// keptByStripe is how long Stripe keeps events.
const keptByStripe = 30 * 24 * time.Hour

func (s *Service) fetchEvents(ctx context.Context, report *Report) error {
	for event, err := range s.stripe.undelivered(ctx, time.Now().Add(-keptByStripe)) {
		if err != nil {
			return fmt.Errorf("list undelivered events: %w", explained(err))
		}
		var known int
		if err := s.db.Get(ctx, &known, `SELECT count(*) FROM stripe_events WHERE id = $1`, event.ID); err != nil {
			return err
		}
		if known > 0 { // Stripe lists it for 30 days
			continue
		}
		payload, err := json.Marshal(map[string]any{
			"id": event.ID, "object": "event", "type": event.Type, "api_version": event.APIVersion, "created": event.Created,
			"data": map[string]any{"object": event.Data.Raw},
		})
		if err != nil {
			return err
		}
		fresh, err := s.store(ctx, event.ID, string(event.Type), string(payload))
		if err != nil {
			return err
		}
		if fresh {
			report.Events++
		}
	}
	return nil
}

// undelivered lists the events that no endpoint has acknowledged.
func (c *stripeClient) undelivered(ctx context.Context, since time.Time) stripe.Seq2[*stripe.Event, error] {
	params := &stripe.EventListParams{
		DeliverySuccess: stripe.Bool(false), Types: stripe.StringSlice(eventTypes),
		CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: since.Unix()},
	}
	params.Limit = stripe.Int64(100)
	return c.api.V1Events.List(ctx, params).All(ctx)
}

// applyStored applies every stored event that is not applied, whatever the state
// of its job.
func (s *Service) applyStored(ctx context.Context, report *Report) error {
	var faults []error
	after := ""
	for {
		var ids []string
		if err := s.db.Select(ctx, &ids, `
			SELECT id FROM stripe_events WHERE applied_at IS NULL AND id > $1 ORDER BY id LIMIT 100`, after); err != nil {
			return err
		}
		if len(ids) == 0 {
			return errors.Join(faults...)
		}
		after = ids[len(ids)-1]
		for _, id := range ids {
			switch err := s.apply(ctx, id); {
			case errors.Is(err, errRefused):
				report.Refused = append(report.Refused, id+": "+err.Error())
			case err != nil:
				faults = append(faults, fmt.Errorf("%s: %w", id, explained(err)))
			default:
				report.Applied++
			}
			if len(faults) == maxFaults {
				return errors.Join(faults...)
			}
		}
	}
}

// maxFaults is the number of faults that ends a reconciliation, since the provider does
// not answer.
const maxFaults = 10

// compareOpen compares with Stripe every pending purchase that has a checkout, and every
// purchase whose payment has to be refunded.
func (s *Service) compareOpen(ctx context.Context, report *Report) error {
	var faults []error
	var after stoa.PurchaseID
	for {
		var ids []stoa.PurchaseID
		if err := s.db.Select(ctx, &ids, `
			SELECT id FROM purchases WHERE (status = 'pending' AND provider_ref IS NOT NULL OR status = 'mismatched')
				AND provider = 'stripe' AND id > $1
			ORDER BY id LIMIT 100`, after); err != nil {
			return err
		}
		if len(ids) == 0 {
			return errors.Join(faults...)
		}
		after = ids[len(ids)-1]
		for _, id := range ids {
			if err := s.compare(ctx, id, report); err != nil {
				faults = append(faults, fmt.Errorf("purchase %s: %w", id, explained(err)))
			}
			if len(faults) == maxFaults {
				return errors.Join(faults...)
			}
		}
	}
}

func (s *Service) compare(ctx context.Context, id stoa.PurchaseID, report *Report) error {
	report.Compared++
	err := s.syncPurchase(ctx, subject{purchase: id}, "")
	if errors.Is(err, errRefused) {
		report.Refused = append(report.Refused, "purchase "+id.String()+": "+err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	var p Purchase
	if err := s.db.Get(ctx, &p, selectPurchase+` WHERE id = $1`, id); err != nil {
		return err
	}
	switch p.Status {
	case Paid, Refunded:
		report.Paid++
	case Mismatched:
		report.Refused = append(report.Refused, "purchase "+id.String()+": "+p.mismatch())
	case Expired:
		report.Expired++
	case Pending:
	}
	return nil
}

// expireUnbegun expires the purchases that have no checkout after a day, since their
// buyers have left. It skips recharges, which never have a checkout and are ended by
// their own job.
func (s *Service) expireUnbegun(ctx context.Context, report *Report) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var expired []Purchase
		err := tx.Select(ctx, &expired, `
			UPDATE purchases SET status = 'expired', updated_at = $1
			WHERE status = 'pending' AND provider = 'stripe' AND provider_ref IS NULL AND NOT automatic AND created_at < $2
			RETURNING `+purchaseColumns, tx.Now, tx.Now.Add(-25*time.Hour))
		if err != nil {
			return err
		}
		for _, p := range expired {
			s.reached(tx, Expired)
			if err := events.Record(ctx, tx, events.PurchaseExpired, p.StoreID, stoa.UserID{}, p.eventData()); err != nil {
				return err
			}
		}
		report.Expired += len(expired)
		return nil
	})
}
