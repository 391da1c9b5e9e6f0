package app_test

import (
	"net/http"
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestLedgerReplays checks that each call that moves credits gives its first answer again
// whole, also after all that it tells of has changed.
func TestLedgerReplays(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		s.grant(t, id, credits.Grant{Type: credits.TypePurchase, Amount: 20 * credits.Credit})
		c.call("POST", "/api/credits/spend", object{"amount": 1}).want(http.StatusOK)

		type call struct {
			path string
			body any
		}
		var calls []call
		var first []answer
		do := func(path string, body any) answer {
			t.Helper()
			got := c.call("POST", path, body, "Idempotency-Key", path)
			calls, first = append(calls, call{path, body}), append(first, got)
			return got
		}
		const holds = "/api/credits/holds"
		open := func() string {
			return holds + "/" + c.call("POST", holds, object{"amount": 2}).want(http.StatusCreated).text("hold", "id")
		}
		captured, released := open()+"/capture", open()+"/release"
		do("/api/credits/spend", object{"serviceKey": "product_import", "quantity": 3, "description": "Three"}).want(http.StatusOK)
		hold := do(holds, object{"amount": 4, "expiresIn": 60}).want(http.StatusCreated)
		do(captured, object{"amount": 1}).want(http.StatusOK)
		do(released, nil).want(http.StatusOK)
		bought := do("/api/credits/purchase", object{"credits": 5}).want(http.StatusCreated)

		c.call("POST", holds+"/"+hold.text("hold", "id")+"/capture", nil).want(http.StatusOK)
		(client{t: t}).call("POST", bought.text("checkoutUrl")+"/pay", nil).want(http.StatusSeeOther)
		testkit.Eventually(t, testkit.Timeout, "the purchase is paid", func() bool {
			return c.call("GET", bought.header.Get("Location"), nil).want(http.StatusOK).text("status") == "paid"
		})
		c.call("POST", "/api/credits/spend", object{"amount": "0.5"}).want(http.StatusOK)
		for range 2 {
			for i, again := range calls {
				isReplay(t, first[i], c.call("POST", again.path, again.body, "Idempotency-Key", again.path))
			}
		}
		c.call("POST", "/api/credits/spend", object{"amount": 2}, "Idempotency-Key", "/api/credits/spend").problem(http.StatusConflict, "idempotency_conflict")
	})
}

// TestConcurrentSpendsUnderOneKey checks that of many calls at once all get one answer, and
// that one of them is the first.
func TestConcurrentSpendsUnderOneKey(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		s.grant(t, id, credits.Grant{Type: credits.TypePurchase, Amount: 20 * credits.Credit})
		var got [8]answer
		var calls sync.WaitGroup
		for i := range got {
			calls.Go(func() {
				if i%2 == 1 { // other spends come between
					c.call("POST", "/api/credits/spend", object{"amount": "0.0001"}).want(http.StatusOK)
				}
				got[i] = c.call("POST", "/api/credits/spend", object{"amount": 1}, "Idempotency-Key", "k").want(http.StatusOK)
			})
		}
		calls.Wait()
		first := 0
		for _, a := range got {
			if a.header.Get(replayed) == "" {
				first++
			}
			if a.raw != got[0].raw {
				t.Errorf("%s\n%s", got[0].raw, a.raw)
			}
		}
		if first != 1 {
			t.Errorf("%d answers are not replays, want 1", first)
		}
	})
}
