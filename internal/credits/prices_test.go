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
		history := allPrices(t, b.Ledger)
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

		after := allPrices(t, b.Ledger)
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

// allPrices reads the history in pages of three.
func allPrices(t *testing.T, ledger *credits.Ledger) (list []credits.ListedPrice) {
	t.Helper()
	for cursor := ""; ; {
		page, err := ledger.PriceHistory(t.Context(), 3, cursor)
		testkit.Must(t, err)
		list = append(list, page.Prices...)
		if page.NextCursor == nil {
			return list
		}
		if len(page.Prices) != 3 {
			t.Fatalf("a page of %d prices", len(page.Prices))
		}
		cursor = *page.NextCursor
	}
}

// TestPriceHistory checks the order of the pages, which prices are replaced, and that a
// limit and a cursor that are not valid are refused.
func TestPriceHistory(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ledger := credits.New(db)
		first := len(allPrices(t, ledger))
		for day := range 4 { // the first is in force, the others are planned
			_, _, err := ledger.SetPrice(t.Context(), authz.Principal{}, credits.Price{
				ServiceKey: "product_import", UnitPrice: credits.Amount(day + 1), EffectiveFrom: db.Now().Add(time.Duration(day)*24*time.Hour + time.Second),
			})
			testkit.Must(t, err)
		}
		_, _, err := ledger.SetPrice(t.Context(), authz.Principal{}, credits.Price{ServiceKey: "storage", UnitPrice: 77})
		testkit.Must(t, err)
		list := allPrices(t, ledger)
		if len(list) != first+5 {
			t.Errorf("%d prices, want %d", len(list), first+5)
		}
		for i, p := range list[1:] {
			before := list[i]
			if before.ServiceKey > p.ServiceKey || before.ServiceKey == p.ServiceKey && !before.EffectiveFrom.After(p.EffectiveFrom) {
				t.Errorf("%s from %s is before %s from %s", before.ServiceKey, before.EffectiveFrom, p.ServiceKey, p.EffectiveFrom)
			}
			if want := before.ServiceKey == "storage" && p.ServiceKey == "storage"; p.Replaced != want {
				t.Errorf("%s from %s is replaced: %t", p.ServiceKey, p.EffectiveFrom, p.Replaced)
			}
		}
		for _, cursor := range []string{"x", "AAAA", strings.Repeat("A", 100_000)} {
			if _, err := ledger.PriceHistory(t.Context(), 0, cursor); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("the cursor %.10s: %v", cursor, err)
			}
		}
		if _, err := ledger.PriceHistory(t.Context(), 101, ""); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("a limit of 101: %v", err)
		}
	})
}

func containsPrice(list []credits.ListedPrice, want credits.ListedPrice) bool {
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
		before := allPrices(t, ledger)
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
		after := allPrices(t, ledger)
		if len(after) != len(before) {
			t.Errorf("%d rows became %d", len(before), len(after))
		}
	})
}
