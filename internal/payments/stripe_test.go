package payments_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// till is a store that sells through the fake Stripe, which delivers its events over
// HTTP. The queue does not run: work applies the received events.
type till struct {
	shop
	stripe *stripetest.Stripe
}

func atStripe(t testing.TB, db *masterdb.DB) till {
	t.Helper()
	var s till
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = s.Receive(r.Context(), body, r.Header.Get("Stripe-Signature"))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(hook.Close)
	s.stripe = stripetest.New(t, hook.URL)
	s.shop = setup(t, db, s.config())
	return s
}

func (s till) config() payments.Config {
	return payments.Config{
		StripeKey: keyring.NewSecret(stripetest.Key), StripeURL: s.stripe.URL,
		WebhookSecret: keyring.NewSecret(stripetest.Secret), BaseURL: "https://stoa.example",
	}
}

// another returns a second store with the same Stripe account.
func (s till) another(t testing.TB) till {
	t.Helper()
	s.shop = setup(t, s.db, s.config())
	return s
}

// open creates a purchase and returns it with its checkout.
func (s till) open(t testing.TB, amount int) (payments.Purchase, string) {
	t.Helper()
	p := s.buy(t, amount)
	return p, *p.ProviderRef
}

// paid creates a purchase, pays it and applies the payment.
func (s till) paid(t testing.TB, amount int) (p payments.Purchase, intent string) {
	t.Helper()
	p, session := s.open(t, amount)
	intent = s.stripe.Pay(session)
	s.news(t)
	if got := s.status(t, p); got != payments.Paid {
		t.Fatalf("the purchase is %s", got)
	}
	return p, intent
}

// news delivers the events of Stripe and applies them.
func (s till) news(t testing.TB) {
	t.Helper()
	s.stripe.DeliverAll()
	s.work(t)
}

// work applies all received events, as the queue does.
func (s till) work(t testing.TB) {
	t.Helper()
	for _, id := range s.unapplied(t) {
		testkit.Must(t, s.Apply(t.Context(), payments.ApplyEvent{EventID: id}))
	}
}

func (s till) unapplied(t testing.TB) (ids []string) {
	t.Helper()
	testkit.Must(t, s.db.Select(t.Context(), &ids, `SELECT id FROM stripe_events WHERE applied_at IS NULL ORDER BY received_at`))
	return ids
}

func (s till) get(t testing.TB, p payments.Purchase) payments.Purchase {
	t.Helper()
	got, err := s.Get(t.Context(), s.owner, s.store, p.ID)
	testkit.Must(t, err)
	return got
}

// wantBalance compares balance, reserved and debt, in whole credits.
func (s till) wantBalance(t testing.TB, balance, reserved, debt credits.Amount) {
	t.Helper()
	got := s.balance(t)
	if got.Balance != balance*credits.Credit || got.Reserved != reserved*credits.Credit || got.Debt != debt*credits.Credit {
		t.Fatalf("balance %s, reserved %s, debt %s; want %d, %d, %d", got.Balance, got.Reserved, got.Debt, balance, reserved, debt)
	}
	report, err := verify.Run(t.Context(), s.db, nil)
	testkit.Must(t, err)
	if len(report.Inconsistencies) > 0 {
		t.Fatal(report.Inconsistencies)
	}
}

func (s till) spend(t testing.TB, amount credits.Amount) {
	t.Helper()
	_, err := s.ledger.Spend(t.Context(), s.owner, s.store, credits.SpendRequest{Amount: amount * credits.Credit})
	testkit.Must(t, err)
}

func TestStripePurchase(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		p := s.buy(t, 250)
		want := payments.Purchase{
			ID: p.ID, StoreID: s.store, UserID: s.owner.UserID, Provider: payments.Stripe, ProviderRef: p.ProviderRef,
			Status: payments.Pending, Credits: 250 * credits.Credit, AmountMinor: 250, Currency: "USD",
			CheckoutURL: p.CheckoutURL, CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
		}
		if d := cmp.Diff(want, p); d != "" || p.ProviderRef == nil || s.stripe.SessionOf(p.CheckoutURL) != *p.ProviderRef {
			t.Fatal(d)
		}
		s.news(t)
		s.wantBalance(t, 0, 0, 0)
		intent := s.stripe.Pay(*p.ProviderRef)
		s.wantBalance(t, 0, 0, 0)
		s.news(t)
		s.wantBalance(t, 250, 0, 0)
		got := s.get(t, p)
		if got.Status != payments.Paid || got.PaymentRef == nil || *got.PaymentRef != intent || got.PaidAt == nil {
			t.Errorf("%+v", got)
		}
		// All events once more, late, change nothing.
		for _, e := range s.stripe.Events() {
			s.stripe.Deliver(e)
		}
		s.work(t)
		s.wantBalance(t, 250, 0, 0)
		if n := s.count(t, `SELECT count(*) FROM billing_transactions`); n != 1 || s.transactions(t) != 1 {
			t.Errorf("%d payments, %d grants", n, s.transactions(t))
		}
	})
}

// TestPurchaseContinues checks that a request that got no answer from Stripe continues the
// same purchase when it is repeated, whatever Stripe had done or stored.
func TestPurchaseContinues(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string][]stripetest.Fault{
		"nothing happened":         {stripetest.Broken},
		"it happened":              {stripetest.BrokenAfter},
		"two broken attempts":      {stripetest.Broken, stripetest.Broken},
		"cut twice":                {stripetest.Cut, stripetest.Cut},
		"cut twice after the work": {stripetest.CutAfter, stripetest.CutAfter},
		"lost after the work":      {stripetest.LostAfter},
		"too many requests":        {stripetest.Busy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				s := atStripe(t, db)
				for _, f := range faults {
					s.stripe.Break("POST /v1/checkout/sessions", f)
				}
				req := payments.PurchaseRequest{Credits: 60 * credits.Credit, IdempotencyKey: "k"}
				var p payments.PurchaseResult
				var err error
				for range 5 {
					if p, err = s.Purchase(t.Context(), s.owner, s.store, req); err == nil {
						break
					}
					wantCode(t, err, stoa.PaymentsUnavailable)
					if e := new(stoa.Error); !errors.As(err, &e) || strings.Contains(e.Message, "Something went wrong") {
						t.Error("Stripe's words are shown")
					}
				}
				testkit.Must(t, err)
				if n := s.count(t, `SELECT count(*) FROM purchases`); n != 1 {
					t.Errorf("%d purchases", n)
				}
				again, err := s.Purchase(t.Context(), s.owner, s.store, req)
				testkit.Must(t, err)
				p.Replayed = true
				if d := cmp.Diff(p, again); d != "" {
					t.Error(d)
				}
				s.stripe.Pay(*p.ProviderRef)
				s.news(t)
				s.wantBalance(t, 60, 0, 0)
			})
		})
	}
}

func TestPurchaseWhoseCallerGaveUp(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		s.stripe.Break("POST /v1/checkout/sessions", stripetest.Hang)
		req := payments.PurchaseRequest{Credits: 60 * credits.Credit, IdempotencyKey: "k"}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			testkit.Eventually(t, testkit.Timeout, "Stripe is asked", func() bool { return len(s.stripe.Asked()) > 0 })
			cancel()
		}()
		_, err := s.Purchase(ctx, s.owner, s.store, req)
		wantCode(t, err, stoa.PaymentsUnavailable)
		_, err = s.Purchase(t.Context(), s.owner, s.store, req)
		testkit.Must(t, err)
		if n := s.count(t, `SELECT count(*) FROM purchases WHERE provider_ref IS NOT NULL`); n != 1 {
			t.Errorf("%d purchases", n)
		}
	})
}

func TestStripePurchaseReplay(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		req := payments.PurchaseRequest{Credits: 60 * credits.Credit, IdempotencyKey: "k"}
		var got [10]payments.PurchaseResult
		errs := concurrently(len(got), func(i int) (err error) {
			for range 20 { // while another request with the key is at Stripe
				if got[i], err = s.Purchase(t.Context(), s.owner, s.store, req); stoa.CodeOf(err) != stoa.PaymentsUnavailable {
					break
				}
			}
			return err
		})
		testkit.Must(t, errors.Join(errs...))
		for _, p := range got {
			if d := cmp.Diff(got[0].Purchase, p.Purchase); d != "" {
				t.Fatal(d)
			}
		}
		if s.stripe.Count("checkout.session") != 1 {
			t.Errorf("%d checkouts", s.stripe.Count("checkout.session"))
		}
	})
}

func TestListPurchases(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, other := setup(t, db, sandbox()), setup(t, db, sandbox())
		var want []stoa.PurchaseID
		for range 5 {
			want = append(want, s.buy(t, 1).ID)
			other.buy(t, 1)
		}
		slices.Reverse(want)
		var got []stoa.PurchaseID
		for cursor, pages := "", 0; ; pages++ {
			page, err := s.List(t.Context(), s.owner, s.store, 2, cursor)
			testkit.Must(t, err)
			for _, p := range page.Purchases {
				got = append(got, p.ID)
			}
			if page.NextCursor == nil {
				if pages != 2 {
					t.Errorf("%d pages", pages+1)
				}
				break
			}
			cursor = *page.NextCursor
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		for _, bad := range []struct {
			limit  int
			cursor string
		}{{-1, ""}, {101, ""}, {1, "x"}} {
			_, err := s.List(t.Context(), s.owner, s.store, bad.limit, bad.cursor)
			wantCode(t, err, stoa.InvalidRequest)
		}
		_, err := s.List(t.Context(), other.owner, s.store, 0, "")
		wantCode(t, err, stoa.StoreNotFound)
		_, err = s.List(t.Context(), s.owner, s.store, 0, fmt.Sprint(stoa.NewID[stoa.PurchaseID]()))
		testkit.Must(t, err)
	})
}
