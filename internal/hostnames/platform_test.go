package hostnames

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestPlatformHosts(t *testing.T) {
	t.Parallel()
	got := PlatformHosts("shops.test", "https://App.Shops.TEST:8443/x", []string{"panel.example.com", "127.0.0.1", "::1"})
	want := []string{"127.0.0.1", "::1", "app.shops.test", "localhost", "panel.example.com", "shops.test"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := PlatformHosts("localhost", "", nil); len(got) != 1 {
		t.Errorf("without settings: %v", got)
	}
}

// platformHosts are the platform's hosts in these tests: one under the base domain, one
// below a label of it, and one elsewhere.
var platformHosts = PlatformHosts("shops.test", "https://hub.shops.test", []string{"a.deep.shops.test", "panel.example.com"})

// TestPlatformHostsAreNoStores checks that a hostname of the platform resolves to no
// store and cannot be claimed or verified, even if it was a store's before.
func TestPlatformHostsAreNoStores(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o := r.store(t, "hub")
		r.claimVerified(t, o, "panel.example.com")
		r.wantStore(t, "hub.shops.test", &o)
		r.wantStore(t, "panel.example.com", &o)
		r.ReservePlatformHosts(platformHosts)
		for _, host := range []string{"hub.shops.test", "HUB.shops.test.:80", "ｈub.shops.test", "hub。shops.test", "panel.example.com", "shops.test", "localhost"} {
			r.wantStore(t, host, nil)
		}
		for _, host := range []string{"panel.example.com", "PANEL.example.com", "hub.shops.test", "shops.test", "x.shops.test", "a.deep.shops.test"} {
			_, _, err := r.Claim(t.Context(), o.Principal, o.ID, host)
			wantCode(t, err, stoa.HostnameInvalid)
		}
		_, err := r.verify(t, o, "panel.example.com")
		wantCode(t, err, stoa.HostnameInvalid)

		pending := r.store(t, "elsewhere")
		r.setStatus(t, pending.ID, "pending_database")
		r.exec(t, `UPDATE stores SET slug = 'deep' WHERE id = $1`, pending.ID)
		found, err := Collisions(t.Context(), r.db, "shops.test", platformHosts)
		testkit.Must(t, err)
		want := []Collision{{StoreID: pending.ID, Slug: "deep", Host: "a.deep.shops.test"},
			{StoreID: o.ID, Slug: "hub", Host: "hub.shops.test"}, {StoreID: o.ID, Slug: "hub", Host: "panel.example.com"},
		}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Error(diff)
		}
	})
}
