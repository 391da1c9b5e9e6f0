package payments_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// wish returns settings with recharges of 100 below 50, 250 a month at most.
func wish() payments.AutoRechargeRequest {
	return payments.AutoRechargeRequest{
		Enabled: true, Threshold: 50 * credits.Credit, Credits: 100 * credits.Credit, MonthlyCap: 250 * credits.Credit,
	}
}

// saveCard saves a card with that behaviour, until the master has it.
func (s till) saveCard(t testing.TB, behaviour stripetest.Card) {
	t.Helper()
	url, err := s.SaveCard(t.Context(), s.owner, s.store, "")
	testkit.Must(t, err)
	s.stripe.SaveCard(s.stripe.SessionOf(url), behaviour)
	s.news(t)
}

// recharging creates a store with such a card and with recharges enabled.
func recharging(t testing.TB, db *masterdb.DB, behaviour stripetest.Card) till {
	t.Helper()
	s := atStripe(t, db)
	s.saveCard(t, behaviour)
	_, err := s.SetAutoRecharge(t.Context(), s.owner, s.store, wish())
	testkit.Must(t, err)
	return s
}

func (s till) recharge(t testing.TB) {
	t.Helper()
	testkit.Must(t, s.Recharge(t.Context(), payments.Recharge{StoreID: s.store}))
}

func (s till) settings(t testing.TB) payments.AutoRecharge {
	t.Helper()
	got, err := s.AutoRecharge(t.Context(), s.owner, s.store)
	testkit.Must(t, err)
	return got
}

func (s till) wantStopped(t testing.TB, reason string) {
	t.Helper()
	got := s.settings(t)
	if got.Enabled || got.StoppedReason == nil || *got.StoppedReason != reason || got.StoppedAt == nil {
		t.Fatalf("%+v, want it stopped: %s", got, reason)
	}
	s.wantAudited(t, audit.RechargeStopped, `{"reason":"`+reason+`"}`)
}

// wantAudited requires an entry of the platform in the store's audit log, with these
// details unless they are "".
func (s till) wantAudited(t testing.TB, action, details string) {
	t.Helper()
	var rows []string
	testkit.Must(t, s.db.Select(t.Context(), &rows, `SELECT details FROM audit_events WHERE store_id = $1 AND action = $2 AND user_id IS NULL`, s.store, action))
	for _, row := range rows {
		if details == "" || row == details {
			return
		}
	}
	t.Errorf("no entry %s with %s in the audit log, but %v", action, details, rows)
}

func TestRecharge(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Good)
		s.recharge(t)
		s.wantBalance(t, 100, 0, 0)
		s.recharge(t) // enough credits are available
		s.news(t)     // the events are applied too
		s.wantBalance(t, 100, 0, 0)
		s.spend(t, 51)
		s.recharge(t)
		s.wantBalance(t, 149, 0, 0)
		s.wantAudited(t, audit.CardSaved, "")
		s.wantAudited(t, audit.PurchaseStarted, "")
		if n := s.stripe.Count("payment_intent"); n != 2 {
			t.Errorf("%d charges", n)
		}
		want := payments.AutoRecharge{
			Enabled: true, Threshold: 50 * credits.Credit, Credits: 100 * credits.Credit, MonthlyCap: 250 * credits.Credit,
			UsedThisMonth: 200 * credits.Credit, Card: &payments.Card{Brand: "visa", Last4: "4242", Expires: "2031-04"},
		}
		if d := cmp.Diff(want, s.settings(t)); d != "" {
			t.Error(d)
		}
		page, err := s.List(t.Context(), s.owner, s.store, 0, "")
		testkit.Must(t, err)
		if p := page.Purchases[0]; !p.Automatic || p.Status != payments.Paid || p.PaymentRef == nil || p.CheckoutURL != "" {
			t.Errorf("%+v", p)
		}
	})
}

func TestRechargeObeysTheCap(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Good)
		for range 4 {
			s.recharge(t)
			if b := s.balance(t); b.Balance > 0 {
				s.spend(t, b.Balance/credits.Credit)
			}
		}
		if n := s.stripe.Count("payment_intent"); n != 2 { // a third charge would make 300
			t.Errorf("%d charges", n)
		}
		s.exec(t, `UPDATE purchases SET created_at = $1`, time.Now().UTC().AddDate(0, -1, 0).Add(-96*time.Hour))
		s.recharge(t) // in the next month
		s.wantBalance(t, 100, 0, 0)
		if got := s.settings(t); !got.Enabled || got.UsedThisMonth != 100*credits.Credit {
			t.Errorf("%+v", got)
		}
	})
}

func TestRechargeStopsAfterADecline(t *testing.T) {
	t.Parallel()
	for card, reason := range map[stripetest.Card]string{stripetest.Declined: "declined", stripetest.NeedsOwner: "authentication_required"} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				s := recharging(t, db, card)
				for range 3 {
					s.recharge(t)
				}
				s.news(t)
				s.wantBalance(t, 0, 0, 0)
				s.wantStopped(t, reason)
				if n := s.stripe.Count("payment_intent"); n != 1 {
					t.Errorf("%d charges", n)
				}
				if n := s.count(t, `SELECT count(*) FROM purchases WHERE status = 'expired'`); n != 1 {
					t.Errorf("%d purchases ended", n)
				}
				// With a valid card, and enabled by a user, recharges continue.
				s.saveCard(t, stripetest.Good)
				s.recharge(t)
				s.wantBalance(t, 0, 0, 0)
				got, err := s.SetAutoRecharge(t.Context(), s.owner, s.store, wish())
				testkit.Must(t, err)
				if !got.Enabled || got.StoppedReason != nil || got.UsedThisMonth != 0 {
					t.Errorf("%+v", got)
				}
				s.recharge(t)
				s.wantBalance(t, 100, 0, 0)
			})
		})
	}
}

// TestRechargeDeclineByEvent checks a decline whose event is applied before the answer of
// the call.
func TestRechargeDeclineByEvent(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Declined)
		s.stripe.Break("POST /v1/payment_intents/", stripetest.Broken) // the cancellation fails
		if err := s.Recharge(t.Context(), payments.Recharge{StoreID: s.store}); err == nil {
			t.Error("an unfinished charge is no failure")
		}
		s.news(t)
		s.wantStopped(t, "declined")
		s.recharge(t)
		s.wantBalance(t, 0, 0, 0)
	})
}

// TestRechargeChargesOnce checks that the card is charged once, however the call ends.
func TestRechargeChargesOnce(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string][]stripetest.Fault{
		"nothing happened":         {stripetest.Broken},
		"it happened":              {stripetest.BrokenAfter},
		"cut twice":                {stripetest.Cut, stripetest.Cut},
		"cut twice after the work": {stripetest.CutAfter, stripetest.CutAfter},
		"lost after the work":      {stripetest.LostAfter},
		"too many requests":        {stripetest.Busy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				for _, forgets := range []bool{false, true} { // Stripe deletes keys after a day
					s := recharging(t, db, stripetest.Good)
					for _, f := range faults {
						s.stripe.Break("POST /v1/payment_intents", f)
					}
					for range 5 {
						if err := s.Recharge(t.Context(), payments.Recharge{StoreID: s.store}); err == nil {
							break
						}
						if forgets {
							s.stripe.Forget()
						}
					}
					s.wantBalance(t, 100, 0, 0)
					s.news(t)
					s.wantBalance(t, 100, 0, 0)
					if n := s.stripe.Count("payment_intent"); n != 1 {
						t.Errorf("%d charges", n)
					}
				}
			})
		})
	}
}

func TestRechargesAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Good)
		for range 2 { // after the first, enough credits are available
			errs := concurrently(8, func(int) error {
				for {
					err := s.Recharge(t.Context(), payments.Recharge{StoreID: s.store})
					if err == nil || t.Context().Err() != nil { // refused while another call with the key is at Stripe
						return err
					}
				}
			})
			testkit.Must(t, errors.Join(errs...))
		}
		s.news(t)
		s.wantBalance(t, 100, 0, 0)
		if n := s.stripe.Count("payment_intent"); n != 1 {
			t.Errorf("%d charges", n)
		}
	})
}

// TestRechargeNoLongerWanted checks that a charge that never reached Stripe is not made
// when it is no longer due.
func TestRechargeNoLongerWanted(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Good)
		s.stripe.Break("POST /v1/payment_intents", stripetest.Busy)
		if err := s.Recharge(t.Context(), payments.Recharge{StoreID: s.store}); err == nil {
			t.Error("a charge that was not made is no failure")
		}
		s.paid(t, 60)
		s.recharge(t)
		s.wantBalance(t, 60, 0, 0)
		if n := s.count(t, `SELECT count(*) FROM purchases WHERE automatic AND status = 'expired'`); n != 1 {
			t.Errorf("%d recharges ended", n)
		}
		s.spend(t, 60)
		s.recharge(t)
		s.wantBalance(t, 100, 0, 0)
	})
}

func TestRechargeOfASlowBank(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Slow)
		for range 3 {
			s.recharge(t)
		}
		if n := s.stripe.Count("payment_intent"); n != 1 {
			t.Errorf("%d charges", n)
		}
		// Recharges are disabled meanwhile. The charge in progress still counts.
		off := wish()
		off.Enabled = false
		_, err := s.SetAutoRecharge(t.Context(), s.owner, s.store, off)
		testkit.Must(t, err)
		s.stripe.Finish(s.stripe.Intents()[0])
		s.news(t)
		s.wantBalance(t, 100, 0, 0)
	})
}

// TestRechargeLeavesAlone checks cases in which no card is charged.
func TestRechargeLeavesAlone(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, s till){
		"who switched it off": func(t *testing.T, s till) {
			off := wish()
			off.Enabled = false
			_, err := s.SetAutoRecharge(t.Context(), s.owner, s.store, off)
			testkit.Must(t, err)
		},
		"who has enough": func(t *testing.T, s till) { s.paid(t, 50) },
		"a suspended store": func(t *testing.T, s till) {
			s.exec(t, `UPDATE stores SET status = 'suspended' WHERE id = $1`, s.store)
		},
		"who owes": func(t *testing.T, s till) {
			_, intent := s.paid(t, 60)
			s.spend(t, 60)
			s.stripe.Refund(intent, 60, "succeeded")
			s.news(t)
			s.wantBalance(t, 0, 0, 60)
		},
		"who never asked": func(t *testing.T, s till) { s.exec(t, `DELETE FROM auto_recharges WHERE store_id = $1`, s.store) },
		"who disputed": func(t *testing.T, s till) {
			_, intent := s.paid(t, 60)
			s.stripe.Dispute(intent, 60)
			s.news(t)
			s.wantStopped(t, "disputed")
		},
		"who may no longer buy": func(t *testing.T, s till) {
			s.exec(t, `UPDATE store_members SET role = 'member' WHERE store_id = $1`, s.store)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				s := recharging(t, db, stripetest.Good)
				prepare(t, s)
				before := s.stripe.Count("payment_intent")
				s.recharge(t)
				if n := s.stripe.Count("payment_intent"); n != before {
					t.Error("a card was charged")
				}
			})
		})
	}
}

func TestRechargeStopsWhenGivenBack(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Good)
		s.recharge(t)
		refund := s.stripe.Refund(s.stripe.Intents()[0], 100, "succeeded")
		s.news(t)
		s.recharge(t)
		s.wantBalance(t, 0, 0, 0)
		s.wantStopped(t, "refunded")
		_, err := s.SetAutoRecharge(t.Context(), s.owner, s.store, wish())
		testkit.Must(t, err)
		s.stripe.SetRefund(refund, "succeeded") // a refund that is already known does not disable recharges again
		s.news(t)
		if !s.settings(t).Enabled {
			t.Error("stopped again by what was known")
		}
	})
}

// TestQueueRecharges checks that stores with a low balance are found even if the process
// that follows the ledger was killed.
func TestQueueRecharges(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Good)
		content := s.another(t)
		content.paid(t, 60)
		content.saveCard(t, stripetest.Good)
		_, err := content.SetAutoRecharge(t.Context(), content.owner, content.store, wish())
		testkit.Must(t, err)
		s.exec(t, `DELETE FROM river_job`)
		for range 2 {
			testkit.Must(t, s.QueueRecharges(t.Context(), payments.RechargeDue{}))
		}
		if n := s.count(t, `SELECT count(*) FROM river_job`); n != 1 {
			t.Errorf("%d jobs, want one for the store in need", n)
		}
		s.start(t)
		testkit.Eventually(t, testkit.Timeout, "the store has credits", func() bool { return s.balance(t).Balance > 0 })
	})
}
