package stores

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// operator creates an operator of the platform.
func (b replica) operator(t *testing.T) authz.Principal {
	t.Helper()
	p := b.user(t)
	b.exec(t, `UPDATE users SET role = 'admin' WHERE id = $1`, p.UserID)
	return p
}

// fill creates n stores without databases of their own: only the master's rows.
func (b replica) fill(t *testing.T, owner authz.Principal, n int) (ids []stoa.StoreID) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		for i := range n {
			id := stoa.NewID[stoa.StoreID]()
			ids = append(ids, id)
			status, engine, host, version, health := "active", "postgresql", "db"+fmt.Sprint(i%3), int64(i%2+1), "ok"
			if i%10 == 0 {
				status = "suspended"
			}
			if i%7 == 0 {
				health, engine = "failed", "mysql"
			}
			_, err := tx.Exec(t.Context(), `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
				VALUES ($1, $2, $3, $4, $5, $6, $6)`, id, fmt.Sprintf("shop-%04d", (i*37)%10000), fmt.Sprintf("Name %d", i), status, owner.UserID, tx.Now)
			if err != nil {
				return err
			}
			_, err = tx.Exec(t.Context(), `INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials, credential_version,
				schema_version, status, created_at, updated_at) VALUES ($1, $2, $2, $3, 5432, 'x', 'x', 1, $4, $5, $6, $6)`, id, engine, host, version, health, tx.Now)
			if err != nil {
				return err
			}
			if err := authz.Grant(t.Context(), tx, id, owner.UserID, authz.Owner); err != nil {
				return err
			}
		}
		return nil
	}))
	return ids
}

// walk reads a list page by page to its end and back again, and checks that both ways
// show the same stores.
func (b replica) walk(t *testing.T, op authz.Principal, f ListFilter) (slugs []string) {
	t.Helper()
	var pages [][]string
	for {
		page, err := b.ListForOperator(t.Context(), op, f)
		testkit.Must(t, err)
		if (page.Newer == nil) != (len(pages) == 0) {
			t.Errorf("%+v: page %d has a page before it: %v", f, len(pages), page.Newer != nil)
		}
		pages = append(pages, slugsOf(page))
		slugs = append(slugs, slugsOf(page)...)
		if page.Older == nil {
			f.Cursor, f.Newer = "", true
			if page.Newer != nil {
				f.Cursor = *page.Newer
			}
			break
		}
		f.Cursor = *page.Older
	}
	for i := len(pages) - 2; i >= 0; i-- {
		page, err := b.ListForOperator(t.Context(), op, f)
		testkit.Must(t, err)
		if got := slugsOf(page); !slices.Equal(got, pages[i]) || (page.Newer == nil) != (i == 0) || page.Older == nil {
			t.Fatalf("%+v: back to page %d: %v, want %v", f, i, got, pages[i])
		}
		if page.Newer != nil {
			f.Cursor = *page.Newer
		}
	}
	return slugs
}

func slugsOf(page FleetPage) (slugs []string) {
	for _, s := range page.Stores {
		slugs = append(slugs, s.Slug)
	}
	return slugs
}

// TestListForOperator checks each filter against the rows that were made.
func TestListForOperator(t *testing.T) {
	t.Parallel()
	const stores = 60
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		op, owner := b.operator(t), b.user(t)
		ids := b.fill(t, owner, stores)
		hour := time.Now().UTC().Truncate(time.Hour)
		b.exec(t, `INSERT INTO store_traffic (store_id, hour, requests, errors, total_ms, slowest_ms) VALUES ($1, $3, 2, 0, 2000, 1500), ($2, $3, 2, 1, 20, 15)`, ids[4], ids[5], hour)
		b.exec(t, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, created_at) VALUES ('shop.example.com', $1, true, true, $2)`, ids[3], hour)
		slug := func(i int) string { return fmt.Sprintf("shop-%04d", (i*37)%10000) }
		where := func(match func(i int) bool) (slugs []string) {
			for i := stores - 1; i >= 0; i-- {
				if match(i) {
					slugs = append(slugs, slug(i))
				}
			}
			return slugs
		}
		all := where(func(int) bool { return true })
		sorted := slices.Sorted(slices.Values(all))
		for name, c := range map[string]struct {
			filter ListFilter
			want   []string
		}{
			"all":                   {ListFilter{}, all},
			"by slug":               {ListFilter{Order: BySlug}, sorted},
			"suspended":             {ListFilter{Status: Suspended}, where(func(i int) bool { return i%10 == 0 })},
			"suspended by slug":     {ListFilter{Status: Suspended, Order: BySlug}, slices.Sorted(slices.Values(where(func(i int) bool { return i%10 == 0 })))},
			"unreachable":           {ListFilter{Health: Unreachable}, where(func(i int) bool { return i%7 == 0 })},
			"suspended on a server": {ListFilter{Status: Suspended, Server: "db1:5432"}, where(func(i int) bool { return i%10 == 0 && i%3 == 1 })},
			"mysql":                 {ListFilter{Engine: "mysql"}, where(func(i int) bool { return i%7 == 0 })},
			"healthy mysql":         {ListFilter{Engine: "mysql", Health: Healthy}, nil},
			"embedded":              {ListFilter{Server: EmbeddedServer}, nil},
			"behind":                {ListFilter{Behind: true}, all},
			"version 2":             {ListFilter{Schema: 2}, where(func(i int) bool { return i%2 == 1 })},
			"version 9":             {ListFilter{Schema: 9}, nil},
			"slow":                  {ListFilter{Health: Slow}, []string{slug(4)}},
			"failing":               {ListFilter{Health: Failing}, []string{slug(5)}},
			"failing postgresql":    {ListFilter{Health: Failing, Engine: "postgresql", Order: BySlug}, []string{slug(5)}},
			"an id":                 {ListFilter{Search: ids[8].String()}, []string{slug(8)}},
			"a hostname":            {ListFilter{Search: "Shop.Example.COM."}, []string{slug(3)}},
			"an owner":              {ListFilter{Search: strings.ToUpper(owner.UserID.String()) + "@example.com"}, all},
			"a slug":                {ListFilter{Search: "SHOP-0"}, slices.Sorted(slices.Values(where(func(i int) bool { return strings.HasPrefix(slug(i), "shop-0") })))},
			"a name":                {ListFilter{Search: "name 5"}, slices.Sorted(slices.Values(where(func(i int) bool { return i == 5 || i >= 50 })))},
			"a slug, suspended":     {ListFilter{Search: "shop-", Status: Suspended}, slices.Sorted(slices.Values(where(func(i int) bool { return i%10 == 0 })))},
			"a pattern":             {ListFilter{Search: "%"}, nil},
			"quotes":                {ListFilter{Search: `'; DROP TABLE stores; --`}, nil},
		} {
			c.filter.Limit = 7
			if got := b.walk(t, op, c.filter); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
		page, err := b.ListForOperator(t.Context(), op, ListFilter{Search: "shop.example.com"})
		testkit.Must(t, err)
		if s := page.Stores[0]; s.Database == nil || len(s.Hostnames) != 1 || s.Role != authz.Operator {
			t.Errorf("a store without its details: %+v", s)
		}
	})
}

// TestListForOperatorRefuses checks invalid filters and the permission.
func TestListForOperatorRefuses(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		op := b.operator(t)
		for _, f := range []ListFilter{
			{Status: "open"}, {Engine: "oracle"}, {Health: "sick"}, {Server: "no port"}, {Server: "x:70000"}, {Order: "name"}, {Limit: 101}, {Limit: -1},
			{Cursor: "x"}, {Order: BySlug, Cursor: "No Slug"}, {Search: strings.Repeat("x", 255)}, {Search: "\x00"}, {Search: "\xff"},
		} {
			_, err := b.ListForOperator(t.Context(), op, f)
			wantCode(t, err, stoa.InvalidRequest)
		}
		_, err := b.ListForOperator(t.Context(), b.user(t), ListFilter{})
		wantCode(t, err, stoa.Forbidden)
		_, err = b.Counts(t.Context(), b.user(t))
		wantCode(t, err, stoa.Forbidden)
	})
}

// TestListSearchesInParts checks that a rare store among many is found by the calls that
// follow.
func TestListSearchesInParts(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		op := b.operator(t)
		ids := b.fill(t, b.user(t), maxSearched+100)
		b.exec(t, `UPDATE stores SET status = 'provisioning', slug = 'zzz' WHERE id = $1`, ids[0])
		filter := ListFilter{Status: Provisioning, Order: BySlug}
		page, err := b.ListForOperator(t.Context(), op, filter)
		testkit.Must(t, err)
		if len(page.Stores) != 0 || !page.Partial || page.Older == nil {
			t.Fatalf("the first page has %d stores, partial %v, want none and a cursor", len(page.Stores), page.Partial)
		}
		filter.Cursor = *page.Older
		page, err = b.ListForOperator(t.Context(), op, filter)
		testkit.Must(t, err)
		if got := slugsOf(page); !slices.Equal(got, []string{"zzz"}) || page.Partial || page.Older != nil {
			t.Errorf("the second page: %v, partial %v, want the one store", got, page.Partial)
		}
	})
}

// TestCountsOmitCreditsOfDeletedStores checks that the sums of credits are those of the
// stores that are counted.
func TestCountsOmitCreditsOfDeletedStores(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		op := b.operator(t)
		for i, id := range b.fill(t, b.user(t), 3) {
			b.exec(t, `INSERT INTO credit_balances (store_id, balance, lifetime_purchased, lifetime_spent, updated_at) VALUES ($1, 7, 10, 3, $2)`, id, db.Now())
			if i == 0 {
				b.exec(t, `DELETE FROM store_databases WHERE store_id = $1`, id)
				b.exec(t, `UPDATE stores SET status = 'deleted' WHERE id = $1`, id)
			}
		}
		counts, err := b.Counts(t.Context(), op)
		testkit.Must(t, err)
		if counts.Purchased != 20 || counts.Spent != 6 || counts.Balance != 14 {
			t.Errorf("purchased %s, spent %s, balance %s, want those of two stores", counts.Purchased, counts.Spent, counts.Balance)
		}
	})
}

// TestCounts checks the counts of a small fleet, which are the present ones, and those of a
// large one, which are stored.
func TestCounts(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		op := b.operator(t)
		b.fill(t, b.user(t), 60)
		counts, err := b.Counts(t.Context(), op)
		testkit.Must(t, err)
		if len(counts.Statuses) != 2 || counts.Statuses[0] != (StatusCount{Active, 54}) || counts.Statuses[1] != (StatusCount{Suspended, 6}) {
			t.Errorf("statuses %+v", counts.Statuses)
		}
		if len(counts.Versions) != 2 || counts.Versions[0].Stores != 30 || counts.Behind != 60 || counts.Unreachable != 9 {
			t.Errorf("versions %+v, behind %d, unreachable %d", counts.Versions, counts.Behind, counts.Unreachable)
		}
		if len(counts.Servers) != 6 || counts.Servers[0].Databases != 17 {
			t.Errorf("servers %+v", counts.Servers)
		}
		testkit.Must(t, b.CountAll(t.Context(), CountStores{}))
		b.exec(t, `UPDATE stores SET status = 'suspended'`)
		now, err := b.Counts(t.Context(), op)
		testkit.Must(t, err)
		if len(now.Statuses) != 1 || now.Statuses[0] != (StatusCount{Suspended, 60}) {
			t.Errorf("a small fleet is not counted when asked: %+v", now.Statuses)
		}

		large := counts
		large.Statuses = []StatusCount{{Active, smallFleet + 1}}
		stored, err := json.Marshal(large)
		testkit.Must(t, err)
		b.exec(t, `INSERT INTO store_counts (id, counts, counted_at) VALUES (1, $1, $2)`, string(stored), counts.At)
		kept, err := b.Counts(t.Context(), op)
		testkit.Must(t, err)
		if diff := cmp.Diff(large, kept, cmpopts.EquateApproxTime(time.Millisecond)); diff != "" {
			t.Errorf("the stored counts (-want +got):\n%s", diff)
		}
		testkit.Must(t, b.CountAll(t.Context(), CountStores{}))
		again, err := b.Counts(t.Context(), op)
		testkit.Must(t, err)
		if again.stores() != 60 {
			t.Errorf("counted again: %+v", again.Statuses)
		}
	})
}
