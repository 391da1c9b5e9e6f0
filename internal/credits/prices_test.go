package credits_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSetPrice checks that a new price is a new row, and that earlier rows stay unchanged
// and match the spends of their time.
func TestSetPrice(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 100*credits.Credit)
		history, err := b.Ledger.PriceHistory(t.Context())
		testkit.Must(t, err)
		set := func(p credits.Price) credits.Price {
			t.Helper()
			got, added, err := b.Ledger.SetPrice(t.Context(), authz.Principal{}, p)
			testkit.Must(t, err)
			if !added {
				t.Fatalf("%+v was not added", p)
			}
			return got
		}
		spend := func() credits.Amount {
			t.Helper()
			s, err := b.Spend(t.Context(), credits.SpendRequest{ServiceKey: "product_import", Quantity: ptr(int64(3))})
			testkit.Must(t, err)
			return -s.Transaction.Amount
		}
		if got := spend(); got != 3_000 {
			t.Errorf("at the opening price: %s", got)
		}
		now := set(credits.Price{ServiceKey: "product_import", UnitPrice: 1_234})
		if now.Unit != "item" || !strings.Contains(now.Description, "import") {
			t.Errorf("unit and description are not those of before: %+v", now)
		}
		if got := spend(); got != 3_702 {
			t.Errorf("at the new price: %s", got)
		}
		planned := set(credits.Price{ServiceKey: "product_import", UnitPrice: 9_999, EffectiveFrom: time.Now().Add(time.Hour)})
		if got := spend(); got != 3_702 {
			t.Errorf("before the planned price begins: %s", got)
		}
		set(credits.Price{ServiceKey: "x-ray.scan", UnitPrice: 1, Unit: "scan", Description: "Röntgen für Produkte"})

		after, err := b.Ledger.PriceHistory(t.Context())
		testkit.Must(t, err)
		if len(after) != len(history)+3 {
			t.Errorf("%d rows became %d", len(history), len(after))
		}
		for _, p := range history { // each row still exists unchanged
			if !containsPrice(after, p) {
				t.Errorf("%+v is gone", p)
			}
		}
		at := func(moment time.Time) credits.Amount {
			t.Helper()
			list, err := b.Ledger.Prices(t.Context(), moment)
			testkit.Must(t, err)
			for _, p := range list {
				if p.ServiceKey == "product_import" {
					return p.UnitPrice
				}
			}
			return -1
		}
		for _, c := range []struct {
			moment time.Time
			want   credits.Amount
		}{
			{now.EffectiveFrom.Add(-time.Second), 1_000}, {now.EffectiveFrom, 1_234}, {planned.EffectiveFrom, 9_999},
			{time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), -1},
		} {
			if got := at(c.moment); got != c.want {
				t.Errorf("at %s: %s, want %s", c.moment, got, c.want)
			}
		}
	})
}

func containsPrice(list []credits.Price, want credits.Price) bool {
	for _, p := range list {
		if p.ServiceKey == want.ServiceKey && p.EffectiveFrom.Equal(want.EffectiveFrom) && p.UnitPrice == want.UnitPrice && p.Unit == want.Unit {
			return true
		}
	}
	return false
}

// TestSetPriceRefuses checks that the same price again is reported as not added, and that
// no price can start in the past.
func TestSetPriceRefuses(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ledger := credits.New(db)
		later := time.Now().Add(time.Hour)
		set := func(p credits.Price) error {
			_, _, err := ledger.SetPrice(t.Context(), authz.Principal{}, p)
			return err
		}
		testkit.Must(t, set(credits.Price{ServiceKey: "storage", UnitPrice: 200, EffectiveFrom: later}))
		before, err := ledger.PriceHistory(t.Context())
		testkit.Must(t, err)
		if _, added, err := ledger.SetPrice(t.Context(), authz.Principal{}, credits.Price{ServiceKey: "product_import", UnitPrice: 1_000}); err != nil || added {
			t.Errorf("the price in force once more: added %t, %v", added, err)
		}
		if _, added, err := ledger.SetPrice(t.Context(), authz.Principal{}, credits.Price{ServiceKey: "storage", UnitPrice: 200, EffectiveFrom: later.Add(time.Hour)}); err != nil || added {
			t.Errorf("the planned price once more, later: added %t, %v", added, err)
		}
		for name, p := range map[string]credits.Price{
			"past":                 {ServiceKey: "storage", UnitPrice: 5, EffectiveFrom: time.Now().Add(-time.Second)},
			"moment taken":         {ServiceKey: "storage", UnitPrice: 5, EffectiveFrom: later},
			"negative":             {ServiceKey: "storage", UnitPrice: -1},
			"new, without unit":    {ServiceKey: "new", UnitPrice: 5, Description: "New"},
			"new, without a word":  {ServiceKey: "new", UnitPrice: 5, Unit: "item"},
			"no key":               {UnitPrice: 5, Unit: "item", Description: "New"},
			"key with a space":     {ServiceKey: "a b", UnitPrice: 5, Unit: "item", Description: "New"},
			"key with a zero byte": {ServiceKey: "a\x00b", UnitPrice: 5, Unit: "item", Description: "New"},
			"key too long":         {ServiceKey: strings.Repeat("a", 101), UnitPrice: 5, Unit: "item", Description: "New"},
			"two lines":            {ServiceKey: "new", UnitPrice: 5, Unit: "item", Description: "New\n\tline"},
			"blank unit":           {ServiceKey: "new", UnitPrice: 5, Unit: " ", Description: "New"},
			"no text":              {ServiceKey: "new", UnitPrice: 5, Unit: "item", Description: "\xff"},
		} {
			if err := set(p); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%s: %v, want invalid_request", name, err)
			}
		}
		after, err := ledger.PriceHistory(t.Context())
		testkit.Must(t, err)
		if len(after) != len(before) {
			t.Errorf("%d rows became %d", len(before), len(after))
		}
	})
}
