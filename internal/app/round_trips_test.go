package app_test

import (
	"net/http"
	"slices"
	"strconv"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestRoundTrips counts the round trips to the master that a call waits for, one after the
// other, and compares them with the table in docs/round-trips.md.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	if !slices.Contains(masterdbtest.Engines(), masterdb.Postgres) {
		t.Skip(masterdbtest.PostgresEnv + " is not set")
	}
	cfg := testConfig(t, masterdb.Postgres)
	unlimited(cfg)
	counter, url := masterdbtest.NewStatementCounter(t, cfg.MasterDBURL.Reveal())
	cfg.MasterDBURL = keyring.NewSecret(url)
	s := startServer(t, cfg)
	c, store, host := connected(t, s, "owner@example.com")
	c = c.proven()
	c.buy(store, 1000)
	key := c.withKey(store, "credits:read", "credits:spend")
	anyone := client{t: t, url: s.URL}
	count := 0
	fresh := func() string { count++; return strconv.Itoa(count) }
	for _, op := range []struct {
		name    string
		prepare func() string // what call needs
		call    func(prepared string)
	}{
		{"GET /api/storefront/store", nil, func(string) {
			anyone.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
		}},
		{"GET /api/auth/me", nil, func(string) { c.call("GET", "/api/auth/me", nil).want(http.StatusOK) }},
		{"GET /api/credits/balance", nil, func(string) { c.call("GET", "/api/credits/balance?storeId="+store, nil).want(http.StatusOK) }},
		{"GET /api/credits/balance, with an API key", nil, func(string) { key.call("GET", "/api/credits/balance", nil).want(http.StatusOK) }},
		{"POST /api/credits/spend", nil, func(string) {
			c.call("POST", "/api/credits/spend", object{"amount": 1}, "X-Store-Id", store).want(http.StatusOK)
		}},
		{"GET /api/stores/{id}", nil, func(string) { c.call("GET", "/api/stores/"+store, nil).want(http.StatusOK) }},
		{"POST /api/credits/spend, with an API key and an Idempotency-Key", fresh, func(n string) {
			key.call("POST", "/api/credits/spend", object{"amount": 1}, "Idempotency-Key", "key-"+n).want(http.StatusOK)
		}},
		{"POST /api/stores/{id}/connect-database, managed SQLite", func() string {
			return c.call("POST", "/api/stores", object{"name": "Another " + fresh()}).want(http.StatusCreated).text("id")
		}, func(id string) {
			c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
		}},
		{"GET /api/stores", nil, func(string) { c.call("GET", "/api/stores", nil).want(http.StatusOK) }},
		{"GET /api/credits/transactions", nil, func(string) { c.call("GET", "/api/credits/transactions?storeId="+store, nil).want(http.StatusOK) }},
		{"POST /api/auth/register", fresh, func(n string) {
			anyone.call("POST", "/api/auth/register", object{"email": "n" + n + "@example.com", "password": testPassword, "firstName": "A", "lastName": "B", "storeName": "Shop " + n}).want(http.StatusCreated)
		}},
	} {
		least, statements := 1<<30, ""
		for range 9 {
			prepared := ""
			if op.prepare != nil {
				prepared = op.prepare()
			}
			if _, err := counter.Reset(); err != nil {
				t.Fatal(err)
			}
			op.call(prepared)
			n := counter.RoundTrips()
			counts, err := counter.Reset()
			if err != nil {
				t.Fatal(err)
			}
			if n < least {
				least, statements = n, masterdbtest.DescribeStatements(counts)
			}
		}
		t.Logf("%s: %d\n%s", op.name, least, statements)
	}
}
