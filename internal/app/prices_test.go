package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestPricesCommands checks that a running server uses a price from the moment a
// command sets it.
func TestPricesCommands(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			c, id := register(t, startServer(t, cfg), "one@example.com")
			c.buy(id, 10)
			flags := []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}
			stoa := func(args ...string) (int, string, string) { return command(t, append(args, flags...)...) }
			prices := func(args ...string) []cli.PriceRecord {
				t.Helper()
				var list []cli.PriceRecord
				status, out, errOut := stoa(append([]string{"prices", "list", "--json"}, args...)...)
				if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 {
					t.Fatalf("status %d, %v: %s%s", status, err, out, errOut)
				}
				return list
			}
			before := prices()

			if status, out, errOut := stoa("prices", "set", "product_import", "0.1234"); status != 0 || !strings.Contains(out, "costs 0.1234 credits per item") {
				t.Errorf("status %d: %s%s", status, out, errOut)
			}
			if status, out, _ := stoa("prices", "set", "product_import", "0.1234"); status != 0 || !strings.Contains(out, "costs already") {
				t.Errorf("the same price twice: status %d: %s", status, out)
			}
			c.call("POST", "/api/credits/spend", object{"serviceKey": "product_import", "quantity": 3}).want(http.StatusOK).is("-0.3702", "transaction", "amount")
			from := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
			if status, out, errOut := stoa("prices", "set", "gift_wrap", "2", "--unit=box", "--description=A gift", "--from="+from, "--json"); status != 0 ||
				!strings.Contains(out, `"added":true`) || !strings.Contains(out, from) {
				t.Errorf("status %d: %s%s", status, out, errOut)
			}
			if now := prices(); len(now) != len(before) {
				t.Errorf("%d prices in force, want %d", len(now), len(before))
			}
			if then := prices("--at=" + from); len(then) != len(before)+1 {
				t.Errorf("%d prices in force then, want %d", len(then), len(before)+1)
			}
			if all := prices("--history"); len(all) != len(before)+2 {
				t.Errorf("%d prices in the history, want %d", len(all), len(before)+2)
			}
			if status, out, _ := stoa("prices", "list"); status != 0 || strings.Count(out, "\n") != len(before)+1 || !strings.Contains(out, "0.1234") {
				t.Errorf("status %d\n%s", status, out)
			}

			for _, wrong := range []struct {
				args   []string
				status int
				says   string
			}{
				{[]string{"product_import", "0.12345"}, 1, "4 decimals"},
				{[]string{"product_import", "free"}, 1, "4 decimals"},
				{[]string{"product_import", "1", "--from=2026-01-01T00:00:00Z"}, 1, "past"},
				{[]string{"product_import", "1", "--from=tomorrow"}, 2, "tomorrow"},
				{[]string{"unheard_of", "1"}, 1, "description: must be"},
				{[]string{"product_import"}, 2, "price"},
				{[]string{"', 1", "1"}, 1, "lower-case"},
			} {
				if status, out, errOut := stoa(append([]string{"prices", "set"}, wrong.args...)...); status != wrong.status || out != "" && status == 1 || !strings.Contains(errOut, wrong.says) {
					t.Errorf("%q: status %d, want %d: %s%s", wrong.args, status, wrong.status, out, errOut)
				}
			}
			if status, _, errOut := stoa("prices", "list", "--history", "--at="+from); status != 2 || !strings.Contains(errOut, "one of them") {
				t.Errorf("status %d: %s", status, errOut)
			}
		})
	}
}
