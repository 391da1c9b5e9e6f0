package stores

import (
	"slices"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/testkit"
)

// audited returns the store's entries of the audit log with that prefix, as action and
// outcome, oldest first.
func (b replica) audited(t *testing.T, id stoa.StoreID, prefix string) []string {
	t.Helper()
	var out []string
	testkit.Must(t, b.db.Select(t.Context(), &out, `SELECT action || ' ' || outcome FROM audit_events WHERE store_id = $1 AND action LIKE $2 ORDER BY id`, id, prefix+"%"))
	return out
}

// wantBalancedUpdates fails the test unless every recorded change of the profile has a
// second entry that records its failure.
func (b replica) wantBalancedUpdates(t *testing.T, id stoa.StoreID) {
	t.Helper()
	entries := b.audited(t, id, audit.StoreUpdated)
	failed := slices.DeleteFunc(slices.Clone(entries), func(e string) bool { return e != audit.StoreUpdated+" failed" })
	if 2*len(failed) != len(entries) {
		t.Errorf("of a change that failed, the log has %v", entries)
	}
}
