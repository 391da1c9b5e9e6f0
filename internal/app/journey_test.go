package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// TestJourney follows the contract's main path over HTTP on the real server, with every
// combination of master engine and tenant engine.
func TestJourney(t *testing.T) {
	t.Parallel()
	for _, master := range masterdbtest.Engines() {
		for _, tenant := range tenantdbtest.Engines() {
			t.Run(fmt.Sprintf("%s master, %s tenant", master, tenant), func(t *testing.T) {
				t.Parallel()
				cfg := testConfig(t, master)
				cfg.JWTExpiresIn = 15 * time.Minute
				journey(t, startServer(t, cfg), tenant)
			})
		}
	}
}

// TestJourneyOnNewerServers repeats TestJourney with the newest available servers.
func TestJourneyOnNewerServers(t *testing.T) {
	t.Parallel()
	tenantdbtest.OnNewerServers(t, "TestJourney")
}

func journey(t *testing.T, s *server, tenant credential.EngineName) {
	c := client{t: t, url: s.URL}

	// The two calls of a new user, exactly as documented.
	registered := c.call("POST", "/api/auth/register",
		`{"email":"owner@example.com","password":"SecurePassword123!","firstName":"John","lastName":"Doe","storeName":"My First Store"}`).want(http.StatusCreated)
	registered.is("pending_database", "store", "status").is("0", "store", "credits", "balance").is("my-first-store", "store", "slug").
		is("Bearer", "tokenType").is(900.0, "expiresIn").is(false, "user", "emailVerified")
	login := c.call("POST", "/api/auth/login", `{"email":"owner@example.com","password":"SecurePassword123!"}`).want(http.StatusOK)
	if _, present := login.body["store"]; present {
		t.Errorf("login answers with a store: %s", login.raw)
	}
	c.token = login.text("accessToken")

	// Without storeName no store is created.
	c.call("POST", "/api/auth/register", object{"email": "other@example.com", "password": testPassword, "firstName": "A", "lastName": "B"}).
		want(http.StatusCreated).is(nil, "store")

	me := c.call("GET", "/api/auth/me", nil).want(http.StatusOK).is("owner@example.com", "user", "email")
	first := me.list("stores")[0].(object)
	if len(me.list("stores")) != 1 || first["role"] != "owner" || first["status"] != "pending_database" {
		t.Errorf("me: %s", me.raw)
	}

	created := c.call("POST", "/api/stores/create", object{"name": "Café Zoë"}).want(http.StatusCreated).is("cafe-zoe", "slug")
	id := created.text("id")
	store := "/api/stores/" + id
	c.call("GET", store+"/provisioning", nil).problem(http.StatusNotFound, "not_found")
	c.call("PATCH", store, object{"description": "too early"}).problem(http.StatusConflict, "store_pending_database")

	active := c.call("POST", store+"/connect-database", connectBody(t, tenant)).want(http.StatusOK)
	active.is("active", "status").is("ok", "database", "status").is(string(tenant), "database", "engine").
		is("Café Zoë", "profile", "name").is("succeeded", "provisioning", "state")
	run := c.call("GET", store+"/provisioning", nil).want(http.StatusOK).is("succeeded", "state")
	var names []string
	for _, step := range run.list("steps") {
		names = append(names, step.(object)["name"].(string))
	}
	if got := strings.Join(names, " "); got != "connect inspect migrate seed store_record owner_record hostname activate" {
		t.Errorf("steps: %s", got)
	}
	c.call("POST", store+"/connect-database", connectBody(t, credential.SQLite)).problem(http.StatusConflict, "already_connected")

	shopper := client{t: t, url: s.URL}
	shopper.call("GET", "/api/storefront/store", nil, "Host", "Cafe-Zoe.localhost.:3000").want(http.StatusOK).is("Café Zoë", "name").is(id, "id")
	if products := shopper.call("GET", "/api/storefront/products", nil, "Host", "cafe-zoe.localhost").want(http.StatusOK); len(products.list("data")) != 0 {
		t.Errorf("products of a new store: %s", products.raw)
	}
	if page := shopper.call("GET", "/", nil, "Host", "cafe-zoe.localhost").want(http.StatusOK); !strings.Contains(page.raw, "Café Zoë") {
		t.Error("the store's page does not name the store")
	}
	shopper.call("GET", "/api/storefront/store", nil, "Host", "my-first-store.localhost").problem(http.StatusNotFound, "store_not_found")

	c.call("PATCH", store, object{"name": "Zoë & Co", "slug": "zoe", "description": "Kaffee ☕ und 'Kuchen'", "currency": "EUR", "settings": object{"tips": true}}).
		want(http.StatusOK).is("Zoë & Co", "name").is("Zoë & Co", "profile", "name").is("zoe", "profile", "slug").is(true, "profile", "settings", "tips")
	shopper.call("GET", "/api/storefront/store", nil, "Host", "zoe.localhost").want(http.StatusOK).is("Kaffee ☕ und 'Kuchen'", "description")
	shopper.call("GET", "/api/storefront/store", nil, "Host", "cafe-zoe.localhost").problem(http.StatusNotFound, "store_not_found")
	c.call("GET", store, nil).want(http.StatusOK).is("zoe", "slug").is("EUR", "profile", "currency")

	spendCredits(t, c, id)
	leave(t, c, login.text("refreshToken"))
}

// spendCredits buys and spends credits and reads the ledger.
func spendCredits(t *testing.T, c client, id string) {
	t.Helper()
	c.call("GET", "/api/credits/balance", nil).problem(http.StatusUnprocessableEntity, "invalid_request") // the user has two stores and must name one
	c.buy(id, 100)
	c.call("POST", "/api/credits/spend", object{"amount": "1000"}, "X-Store-Id", id).problem(http.StatusPaymentRequired, "insufficient_credits")
	spent := c.call("POST", "/api/credits/spend", object{"amount": "12.5", "description": "one"}, "X-Store-Id", id, "Idempotency-Key", "k1").
		want(http.StatusOK).is("-12.5", "transaction", "amount").is("87.5", "balance", "available")
	again := c.call("POST", "/api/credits/spend", object{"amount": 12.5, "description": "one"}, "X-Store-Id", id, "Idempotency-Key", "k1").want(http.StatusOK)
	if again.at("transaction", "id") != spent.at("transaction", "id") {
		t.Errorf("the same key spent twice: %s, %s", spent.raw, again.raw)
	}
	c.call("POST", "/api/credits/spend", object{"amount": "2"}, "X-Store-Id", id, "Idempotency-Key", "k1").problem(http.StatusConflict, "idempotency_conflict")
	c.call("POST", "/api/credits/spend?storeId="+id, object{"serviceKey": "product_import", "quantity": 5}).
		want(http.StatusOK).is("product_import", "transaction", "serviceKey").is(5.0, "transaction", "quantity")
	if prices := c.call("GET", "/api/credits/prices", nil).want(http.StatusOK); len(prices.list("data")) == 0 {
		t.Error("no prices")
	}

	page := c.call("GET", "/api/credits/transactions?limit=2&storeId="+id, nil).want(http.StatusOK)
	if n := len(page.list("data")); n != 2 {
		t.Errorf("page of %d, want 2", n)
	}
	rest := c.call("GET", "/api/credits/transactions?limit=2&storeId="+id+"&cursor="+page.text("nextCursor"), nil).want(http.StatusOK).is(nil, "nextCursor")
	if last := rest.list("data")[0].(object); last["type"] != "purchase" || last["amount"] != "100" || last["balanceAfter"] != "100" {
		t.Errorf("first movement: %v", last)
	}
}

// leave refreshes, signs out, and checks that every token is invalid.
func leave(t *testing.T, c client, refreshToken string) {
	t.Helper()
	fresh := c.call("POST", "/api/auth/refresh", object{"refreshToken": refreshToken}).want(http.StatusOK)
	c.token = fresh.text("accessToken")
	c.call("POST", "/api/auth/logout", nil).want(http.StatusNoContent)
	c.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked")
	c.call("POST", "/api/auth/refresh", object{"refreshToken": fresh.text("refreshToken")}).problem(http.StatusUnauthorized, "session_revoked")
}

func connectBody(t *testing.T, engine credential.EngineName) object {
	t.Helper()
	if engine == credential.SQLite {
		return object{"type": "managed"}
	}
	return object{"type": string(engine), "connectionString": tenantdbtest.ConnectionString(t, engine)}
}
