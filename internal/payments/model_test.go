package payments_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPaymentsModel draws actions of buyers and banks and, independently, the delivery of
// their events: some at once, some twice, some in another order, some never. In the end,
// after a reconciliation, the accounts equal a model of a few variables, which does not
// use events.
func TestPaymentsModel(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		rapid.Check(t, func(r *rapid.T) {
			w := &paymentState{till: s.another(t), from: len(s.stripe.Events())}
			steps := []func(*rapid.T, testing.TB){
				w.sell, w.sell, w.decide, w.refund, w.refund, w.settleRefund, w.dispute, w.withdraw, w.settleDispute, w.hear, w.hear, w.spendSome,
			}
			for range rapid.IntRange(1, 16).Draw(r, "steps") {
				rapid.SampledFrom(steps).Draw(r, "step")(r, t)
			}
			w.hear(r, t)
			report, err := w.Reconcile(t.Context())
			testkit.Must(t, err)
			if len(report.Refused) > 0 {
				r.Fatal(report.Refused)
			}
			w.compare(r, t)
			w.leave(t)
		})
		report, err := verify.Run(t.Context(), s.db, nil)
		testkit.Must(t, err)
		for _, fault := range report.Inconsistencies {
			t.Error("verify: ", fault)
		}
	})
}

// paymentState is the model.
type paymentState struct {
	till
	from  int // the first of its events
	sales []*sale
	spent credits.Amount
}

type sale struct {
	purchase  payments.Purchase
	session   string
	intent    string
	money     int64
	waits     bool // for the money of a delayed payment
	paid      bool
	closed    bool // it can no longer be paid
	reversals []*drawnReversal
}

type drawnReversal struct {
	id      string
	dispute bool
	minor   int64
	taken   bool
	open    bool
}

func (s *sale) gone() (sum int64) {
	for _, v := range s.reversals {
		if v.taken {
			sum += v.minor
		}
	}
	return min(sum, s.money)
}

func (s *sale) disputed() (sum int64) {
	for _, v := range s.reversals {
		if v.open {
			sum += v.minor
		}
	}
	return sum
}

func (w *paymentState) sell(r *rapid.T, t testing.TB) {
	p, session := w.open(t, rapid.IntRange(50, 120).Draw(r, "credits"))
	s := &sale{purchase: p, session: session, money: p.AmountMinor}
	w.sales = append(w.sales, s)
	switch rapid.IntRange(0, 5).Draw(r, "buyer") {
	case 0: // the buyer leaves
	case 1:
		w.stripe.Expire(session)
		s.closed = true
	case 2:
		s.intent, s.waits = w.stripe.PayLater(session), true
	default:
		s.intent, s.paid = w.stripe.Pay(session), true
	}
}

// pick draws one of the sales for which fits holds, or nil.
func (w *paymentState) pick(r *rapid.T, fits func(*sale) bool) *sale {
	var some []*sale
	for _, s := range w.sales {
		if fits(s) {
			some = append(some, s)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(r, "sale")]
}

// reversal draws one of the reversals for which fits holds, or nil.
func (w *paymentState) reversal(r *rapid.T, fits func(*drawnReversal) bool) *drawnReversal {
	var some []*drawnReversal
	for _, s := range w.sales {
		for _, v := range s.reversals {
			if fits(v) {
				some = append(some, v)
			}
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(r, "reversal")]
}

func (w *paymentState) decide(r *rapid.T, _ testing.TB) {
	s := w.pick(r, func(s *sale) bool { return s.waits })
	if s == nil {
		return
	}
	s.waits = false
	if s.paid = rapid.Bool().Draw(r, "arrives"); s.paid {
		w.stripe.Arrive(s.session)
	} else {
		s.closed = true
		w.stripe.Bounce(s.session)
	}
}

func (w *paymentState) refund(r *rapid.T, _ testing.TB) {
	s := w.pick(r, func(s *sale) bool { return s.paid && s.gone() < s.money })
	if s == nil {
		return
	}
	v := &drawnReversal{minor: rapid.Int64Range(1, s.money-s.gone()).Draw(r, "money"), taken: rapid.Bool().Draw(r, "at once")}
	v.id = w.stripe.Refund(s.intent, v.minor, map[bool]string{true: "succeeded", false: "pending"}[v.taken])
	s.reversals = append(s.reversals, v)
}

func (w *paymentState) settleRefund(r *rapid.T, _ testing.TB) {
	v := w.reversal(r, func(v *drawnReversal) bool { return !v.dispute })
	if v == nil {
		return
	}
	v.taken = !v.taken
	w.stripe.SetRefund(v.id, map[bool]string{true: "succeeded", false: "failed"}[v.taken])
}

func (w *paymentState) dispute(r *rapid.T, _ testing.TB) {
	s := w.pick(r, func(s *sale) bool { return s.paid })
	if s == nil {
		return
	}
	v := &drawnReversal{dispute: true, open: true, minor: rapid.Int64Range(1, s.money).Draw(r, "money")}
	v.id = w.stripe.Dispute(s.intent, v.minor)
	s.reversals = append(s.reversals, v)
}

func (w *paymentState) withdraw(r *rapid.T, _ testing.TB) {
	v := w.reversal(r, func(v *drawnReversal) bool { return v.dispute && v.open })
	if v == nil {
		return
	}
	v.open, v.taken = false, true
	w.stripe.Withdraw(v.id)
}

func (w *paymentState) settleDispute(r *rapid.T, _ testing.TB) {
	v := w.reversal(r, func(v *drawnReversal) bool { return v.dispute && (v.open || v.taken) })
	if v == nil {
		return
	}
	switch rapid.IntRange(0, 2).Draw(r, "outcome") {
	case 0:
		w.stripe.Close(v.id, "lost")
		v.open = false
	case 1:
		if v.taken {
			w.stripe.Reinstate(v.id)
		}
		w.stripe.Close(v.id, "won")
		v.open, v.taken = false, false
	default:
		w.stripe.Close(v.id, "won")
		v.open, v.taken = false, false
	}
}

// hear delivers a few new or old events and applies the received ones in any order, some
// of them twice.
func (w *paymentState) hear(r *rapid.T, t testing.TB) {
	events := w.stripe.Events()[w.from:]
	if len(events) == 0 {
		return
	}
	for range rapid.IntRange(0, 4).Draw(r, "deliveries") {
		w.deliver(t, events[rapid.IntRange(0, len(events)-1).Draw(r, "event")])
	}
	ids := w.unapplied(t)
	for range rapid.IntRange(0, len(ids)).Draw(r, "jobs") {
		id := ids[rapid.IntRange(0, len(ids)-1).Draw(r, "job")]
		testkit.Must(t, w.Apply(t.Context(), payments.ApplyEvent{EventID: id}))
	}
}

func (w *paymentState) deliver(t testing.TB, e *stripetest.Event) {
	if status := w.stripe.Deliver(e); status != 200 {
		t.Fatalf("%s was answered with %d", e.ID, status)
	}
}

func (w *paymentState) spendSome(r *rapid.T, t testing.TB) {
	b := w.balance(t)
	if b.Debt > 0 || b.Available() == 0 || rapid.IntRange(0, 2).Draw(r, "thrift") > 0 {
		return
	}
	amount := credits.Amount(rapid.Int64Range(1, int64(b.Available())).Draw(r, "spend"))
	_, err := w.ledger.Spend(t.Context(), w.owner, w.store, credits.SpendRequest{Amount: amount})
	testkit.Must(t, err)
	w.spent += amount
}

func (w *paymentState) compare(r *rapid.T, t testing.TB) {
	var worth, frozen credits.Amount
	for _, s := range w.sales {
		got := w.get(t, s.purchase)
		want := payments.Pending
		switch {
		case s.paid && s.gone() == s.money:
			want = payments.Refunded
		case s.paid:
			want = payments.Paid
		case s.closed:
			want = payments.Expired
		}
		gone := s.gone()
		share := func(money int64) credits.Amount {
			return s.purchase.Credits * credits.Amount(money) / credits.Amount(s.money)
		}
		if got.Status != want || got.ReversedMinor != gone || got.ClawedBack != share(gone) {
			r.Errorf("purchase is %s, %d of %d reversed, %s clawed back; want %s, %d, %s",
				got.Status, got.ReversedMinor, s.money, got.ClawedBack, want, gone, share(gone))
		}
		var money int64
		testkit.Must(t, w.db.Get(t.Context(), &money, `
			SELECT CAST(coalesce(sum(amount_minor), 0) AS bigint) FROM billing_transactions WHERE purchase_id = $1`, s.purchase.ID))
		if s.paid {
			worth += s.purchase.Credits - share(gone)
			frozen += share(min(s.money, gone+s.disputed())) - share(gone)
			gone = -s.money
			for _, v := range s.reversals {
				if v.taken {
					gone += v.minor
				}
			}
		}
		if money != -gone {
			r.Errorf("the money of the purchase adds up to %d, want %d", money, -gone)
		}
	}
	b := w.balance(t)
	if b.Balance-b.Debt != worth-w.spent {
		r.Errorf("balance %s, debt %s, want %s together", b.Balance, b.Debt, worth-w.spent)
	}
	if w.spent == 0 && (b.Reserved != frozen || b.Debt != 0) {
		r.Errorf("frozen %s, debt %s, want %s and none", b.Reserved, b.Debt, frozen)
	}
}

// leave ends the open purchases, so that the next run does not compare them again.
func (w *paymentState) leave(t testing.TB) {
	w.stripe.Acknowledge()
	w.exec(t, `UPDATE purchases SET status = 'expired' WHERE store_id = $1 AND status = 'pending'`, w.store)
}
