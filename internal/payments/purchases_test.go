package payments_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestPurchase(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		got := s.buy(t, 1_000)
		want := payments.Purchase{
			ID: got.ID, StoreID: s.store, UserID: s.owner.UserID, Provider: payments.Sandbox, ProviderRef: got.ProviderRef,
			Status: payments.Pending, Credits: 1_000 * credits.Credit, AmountMinor: 1_000, Currency: "USD",
			CheckoutURL: "http://localhost:3000/sandbox/checkout/" + *got.ProviderRef,
			CreatedAt:   got.CreatedAt, UpdatedAt: got.CreatedAt,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if got.AmountDecimal() != "10.00" {
			t.Errorf("costs %s, want 10.00", got.AmountDecimal())
		}
		if ref, ok := strings.CutPrefix(*got.ProviderRef, "cs_sandbox_"); !ok || len(ref) < 26 || *got.ProviderRef == *s.buy(t, 1).ProviderRef {
			t.Errorf("%q can be guessed", *got.ProviderRef)
		}
		stored, err := s.Get(t.Context(), s.owner, s.store, got.ID)
		testkit.Must(t, err)
		if d := cmp.Diff(want, stored); d != "" {
			t.Error("stored:", d)
		}
		page, err := s.Checkout(t.Context(), *got.ProviderRef)
		testkit.Must(t, err)
		if d := cmp.Diff(want, page); d != "" {
			t.Error("checkout:", d)
		}
		if got := s.balance(t).Balance; got != 0 {
			t.Errorf("%s credits before the payment", got)
		}
	})
}

func TestAmountDecimal(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]payments.Purchase{
		"0.05":                 {AmountMinor: 5, Currency: "USD"},
		"12.30":                {AmountMinor: 1230, Currency: "EUR"},
		"1230":                 {AmountMinor: 1230, Currency: "JPY"},
		"1.230":                {AmountMinor: 1230, Currency: "KWD"},
		"92233720368547758.07": {AmountMinor: 1<<63 - 1, Currency: "USD"},
	} {
		if got := p.AmountDecimal(); got != want {
			t.Errorf("%d %s is %s, want %s", p.AmountMinor, p.Currency, got, want)
		}
	}
}

func TestPurchaseRefusesFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		for _, c := range []struct {
			req   payments.PurchaseRequest
			field string
		}{
			{payments.PurchaseRequest{}, "credits"},
			{payments.PurchaseRequest{Credits: -credits.Credit}, "credits"},
			{payments.PurchaseRequest{Credits: credits.Credit / 2}, "credits"},
			{payments.PurchaseRequest{Credits: credits.Credit + 1}, "credits"},
			{payments.PurchaseRequest{Credits: 1_000_001 * credits.Credit}, "credits"},
			{payments.PurchaseRequest{Credits: credits.Credit, IdempotencyKey: "\n"}, "idempotencyKey"},
		} {
			_, err := s.Purchase(t.Context(), s.owner, s.store, c.req)
			var e *stoa.Error
			if !errors.As(err, &e) || e.Code != stoa.InvalidRequest || len(e.Fields) != 1 || e.Fields[0].Field != c.field {
				t.Errorf("%+v: %v", c.req, err)
			}
		}
		s.buy(t, 1)
		s.buy(t, 1_000_000)
	})
}

func TestPurchaseIsForOwners(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, other := setup(t, db, sandbox()), setup(t, db, sandbox())
		p := s.buy(t, 1)
		req := payments.PurchaseRequest{Credits: credits.Credit}

		for _, role := range []authz.Role{authz.Member, authz.Viewer} {
			member := s.member(t, role)
			_, err := s.Purchase(t.Context(), member, s.store, req)
			wantCode(t, err, stoa.Forbidden)
			_, err = s.Get(t.Context(), member, s.store, p.ID)
			testkit.Must(t, err)
		}
		_, theirs := s.Purchase(t.Context(), other.owner, s.store, req)
		_, nobodys := s.Purchase(t.Context(), other.owner, stoa.NewID[stoa.StoreID](), req)
		wantCode(t, theirs, stoa.StoreNotFound)
		if d := cmp.Diff(nobodys, theirs); d != "" {
			t.Error("another's store can be told from none:", d)
		}
		_, err := s.Get(t.Context(), other.owner, s.store, p.ID)
		wantCode(t, err, stoa.StoreNotFound)
		_, theirs = s.Get(t.Context(), other.owner, other.store, p.ID)
		_, nobodys = s.Get(t.Context(), other.owner, other.store, stoa.NewID[stoa.PurchaseID]())
		wantCode(t, theirs, stoa.NotFound)
		if d := cmp.Diff(nobodys, theirs); d != "" {
			t.Error("another's purchase can be told from none:", d)
		}
	})
}

func TestPurchaseReplay(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		const rounds = 5 // in the first round few connections are open
		for round := range rounds {
			req := payments.PurchaseRequest{Credits: 5 * credits.Credit, IdempotencyKey: fmt.Sprint(round)}
			var got [10]payments.PurchaseResult
			errs := concurrently(len(got), func(i int) (err error) {
				got[i], err = s.Purchase(t.Context(), s.owner, s.store, req)
				return err
			})
			testkit.Must(t, errors.Join(errs...))
			first := 0
			for _, p := range got {
				if d := cmp.Diff(got[0].Purchase, p.Purchase); d != "" {
					t.Fatal("different answers to one key:", d)
				}
				if !p.Replayed {
					first++
				}
			}
			if first != 1 {
				t.Errorf("%d answers are not replays, want 1", first)
			}
			req.Credits += credits.Credit
			_, err := s.Purchase(t.Context(), s.owner, s.store, req)
			wantCode(t, err, stoa.IdempotencyConflict)
		}
		if n := s.count(t, `SELECT count(*) FROM purchases`); n != rounds {
			t.Errorf("%d purchases, want %d", n, rounds)
		}
		// A key belongs to its store, and each request without a key creates a purchase.
		other := setup(t, db, sandbox())
		p, err := other.Purchase(t.Context(), other.owner, other.store, payments.PurchaseRequest{Credits: credits.Credit, IdempotencyKey: "0"})
		testkit.Must(t, err)
		first, second := s.buy(t, 1), s.buy(t, 1)
		if p.StoreID != other.store || first.ID == second.ID {
			t.Error("one purchase for two")
		}
	})
}

func TestNoProvider(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s, other := setup(t, db, payments.Config{}), setup(t, db, sandbox())
		req := payments.PurchaseRequest{Credits: credits.Credit}
		_, err := s.Purchase(t.Context(), s.owner, s.store, req)
		wantCode(t, err, stoa.PaymentsUnavailable)
		if !strings.Contains(err.Error(), "Ask the platform's operator") {
			t.Errorf("%v: does not say what to do", err)
		}
		_, err = s.Purchase(t.Context(), other.owner, s.store, req)
		wantCode(t, err, stoa.StoreNotFound)
		wantCode(t, s.Receive(t.Context(), []byte(`{}`), ""), stoa.PaymentsUnavailable)

		// A purchase that was created with the sandbox cannot be paid without it.
		ref := *other.buy(t, 1).ProviderRef
		_, err = s.Checkout(t.Context(), ref)
		wantCode(t, err, stoa.NotFound)
		wantCode(t, s.Pay(t.Context(), ref), stoa.NotFound)
	})
}

func TestNewListsEveryFault(t *testing.T) {
	t.Parallel()
	_, err := payments.New(nil, nil, nil, payments.Config{
		Sandbox: true, BaseURL: "localhost:3000", CreditPrice: payments.Price{MinorPerCredit: -1, Currency: "dollars"},
	})
	for _, want := range []string{"price", "currency", "webhook secret", "base URL"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not name the %s", err, want)
		}
	}
	cfg := sandbox()
	cfg.CreditPrice = payments.Price{MinorPerCredit: 2, Currency: "eur"}
	if _, err := payments.New(nil, nil, nil, cfg); err != nil {
		t.Error(err)
	}
	if _, err := payments.New(nil, nil, nil, payments.Config{WebhookSecret: keyring.NewSecret("s")}); err != nil {
		t.Error(err)
	}
}

func TestPriceIsConfigured(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		cfg := sandbox()
		cfg.CreditPrice = payments.Price{MinorPerCredit: 3, Currency: "eur"}
		s := setup(t, db, cfg)
		if p := s.buy(t, 7); p.AmountMinor != 21 || p.Currency != "EUR" {
			t.Errorf("%+v", p)
		}
	})
}

// TestStatesAreTheSchemas checks that the states equal those of the table's constraint.
func TestStatesAreTheSchemas(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 1)
		for _, status := range []payments.Status{payments.Pending, payments.Paid, payments.Expired, payments.Refunded} {
			testkit.Must(t, s.setStatus(t, p, status))
		}
		if err := s.setStatus(t, p, "lost"); !masterdb.IsCheck(err) {
			t.Error(err)
		}
	})
}

func (s shop) setStatus(t testing.TB, p payments.Purchase, status payments.Status) error {
	t.Helper()
	return s.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE purchases SET status = $2 WHERE id = $1`, p.ID, string(status))
		return err
	})
}

func TestPayRefusesClosedPurchases(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		p := s.buy(t, 1)
		for _, status := range []payments.Status{payments.Expired, payments.Refunded} {
			testkit.Must(t, s.setStatus(t, p, status))
			wantCode(t, s.Pay(t.Context(), *p.ProviderRef), stoa.InvalidRequest)
		}
		for _, ref := range []string{"", "cs_sandbox_", "cs_sandbox_X", "x", p.ID.String()} {
			wantCode(t, s.Pay(t.Context(), ref), stoa.NotFound)
		}
		if n := s.count(t, `SELECT count(*) FROM stripe_events`); n != 0 {
			t.Errorf("%d events", n)
		}
	})
}
