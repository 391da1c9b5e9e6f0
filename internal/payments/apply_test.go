package payments_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestSlowPayments(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		comes, session := s.open(t, 100)
		bounces, second := s.open(t, 100)
		s.stripe.PayLater(session)
		s.stripe.PayLater(second)
		s.news(t)
		s.wantBalance(t, 0, 0, 0)
		if s.status(t, comes) != payments.Pending || s.status(t, bounces) != payments.Pending {
			t.Error("decided before the money was")
		}
		s.stripe.Arrive(session)
		s.stripe.Bounce(second)
		s.news(t)
		s.wantBalance(t, 100, 0, 0)
		if s.status(t, comes) != payments.Paid || s.status(t, bounces) != payments.Expired {
			t.Errorf("%s, %s", s.status(t, comes), s.status(t, bounces))
		}
	})
}

func TestExpiredCheckout(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, session := s.open(t, 100)
		s.stripe.Expire(session)
		s.news(t)
		if s.status(t, p) != payments.Expired {
			t.Error(s.status(t, p))
		}
		s.stripe.Pay(session) // a payment of an expired checkout counts
		s.news(t)
		s.wantBalance(t, 100, 0, 0)
		if s.status(t, p) != payments.Paid {
			t.Error(s.status(t, p))
		}
	})
}

// TestForeignEvents checks that events about other sales of the Stripe account, or about
// objects of another account, move no credits.
func TestForeignEvents(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, session := s.open(t, 100)
		send := func(id, typ string, object map[string]any) error {
			e := event{id: id, typ: typ, session: object}
			testkit.Must(t, s.Receive(t.Context(), e.body(), sign(e.body(), stripetest.Secret, time.Now())))
			return s.Apply(t.Context(), payments.ApplyEvent{EventID: id})
		}
		metadata := map[string]any{"store_id": s.store, "purchase_id": p.ID}
		for name, err := range map[string]error{
			"another shop's checkout": send("evt_1", "checkout.session.completed", map[string]any{"id": "cs_x", "mode": "payment", "payment_status": "paid"}),
			"another shop's payment":  send("evt_2", "payment_intent.succeeded", map[string]any{"id": "pi_x", "metadata": map[string]any{}}),
			"a refund of nothing":     send("evt_3", "refund.created", map[string]any{"id": "re_x", "status": "succeeded", "amount": 5}),
			"a type of tomorrow":      send("evt_4", "credit.note.created", map[string]any{"id": "x"}),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, err := range map[string]error{
			"a checkout that Stripe does not know": send("evt_5", "checkout.session.completed", map[string]any{
				"id": "cs_forged", "mode": "payment", "payment_status": "paid", "client_reference_id": p.ID, "amount_total": 100, "metadata": metadata}),
			"a payment that Stripe does not know": send("evt_6", "refund.created", map[string]any{"id": "re_x", "payment_intent": "pi_forged"}),
		} {
			if !jobs.IsCancelled(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// The event reports a payment, but Stripe's state is open. Stripe's state
		// applies.
		testkit.Must(t, send("evt_7", "checkout.session.completed", map[string]any{
			"id": session, "mode": "payment", "payment_status": "paid", "client_reference_id": p.ID, "amount_total": 100, "currency": "usd",
			"payment_intent": "pi_forged", "metadata": metadata}))
		s.wantBalance(t, 0, 0, 0)
		if s.status(t, p) != payments.Pending {
			t.Error(s.status(t, p))
		}
		// A checkout of one purchase with the id of another.
		other, _ := s.open(t, 100)
		if err := send("evt_8", "checkout.session.completed", map[string]any{
			"id": session, "mode": "payment", "client_reference_id": other.ID, "metadata": metadata}); !jobs.IsCancelled(err) {
			t.Error(err)
		}
	})
}

// TestApplyWhileStripeIsDown checks that nothing is lost or applied while Stripe does not
// answer.
func TestApplyWhileStripeIsDown(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p, session := s.open(t, 100)
		s.stripe.Pay(session)
		s.stripe.DeliverAll()
		id := s.unapplied(t)[0]
		s.stripe.Break("GET /v1/disputes", stripetest.Broken) // the last call of a read
		if err := s.Apply(t.Context(), payments.ApplyEvent{EventID: id}); err == nil || jobs.IsCancelled(err) {
			t.Errorf("%v, want a failure that is tried again", err)
		}
		if s.applied(t, id) || s.status(t, p) != payments.Pending {
			t.Error("half an effect")
		}
		s.work(t)
		s.wantBalance(t, 100, 0, 0)
	})
}

// TestAnOldAnswerDoesNotWin checks that a delayed answer does not undo a newer state that
// has been applied meanwhile.
func TestAnOldAnswerDoesNotWin(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, intent := s.paid(t, 100)
		dispute := s.stripe.Dispute(intent, 60)
		s.stripe.DeliverAll()
		asked, release := s.stripe.Delay("GET /v1/disputes")
		old := make(chan error)
		id := s.unapplied(t)[0]
		go func() { old <- s.Apply(t.Context(), payments.ApplyEvent{EventID: id}) }()
		<-asked // the answer has the state before the refund
		s.stripe.Withdraw(dispute)
		s.stripe.DeliverAll()
		for _, newer := range s.unapplied(t) {
			if newer != id {
				testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: newer}))
			}
		}
		s.wantBalance(t, 40, 0, 0)
		release()
		testkit.Must(t, <-old)
		s.wantBalance(t, 40, 0, 0)
		if n := s.transactions(t); n != 2 {
			t.Errorf("%d transactions, want a grant and a clawback", n)
		}
	})
}

// TestManyEventsAtOnce applies many events concurrently through the real queue, while the
// state changes. A state that was read before another one was applied must not be
// applied.
func TestManyEventsAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		s.start(t)
		p, session := s.open(t, 1000)
		intent := s.stripe.Pay(session)
		errs := concurrently(4, func(i int) error {
			switch i {
			case 0:
				refund := s.stripe.Refund(intent, 300, "succeeded")
				s.stripe.DeliverAll()
				s.stripe.SetRefund(refund, "failed")
			case 1:
				dispute := s.stripe.Dispute(intent, 500)
				s.stripe.DeliverAll()
				s.stripe.Withdraw(dispute)
				s.stripe.DeliverAll()
				s.stripe.Close(dispute, "lost")
			case 2:
				s.stripe.Refund(intent, 200, "succeeded")
			}
			for _, e := range s.stripe.Events() {
				s.stripe.Deliver(e)
			}
			return nil
		})
		testkit.Must(t, errors.Join(errs...))
		s.stripe.DeliverAll()
		testkit.Eventually(t, testkit.Timeout, "all is applied", func() bool { return len(s.unapplied(t)) == 0 })
		s.wantBalance(t, 300, 0, 0) // 1000 - 500 - 200
		if got := s.get(t, p); got.ReversedMinor != 700 || got.ClawedBack != 700*credits.Credit || got.Status != payments.Paid {
			t.Errorf("%+v", got)
		}
	})
}
