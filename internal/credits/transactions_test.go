package credits_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// filled creates a store with 25 transactions: 5 grants, 10 spends of an amount and 10 of
// a service.
func filled(t *testing.T, db *masterdb.DB) creditstest.Account {
	b := creditstest.New(t, db)
	for range 5 {
		b.Give(t, 10*credits.Credit)
	}
	for range 10 {
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 1})
		testkit.Must(t, err)
		_, err = b.Spend(t.Context(), credits.SpendRequest{ServiceKey: "product_import"})
		testkit.Must(t, err)
	}
	return b
}

func readPage(t *testing.T, b creditstest.Account, f credits.Filter) credits.Page {
	t.Helper()
	got, err := b.Ledger.Transactions(t.Context(), b.Owner, b.Store, f)
	testkit.Must(t, err)
	return got
}

func TestTransactionsArePagedWithoutGaps(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := filled(t, db)
		filled(t, db) // rows of another store are not returned
		want := b.Rows(t)
		slices.Reverse(want)
		for limit, size := range map[int]int{0: 20, 1: 1, 7: 7, 24: 24, 25: 25, 26: 26, 100: 100} {
			var got []credits.Transaction
			f := credits.Filter{Limit: limit}
			for pages := 1; ; pages++ {
				p := readPage(t, b, f)
				got = append(got, p.Transactions...)
				if p.NextCursor == nil {
					break
				}
				if len(p.Transactions) != size || pages > 25 {
					t.Fatalf("limit %d: page %d has %d rows", limit, pages, len(p.Transactions))
				}
				f.Cursor = *p.NextCursor
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("limit %d: %s", limit, d)
			}
		}
	})
}

func TestNewTransactionsDoNotShiftPages(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := filled(t, db)
		first := readPage(t, b, credits.Filter{Limit: 10})
		b.Give(t, 1)
		second := readPage(t, b, credits.Filter{Limit: 10, Cursor: *first.NextCursor})
		if got := second.Transactions[0].Sequence; got != 15 {
			t.Errorf("the second page begins with %d, want 15", got)
		}
	})
}

func TestTransactionFilters(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := filled(t, db)
		rows := b.Rows(t)
		// From is inclusive and To is exclusive, to the microsecond.
		from, to := rows[7].CreatedAt, rows[11].CreatedAt
		for name, c := range map[string]struct {
			filter credits.Filter
			keep   func(credits.Transaction) bool
		}{
			"type":    {credits.Filter{Type: credits.TypeBonus}, func(t credits.Transaction) bool { return t.Type == credits.TypeBonus }},
			"none":    {credits.Filter{Type: credits.TypeExpiry}, func(credits.Transaction) bool { return false }},
			"service": {credits.Filter{ServiceKey: "product_import"}, func(t credits.Transaction) bool { return t.ServiceKey != nil }},
			"from":    {credits.Filter{From: &from}, func(t credits.Transaction) bool { return !t.CreatedAt.Before(from) }},
			"to":      {credits.Filter{To: &to}, func(t credits.Transaction) bool { return t.CreatedAt.Before(to) }},
			"all": {
				credits.Filter{Type: credits.TypeSpend, ServiceKey: "product_import", From: &from, To: &to},
				func(t credits.Transaction) bool {
					return t.ServiceKey != nil && !t.CreatedAt.Before(from) && t.CreatedAt.Before(to)
				},
			},
			"other zone": {
				credits.Filter{From: ptr(from.In(time.FixedZone("", -5*3600)))},
				func(t credits.Transaction) bool { return !t.CreatedAt.Before(from) },
			},
		} {
			want := []credits.Transaction{}
			for _, row := range slices.Backward(rows) {
				if c.keep(row) {
					want = append(want, row)
				}
			}
			c.filter.Limit = 100
			if d := cmp.Diff(want, readPage(t, b, c.filter).Transactions); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	})
}

func TestTransactionsRefuseFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		now := time.Now()
		for _, c := range []struct {
			filter credits.Filter
			field  string
		}{
			{credits.Filter{Type: "gift"}, "type"},
			{credits.Filter{Limit: -1}, "limit"},
			{credits.Filter{Limit: 101}, "limit"},
			{credits.Filter{ServiceKey: "\xff"}, "serviceKey"},
			{credits.Filter{From: &now, To: &now}, "from"},
			{credits.Filter{Cursor: "!"}, "cursor"},
			{credits.Filter{Cursor: "MA"}, "cursor"},   // "0"
			{credits.Filter{Cursor: "LTE"}, "cursor"},  // "-1"
			{credits.Filter{Cursor: "KzE"}, "cursor"},  // "+1"
			{credits.Filter{Cursor: "MR"}, "cursor"},   // "1" with non-zero padding bits
			{credits.Filter{Cursor: "YWJj"}, "cursor"}, // "abc"
		} {
			_, err := b.Ledger.Transactions(t.Context(), b.Owner, b.Store, c.filter)
			if stoa.CodeOf(err) != stoa.InvalidRequest || !slices.Equal(fields(err), []string{c.field}) {
				t.Errorf("%+v: %v, fields %v; want %s", c.filter, err, fields(err), c.field)
			}
		}
	})
}

// TestPricesFromMigrations checks that the price list of the migrations is the same on
// both engines, and that its times can be read like those that the application writes.
func TestPricesFromMigrations(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		got, err := credits.New(db).Prices(t.Context(), time.Now())
		testkit.Must(t, err)
		brief := map[string]string{}
		for _, p := range got {
			if want := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); p.EffectiveFrom != want {
				t.Errorf("%s is effective from %v, want %v", p.ServiceKey, p.EffectiveFrom, want)
			}
			if p.Description == "" {
				t.Errorf("%s has no description", p.ServiceKey)
			}
			brief[p.ServiceKey] = fmt.Sprintf("%s/%s", p.UnitPrice, p.Unit)
		}
		want := map[string]string{
			"api_call": "0.001/call", "content_generation": "5/text", "email_send": "0.1/email",
			"image_generation": "8/image", "image_processing": "0.5/image", "product_export": "0.05/item",
			"product_import": "0.1/item", "product_translation": "2/item", "storage": "0.01/MB-month",
		}
		if d := cmp.Diff(want, brief); d != "" {
			t.Error(d)
		}
	})
}

func TestPricesInForce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		now := time.Now().UTC().Truncate(time.Microsecond)
		seeded := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		// Each time is one microsecond from a time that the migration wrote as text.
		b.Price(t, "storage", 1, seeded.Add(-time.Microsecond))
		b.Price(t, "api_call", 2, seeded.Add(time.Microsecond))
		b.Price(t, "email_send", 3, seeded.Add(time.Second))
		b.Price(t, "product_import", 4, now.Add(-time.Second))
		b.Price(t, "product_import", 5, now.Add(time.Hour))
		b.Price(t, "not_yet", 6, now.Add(time.Hour))

		prices, err := b.Ledger.Prices(t.Context(), time.Now())
		testkit.Must(t, err)
		got := map[string]credits.Amount{}
		for _, p := range prices {
			if _, twice := got[p.ServiceKey]; twice {
				t.Errorf("%s appears twice", p.ServiceKey)
			}
			got[p.ServiceKey] = p.UnitPrice
		}
		for service, want := range map[string]credits.Amount{"storage": 100, "api_call": 2, "email_send": 3, "product_import": 4, "not_yet": 0} {
			if got[service] != want {
				t.Errorf("%s costs %d, want %d", service, got[service], want)
			}
			if want == 0 {
				continue
			}
			b.Give(t, credits.Credit)
			spent, err := b.Spend(t.Context(), credits.SpendRequest{ServiceKey: service})
			testkit.Must(t, err)
			if *spent.Transaction.UnitPrice != want {
				t.Errorf("%s was charged %d, want %d", service, *spent.Transaction.UnitPrice, want)
			}
		}
	})
}
