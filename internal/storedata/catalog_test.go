package storedata_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func croissant() storedata.NewProduct {
	return storedata.NewProduct{
		Name: hostile, Slug: "croissant", Description: hostile + "\n" + hostile, PriceMinor: 1250, Currency: "EUR", SKU: "CR-1 ß🧁",
		ImageURL: "https://cdn.example.com/c.jpg?a='b'", Category: "bread", Stock: ptr(int64(3)),
	}
}

func TestAddProduct(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		_, err := storedata.AddCategory(t.Context(), db, storedata.NewCategory{Name: "Bread", Slug: "bread"})
		testkit.Must(t, err)
		n := croissant()
		got, err := storedata.AddProduct(t.Context(), db, n)
		testkit.Must(t, err)
		want := storedata.Product{
			ID: got.ID, Slug: "croissant", Name: n.Name, Description: n.Description, Category: ptr("bread"),
			Price: &storedata.Money{Value: "12.50", Currency: "EUR"}, Image: &storedata.Image{URL: n.ImageURL, Alt: n.Name},
			InStock: true, CreatedAt: got.CreatedAt,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		page, err := storedata.Products(t.Context(), db, storedata.ListProducts{})
		testkit.Must(t, err)
		if diff := cmp.Diff(storedata.ProductPage{Products: []storedata.Product{want}}, page); diff != "" {
			t.Error(diff)
		}
		if n := count(t, db, "product_variants WHERE sku = 'CR-1 ß🧁'"); n != 1 {
			t.Errorf("%d variants have the sku", n)
		}
	})
}

func TestAddProductNamesEveryFault(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		_, err := storedata.AddProduct(t.Context(), db, storedata.NewProduct{
			Slug: "Größe", Description: "\x00", PriceMinor: -1, Currency: "EURO", SKU: "a ", ImageURL: "ftp://x/y", Category: "é", Stock: ptr(int64(-1)),
		})
		want := []string{"category", "currency", "description", "imageUrl", "name", "priceMinor", "sku", "slug", "stock"}
		if diff := cmp.Diff(want, faultsOf(t, err)); diff != "" {
			t.Error(diff)
		}
		_, err = storedata.AddCategory(t.Context(), db, storedata.NewCategory{Slug: "a b", Description: "\x00", Parent: "-"})
		if diff := cmp.Diff([]string{"description", "name", "parent", "slug"}, faultsOf(t, err)); diff != "" {
			t.Error(diff)
		}
		n := croissant() // its category does not exist
		_, err = storedata.AddProduct(t.Context(), db, n)
		if diff := cmp.Diff([]string{"category"}, faultsOf(t, err)); diff != "" {
			t.Error(diff)
		}
		if n := count(t, db, "products") + count(t, db, "categories"); n != 0 {
			t.Errorf("%d rows were written", n)
		}
	})
}

func TestDuplicatesAreFaults(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		bread := storedata.NewCategory{Name: "Bread", Slug: "bread"}
		_, err := storedata.AddCategory(t.Context(), db, bread)
		testkit.Must(t, err)
		_, err = storedata.AddCategory(t.Context(), db, storedata.NewCategory{Name: "Rolls", Slug: "rolls", Parent: "bread"})
		testkit.Must(t, err)
		if n := count(t, db, "categories WHERE parent_id IS NOT NULL"); n != 1 {
			t.Errorf("%d categories have a parent, want 1", n)
		}
		_, err = storedata.AddCategory(t.Context(), db, bread)
		if diff := cmp.Diff([]string{"slug"}, faultsOf(t, err)); diff != "" {
			t.Error(diff)
		}
		n := croissant()
		_, err = storedata.AddProduct(t.Context(), db, n)
		testkit.Must(t, err)
		_, err = storedata.AddProduct(t.Context(), db, n)
		if diff := cmp.Diff([]string{"sku", "slug"}, faultsOf(t, err)); diff != "" {
			t.Error(diff)
		}
		n.Slug = "other"
		_, err = storedata.AddProduct(t.Context(), db, n)
		if diff := cmp.Diff([]string{"sku"}, faultsOf(t, err)); diff != "" {
			t.Error(diff)
		}
		if got := count(t, db, "products"); got != 1 {
			t.Errorf("%d products, want 1: half a product was kept", got)
		}
	})
}

func TestAddProductAtOnce(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		n := croissant()
		n.Category = ""
		created := 0
		for _, err := range atOnce(6, func(int) error {
			_, err := storedata.AddProduct(t.Context(), db, n)
			return err
		}) {
			if err == nil {
				created++
			} else if got := faultsOf(t, err); !slices.Contains(got, "slug") {
				t.Error(err)
			}
		}
		if created != 1 || count(t, db, "products") != 1 || count(t, db, "product_variants") != 1 {
			t.Errorf("%d were created", created)
		}
	})
}

func TestProductsPages(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		var want []string // newest first
		for i := range 23 {
			n := storedata.NewProduct{Name: "P", Slug: fmt.Sprintf("p-%d", i), Currency: "EUR", Draft: i%5 == 0}
			p, err := storedata.AddProduct(t.Context(), db, n)
			testkit.Must(t, err)
			if !n.Draft {
				want = append([]string{p.Slug}, want...)
			}
		}
		for _, limit := range []int{1, 7, 18, 100, 0} {
			if diff := cmp.Diff(want, walk(t, db, limit)); diff != "" {
				t.Errorf("limit %d: %s", limit, diff)
			}
		}
	})
}

// walk reads all pages and returns the slugs of their products.
func walk(t *testing.T, db *tenantdb.DB, limit int) []string {
	t.Helper()
	var slugs []string
	list := storedata.ListProducts{Limit: limit}
	for range 100 {
		page, err := storedata.Products(t.Context(), db, list)
		testkit.Must(t, err)
		for _, p := range page.Products {
			slugs = append(slugs, p.Slug)
		}
		if page.NextCursor == nil {
			return slugs
		}
		if len(page.Products) != list.Limit {
			t.Errorf("an inner page has %d products, want %d", len(page.Products), list.Limit)
		}
		list.Cursor = *page.NextCursor
	}
	t.Fatal("the list has no end")
	return nil
}

func TestProductsWhileTheyChange(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		add := func(slug string) {
			_, err := storedata.AddProduct(t.Context(), db, storedata.NewProduct{Name: "P", Slug: slug, Currency: "EUR"})
			testkit.Must(t, err)
		}
		for _, slug := range []string{"a", "b", "c", "d"} {
			add(slug)
		}
		first, err := storedata.Products(t.Context(), db, storedata.ListProducts{Limit: 2})
		testkit.Must(t, err)
		add("e")
		// The product that the cursor points to is deleted. The next page starts at the
		// same position.
		_, err = db.Exec(t.Context(), `DELETE FROM products WHERE slug = 'c'`)
		testkit.Must(t, err)
		second, err := storedata.Products(t.Context(), db, storedata.ListProducts{Limit: 2, Cursor: *first.NextCursor})
		testkit.Must(t, err)
		var got []string
		for _, p := range slices.Concat(first.Products, second.Products) {
			got = append(got, p.Slug)
		}
		if diff := cmp.Diff([]string{"d", "c", "b", "a"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestProductsRefusesBadLists(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		for _, c := range []struct {
			list storedata.ListProducts
			want string
		}{
			{storedata.ListProducts{Limit: -1}, "limit"},
			{storedata.ListProducts{Limit: 101}, "limit"},
			{storedata.ListProducts{Cursor: "' OR 1=1 --"}, "cursor"},
			{storedata.ListProducts{Cursor: "AAAA"}, "cursor"},
			{storedata.ListProducts{Cursor: strings.Repeat("A", 1000)}, "cursor"},
			{storedata.ListProducts{Cursor: stoa.NewID[storedata.ProductID]().String()}, "cursor"},
		} {
			_, err := storedata.Products(t.Context(), db, c.list)
			if got := faultsOf(t, err); !slices.Equal(got, []string{c.want}) {
				t.Errorf("%+v: got faults %v", c.list, got)
			}
		}
		page, err := storedata.Products(t.Context(), db, storedata.ListProducts{})
		testkit.Must(t, err)
		if b, _ := json.Marshal(page); string(b) != `{"data":[],"nextCursor":null}` {
			t.Errorf("an empty shop lists %s", b)
		}
	})
}

// TestProductsShowVariantsAndImages checks that a product shows the data of its variants
// and images, whichever software wrote them.
func TestProductsShowVariantsAndImages(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		p, err := storedata.AddProduct(t.Context(), db, storedata.NewProduct{
			Name: "P", Slug: "p", PriceMinor: 1500, Currency: "JPY", Stock: ptr(int64(0)), ImageURL: "https://x.example/0",
		})
		testkit.Must(t, err)
		see := func() storedata.Product {
			page, err := storedata.Products(t.Context(), db, storedata.ListProducts{})
			testkit.Must(t, err)
			if len(page.Products) != 1 {
				t.Fatalf("%d rows for one product", len(page.Products))
			}
			return page.Products[0]
		}
		exec := func(query string, args ...any) {
			_, err := db.Exec(t.Context(), query, args...)
			testkit.Must(t, err)
		}
		variant := func(price int, stock any) {
			exec(`INSERT INTO product_variants (id, product_id, name, price_minor, stock, created_at, updated_at) VALUES (?, ?, 'v', ?, ?, ?, ?)`,
				stoa.NewID[storedata.VariantID](), p.ID, price, stock, p.CreatedAt, p.CreatedAt)
		}
		if got := see(); got.InStock || got.Price.Value != "1500" {
			t.Errorf("sold out: got %+v at %+v", got, got.Price)
		}
		variant(900, 0)
		variant(2000, 1)
		if got := see(); !got.InStock || got.Price.Value != "900" {
			t.Errorf("three variants: got %+v at %+v", got, got.Price)
		}
		exec(`UPDATE product_variants SET stock = NULL`)
		if !see().InStock {
			t.Error("a stock that is not counted is sold out")
		}
		exec(`INSERT INTO product_images (id, product_id, url, alt_text, sort_order, created_at) VALUES (?, ?, 'https://x.example/1', 'first', -1, ?)`,
			stoa.NewID[storedata.ImageID](), p.ID, p.CreatedAt)
		if got := see().Image; got == nil || got.Alt != "first" {
			t.Errorf("got image %+v", got)
		}
		exec(`DELETE FROM product_images`)
		exec(`DELETE FROM product_variants`)
		if got := see(); got.Image != nil || got.Price != nil || got.InStock {
			t.Errorf("without variants and images: got %+v", got)
		}
	})
}
