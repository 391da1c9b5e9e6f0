package payments

import (
	"context"
	"errors"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// openCheckout creates the page for p, which is committed, and saves its address. When
// the process dies in between, the same request finds p again, uses the same key at
// Stripe and gets the same page. A request without a key cannot be repeated, and
// Reconcile expires p.
func (s *Service) openCheckout(ctx context.Context, p purchase) (Purchase, error) {
	if s.stripe == nil { // the key was removed after p was created
		return Purchase{}, errNoProvider()
	}
	for range maxAttempts {
		session, err := s.stripe.createCheckout(ctx, p, s.cfg.BaseURL)
		switch {
		case err == nil:
			return s.saveCheckout(ctx, p.ID, session)
		case needsNewKey(err):
			if p, err = s.nextAttempt(ctx, p); err != nil {
				return Purchase{}, err
			}
		case outcomeOf(err) == retryable:
			return Purchase{}, errProvider(err)
		default:
			return Purchase{}, s.refuseCheckout(ctx, p.Purchase, err)
		}
	}
	return Purchase{}, errKeptFailures()
}

// refuseCheckout ends a purchase for which Stripe refuses to create a page. It
// returns the error for the buyer.
func (s *Service) refuseCheckout(ctx context.Context, p Purchase, err error) error {
	if err := s.discard(ctx, p); err != nil {
		return err
	}
	if fault := priceFault(err); fault != nil {
		return fault
	}
	return s.callError(ctx, "create a checkout", err)
}

func (s *Service) saveCheckout(ctx context.Context, id stoa.PurchaseID, session *stripe.CheckoutSession) (out Purchase, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(ctx, `
			UPDATE purchases SET provider_ref = $2, checkout_url = $3, updated_at = $4
			WHERE id = $1 AND provider_ref IS NULL AND status = 'pending'`, id, session.ID, session.URL, tx.Now); err != nil {
			return err
		}
		return tx.Get(ctx, &out, selectPurchase+` WHERE id = $1`, id)
	})
	return out, err
}

// nextAttempt changes the idempotency key for Stripe. It changes the key once for all
// callers that received the same failure.
func (s *Service) nextAttempt(ctx context.Context, p purchase) (out purchase, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE purchases SET attempt = $2 + 1 WHERE id = $1 AND attempt = $2`, p.ID, p.Attempt); err != nil {
			return err
		}
		return tx.Get(ctx, &out, selectPurchaseRow+` WHERE id = $1`, p.ID)
	})
	return out, err
}

// priceFault returns invalid_request when Stripe refuses the price as too small
// or too large, otherwise nil.
func priceFault(err error) error {
	e, ok := errors.AsType[*stripe.Error](err)
	if !ok {
		return nil
	}
	var faults stoa.Invalid
	switch e.Code {
	case stripe.ErrorCodeAmountTooSmall:
		faults.Add("credits", "cost less than the smallest payment that the provider takes; buy more")
	case stripe.ErrorCodeAmountTooLarge:
		faults.Add("credits", "cost more than the largest payment that the provider takes; buy less at once")
	default:
	}
	return faults.Err()
}

// discard deletes a purchase that can never be paid, so that its key can be used again.
func (s *Service) discard(ctx context.Context, p Purchase) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM purchases WHERE id = $1 AND provider_ref IS NULL AND status = 'pending'`, p.ID)
		if err != nil || n == 0 {
			return err
		}
		return recordPurchase(ctx, tx, authz.Principal{UserID: p.UserID}, p, audit.Failed)
	})
}
