package payments_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPaidPurchase covers the whole path: a purchase, the Pay button twice, the webhook,
// the running queue, the ledger.
func TestPaidPurchase(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		s.start(t)
		p := s.buy(t, 250)
		testkit.Must(t, s.Pay(t.Context(), *p.ProviderRef))
		testkit.Must(t, s.Pay(t.Context(), *p.ProviderRef))
		testkit.Eventually(t, testkit.Timeout, "every event is applied", func() bool {
			return s.count(t, `SELECT count(*) FROM stripe_events WHERE applied_at IS NULL`) == 0
		})

		want := 250 * credits.Credit
		if got := s.balance(t); got.Balance != want || got.LifetimePurchased != want {
			t.Errorf("%+v", got)
		}
		got, err := s.Get(t.Context(), s.owner, s.store, p.ID)
		testkit.Must(t, err)
		if got.Status != payments.Paid || got.PaidAt == nil || !got.PaidAt.Equal(got.UpdatedAt) {
			t.Errorf("%+v", got)
		}
		page, err := s.ledger.Transactions(t.Context(), s.owner, s.store, credits.Filter{})
		testkit.Must(t, err)
		ref := p.ID.String()
		wantRows := []credits.Transaction{{
			ID: page.Transactions[0].ID, StoreID: s.store, Sequence: 1, Type: credits.TypePurchase, Amount: want, BalanceAfter: want,
			Description: "Purchase of 250 credits", Reference: &ref, UserID: &s.owner.UserID, CreatedAt: *got.PaidAt,
		}}
		if d := cmp.Diff(wantRows, page.Transactions); d != "" {
			t.Error(d)
		}
		if n := s.count(t, `SELECT count(*) FROM billing_transactions WHERE purchase_id = $1 AND amount_minor = 250 AND currency = 'USD'
			AND type = 'payment' AND provider = 'sandbox' AND provider_ref LIKE 'pi_sandbox_%'`, p.ID); n != 1 {
			t.Errorf("%d payments are recorded, want 1", n)
		}
		// After the payment a late click creates no event.
		events := s.count(t, `SELECT count(*) FROM stripe_events`)
		testkit.Must(t, s.Pay(t.Context(), *p.ProviderRef))
		if n := s.count(t, `SELECT count(*) FROM stripe_events`); n != events {
			t.Error("paying a paid purchase made an event")
		}
	})
}

// TestPayAnswersOnceItIsPaid checks that the Pay button does not wait for the queue, and
// that the event's job then finds nothing to do.
func TestPayAnswersOnceItIsPaid(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 250)
		testkit.Must(t, errors.Join(concurrently(8, func(int) error { return s.Pay(t.Context(), *p.ProviderRef) })...))
		if got := s.status(t, p); got != payments.Paid {
			t.Errorf("after Pay the purchase is %s, want paid", got)
		}
		s.start(t)
		testkit.Eventually(t, testkit.Timeout, "every job has ended", func() bool {
			return s.count(t, `SELECT count(*) FROM river_job WHERE state <> 'completed'`) == 0
		})
		if got := s.balance(t).Balance; got != 250*credits.Credit || s.transactions(t) != 1 {
			t.Errorf("balance %s in %d transactions, want 250 in one", got, s.transactions(t))
		}
	})
}

// TestTheLedgerDoesNotShowTheCheckout checks that the visible data of a payment does not
// allow anyone to pay.
func TestTheLedgerDoesNotShowTheCheckout(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 1)
		testkit.Must(t, s.Pay(t.Context(), *p.ProviderRef))
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: s.onlyEvent(t)}))
		secret := strings.TrimPrefix(*p.ProviderRef, "cs_sandbox_")
		for _, table := range []string{
			"credit_transactions WHERE idempotency_key", "credit_transactions WHERE reference",
			"billing_transactions WHERE provider_ref",
		} {
			if n := s.count(t, `SELECT count(*) FROM `+table+` LIKE $1`, "%"+secret+"%"); n != 0 {
				t.Error(table)
			}
		}
	})
}

func (s shop) onlyEvent(t testing.TB) (id string) {
	t.Helper()
	testkit.Must(t, s.db.Get(t.Context(), &id, `SELECT id FROM stripe_events`))
	return id
}

func TestReceiveStoresAnEventOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 10)
		e := paid(p, "evt_1", "pi_1")
		errs := concurrently(10, func(int) error {
			return s.Receive(t.Context(), e.body(), sign(e.body(), secret, time.Now()))
		})
		testkit.Must(t, errors.Join(errs...))
		if n := s.count(t, `SELECT count(*) FROM stripe_events`); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
		if n := s.count(t, `SELECT count(*) FROM river_job`); n != 1 {
			t.Errorf("%d jobs, want 1", n)
		}
		if s.balance(t).Balance != 0 || s.applied(t, "evt_1") {
			t.Error("applied without its job")
		}
		s.start(t)
		testkit.Eventually(t, testkit.Timeout, "the event is applied", func() bool { return s.applied(t, "evt_1") })
		s.receive(t, e) // once more, after it was applied
		if n := s.count(t, `SELECT count(*) FROM river_job`); n != 1 {
			t.Errorf("%d jobs after a late duplicate, want 1", n)
		}
		if got := s.balance(t).Balance; got != 10*credits.Credit || s.transactions(t) != 1 {
			t.Errorf("balance %s", got)
		}
	})
}

func TestReceiveRefusesWhatIsNotSigned(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		body := paid(s.buy(t, 10), "evt_1", "pi_1").body()
		now := time.Now()
		tampered := bytes.Replace(body, []byte(`"amount_total":10`), []byte(`"amount_total":11`), 1)
		if bytes.Equal(tampered, body) {
			t.Fatal("nothing was tampered with")
		}
		for name, c := range map[string]struct {
			body      []byte
			signature string
		}{
			"no signature":      {body, ""},
			"not a signature":   {body, "sandbox"},
			"tampered":          {tampered, sign(body, secret, now)},
			"one byte more":     {append(bytes.Clone(body), '\n'), sign(body, secret, now)},
			"another secret":    {body, sign(body, "whsec_other", now)},
			"old":               {body, sign(body, secret, now.Add(-6*time.Minute))},
			"old made new":      {body, strings.Replace(sign(body, secret, now.Add(-time.Hour)), fmt.Sprint(now.Add(-time.Hour).Unix()), fmt.Sprint(now.Unix()), 1)},
			"empty":             {nil, sign(nil, secret, now)},
			"not JSON":          {[]byte("paid"), sign([]byte("paid"), secret, now)},
			"not an event":      signed(`{"object":"charge","id":"ch_1"}`),
			"no data":           signed(`{"object":"event","id":"evt_1","type":"x","api_version":"2026-05-27.dahlia"}`),
			"no id":             signed(`{"object":"event","type":"x","api_version":"2026-05-27.dahlia","data":{"object":{}}}`),
			"other API version": signed(`{"object":"event","id":"evt_1","type":"x","api_version":"2020-08-27","data":{"object":{}}}`),
		} {
			if err := s.Receive(t.Context(), c.body, c.signature); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := s.count(t, `SELECT count(*) FROM stripe_events`); n != 0 {
			t.Errorf("%d events were stored", n)
		}
		testkit.Must(t, s.Receive(t.Context(), body, sign(body, secret, now.Add(-4*time.Minute))))
	})
}

func signed(body string) struct {
	body      []byte
	signature string
} {
	return struct {
		body      []byte
		signature string
	}{[]byte(body), sign([]byte(body), secret, time.Now())}
}

func TestOnePaymentGrantsOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		const rounds = 4 // in the first rounds few connections are open
		for round := range rounds {
			p := s.buy(t, 10)
			intent := fmt.Sprint("pi_", round)
			// Two events about one payment are applied concurrently, each several times.
			ids := []string{fmt.Sprint("evt_a", round), fmt.Sprint("evt_b", round)}
			for _, id := range ids {
				s.receive(t, paid(p, id, intent))
			}
			errs := concurrently(8, func(i int) error {
				return s.Apply(t.Context(), payments.ApplyEvent{EventID: ids[i%2]})
			})
			testkit.Must(t, errors.Join(errs...))
			if !s.applied(t, ids[0]) || !s.applied(t, ids[1]) {
				t.Error("an event was not applied")
			}
			if s.status(t, p) != payments.Paid {
				t.Error("not paid")
			}
		}
		if got := s.balance(t).Balance; got != rounds*10*credits.Credit {
			t.Errorf("balance %s, want %d", got, rounds*10)
		}
		if n := s.count(t, `SELECT count(*) FROM billing_transactions`); n != rounds || s.transactions(t) != rounds {
			t.Errorf("%d payments, %d grants, want %d", n, s.transactions(t), rounds)
		}
	})
}

func TestApplyRefusesWhatWasNotSold(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		settled := s.buy(t, 5)
		s.receive(t, paid(settled, "evt_settled", "pi_settled"))
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: "evt_settled"}))
		before := s.balance(t)

		for name, change := range map[string]func(e *event){
			"no amount":         func(e *event) { delete(e.session, "amount_total") },
			"another checkout":  func(e *event) { e.session["id"] = "cs_sandbox_other" },
			"unknown purchase":  func(e *event) { e.session["client_reference_id"] = stoa.NewID[stoa.PurchaseID]().String() },
			"not a purchase":    func(e *event) { e.session["client_reference_id"] = "42" },
			"no purchase":       func(e *event) { delete(e.session, "client_reference_id") },
			"no payment":        func(e *event) { delete(e.session, "payment_intent") },
			"payment used up":   func(e *event) { e.session["payment_intent"] = "pi_settled" },
			"amount not number": func(e *event) { e.session["amount_total"] = "ten" },
		} {
			p := s.buy(t, 10)
			id := "evt_" + strings.ReplaceAll(name, " ", "_")
			e := paid(p, id, "pi_"+id)
			change(&e)
			s.receive(t, e)
			if err := s.Apply(t.Context(), payments.ApplyEvent{EventID: id}); !jobs.IsCancelled(err) {
				t.Errorf("%s: %v, want a final failure", name, err)
			}
			if s.applied(t, id) || s.status(t, p) != payments.Pending {
				t.Errorf("%s: had an effect", name)
			}
			if log := s.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, id) || strings.Contains(log, *p.ProviderRef) {
				t.Errorf("%s: log is %s", name, log)
			}
		}
		if d := cmp.Diff(before, s.balance(t)); d != "" {
			t.Error(d)
		}
		if err := s.Apply(t.Context(), payments.ApplyEvent{EventID: "evt_unknown"}); !jobs.IsCancelled(err) {
			t.Errorf("unknown event: %v", err)
		}
	})
}

// TestASecondPaymentIsRefused checks that a purchase that is paid by two payments grants
// credits once. A person has to refund the second payment. The same holds when two stores
// share a payment.
func TestASecondPaymentIsRefused(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, other := setup(t, db, sandbox()), setup(t, db, sandbox())
		p := s.buy(t, 10)
		s.receive(t, paid(p, "evt_1", "pi_1"))
		s.receive(t, paid(p, "evt_2", "pi_2"))
		s.receive(t, paid(other.buy(t, 10), "evt_3", "pi_1"))
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: "evt_1"}))
		for _, id := range []string{"evt_2", "evt_3"} {
			if err := s.Apply(t.Context(), payments.ApplyEvent{EventID: id}); !jobs.IsCancelled(err) || s.applied(t, id) {
				t.Errorf("%s: %v", id, err)
			}
		}
		if s.balance(t).Balance != 10*credits.Credit || other.balance(t).Balance != 0 {
			t.Errorf("%+v, %+v", s.balance(t), other.balance(t))
		}
	})
}

func TestEventsWithoutAPayment(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 10)
		unpaid := paid(p, "evt_unpaid", "pi_1")
		unpaid.session["payment_status"] = "unpaid"
		unknown := paid(p, "evt_unknown", "pi_1")
		unknown.typ = "a.type.of.tomorrow"
		expired := paid(p, "evt_expired", "pi_1")
		expired.typ, expired.session["status"], expired.session["payment_status"] = "checkout.session.expired", "expired", "unpaid"
		for _, c := range []struct {
			event event
			want  payments.Status
		}{{unpaid, payments.Pending}, {unknown, payments.Pending}, {expired, payments.Expired}} {
			s.receive(t, c.event)
			testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: c.event.id}))
			if !s.applied(t, c.event.id) || s.status(t, p) != c.want || s.balance(t).Balance != 0 {
				t.Errorf("%s is not marked, or the purchase is %s and not %s", c.event.id, s.status(t, p), c.want)
			}
		}
		late := paid(p, "evt_late", "pi_1")
		s.receive(t, late)
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: late.id}))
		if s.status(t, p) != payments.Paid || s.balance(t).Balance != 10*credits.Credit {
			t.Error("a late payment was lost")
		}
		expired.id = "evt_expired_again"
		s.receive(t, expired)
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: expired.id}))
		if s.status(t, p) != payments.Paid {
			t.Error("a paid purchase expired")
		}
	})
}

// TestApplyAfterAFailure checks that a failed attempt changes nothing, and that the next
// one does everything.
func TestApplyAfterAFailure(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 10)
		s.receive(t, paid(p, "evt_1", "pi_1"))
		rename := func(from, to string) {
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), `ALTER TABLE `+from+` RENAME TO `+to)
				return err
			}))
		}
		rename("billing_transactions", "elsewhere") // the last write of the transaction fails
		if err := s.Apply(t.Context(), payments.ApplyEvent{EventID: "evt_1"}); err == nil || jobs.IsCancelled(err) {
			t.Errorf("%v, want a failure that is tried again", err)
		}
		if s.balance(t).Balance != 0 || s.status(t, p) != payments.Pending || s.applied(t, "evt_1") {
			t.Error("half an effect")
		}
		rename("elsewhere", "billing_transactions")
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: "evt_1"}))
		if s.balance(t).Balance != 10*credits.Credit || s.status(t, p) != payments.Paid || !s.applied(t, "evt_1") {
			t.Error("no effect")
		}
	})
}
