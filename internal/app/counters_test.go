package app_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestCountersCount makes one of each thing that has a counter, and some that are refused, and
// checks what the metrics say of them.
func TestCountersCount(t *testing.T) {
	t.Parallel()
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(endpoint.Close)
	onEachMaster(t, func(t *testing.T, s *server) {
		c, store, _ := connected(t, s, "owner@example.com")
		// A mail to an address that is verified before would not be sent.
		testkit.Eventually(t, testkit.Timeout, "a mail is sent", func() bool { return value(scrape(t, s), "stoa_mails_total", "outcome", "sent") == 1 })
		c = c.proven()
		c.call("POST", "/api/stores/"+store+"/webhooks", object{"url": endpoint.URL, "types": []string{"purchase.paid"}}).want(http.StatusCreated)
		c.buy(store, 10)
		c.call("POST", "/api/credits/spend", object{"amount": 1}).want(http.StatusOK)
		c.call("POST", "/api/credits/spend", object{"amount": 100}).problem(http.StatusPaymentRequired, "insufficient_credits")
		hold := c.call("POST", "/api/credits/holds", object{"amount": 2}).want(http.StatusCreated).text("hold", "id")
		c.call("POST", "/api/credits/holds/"+hold+"/release", nil).want(http.StatusOK)
		c.call("POST", "/api/stores/"+store+"/backups", nil).want(http.StatusAccepted)
		want := []struct {
			name, label, value string
			count              float64
		}{
			{"stoa_provisioning_runs_total", "outcome", "succeeded", 1},
			{"stoa_purchases_total", "state", "pending", 1},
			{"stoa_purchases_total", "state", "paid", 1},
			{"stoa_payment_events_total", "outcome", "applied", 1},
			{"stoa_credit_grants_total", "type", "purchase", 1},
			{"stoa_credit_spends_total", "outcome", "spent", 1},
			{"stoa_credit_spends_total", "outcome", "insufficient", 1},
			{"stoa_credit_holds_total", "outcome", "made", 1},
			{"stoa_credit_holds_total", "outcome", "released", 1},
			{"stoa_webhook_deliveries_total", "outcome", "accepted", 1},
			{"stoa_backups_total", "outcome", "succeeded", 1},
		}
		for _, w := range want { // the last two are made in the background, and may not be done yet
			testkit.Eventually(t, testkit.Timeout, w.name+" "+w.value, func() bool { return value(scrape(t, s), w.name, w.label, w.value) >= w.count })
		}
		found := scrape(t, s)
		for _, w := range want {
			if got := value(found, w.name, w.label, w.value); got != w.count {
				t.Errorf("%s %s: %v, want %v", w.name, w.value, got, w.count)
			}
		}
		if n := value(found, "stoa_credit_batch_spends"); n < 2 {
			t.Errorf("%v batches of spends were seen, want one for each of the two", n)
		}
	}, func(cfg *config.Config) { cfg.PrivateListen = "127.0.0.1:0" })
}
