package hostnames

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestForeignNotifications checks that a payload that is not a store's id changes
// nothing, since anyone with access to the database can send notifications.
func TestForeignNotifications(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		generation := r.resolver.generation.Load()
		payloads := []string{"", "x", "'; --", strings.Repeat("0", 36), strings.Repeat("x", 7999), "{018f0000-0000-7000-8000-000000000000}"}
		for _, payload := range payloads {
			testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				return tx.Notify(ChangeTopic, payload)
			}))
		}
		if r.resolver.generation.Load() != generation || r.logged.Load() != int64(len(payloads)) {
			t.Errorf("%d changes, %d warnings", r.resolver.generation.Load()-generation, r.logged.Load())
		}
	})
}
