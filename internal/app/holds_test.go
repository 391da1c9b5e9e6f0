package app_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestHolds checks two-phase spending over the API.
func TestHolds(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		soon := time.Now().Add(time.Hour)
		s.grant(t, id, credits.Grant{Type: credits.TypeBonus, Amount: 4 * credits.Credit, ExpiresAt: &soon})
		s.grant(t, id, credits.Grant{Type: credits.TypeBonus, Amount: 6 * credits.Credit})
		balance := c.call("GET", "/api/credits/balance", nil).want(http.StatusOK).is("10", "available").is("4", "expiresSoon", "amount")
		if at, err := time.Parse(time.RFC3339, balance.text("expiresSoon", "next")); err != nil || soon.Sub(at).Abs() > time.Millisecond {
			t.Errorf("expires at %v (%v), want %v", at, err, soon)
		}

		const holds = "/api/credits/holds"
		made := c.call("POST", holds, object{"serviceKey": "product_import", "quantity": 50, "description": "An import", "expiresIn": 60}, "Idempotency-Key", "h1").
			want(http.StatusCreated).is("5", "hold", "amount").is("open", "hold", "state").is("0.1", "hold", "unitPrice").
			is("10", "balance", "balance").is("5", "balance", "reserved").is("5", "balance", "available").is(nil, "transaction")
		if expires, err := time.Parse(time.RFC3339, made.text("hold", "expiresAt")); err != nil || time.Until(expires) > time.Minute {
			t.Errorf("expires at %v (%v)", expires, err)
		}
		hold := holds + "/" + made.text("hold", "id")
		again := c.call("POST", holds, object{"serviceKey": "product_import", "quantity": 50, "description": "An import", "expiresIn": 60}, "Idempotency-Key", "h1").
			want(http.StatusCreated).is("5", "balance", "reserved")
		if again.text("hold", "id") != made.text("hold", "id") {
			t.Error("the same key held twice")
		}
		c.call("POST", "/api/credits/spend", object{"amount": "6"}).problem(http.StatusPaymentRequired, "insufficient_credits")
		c.call("POST", holds, object{"amount": "6"}).problem(http.StatusPaymentRequired, "insufficient_credits")
		c.call("POST", holds, object{"amount": "1"}, "Idempotency-Key", "h1").problem(http.StatusConflict, "idempotency_conflict")

		c.call("POST", hold+"/capture", object{"quantity": 51}).problem(http.StatusUnprocessableEntity, "invalid_request")
		captured := c.call("POST", hold+"/capture", object{"quantity": 20}, "Idempotency-Key", "c1").want(http.StatusOK).
			is("-2", "transaction", "amount").is("capture", "transaction", "type").is("captured", "hold", "state").is("2", "hold", "captured").
			is("8", "balance", "available").is("0", "balance", "reserved")
		if replay := c.call("POST", hold+"/capture", object{"quantity": 20}, "Idempotency-Key", "c1").want(http.StatusOK); replay.at("transaction", "id") != captured.at("transaction", "id") {
			t.Errorf("captured twice: %s", replay.raw)
		}
		c.call("POST", hold+"/capture", nil).problem(http.StatusConflict, "hold_not_open")
		c.call("POST", hold+"/release", nil).problem(http.StatusConflict, "hold_not_open")

		second := holds + "/" + c.call("POST", holds, object{"amount": 3}).want(http.StatusCreated).text("hold", "id")
		c.call("POST", second+"/release", nil).want(http.StatusOK).is("released", "hold", "state").is("8", "balance", "available").is(nil, "transaction")
		third := holds + "/" + c.call("POST", holds, object{"amount": 3}).want(http.StatusCreated).text("hold", "id")
		c.call("POST", third+"/capture", nil).want(http.StatusOK).is("-3", "transaction", "amount").is("5", "balance", "available")

		page := c.call("GET", holds+"?limit=2", nil).want(http.StatusOK)
		rest := c.call("GET", holds+"?limit=2&cursor="+page.text("nextCursor"), nil).want(http.StatusOK).is(nil, "nextCursor")
		if a, b := page.list("data"), rest.list("data"); len(a) != 2 || len(b) != 1 || b[0].(object)["id"] != made.text("hold", "id") {
			t.Errorf("pages: %s, %s", page.raw, rest.raw)
		}
		if open := c.call("GET", holds+"?state=released", nil).want(http.StatusOK).list("data"); len(open) != 1 {
			t.Errorf("%d released", len(open))
		}
		refuseHolds(t, s, c, id)
	})
}

// refuseHolds checks which holds are refused, and for which callers.
func refuseHolds(t *testing.T, s *server, c client, id string) {
	t.Helper()
	const holds = "/api/credits/holds"
	for name, body := range map[string]object{
		"nothing": {}, "both": {"amount": "1", "serviceKey": "storage"}, "negative": {"amount": "-1"}, "zero": {"amount": 0},
		"half a quantity": {"serviceKey": "storage", "quantity": 1.5}, "no service": {"serviceKey": "nonsense"},
		"no time": {"amount": "1", "expiresIn": 0}, "too long": {"amount": "1", "expiresIn": 2592001}, "unknown field": {"amount": "1", "captured": "1"},
	} {
		if a := c.call("POST", holds, body); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	open := c.call("POST", holds, object{"amount": 1}).want(http.StatusCreated).text("hold", "id")
	for _, body := range []any{object{"amount": "0"}, object{"amount": "-1"}, object{"amount": "2"}, object{"amount": "1", "quantity": 1}, object{"quantity": 1}} {
		c.call("POST", holds+"/"+open+"/capture", body).problem(http.StatusUnprocessableEntity, "invalid_request")
	}
	for _, none := range []string{uuid.NewString(), "nonsense", id} {
		c.call("POST", holds+"/"+none+"/capture", nil).problem(http.StatusNotFound, "hold_not_found")
		c.call("POST", holds+"/"+none+"/release", nil).problem(http.StatusNotFound, "hold_not_found")
	}
	mallory, own := register(t, s, "mallory@example.com")
	s.grant(t, own, credits.Grant{Type: credits.TypeBonus, Amount: credits.Credit})
	mallory.call("POST", holds+"/"+open+"/release", nil).problem(http.StatusNotFound, "hold_not_found")
	mallory.call("POST", holds+"/"+open+"/release", nil, "X-Store-Id", id).problem(http.StatusNotFound, "store_not_found")

	viewer, _ := register(t, s, "viewer@example.com")
	s.join(t, viewer, id, authz.Viewer)
	viewer.call("POST", holds+"/"+open+"/release", nil, "X-Store-Id", id).problem(http.StatusForbidden, "forbidden")
	viewer.call("POST", holds, object{"amount": 1}, "X-Store-Id", id).problem(http.StatusForbidden, "forbidden")
	viewer.call("GET", holds, nil, "X-Store-Id", id).want(http.StatusOK)
	c.call("POST", holds+"/"+open+"/capture", object{"amount": 0.25}).want(http.StatusOK).is("4.75", "balance", "available")
}

// join makes the client's user a member of a store.
func (s *server) join(t *testing.T, c client, store string, role authz.Role) {
	t.Helper()
	user, err := stoa.ParseID[stoa.UserID](c.call("GET", "/api/auth/me", nil).want(http.StatusOK).text("user", "id"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := stoa.ParseID[stoa.StoreID](store)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error { return authz.Grant(t.Context(), tx, id, user, role) }); err != nil {
		t.Fatal(err)
	}
}

// TestCreditsReachTheStore checks that a running server copies credit changes to the
// store's own database, also those from before that database existed.
func TestCreditsReachTheStore(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, name := register(t, s, "owner@example.com")
		s.grant(t, name, credits.Grant{Type: credits.TypeBonus, Amount: 10 * credits.Credit})
		c.call("POST", "/api/credits/spend", object{"amount": 1}).want(http.StatusOK)
		c.call("POST", "/api/stores/"+name+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
		c.call("POST", "/api/credits/holds", object{"amount": 2}).want(http.StatusCreated)
		id, err := stoa.ParseID[stoa.StoreID](name)
		if err != nil {
			t.Fatal(err)
		}
		lease, err := s.Tenants.Acquire(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		testkit.Eventually(t, testkit.Timeout, "the store has its balance and what was spent", func() bool {
			var n int
			err := lease.Get(t.Context(), &n, `
				SELECT count(*) FROM credit_balance_cache b JOIN credit_spending_log l ON l.store_id = b.store_id
				WHERE b.balance = 90000 AND b.reserved = 20000 AND l.amount = -10000`)
			return err == nil && n == 1
		})
	})
}
