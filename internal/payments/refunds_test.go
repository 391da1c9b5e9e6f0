package payments_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestRefundInParts(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, intent := s.paid(t, 100)
		s.stripe.Refund(intent, 33, "succeeded")
		s.news(t)
		s.wantBalance(t, 67, 0, 0)
		if got := s.get(t, p); got.Status != payments.Paid || got.ReversedMinor != 33 || got.ReversedDecimal() != "0.33" {
			t.Errorf("%+v", got)
		}
		pending := s.stripe.Refund(intent, 60, "pending")
		s.news(t)
		s.wantBalance(t, 67, 0, 0)
		s.stripe.SetRefund(pending, "succeeded")
		s.news(t)
		s.wantBalance(t, 7, 0, 0)
		last := s.stripe.Refund(intent, 7, "succeeded")
		s.news(t)
		s.wantBalance(t, 0, 0, 0)
		if got := s.get(t, p); got.Status != payments.Refunded || got.ClawedBack != got.Credits {
			t.Errorf("%+v", got)
		}
		s.stripe.SetRefund(last, "failed")
		s.news(t)
		s.wantBalance(t, 7, 0, 0)
		if got := s.get(t, p); got.Status != payments.Paid || got.ReversedMinor != 93 {
			t.Errorf("%+v", got)
		}
		var sum int
		testkit.Must(t, db.Get(t.Context(), &sum, `SELECT CAST(sum(amount_minor) AS bigint) FROM billing_transactions WHERE purchase_id = $1`, p.ID))
		if sum != 7 {
			t.Errorf("the money adds up to %d, want 7", sum)
		}
	})
}

// TestRefundsThatDoNotDivide refunds 1 cent of a credit that costs 3 cents: a third of a
// credit, rounded down to 0.3333. Three such refunds are a whole credit.
func TestRefundsThatDoNotDivide(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		cfg := sandbox()
		cfg.CreditPrice = payments.Price{MinorPerCredit: 3, Currency: "USD"}
		s := setup(t, db, cfg)
		p := s.buy(t, 20)
		s.receive(t, paid(p, "evt_0", "pi_1"))
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: "evt_0"}))
		for i := 1; i <= 60; i++ {
			e := event{id: fmt.Sprint("evt_", i), typ: "refund.created", session: map[string]any{
				"id": fmt.Sprint("re_", i), "status": "succeeded", "amount": 1, "currency": "usd", "payment_intent": "pi_1",
			}}
			s.receive(t, e)
			testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: e.id}))
			want := 20*credits.Credit - credits.Amount(i)*credits.Credit/3
			if got := s.balance(t).Balance; i < 3 && got != want || i%3 == 0 && got != credits.Amount(20-i/3)*credits.Credit {
				t.Fatalf("after %d cents the balance is %s, want %s", i, got, want)
			}
		}
		if s.balance(t).Balance != 0 || s.status(t, p) != payments.Refunded {
			t.Errorf("%+v", s.balance(t))
		}
	})
}

// TestRefundBeforeItsPayment applies the event of the refund before that of the payment.
func TestRefundBeforeItsPayment(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, session := s.open(t, 100)
		intent := s.stripe.Pay(session)
		s.stripe.Refund(intent, 100, "succeeded")
		events := s.stripe.Events()
		s.stripe.Deliver(events[len(events)-1])
		s.work(t)
		s.wantBalance(t, 0, 0, 0)
		s.news(t)
		s.wantBalance(t, 0, 0, 0)
		got := s.get(t, p)
		if got.Status != payments.Refunded || got.ClawedBack != got.Credits || s.balance(t).LifetimePurchased != got.Credits {
			t.Errorf("%+v", got)
		}
	})
}

// TestRefundOfSpentCredits checks that refunded credits that were already spent become a
// debt, which blocks spending and is repaid first.
func TestRefundOfSpentCredits(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, intent := s.paid(t, 100)
		s.spend(t, 70)
		s.stripe.Refund(intent, 100, "succeeded")
		s.news(t)
		s.wantBalance(t, 0, 0, 70)
		s.paid(t, 100)
		s.wantBalance(t, 30, 0, 0)
		s.spend(t, 30)
	})
}

func TestDisputeLost(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, intent := s.paid(t, 100)
		dispute := s.stripe.Dispute(intent, 60)
		s.news(t)
		s.wantBalance(t, 100, 60, 0)
		s.stripe.Withdraw(dispute)
		s.news(t)
		s.wantBalance(t, 40, 0, 0)
		s.stripe.Close(dispute, "lost")
		s.news(t)
		s.wantBalance(t, 40, 0, 0)
		if got := s.get(t, p); got.ReversedMinor != 60 || got.Status != payments.Paid {
			t.Errorf("%+v", got)
		}
	})
}

func TestDisputeWon(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, intent := s.paid(t, 100)
		dispute := s.stripe.Dispute(intent, 100)
		s.stripe.Withdraw(dispute)
		s.news(t)
		s.wantBalance(t, 0, 0, 0)
		if s.status(t, p) != payments.Refunded {
			t.Error(s.status(t, p))
		}
		s.stripe.Close(dispute, "won")
		s.news(t)
		s.wantBalance(t, 100, 0, 0)
		s.stripe.Reinstate(dispute)
		s.news(t)
		s.wantBalance(t, 100, 0, 0)
		if s.status(t, p) != payments.Paid {
			t.Error(s.status(t, p))
		}
	})
}

func TestDisputeDropped(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, intent := s.paid(t, 100)
		dispute := s.stripe.Dispute(intent, 100)
		s.news(t)
		s.wantBalance(t, 100, 100, 0)
		s.stripe.Close(dispute, "warning_closed")
		s.news(t)
		s.wantBalance(t, 100, 0, 0)
	})
}

// TestRefundAndDisputeOfTheSameMoney checks that a refund and a dispute of the same money
// take it once, and that frozen credits that are taken cause no debt.
func TestRefundAndDisputeOfTheSameMoney(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, intent := s.paid(t, 100)
		s.paid(t, 50)
		dispute := s.stripe.Dispute(intent, 100)
		s.news(t)
		s.wantBalance(t, 150, 100, 0)
		refund := s.stripe.Refund(intent, 70, "succeeded")
		s.news(t)
		s.wantBalance(t, 80, 30, 0)
		s.stripe.Withdraw(dispute)
		s.news(t)
		s.wantBalance(t, 50, 0, 0)
		s.stripe.SetRefund(refund, "failed")
		s.news(t)
		s.wantBalance(t, 50, 0, 0) // the dispute still freezes all of it
		s.stripe.Reinstate(dispute)
		s.news(t)
		s.wantBalance(t, 150, 0, 0)
		if got := s.get(t, p); got.Status != payments.Paid || got.ReversedMinor != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// TestDisputeOfMoreThanWasPaid checks that a dispute in another currency, or of more than
// was paid, takes everything and no more.
func TestDisputeOfMoreThanWasPaid(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, intent := s.paid(t, 100)
		s.paid(t, 50)
		s.stripe.Withdraw(s.stripe.Dispute(intent, 120))
		s.news(t)
		s.wantBalance(t, 50, 0, 0)
	})
}

// TestRefundsAtOnce checks that one refund that is applied concurrently several times is
// taken once.
func TestRefundsAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, intent := s.paid(t, 100)
		s.stripe.Refund(intent, 10, "succeeded")
		s.stripe.Refund(intent, 20, "succeeded")
		s.stripe.DeliverAll()
		ids := s.unapplied(t)
		errs := concurrently(8, func(i int) error { return s.Apply(t.Context(), payments.ApplyEvent{EventID: ids[i%len(ids)]}) })
		testkit.Must(t, errors.Join(errs...))
		s.wantBalance(t, 70, 0, 0)
		if n := s.count(t, `SELECT count(*) FROM billing_transactions WHERE type = 'refund'`); n != 2 {
			t.Errorf("%d refunds are recorded", n)
		}
	})
}
