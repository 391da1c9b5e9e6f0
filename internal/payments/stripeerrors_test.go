package payments_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// refusals are answers of Stripe to a call and their effects.
var refusals = []struct {
	status    int
	typ, code string
	want      stoa.Code
	retry     bool // the caller may send the same request again
}{
	{http.StatusBadRequest, "invalid_request_error", "parameter_invalid_integer", stoa.PaymentRefused, false},
	{http.StatusBadRequest, "invalid_request_error", "", stoa.PaymentRefused, false},
	{http.StatusUnauthorized, "invalid_request_error", "api_key_expired", stoa.PaymentsUnavailable, false},
	{http.StatusPaymentRequired, "invalid_request_error", "account_closed", stoa.PaymentRefused, false},
	{http.StatusForbidden, "invalid_request_error", "", stoa.PaymentsUnavailable, false},
	{http.StatusNotFound, "invalid_request_error", "", stoa.PaymentRefused, false},
	{http.StatusUnprocessableEntity, "invalid_request_error", "", stoa.PaymentRefused, false},
	{http.StatusConflict, "idempotency_error", "idempotency_key_in_use", stoa.PaymentsUnavailable, true},
	{http.StatusTooManyRequests, "rate_limit_error", "rate_limit", stoa.PaymentsUnavailable, true},
	{http.StatusInternalServerError, "api_error", "", stoa.PaymentsUnavailable, true},
	{http.StatusServiceUnavailable, "api_error", "", stoa.PaymentsUnavailable, true},
}

// TestStripeRefusals checks that the caller is told to repeat only those requests that
// may get another answer later. The operator finds the reason in the log.
func TestStripeRefusals(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		request := payments.PurchaseRequest{Credits: 60 * credits.Credit, IdempotencyKey: "k"}
		calls := map[string]struct {
			begins string
			do     func() error
		}{
			"checkout": {"POST /v1/checkout/sessions", func() error {
				_, err := s.Purchase(t.Context(), s.owner, s.store, request)
				return err
			}},
			"customer": {"POST /v1/customers", func() error {
				_, err := s.SaveCard(t.Context(), s.owner, s.store, "k")
				return err
			}},
			"card setup": {"POST /v1/checkout/sessions", func() error {
				_, err := s.SaveCard(t.Context(), s.owner, s.store, "k")
				return err
			}},
		}
		for _, name := range []string{"checkout", "customer", "card setup"} {
			for _, r := range refusals {
				what := fmt.Sprintf("%s, %d %s", name, r.status, r.code)
				s.stripe.Refuse(calls[name].begins, r.status, r.typ, r.code)
				err := calls[name].do()
				e := new(stoa.Error)
				if !errors.As(err, &e) {
					t.Fatalf("%s: %v", what, err)
				}
				again := strings.Contains(e.Message, "Send the same request")
				if e.Code != r.want || again != r.retry || (e.RetryAfter > 0) != r.retry || !strings.Contains(e.Message, "Nothing was charged") {
					t.Errorf("%s: %s, retry after %s: %s", what, e.Code, e.RetryAfter, e.Message)
				}
				if r.code != "" && r.want == stoa.PaymentRefused && !strings.Contains(e.Message, r.code) {
					t.Errorf("%s: the code of Stripe is not in %q", what, e.Message)
				}
				if n := s.count(t, `SELECT count(*) FROM purchases`); n != map[bool]int{true: 1}[r.retry && name == "checkout"] {
					t.Errorf("%s: %d purchases", what, n)
				}
				if logged := s.log.take(); (strings.Contains(logged, "level=ERROR") && strings.Contains(logged, "request=req_") ||
					strings.Contains(logged, "correct the Stripe key")) == r.retry {
					t.Errorf("%s: log: %s", what, logged)
				}
				s.exec(t, `DELETE FROM purchases`)
			}
			s.stripe.Admit()
			testkit.Must(t, calls[name].do())
			s.exec(t, `DELETE FROM purchases`)
		}
	})
}

// TestJobsWithARefusedKey checks that a job whose key Stripe refuses fails, is logged and
// is run again, and that nothing is counted as compared.
func TestJobsWithARefusedKey(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, stripetest.Good)
		_, session := s.open(t, 100)
		s.stripe.Pay(session)
		s.stripe.DeliverAll()
		events := s.unapplied(t)
		work := map[string]func() error{
			"payments.reconcile":   func() error { return s.RunReconcile(t.Context(), payments.Reconcile{}) },
			"payments.apply_event": func() error { return s.Apply(t.Context(), payments.ApplyEvent{EventID: events[0]}) },
			"payments.recharge":    func() error { return s.Recharge(t.Context(), payments.Recharge{StoreID: s.store}) },
		}
		for _, refused := range []struct {
			begins string
			status int
			jobs   []string
		}{
			{"", http.StatusUnauthorized, []string{"payments.reconcile", "payments.apply_event", "payments.recharge"}},
			{"GET /v1/checkout", http.StatusForbidden, []string{"payments.reconcile", "payments.apply_event"}},
			{"POST /v1/payment_intents", http.StatusForbidden, []string{"payments.recharge"}},
			{"GET /v1/refunds", http.StatusForbidden, []string{"payments.apply_event"}},
			{"GET /v1/disputes", http.StatusForbidden, []string{"payments.apply_event"}},
			{"GET /v1/events", http.StatusForbidden, []string{"payments.reconcile"}}, // and the stored events are applied
		} {
			s.stripe.Refuse(refused.begins, refused.status, "invalid_request_error", "")
			for _, name := range refused.jobs {
				s.log.take()
				err := work[name]()
				if logged := s.log.take(); err == nil || jobs.IsCancelled(err) || !strings.Contains(err.Error(), "Stripe") || strings.Contains(err.Error(), "This call is refused") ||
					!strings.Contains(logged, "level=ERROR") || !strings.Contains(logged, "job="+name) || strings.Contains(logged, "compared=") {
					t.Errorf("%s, %q refused: error %v, log: %s", name, refused.begins, err, logged)
				}
			}
			s.stripe.Admit()
			if a := s.settings(t); !a.Enabled {
				t.Fatalf("%q refused: the recharges were stopped: %+v", refused.begins, a)
			}
		}
		testkit.Must(t, work["payments.recharge"]()) // the recharge is no longer due
		testkit.Must(t, work["payments.reconcile"]())
		s.wantBalance(t, 100, 0, 0)
	})
}

// TestReconcileStopsAtARefusedKey checks that a key that Stripe does not accept is
// detected with the first call.
func TestReconcileStopsAtARefusedKey(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, session := s.open(t, 100)
		s.stripe.Pay(session)
		s.stripe.Refuse("", http.StatusUnauthorized, "invalid_request_error", "")
		before := len(s.stripe.Asked())
		report, err := s.Reconcile(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the key is not accepted by Stripe") || report.Compared != 0 || len(s.stripe.Asked()) != before+1 {
			t.Errorf("%+v, %v; asked %q", report, err, s.stripe.Asked()[before:])
		}
	})
}

// TestLookupsRefusedForGood checks that look-ups that Stripe refuses permanently are
// reported and are not repeated by the queue.
func TestLookupsRefusedForGood(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for _, call := range []string{"GET /v1/checkout/sessions", "GET /v1/refunds", "GET /v1/disputes"} {
			s := atStripe(t, db)
			_, session := s.open(t, 100)
			s.stripe.Pay(session)
			s.stripe.DeliverAll()
			for _, status := range []int{http.StatusTooManyRequests, http.StatusBadRequest} {
				s.stripe.Refuse(call, status, "invalid_request_error", "")
				err := s.Apply(t.Context(), payments.ApplyEvent{EventID: s.unapplied(t)[0]})
				if final := status == http.StatusBadRequest; jobs.IsCancelled(err) != final || err == nil {
					t.Errorf("%s answered with %d: %v", call, status, err)
				}
			}
			s.stripe.Admit()
			_, err := s.Reconcile(t.Context())
			testkit.Must(t, err)
			s.wantBalance(t, 100, 0, 0)
		}
	})
}

// TestRechargeRefusedForGood checks that a charge that Stripe refuses disables recharges,
// with any status.
func TestRechargeRefusedForGood(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for _, r := range refusals {
			s := recharging(t, db, stripetest.Good)
			s.stripe.Refuse("POST /v1/payment_intents", r.status, r.typ, r.code)
			err := s.Recharge(t.Context(), payments.Recharge{StoreID: s.store})
			if r.want == stoa.PaymentRefused {
				testkit.Must(t, err)
				s.wantStopped(t, "refused")
				continue
			}
			if err == nil || !s.settings(t).Enabled {
				t.Errorf("%d: %v, %+v", r.status, err, s.settings(t))
			}
		}
	})
}

// TestSaveCardAfterAKeptFailure checks that the next key is tried when Stripe has stored
// its own failure under a key, which it does for a day. The keys are always the same.
func TestSaveCardAfterAKeptFailure(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"POST /v1/customers", "POST /v1/checkout/sessions"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				s := atStripe(t, db)
				s.stripe.Break(call, stripetest.Broken)
				_, err := s.SaveCard(t.Context(), s.owner, s.store, "k")
				wantCode(t, err, stoa.PaymentsUnavailable)
				first, err := s.SaveCard(t.Context(), s.owner, s.store, "k")
				testkit.Must(t, err)
				again, err := s.SaveCard(t.Context(), s.owner, s.store, "k")
				testkit.Must(t, err)
				if first != again {
					t.Errorf("%s and %s for one key", first, again)
				}
			})
		})
	}
}

// TestCheckStripeNamesMissingRights checks that CheckStripe reports every permission that
// the key lacks.
func TestCheckStripeNamesMissingRights(t *testing.T) {
	t.Parallel()
	s := stripetest.New(t, "")
	for call, want := range map[string]string{
		"GET /v1/checkout/sessions": "may not use Checkout Sessions", "GET /v1/payment_intents": "may not use Payment Intents",
		"GET /v1/refunds": "may not use Refunds", "GET /v1/disputes": "may not use Disputes", "GET /v1/events": "may not use Events",
	} {
		s.Refuse(call, http.StatusForbidden, "invalid_request_error", "")
		err := payments.CheckStripe(t.Context(), keyring.NewSecret(stripetest.Key), s.URL)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ",") {
			t.Errorf("%s: %v, want %q", call, err, want)
		}
		s.Admit()
	}
	s.Refuse("GET /v1/", http.StatusForbidden, "invalid_request_error", "")
	err := payments.CheckStripe(t.Context(), keyring.NewSecret(stripetest.Key), s.URL)
	if err == nil || !strings.Contains(err.Error(), "Checkout Sessions, Payment Intents, Refunds, Disputes, Events") {
		t.Errorf("%v", err)
	}
}
