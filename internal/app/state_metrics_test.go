package app_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestWaitingIsBoundedAndCached checks the metrics of what waits in the master: their values,
// that no more than about a thousand rows are counted, and that a second scrape reads nothing.
func TestWaitingIsBoundedAndCached(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		received := s.Master.Now().UTC().Add(-time.Hour)
		insert := func(from, to int) {
			testkit.Must(t, s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d)
					INSERT INTO stripe_events (id, type, payload, received_at) SELECT 'evt_' || i, 'charge.failed', '{}', $1 FROM n`, from, to), received)
				return err
			}))
		}
		value := func(text, series string) string {
			t.Helper()
			found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
			if found == nil {
				t.Errorf("there is no series %s", series)
				return ""
			}
			return found[1]
		}
		insert(1, 2000)
		scrape := func() string {
			t.Helper()
			return client{t: t, url: s.PrivateURL}.call("GET", "/metrics", nil).want(http.StatusOK).raw
		}
		text := scrape()
		if n := value(text, "stoa_payment_events_waiting"); n != "1001" {
			t.Errorf("%s events wait, want 1001: more than 1,000", n)
		}
		var age float64
		if _, err := fmt.Sscan(value(text, "stoa_payment_events_oldest_seconds"), &age); err != nil || age < 3600 || age > 7200 {
			t.Errorf("the oldest event waits for %v s: %v", age, err)
		}
		for _, series := range []string{
			`stoa_jobs_waiting{queue="default"}`, `stoa_jobs_oldest_seconds{queue="tenants"}`, `stoa_jobs{state="discarded"}`, "stoa_mails_queued", "stoa_purchases_pending",
			"stoa_events_unpublished", "stoa_webhook_endpoints_waiting", "stoa_webhook_oldest_seconds", "stoa_backups_overdue", "stoa_backups_overdue_oldest_seconds",
			`stoa_master_connections{state="idle"}`, "stoa_master_wait_seconds_total",
		} {
			value(text, series)
		}
		if !strings.Contains(text, "\nstoa_build_info{") {
			t.Error("there is no stoa_build_info")
		}
		testkit.Must(t, s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE stripe_events SET applied_at = $1`, received)
			return err
		}))
		if n := value(scrape(), "stoa_payment_events_waiting"); n != "1001" {
			t.Errorf("the second scrape read the master again: %s", n)
		}
	}, func(cfg *config.Config) { cfg.PrivateListen = "127.0.0.1:0" })
}
