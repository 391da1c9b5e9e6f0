package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// shopRows makes the rows of a store: products with texts, customers, orders with their
// addresses as JSON. The same seed makes the same texts.
type shopRows struct {
	random *rand.Rand
	words  []string
	now    time.Time
	n      int // units made so far

	categories []uuid.UUID
	tables     map[string][][]any
	bytes      int64 // of the rows made so far, roughly
}

// shopColumns are the columns of each table that is filled, in the order in which rows may
// reference others.
var shopColumns = []struct{ table, columns string }{
	{"categories", "id name slug description created_at updated_at"},
	{"pages", "id slug title body published created_at updated_at"},
	{"users", "id email first_name last_name role created_at updated_at"},
	{"customers", "id user_id email first_name last_name note created_at updated_at"},
	{"addresses", "id customer_id kind first_name last_name address_line1 city postal_code country created_at updated_at"},
	{"products", "id category_id name slug description currency status created_at updated_at"},
	{"product_variants", "id product_id name sku price_minor compare_at_minor stock created_at updated_at"},
	{"product_images", "id product_id url alt_text created_at"},
	{"orders", "id order_number customer_id email status payment_status shipping_status currency subtotal_minor total_minor billing_address shipping_address note placed_at created_at updated_at"},
	{"order_items", "id order_id variant_id product_name variant_name sku quantity unit_price_minor total_minor"},
}

// fillShop fills a migrated PostgreSQL database with about the given number of bytes.
func fillShop(ctx context.Context, databaseURL string, bytes int64) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // no statement is pending
	s := newShopRows()
	for s.bytes < bytes {
		for range 500 {
			s.unit()
		}
		for _, t := range shopColumns {
			if _, err := conn.CopyFrom(ctx, pgx.Identifier{t.table}, strings.Fields(t.columns), pgx.CopyFromRows(s.tables[t.table])); err != nil {
				return fmt.Errorf("fill %s: %w", t.table, err)
			}
		}
		clear(s.tables)
	}
	_, err = conn.Exec(ctx, "ANALYZE")
	return err
}

func newShopRows() *shopRows {
	s := &shopRows{random: rand.New(rand.NewPCG(18, 1)), now: time.Now().UTC().Truncate(time.Microsecond), tables: map[string][][]any{}} //nolint:gosec // no secret
	syllables := strings.Fields("al be cor di en fa gri ho im jo ka lu mo né or pa qui ro sé tu un va wi xa yo zé")
	for range 4000 {
		word := ""
		for range 1 + s.random.IntN(4) {
			word += syllables[s.random.IntN(len(syllables))]
		}
		s.words = append(s.words, word)
	}
	for i := range 200 {
		id := s.id()
		s.categories = append(s.categories, id)
		s.add("categories", id, s.text(3), fmt.Sprintf("category-%d", i), s.text(30), s.now, s.now)
	}
	return s
}

func (s *shopRows) id() (id uuid.UUID) {
	id, _ = uuid.NewV7() // fails only without randomness
	return id
}

// text returns n words, of which some are far more frequent than others.
func (s *shopRows) text(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(' ')
		}
		at := s.random.Float64()
		b.WriteString(s.words[int(at*at*at*float64(len(s.words)))])
	}
	return b.String()
}

func (s *shopRows) add(table string, values ...any) {
	s.tables[table] = append(s.tables[table], values)
	for _, v := range values {
		switch v := v.(type) {
		case string:
			s.bytes += int64(len(v)) + 2
		case map[string]any:
			s.bytes += int64(len(fmt.Sprint(v)))
		case uuid.UUID:
			s.bytes += 17
		default:
			s.bytes += 7
		}
	}
}

// unit makes a product, a customer and their orders.
func (s *shopRows) unit() {
	s.n++
	at := s.now.Add(-time.Duration(s.random.Int64N(int64(365 * 24 * time.Hour)))).Truncate(time.Microsecond)
	if s.n%40 == 0 {
		s.add("pages", s.id(), fmt.Sprintf("page-%d", s.n), s.text(4), s.text(3000), true, at, at)
	}
	product, variants := s.id(), make([]uuid.UUID, 3)
	s.add("products", product, s.categories[s.random.IntN(len(s.categories))], s.text(5), fmt.Sprintf("product-%d", s.n), s.text(150), "EUR", "published", at, at)
	for i := range variants {
		variants[i] = s.id()
		s.add("product_variants", variants[i], product, s.text(2), fmt.Sprintf("SKU-%d-%d", s.n, i), int64(s.random.IntN(100_000)), nil, int64(s.random.IntN(500)), at, at)
	}
	for i := range 2 {
		s.add("product_images", s.id(), product, fmt.Sprintf("https://images.bench.example/%s/%d.webp", product, i), s.text(4), at)
	}
	s.customer(at, variants)
}

func (s *shopRows) customer(at time.Time, variants []uuid.UUID) {
	user, customer, email := s.id(), s.id(), fmt.Sprintf("customer%d@bench.example", s.n)
	first, last := s.text(1), s.text(1)
	s.add("users", user, email, first, last, "customer", at, at)
	s.add("customers", customer, user, email, first, last, s.text(s.random.IntN(20)), at, at)
	s.add("addresses", s.id(), customer, "shipping", first, last, s.text(4), s.text(1), "12345", "FR", at, at)
	address := map[string]any{"firstName": first, "lastName": last, "addressLine1": s.text(4), "city": s.text(1), "postalCode": "12345", "country": "FR", "phone": "+33 1 23 45 67 89"}
	for i := range 3 {
		order := s.id()
		s.add("orders", order, fmt.Sprintf("%d-%d", s.n, i), customer, email, "completed", "paid", "shipped", "EUR",
			int64(5000), int64(6000), address, address, s.text(s.random.IntN(15)), at, at, at)
		for _, v := range variants {
			s.add("order_items", s.id(), order, v, s.text(5), s.text(2), "SKU", 1+s.random.IntN(3), int64(1999), int64(1999))
		}
	}
}
