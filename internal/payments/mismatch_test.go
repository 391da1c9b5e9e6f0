package payments_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// wantMismatch requires that p is mismatched or refunded, that this amount has been
// reversed, and that no credits have moved.
func (s till) wantMismatch(t testing.TB, p payments.Purchase, status payments.Status, paid, reversed, currency string) {
	t.Helper()
	got := s.get(t, p)
	if got.Status != status || got.PaidMinor == nil || got.PaidDecimal() != paid || got.ReversedDecimal() != reversed || got.MoneyCurrency() != currency ||
		got.PaidAt != nil || got.ClawedBack != 0 || got.AmountDecimal() != p.AmountDecimal() || got.Currency != p.Currency {
		t.Errorf("%+v: paid %s, reversed %s %s; want %s, %s, %s %s", got, got.PaidDecimal(), got.ReversedDecimal(), got.MoneyCurrency(), status, paid, reversed, currency)
	}
	var net int64
	testkit.Must(t, s.db.Get(t.Context(), &net, `SELECT CAST(coalesce(sum(amount_minor), 0) AS bigint) FROM billing_transactions
		WHERE purchase_id = $1 AND currency = $2`, p.ID, currency))
	if kept := *got.PaidMinor - got.ReversedMinor; net != kept {
		t.Errorf("the money that is recorded adds up to %d, want %d", net, kept)
	}
	s.wantBalance(t, 0, 0, 0)
	if n := s.transactions(t); n != 0 {
		t.Errorf("%d credit transactions", n)
	}
}

// TestMismatchedPayment checks a payment of another amount or currency than the
// purchase's. The purchase has a visible state until all the money is refunded.
func TestMismatchedPayment(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		for _, c := range []struct {
			minor          int64
			currency       string
			paid, one, two string // in decimals: the whole amount, after a refund of 10 minor units, and after a refund of the rest
		}{
			{99, "usd", "0.99", "0.10", "0.99"},
			{101, "usd", "1.01", "0.10", "1.01"},
			{100, "eur", "1.00", "0.10", "1.00"},
			{150, "jpy", "150", "10", "150"},
			{25_000, "kwd", "25.000", "0.010", "25.000"},
		} {
			what := fmt.Sprintf("%d %s", c.minor, c.currency)
			currency := strings.ToUpper(c.currency)
			p, session := s.open(t, 100)
			s.log.take()
			intent := s.stripe.PayOther(session, c.minor, c.currency)
			s.news(t)
			s.wantMismatch(t, p, payments.Mismatched, c.paid, map[bool]string{true: "0", false: "0.00"}[c.currency == "jpy"]+
				map[bool]string{true: "0"}[c.currency == "kwd"], currency)
			reason := fmt.Sprintf("it costs 1.00 USD, but %s %s were paid: refund payment %s", c.paid, currency, intent)
			if log := s.log.take(); strings.Count(log, "level=ERROR") != 1 || !strings.Contains(log, reason) || !strings.Contains(log, p.ID.String()) {
				t.Errorf("%s: log: %s", what, log)
			}
			for range 2 { // reported each time until it is resolved
				report, err := s.Reconcile(t.Context())
				testkit.Must(t, err)
				if len(report.Refused) != 1 || !strings.Contains(report.Refused[0], reason) || !strings.Contains(report.Refused[0], p.ID.String()) {
					t.Errorf("%s: %+v", what, report)
				}
			}
			for _, e := range s.stripe.Events() { // all events once more
				s.stripe.Deliver(e)
			}
			s.work(t)
			s.wantMismatch(t, p, payments.Mismatched, c.paid, s.get(t, p).ReversedDecimal(), currency)

			s.stripe.Refund(intent, 10, "succeeded")
			s.news(t)
			s.wantMismatch(t, p, payments.Mismatched, c.paid, c.one, currency)
			rest := s.stripe.Refund(intent, c.minor-10, "succeeded")
			s.stripe.Acknowledge() // its event is lost; the reconciliation finds the refund
			report, err := s.Reconcile(t.Context())
			testkit.Must(t, err)
			s.wantMismatch(t, p, payments.Refunded, c.paid, c.two, currency)
			if len(report.Refused) != 0 {
				t.Errorf("%s: %+v", what, report)
			}
			s.stripe.SetRefund(rest, "failed") // the refund has failed
			s.news(t)
			s.wantMismatch(t, p, payments.Mismatched, c.paid, c.one, currency)
			s.stripe.Refund(intent, c.minor-10, "succeeded")
			s.news(t)
			s.wantMismatch(t, p, payments.Refunded, c.paid, c.two, currency)
		}
	})
}

// TestMismatchedPaymentIsDisputed checks that the bank withdraws and returns the money of
// a payment that does not match.
func TestMismatchedPaymentIsDisputed(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, session := s.open(t, 100)
		intent := s.stripe.PayOther(session, 300, "usd")
		s.news(t)
		dispute := s.stripe.Dispute(intent, 300)
		s.news(t)
		s.wantMismatch(t, p, payments.Mismatched, "3.00", "0.00", "USD")
		s.stripe.Withdraw(dispute)
		s.news(t)
		s.wantMismatch(t, p, payments.Refunded, "3.00", "3.00", "USD")
		s.stripe.Reinstate(dispute)
		s.stripe.Close(dispute, "won")
		s.news(t)
		s.wantMismatch(t, p, payments.Mismatched, "3.00", "0.00", "USD")
	})
}

// TestMismatchedPaymentInAnyOrder checks that the refund's event may come before the
// payment's, also for a purchase that has expired meanwhile.
func TestMismatchedPaymentInAnyOrder(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, session := s.open(t, 100)
		s.exec(t, `UPDATE purchases SET status = 'expired' WHERE id = $1`, p.ID)
		intent := s.stripe.PayOther(session, 70, "eur")
		s.stripe.Refund(intent, 70, "succeeded")
		s.stripe.DeliverAll()
		ids := s.unapplied(t)
		errs := concurrently(8, func(i int) error {
			return s.Apply(t.Context(), payments.ApplyEvent{EventID: ids[(len(ids)-1)*(i%2)]})
		})
		testkit.Must(t, errors.Join(errs...))
		s.work(t)
		s.wantMismatch(t, p, payments.Refunded, "0.70", "0.70", "EUR")

		// Several events report the payment, and it is logged once.
		s.log.take()
		q, session := s.open(t, 100)
		s.stripe.PayOther(session, 70, "eur")
		s.stripe.DeliverAll()
		ids = s.unapplied(t)
		testkit.Must(t, errors.Join(concurrently(8, func(i int) error {
			return s.Apply(t.Context(), payments.ApplyEvent{EventID: ids[i%len(ids)]})
		})...))
		s.wantMismatch(t, q, payments.Mismatched, "0.70", "0.00", "EUR")
		if log := s.log.take(); strings.Count(log, "does not match its purchase") != 1 {
			t.Errorf("log: %s", log)
		}
	})
}

// TestMismatchedPaymentAtTheSandbox checks that the sandbox uses the event's own data.
func TestMismatchedPaymentAtTheSandbox(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 10)
		e := paid(p, "evt_1", "pi_1")
		e.session["amount_total"] = 9
		s.receive(t, e)
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: "evt_1"}))
		if s.status(t, p) != payments.Mismatched || !s.applied(t, "evt_1") || s.balance(t).Balance != 0 {
			t.Errorf("%s, %+v", s.status(t, p), s.balance(t))
		}
	})
}

// TestMismatchedChargeStopsRecharges checks that a charge of another amount is not
// repeated every minute.
func TestMismatchedChargeStopsRecharges(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Slow)
		s.recharge(t)
		intent := s.stripe.Intents()[0]
		s.stripe.FinishWith(intent, 80)
		s.news(t)
		s.wantStopped(t, "mismatched")
		s.wantAudited(t, audit.RechargeStopped, `{"reason":"mismatched"}`)
		s.recharge(t)
		if n := s.stripe.Count("payment_intent"); n != 1 {
			t.Errorf("%d charges", n)
		}
		page, err := s.List(t.Context(), s.owner, s.store, 0, "")
		testkit.Must(t, err)
		s.wantMismatch(t, page.Purchases[0], payments.Mismatched, "0.80", "0.00", "USD")
		s.stripe.Refund(intent, 80, "succeeded")
		s.news(t)
		s.wantMismatch(t, page.Purchases[0], payments.Refunded, "0.80", "0.80", "USD")
	})
}

// TestPurchaseAfterAMismatch checks that the same store can buy as before after a payment
// that does not match.
func TestPurchaseAfterAMismatch(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, session := s.open(t, 100)
		s.stripe.PayOther(session, 1, "usd")
		s.news(t)
		req := payments.PurchaseRequest{Credits: 200 * credits.Credit, IdempotencyKey: "k"}
		p, err := s.Purchase(t.Context(), s.owner, s.store, req)
		testkit.Must(t, err)
		s.stripe.Pay(*p.ProviderRef)
		s.news(t)
		s.wantBalance(t, 200, 0, 0)
	})
}

// TestSecondPaymentIsGivenBack checks a purchase whose two checkouts were both paid: the
// second payment is reported until all of it is refunded, and not afterwards.
func TestSecondPaymentIsGivenBack(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		s.stripe.Break("POST /v1/checkout/sessions", stripetest.LostAfter) // the checkout was created, but the answer was lost
		p, session := s.open(t, 100)
		sessions := s.stripe.Sessions()
		if len(sessions) != 2 || sessions[1] != session {
			t.Fatalf("%q, want two checkouts and %s the second", sessions, session)
		}
		s.stripe.Pay(session)
		s.news(t)
		second := s.stripe.Pay(sessions[0])
		s.stripe.DeliverAll()
		for _, refunded := range []int64{0, 40} {
			if refunded > 0 {
				s.stripe.Refund(second, refunded, "succeeded")
			}
			report, err := s.Reconcile(t.Context())
			testkit.Must(t, err)
			if len(report.Refused) != 1 || !strings.Contains(report.Refused[0], "refund payment "+second) {
				t.Errorf("%d refunded: %+v", refunded, report)
			}
		}
		s.stripe.Refund(second, 60, "succeeded")
		report, err := s.Reconcile(t.Context())
		testkit.Must(t, err)
		if len(report.Refused) != 0 || len(s.unapplied(t)) != 0 || s.status(t, p) != payments.Paid {
			t.Errorf("%+v, unapplied %q", report, s.unapplied(t))
		}
		s.wantBalance(t, 100, 0, 0)
	})
}
