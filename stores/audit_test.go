package stores

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
)

// audited lists what the audit log has of the store's hostnames and profile, as
// action and outcome, oldest first.
func (b bench) audited(t *testing.T, id stoa.StoreID, prefix string) []string {
	t.Helper()
	var out []string
	must(t, b.db.Select(t.Context(), &out, `SELECT action || ' ' || outcome FROM audit_events WHERE store_id = $1 AND action LIKE $2 ORDER BY id`, id, prefix+"%"))
	return out
}

// TestHostnamesAreAudited: what members do, what does not prove itself, and
// what the daily check takes away.
func TestHostnamesAreAudited(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		const host = "shop.example.com"
		o := b.shop(t, "Bakery")
		h := b.claim(t, o, host)
		b.claim(t, o, host) // which there is already
		_, err := b.verify(t, o, host)
		must(t, err)
		b.Put(h.RecordName(), h.RecordValue())
		for range 2 { // the second time nothing changes
			_, err = b.verify(t, o, host)
			must(t, err)
		}
		_, err = b.MakePrimary(t.Context(), o.Principal, o.ID, host)
		must(t, err)
		b.Remove(h.RecordName())
		for range maxMisses {
			b.nextDay(t)
		}
		must(t, b.RemoveHostname(t.Context(), o.Principal, o.ID, host))
		want := []string{
			access.HostnameClaimed + " success", access.HostnameVerified + " failed", access.HostnameVerified + " success",
			access.HostnamePrimary + " success", access.HostnameLost + " success", access.HostnameRemoved + " success",
		}
		if diff := cmp.Diff(want, b.audited(t, o.ID, "hostname.")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var by *stoa.UserID
		must(t, b.db.Get(t.Context(), &by, `SELECT user_id FROM audit_events WHERE action = 'hostname.lost'`))
		if by != nil {
			t.Errorf("the hostname was lost by %s", by)
		}
	})
}

// wantBalancedUpdates fails unless every change of the profile that is in the
// log has a second entry that says it failed.
func (b bench) wantBalancedUpdates(t *testing.T, id stoa.StoreID) {
	t.Helper()
	entries := b.audited(t, id, access.StoreUpdated)
	failed := slices.DeleteFunc(slices.Clone(entries), func(e string) bool { return e != access.StoreUpdated+" failed" })
	if 2*len(failed) != len(entries) {
		t.Errorf("of a change that failed, the log has %v", entries)
	}
}
