package payments

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
)

// syncPurchase reads the state of sub's purchase from the provider and applies
// it to the master. The same transaction marks event as applied.
//
// The state is read outside the transaction. When another call has applied a
// state meanwhile, this one may be older, and it is read again.
func (s *Service) syncPurchase(ctx context.Context, sub subject, event string) error {
	for {
		var seen purchase
		err := s.db.Get(ctx, &seen, selectPurchaseRow+` WHERE id = $1`, sub.purchase)
		if errors.Is(err, masterdb.ErrNotFound) {
			return refuse("purchase %s does not exist", sub.purchase)
		}
		if err != nil {
			return err
		}
		if sub.reversal && seen.PaymentRef != nil && *seen.PaymentRef != sub.intent {
			return s.markApplied(ctx, event) // the event is about a second payment, for which nothing was granted
		}
		state := sub.state
		if seen.Provider == Stripe {
			if state, err = s.readState(ctx, seen.Purchase, sub); err != nil {
				return err
			}
		}
		p, stale, err := s.applyUnlessStale(ctx, seen, state, event)
		if err != nil {
			return err
		}
		if stale {
			continue
		}
		if p.Status == Mismatched && seen.Status != Mismatched {
			s.cfg.Log.ErrorContext(ctx, "a payment does not match its purchase and is to be refunded", "purchase", p.ID, "store", p.StoreID,
				"payment", *p.PaymentRef, "reason", p.mismatch())
		}
		return nil
	}
}

// applyUnlessStale applies state to the purchase, unless the purchase has
// changed since it was read as seen.
func (s *Service) applyUnlessStale(ctx context.Context, seen purchase, state providerState, event string) (p purchase, stale bool, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		p = purchase{}
		if err := tx.Get(ctx, &p, selectPurchaseRow+` WHERE id = $1`+tx.ForUpdate(), seen.ID); err != nil {
			return err
		}
		if stale = p.Provider == Stripe && p.Version != seen.Version; stale {
			return nil
		}
		if err := s.applyState(ctx, tx, &p, state); err != nil {
			return err
		}
		return markApplied(ctx, tx, event)
	})
	return p, stale, err
}

// readState reads the state of p from Stripe.
func (s *Service) readState(ctx context.Context, p Purchase, sub subject) (providerState, error) {
	if s.stripe == nil {
		return providerState{}, refuse("purchase %s is Stripe's, and there is no key to ask Stripe with", p.ID)
	}
	return s.stripe.readState(ctx, p, sub.checkout, sub.intent)
}

// applyState updates the locked purchase p to the provider's state. It changes nothing if
// p already has that state.
func (s *Service) applyState(ctx context.Context, tx *masterdb.Tx, p *purchase, f providerState) error {
	before := p.Purchase
	switch {
	case p.isSecond(f.payment):
		return f.secondPayment(p.Purchase)
	case f.payment != nil:
		if err := s.applyPayment(ctx, tx, p, f); err != nil {
			return err
		}
	case f.closed && p.Status == Pending:
		p.Status = Expired
		if p.Automatic {
			if err := stopRecharge(ctx, tx, p.StoreID, f.stop); err != nil {
				return err
			}
		}
	}
	if err := s.applyReversals(ctx, tx, p, f.reversals); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		UPDATE purchases SET status = $2, payment_ref = $3, paid_at = $4, reversed_minor = $5, clawed_back = $6, frozen = $7, freezes = $8,
			paid_minor = $10, paid_currency = $11,
			version = version + 1, updated_at = CASE WHEN status = $2 AND reversed_minor = $5 THEN updated_at ELSE $9 END
		WHERE id = $1`,
		p.ID, string(p.Status), p.PaymentRef, p.PaidAt, p.ReversedMinor, p.ClawedBack, p.Frozen, p.Freezes, tx.Now, p.PaidMinor, p.PaidCurrency)
	if masterdb.IsUnique(err) {
		return refuse("payment %s has already paid for something else", *p.PaymentRef)
	}
	if err != nil {
		return err
	}
	if p.Status != before.Status {
		s.reached(tx, p.Status)
	}
	return recordChange(ctx, tx, before, p.Purchase)
}

// recordChange records the events that a purchase is paid, has expired, or that more of its
// payment was taken back.
func recordChange(ctx context.Context, tx *masterdb.Tx, before, after Purchase) error {
	data := after.eventData()
	switch {
	case after.ReversedMinor > before.ReversedMinor:
		data["reversed"] = after.ReversedDecimal()
		return events.Record(ctx, tx, events.PurchaseReversed, after.StoreID, stoa.UserID{}, data)
	case after.Status == before.Status:
		return nil
	case after.Status == Paid:
		return events.Record(ctx, tx, events.PurchasePaid, after.StoreID, after.UserID, data)
	case after.Status == Expired:
		return events.Record(ctx, tx, events.PurchaseExpired, after.StoreID, stoa.UserID{}, data)
	}
	return nil
}

// eventData returns the data of an event about the purchase.
func (p Purchase) eventData() map[string]string {
	return map[string]string{
		"purchaseId": p.ID.String(), "credits": p.Credits.String(), "amount": p.AmountDecimal(), "currency": p.Currency,
		"automatic": strconv.FormatBool(p.Automatic),
	}
}

// applyPayment grants the credits of a payment, once for each payment intent.
func (s *Service) applyPayment(ctx context.Context, tx *masterdb.Tx, p *purchase, f providerState) error {
	intent := f.payment.intent
	switch {
	case p.Provider == Sandbox && f.checkout != *p.ProviderRef:
		return refuse("purchase %s belongs to another checkout", p.ID)
	case intent == "":
		return refuse("purchase %s was paid without a payment intent", p.ID)
	case f.payment.amountMinor <= 0:
		return refuse("purchase %s was paid with nothing", p.ID)
	case p.PaymentRef != nil:
		return nil
	case !p.matches(f.payment):
		return s.recordMismatch(ctx, tx, p, f.payment)
	}
	p.Status, p.PaymentRef, p.PaidAt = Paid, &intent, &tx.Now
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
	return recordMoney(ctx, tx, p, "payment", p.AmountMinor, intent)
}

// isSecond reports whether p was paid by another payment before this one.
func (p purchase) isSecond(paid *payment) bool {
	return paid != nil && paid.intent != "" && p.PaymentRef != nil && *p.PaymentRef != paid.intent
}

// secondPayment refuses a second payment of p until a person has refunded it.
func (f providerState) secondPayment(p Purchase) error {
	var back int64
	for _, r := range f.reversals {
		if r.taken {
			back += r.amountMinor
		}
	}
	if back >= f.payment.amountMinor {
		return nil
	}
	return refuse("purchase %s has already been paid by another payment than %s: refund payment %s at the provider", p.ID, f.payment.intent, f.payment.intent)
}

// matches reports whether the payment has the purchase's amount and currency.
func (p purchase) matches(paid *payment) bool {
	return paid.amountMinor == p.AmountMinor && strings.EqualFold(paid.currency, p.Currency)
}

// recordMismatch records a payment that does not match what was sold. It grants no
// credits, since their number is unknown.
func (s *Service) recordMismatch(ctx context.Context, tx *masterdb.Tx, p *purchase, paid *payment) error {
	currency := strings.ToUpper(paid.currency)
	p.Status, p.PaymentRef, p.PaidMinor, p.PaidCurrency = Mismatched, &paid.intent, &paid.amountMinor, &currency
	if p.Automatic {
		if err := stopRecharge(ctx, tx, p.StoreID, stopMismatched); err != nil {
			return err
		}
	}
	return recordMoney(ctx, tx, p, "payment", paid.amountMinor, paid.intent)
}

// mismatch describes the payment of a mismatched purchase.
func (p Purchase) mismatch() string {
	return fmt.Sprintf("it costs %s %s, but %s %s were paid: refund payment %s at the provider",
		p.AmountDecimal(), p.Currency, p.PaidDecimal(), p.MoneyCurrency(), *p.PaymentRef)
}

// recordMoney records money that was received, or with a negative amount money
// that was taken back. ref is unique within its type.
func recordMoney(ctx context.Context, tx *masterdb.Tx, p *purchase, typ string, minor int64, ref string) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO billing_transactions (id, store_id, purchase_id, type, amount_minor, currency, provider, provider_ref, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		stoa.NewID[stoa.TransactionID](), p.StoreID, p.ID, typ, minor, p.MoneyCurrency(), string(p.Provider), ref, tx.Now)
	if masterdb.IsUnique(err) {
		return refuse("%s has already been recorded for something else", ref)
	}
	return err
}
