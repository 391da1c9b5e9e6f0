package payments_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestReconcileWithoutAnyEvent checks that a reconciliation finds everything when no
// event arrives, also a refund of a payment that the master had not recorded, over
// several pages of a list.
func TestReconcileWithoutAnyEvent(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		paid, session := s.open(t, 100)
		intent := s.stripe.Pay(session)
		for range 12 {
			s.stripe.Refund(intent, 1, "succeeded")
		}
		s.stripe.Withdraw(s.stripe.Dispute(intent, 8))
		left, second := s.open(t, 100)
		s.stripe.Expire(second)
		open, _ := s.open(t, 100)

		report, err := s.Reconcile(t.Context())
		testkit.Must(t, err)
		want := payments.Report{Events: 17, Applied: 17, Compared: 1, Refused: []string{}}
		if d := cmp.Diff(want, report); d != "" {
			t.Error(d)
		}
		s.wantBalance(t, 80, 0, 0)
		if a, b, c := s.status(t, paid), s.status(t, left), s.status(t, open); a != payments.Paid || b != payments.Expired || c != payments.Pending {
			t.Errorf("%s, %s, %s", a, b, c)
		}
		// A second reconciliation, after all events have arrived, changes nothing.
		report, err = s.Reconcile(t.Context())
		testkit.Must(t, err)
		if d := cmp.Diff(payments.Report{Compared: 1, Refused: []string{}}, report); d != "" {
			t.Error(d)
		}
		s.news(t)
		s.wantBalance(t, 80, 0, 0)
	})
}

// TestReconcileComparesOpenPurchases checks that open purchases are compared even if
// Stripe has delivered the events to an endpoint that lost them.
func TestReconcileComparesOpenPurchases(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		paid, session := s.open(t, 100)
		s.stripe.Pay(session)
		left, second := s.open(t, 100)
		s.stripe.Expire(second)
		s.stripe.DeliverAll()
		s.exec(t, `DELETE FROM stripe_events`)

		report, err := s.Reconcile(t.Context())
		testkit.Must(t, err)
		if d := cmp.Diff(payments.Report{Compared: 2, Paid: 1, Expired: 1, Refused: []string{}}, report); d != "" {
			t.Error(d)
		}
		s.wantBalance(t, 100, 0, 0)
		if s.status(t, paid) != payments.Paid || s.status(t, left) != payments.Expired {
			t.Error("not brought in")
		}
	})
}

func (s shop) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	testkit.Must(t, s.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// TestReconcileReportsWhatNeedsAPerson checks that an event that cannot be applied is
// reported every time, and does not prevent the others.
func TestReconcileReportsWhatNeedsAPerson(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		e := event{id: "evt_0_first", typ: "checkout.session.completed", session: map[string]any{
			"id": "cs_of_another_account", "mode": "payment", "client_reference_id": stoa.NewID[stoa.PurchaseID](), "metadata": map[string]any{"store_id": "x"}}}
		testkit.Must(t, s.Receive(t.Context(), e.body(), sign(e.body(), stripetest.Secret, time.Now())))
		_, session := s.open(t, 100)
		s.stripe.Pay(session)
		for range 2 {
			report, err := s.Reconcile(t.Context())
			testkit.Must(t, err)
			if len(report.Refused) != 1 || !strings.HasPrefix(report.Refused[0], "evt_0_first: ") || !strings.Contains(report.Refused[0], "does not exist") {
				t.Errorf("%+v", report)
			}
		}
		s.wantBalance(t, 100, 0, 0)
	})
}

// TestReconcileEndsWhatNeverBegan checks that a purchase without a checkout ends after a
// day, and that one whose request may still be repeated stays.
func TestReconcileEndsWhatNeverBegan(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		var ids []stoa.PurchaseID
		for i, age := range []time.Duration{26 * time.Hour, time.Hour} {
			s.stripe.Break("POST /v1/checkout/sessions", stripetest.Broken)
			_, err := s.Purchase(t.Context(), s.owner, s.store, payments.PurchaseRequest{Credits: 60 * credits.Credit, IdempotencyKey: fmt.Sprint(i)})
			wantCode(t, err, stoa.PaymentsUnavailable)
			var id stoa.PurchaseID
			testkit.Must(t, db.Get(t.Context(), &id, `SELECT id FROM purchases WHERE idempotency_key = $1`, fmt.Sprint(i)))
			s.exec(t, `UPDATE purchases SET created_at = $2 WHERE id = $1`, id, time.Now().UTC().Add(-age))
			ids = append(ids, id)
		}
		report, err := s.Reconcile(t.Context())
		testkit.Must(t, err)
		if report.Expired != 1 || s.status(t, payments.Purchase{ID: ids[0]}) != payments.Expired || s.status(t, payments.Purchase{ID: ids[1]}) != payments.Pending {
			t.Errorf("%+v", report)
		}
		// The request is repeated late, and returns that its purchase has ended.
		p, err := s.Purchase(t.Context(), s.owner, s.store, payments.PurchaseRequest{Credits: 60 * credits.Credit, IdempotencyKey: "0"})
		testkit.Must(t, err)
		if p.Status != payments.Expired || p.CheckoutURL != "" {
			t.Errorf("%+v", p)
		}
	})
}

// TestReconcileWhileStripeFails checks that a run does what is possible while Stripe
// fails, and that the next run does the rest.
func TestReconcileWhileStripeFails(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		for range 3 {
			_, session := s.open(t, 100)
			s.stripe.Pay(session)
		}
		s.stripe.Break("GET /v1/checkout", stripetest.Broken)
		s.stripe.Break("GET /v1/checkout", stripetest.Broken)
		if err := s.RunReconcile(t.Context(), payments.Reconcile{}); err == nil || errors.Is(err, masterdb.ErrNotFound) {
			t.Errorf("%v", err)
		}
		s.stripe.Break("GET /v1/events", stripetest.Broken)
		if err := s.RunReconcile(t.Context(), payments.Reconcile{}); err == nil {
			t.Error("nothing is said of the events that could not be listed")
		}
		s.wantBalance(t, 300, 0, 0)
		testkit.Must(t, s.RunReconcile(t.Context(), payments.Reconcile{}))
	})
}

// TestReconcileTwiceAtOnce runs two reconciliations concurrently.
func TestReconcileTwiceAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, session := s.open(t, 100)
		s.stripe.Refund(s.stripe.Pay(session), 40, "succeeded")
		testkit.Must(t, errors.Join(concurrently(4, func(int) error { return s.RunReconcile(t.Context(), payments.Reconcile{}) })...))
		s.wantBalance(t, 60, 0, 0)
	})
}

func TestReconcileNeedsStripe(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		_, err := s.Reconcile(t.Context())
		wantCode(t, err, stoa.PaymentsUnavailable)
		testkit.Must(t, s.RunReconcile(t.Context(), payments.Reconcile{}))
	})
}

func TestCheckStripe(t *testing.T) {
	t.Parallel()
	s := stripetest.New(t, "")
	check := func(key, url string) error { return payments.CheckStripe(t.Context(), keyring.NewSecret(key), url) }
	testkit.Must(t, check(stripetest.Key, s.URL))
	for want, err := range map[string]error{
		"not accepted": check("sk_test_of_nobody", s.URL),
		"no answer":    check("sk_test_of_nobody", "http://127.0.0.1:1"),
		"status 429": func() error {
			s.Break("GET /v1/checkout/sessions", stripetest.Busy)
			return check(stripetest.Key, s.URL)
		}(),
	} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "nobody") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
