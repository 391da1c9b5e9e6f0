package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPageOfAnActionThatHasBecomeRare checks that a page of one action reads that action's
// entries, even when there are many, but none among the newest of all.
func TestPageOfAnActionThatHasBecomeRare(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		const entries, part = 4000, 200
		for n := 0; n < entries; n += part {
			var args []any
			for i := range part {
				action := audit.StoreUpdated
				if n < entries/2 && i%2 == 0 {
					action = audit.SignedOut
				}
				args = append(args, stoa.NewID[stoa.EventID](), action, "success", time.Now())
			}
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), `INSERT INTO audit_events (id, action, outcome, created_at) VALUES `+masterdb.Placeholders(part, 4), args...)
				return err
			}))
		}
		masterdbtest.Analyze(t, db, "audit_events")
		r := &masterdbtest.QueryRecorder{Querier: db}
		page, err := audit.ReadWholeLog(t.Context(), r, audit.Filter{Action: audit.SignedOut, Limit: 20})
		testkit.Must(t, err)
		if len(page.Entries) != 20 || page.Entries[0].ID.String() < page.Entries[19].ID.String() || page.NextCursor == nil {
			t.Errorf("%d entries, next %v", len(page.Entries), page.NextCursor)
		}
		if plan := r.Plan(t, db); !strings.Contains(plan, "audit_events_action") || masterdbtest.Sorts(plan) {
			t.Errorf("the page is not read by its index:\n%s", plan)
		}
		_, err = audit.ReadWholeLog(t.Context(), r, audit.Filter{Limit: 20})
		testkit.Must(t, err)
		if plan := r.Plan(t, db); masterdbtest.Sorts(plan) {
			t.Errorf("the page of all actions is sorted:\n%s", plan)
		}
		next, err := audit.ReadWholeLog(t.Context(), db, audit.Filter{Action: audit.SignedOut, Limit: 20, Cursor: *page.NextCursor})
		testkit.Must(t, err)
		if len(next.Entries) != 20 || next.Entries[0].ID.String() >= page.Entries[19].ID.String() {
			t.Errorf("the second page begins with %s after %s", next.Entries[0].ID, page.Entries[19].ID)
		}
	})
}
