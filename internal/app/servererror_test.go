package app_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// TestServerErrorsAtTheFront checks that any error of a store's database server during
// a shopper's request is answered with 503 and the error's code. The answer contains
// neither "our side" nor the server's message.
func TestServerErrorsAtTheFront(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, store := register(t, s, "owner@example.com")
	raw := tenantdbtest.ConnectionString(t, credential.PostgreSQL)
	connected := c.call("POST", "/api/stores/"+store+"/connect-database", object{"type": "postgresql", "connectionString": raw}).want(http.StatusOK)
	host := connected.list("hostnames")[0].(object)["hostname"].(string)
	credentials, err := credential.ParseConnectionString(credential.PostgreSQL, secretOf(raw))
	if err != nil {
		t.Fatal(err)
	}
	tenantdbtest.Exec(t, credentials, `INSERT INTO products (id, name, slug, description, currency, status, created_at, updated_at)
		VALUES ('01a21a4b-1d78-7f0d-a1c4-e4ff3a6b7907', 'Rope', 'rope', '', 'USD', 'published', now(), now())`, `ALTER TABLE products RENAME TO kept`)
	for _, code := range []string{"ZZ999", "XX000", "XX001", "57014", "55P03", "40001", "0A000"} {
		tenantdbtest.Exec(t, credentials, `CREATE OR REPLACE FUNCTION fail() RETURNS boolean LANGUAGE plpgsql AS
			$$ BEGIN RAISE EXCEPTION 'words of the server' USING ERRCODE = '`+code+`'; END $$`,
			`CREATE OR REPLACE VIEW products AS SELECT * FROM kept WHERE fail()`)
		for range 4 { // a circuit breaker would open after three failures
			a := c.call("GET", "/api/storefront/products", nil, "Host", host).problem(http.StatusServiceUnavailable, "tenant_error")
			if a.header.Get("Retry-After") == "" || !strings.Contains(a.text("detail"), code) || strings.Contains(a.raw, "words of") {
				t.Errorf("%s: %s", code, a.raw)
			}
		}
		c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
	}
}
