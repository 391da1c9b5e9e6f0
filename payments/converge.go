package payments

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/masterdb"
)

// bring looks how a purchase stands at the provider and brings the master to
// that, together with what else the transaction is to do.
//
// The look is outside the transaction. If another one was brought in between,
// this one may be older than it, and is made again.
func (s *Service) bring(ctx context.Context, sub subject, also func(*masterdb.Tx) error) error {
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
			return s.db.Tx(ctx, also) // of a second payment, for which nothing was given
		}
		found := sub.said
		if seen.Provider == Stripe {
			if found, err = s.ask(ctx, seen.Purchase, sub); err != nil {
				return err
			}
		}
		stale := false
		var p purchase
		err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
			p = purchase{}
			if err := tx.Get(ctx, &p, selectPurchaseRow+` WHERE id = $1`+tx.ForUpdate(), seen.ID); err != nil {
				return err
			}
			if stale = p.Provider == Stripe && p.Version != seen.Version; stale {
				return nil
			}
			if err := s.converge(ctx, tx, &p, found); err != nil {
				return err
			}
			return also(tx)
		})
		if err == nil && !stale && p.Status == Mismatched && seen.Status != Mismatched {
			s.cfg.Log.ErrorContext(ctx, "a payment does not match its purchase and is to be refunded", "purchase", p.ID, "store", p.StoreID,
				"payment", *p.PaymentRef, "reason", p.mismatch())
		}
		if err != nil || !stale {
			return err
		}
	}
}

func (s *Service) ask(ctx context.Context, p Purchase, sub subject) (facts, error) {
	if s.stripe == nil {
		return facts{}, refuse("purchase %s is Stripe's, and there is no key to ask Stripe with", p.ID)
	}
	return s.stripe.look(ctx, p, sub.checkout, sub.intent)
}

// converge brings the locked purchase p to the facts. What is so already is
// left alone.
func (s *Service) converge(ctx context.Context, tx *masterdb.Tx, p *purchase, f facts) error {
	switch {
	case p.isSecond(f.payment):
		return f.secondPayment(p.Purchase)
	case f.payment != nil:
		if err := s.settle(ctx, tx, p, f); err != nil {
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
	if err := s.reverse(ctx, tx, p, f.reversals); err != nil {
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
	return err
}

// settle turns a payment into credits, once for each payment intent.
func (s *Service) settle(ctx context.Context, tx *masterdb.Tx, p *purchase, f facts) error {
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
		return s.keepMismatch(ctx, tx, p, f.payment)
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

// isSecond reports whether another payment has come for p before this one.
func (p purchase) isSecond(paid *payment) bool {
	return paid != nil && paid.intent != "" && p.PaymentRef != nil && *p.PaymentRef != paid.intent
}

// secondPayment refuses a payment for which nothing is owed until a person has
// given it back.
func (f facts) secondPayment(p Purchase) error {
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

// matches reports whether the payment is for what was sold.
func (p purchase) matches(paid *payment) bool {
	return paid.amountMinor == p.AmountMinor && strings.EqualFold(paid.currency, p.Currency)
}

// keepMismatch keeps a payment that is not for what was sold. It grants no
// credits: how many, is not for the platform to guess.
func (s *Service) keepMismatch(ctx context.Context, tx *masterdb.Tx, p *purchase, paid *payment) error {
	currency := strings.ToUpper(paid.currency)
	p.Status, p.PaymentRef, p.PaidMinor, p.PaidCurrency = Mismatched, &paid.intent, &paid.amountMinor, &currency
	if p.Automatic {
		if err := stopRecharge(ctx, tx, p.StoreID, stopMismatched); err != nil {
			return err
		}
	}
	return recordMoney(ctx, tx, p, "payment", paid.amountMinor, paid.intent)
}

// mismatch says what is wrong with the payment of a mismatched purchase.
func (p Purchase) mismatch() string {
	return fmt.Sprintf("it costs %s %s, but %s %s were paid: refund payment %s at the provider",
		p.AmountDecimal(), p.Currency, p.PaidDecimal(), p.MoneyCurrency(), *p.PaymentRef)
}

// recordMoney notes money that has come, or with a negative amount gone. Ref
// is unique among those of a type.
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
