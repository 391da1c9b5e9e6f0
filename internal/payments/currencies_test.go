package payments_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestPriceCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		currency string
		price    int64
		want     string // a part of the error; empty for no error
	}{
		{"USD", 1, ""}, {"USD", 1_000_000, ""}, {"USD", 0, "1 to 1000000"}, {"USD", -5, "1 to 1000000"}, {"USD", 1_000_001, "1 to 1000000"},
		{"JPY", 1, ""}, {"KRW", 3, ""}, {"HUF", 7, ""}, {"TWD", 7, ""}, {"CLP", 1, ""}, {"XOF", 1, ""},
		{"ISK", 100, ""}, {"ISK", 1, "multiple of 100 in ISK"}, {"ISK", 150, "multiple of 100"}, {"UGX", 4200, ""}, {"UGX", 10, "100 is 1.00 UGX"},
		{"KWD", 10, ""}, {"KWD", 1, "multiple of 10 in KWD"}, {"BHD", 15, "10 is 0.010 BHD"}, {"JOD", 5, "multiple of 10"}, {"OMR", 101, "multiple of 10"},
		{"TND", 1009, "multiple of 10"}, {"TND", 1010, ""},
	} {
		if err := payments.CheckCurrency(c.currency); err != nil {
			t.Errorf("%s: %v", c.currency, err)
		}
		err := payments.Price{MinorPerCredit: c.price, Currency: c.currency}.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d %s: %v, want %q", c.price, c.currency, err, c.want)
		}
	}
	for _, code := range []string{"", "usd", "US", "USDX", "XXX", "XTS", "XAU", "BTC", "LVL", "VEF", "DEM", "€", "U$D", "USD "} {
		if err := payments.CheckCurrency(code); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", code)) {
			t.Errorf("%q: %v", code, err)
		}
	}
}

// TestAmountsOfUnusualCurrencies checks that Stripe charges the amount that is shown.
func TestAmountsOfUnusualCurrencies(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for _, c := range []struct {
			price payments.Price
			minor int64 // the price of 250 credits
			shown string
		}{
			{payments.Price{MinorPerCredit: 2, Currency: "JPY"}, 500, "500"},
			{payments.Price{MinorPerCredit: 100, Currency: "ISK"}, 25_000, "250.00"},
			{payments.Price{MinorPerCredit: 300, Currency: "UGX"}, 75_000, "750.00"},
			{payments.Price{MinorPerCredit: 10, Currency: "KWD"}, 2_500, "2.500"},
			{payments.Price{MinorPerCredit: 130, Currency: "TND"}, 32_500, "32.500"},
			{payments.Price{MinorPerCredit: 71, Currency: "HUF"}, 17_750, "177.50"},
		} {
			s := atStripe(t, db)
			cfg := s.config()
			cfg.CreditPrice = c.price
			s.shop = setup(t, db, cfg)
			p, session := s.open(t, 250)
			if p.AmountMinor != c.minor || p.AmountDecimal() != c.shown {
				t.Errorf("%+v: %d, shown as %s", c.price, p.AmountMinor, p.AmountDecimal())
			}
			s.stripe.Pay(session)
			s.news(t)
			s.wantBalance(t, 250, 0, 0)
		}
	})
}

// TestSmallestPayment checks that an amount below Stripe's smallest payment is refused
// before Stripe is called, with the number of credits that is enough. The key can be used
// again.
func TestSmallestPayment(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := recharging(t, db, 0)
		buy := func(n credits.Amount, key string) error {
			_, err := s.Purchase(t.Context(), s.owner, s.store, payments.PurchaseRequest{Credits: n * credits.Credit, IdempotencyKey: key})
			return err
		}
		wantFault := func(err error, field, text string) {
			t.Helper()
			e := new(stoa.Error)
			if !errors.As(err, &e) || e.Code != stoa.InvalidRequest || len(e.Fields) != 1 || e.Fields[0].Field != field || !strings.Contains(e.Message, text) {
				t.Errorf("%v, want a fault of %s: %s", err, field, text)
			}
		}
		before := len(s.stripe.Asked())
		wantFault(buy(49, "k"), "credits", "cost 0.49 USD, less than the smallest payment that the provider takes (0.50 USD); buy at least 50")
		wish := wish()
		wish.Credits = 20 * credits.Credit
		_, err := s.SetAutoRecharge(t.Context(), s.owner, s.store, wish)
		wantFault(err, "credits", "buy at least 50")
		if asked := s.stripe.Asked()[before:]; len(asked) > 0 {
			t.Errorf("asked %q", asked)
		}
		testkit.Must(t, buy(50, "k"))
		if n := s.count(t, `SELECT count(*) FROM purchases`); n != 1 {
			t.Errorf("%d purchases", n)
		}
		// Limits that only Stripe knows.
		for code, text := range map[string]string{"amount_too_small": "buy more", "amount_too_large": "buy less"} {
			s.stripe.Refuse("POST /v1/checkout", http.StatusBadRequest, "invalid_request_error", code)
			wantFault(buy(60, "k2"), "credits", text)
			s.stripe.Admit()
		}
		testkit.Must(t, buy(61, "k2"))
	})
}

// TestAdaptivePricingIsOff checks that the setting of the account at Stripe does not
// change what is paid.
func TestAdaptivePricingIsOff(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		_, session := s.open(t, 100)
		if enabled := s.stripe.Object(session)["adaptive_pricing"].(map[string]any)["enabled"]; enabled != false {
			t.Errorf("adaptive pricing: %v", enabled)
		}
	})
}
