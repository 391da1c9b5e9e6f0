package hostnames

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestHostnamesAreAudited checks the audit log for the actions of members, failed
// verifications, and hostnames that the daily check unmaps.
func TestHostnamesAreAudited(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		const host = "shop.example.com"
		o := r.store(t, "bakery")
		h := r.claim(t, o, host)
		r.claim(t, o, host) // a claim that already exists
		_, err := r.verify(t, o, host)
		testkit.Must(t, err)
		r.server.Put(h.RecordName(), h.RecordValue())
		for range 2 { // the second call changes nothing
			_, err = r.verify(t, o, host)
			testkit.Must(t, err)
		}
		_, err = r.MakePrimary(t.Context(), o.Principal, o.ID, host)
		testkit.Must(t, err)
		r.server.Remove(h.RecordName())
		for range maxMisses {
			r.nextDay(t)
		}
		testkit.Must(t, r.Remove(t.Context(), o.Principal, o.ID, host))
		want := []string{
			audit.HostnameClaimed + " success", audit.HostnameVerified + " failed", audit.HostnameVerified + " success",
			audit.HostnamePrimary + " success", audit.HostnameLost + " success", audit.HostnameRemoved + " success",
		}
		if diff := cmp.Diff(want, r.audited(t, o.ID)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var by *stoa.UserID
		testkit.Must(t, r.db.Get(t.Context(), &by, `SELECT user_id FROM audit_events WHERE action = 'hostname.lost'`))
		if by != nil {
			t.Errorf("the hostname was lost by %s", by)
		}
	})
}
