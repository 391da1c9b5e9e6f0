package stores

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
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

// platformHosts of these tests: under the base domain, below a label of it, and
// elsewhere.
var platformHosts = PlatformHosts("shops.test", "https://hub.shops.test", []string{"a.deep.shops.test", "panel.example.com"})

// TestPlatformLabelsAreReserved: no store gets a slug under which the platform
// answers, by any way to a slug. One that has it keeps it, and can be changed.
func TestPlatformLabelsAreReserved(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		before, _ := b.open(t, p, tenantdb.SQLite, "Hub")
		b.ServePlatformAt(platformHosts)
		s, _ := b.open(t, p, tenantdb.SQLite, "Bakery")
		for _, slug := range []string{"hub", "deep", "wpad", "autodiscover", "autoconfig", "mta-sts", "isatap", "localhost", "smtp", "imap", "ns1", "www", "postmaster"} {
			_, err := b.Create(t.Context(), p, NewStore{Name: "A store", Slug: slug})
			wantCode(t, err, stoa.InvalidRequest)
			_, err = b.Update(t.Context(), p, s.ID, shop.ProfilePatch{Slug: &slug})
			wantCode(t, err, stoa.InvalidRequest)
			if got := fields(err); got != "[slug]" {
				t.Errorf("%s: faults in %s", slug, got)
			}
		}
		for name, want := range map[string]string{"Hub": "hub-2", "Deep": "deep-2", "WPAD": "wpad-2", "panel example com": "panel-example-com", "A": "a"} {
			if got := b.create(t, p, name).Slug; got != want {
				t.Errorf("%q is named %s, want %s", name, got, want)
			}
		}
		got, err := b.Update(t.Context(), p, before.ID, shop.ProfilePatch{Slug: ptr("hub"), City: ptr("Wien")})
		must(t, err)
		if got.Slug != "hub" || got.Profile.City != "Wien" {
			t.Errorf("the store of before became %+v", got)
		}
	})
}

// TestConfusableSlugs: a slug is ASCII, so no other script can imitate a name.
func TestConfusableSlugs(t *testing.T) {
	t.Parallel()
	for _, slug := range []string{"аpi", "ａpi", "apı", "api\u200d", "WWW", "ｗww", "xn--pi-6kc", "xn--80ak6aa92e", "_dmarc", "_acme-challenge"} {
		if slugFault(slug) == "" {
			t.Errorf("%q is accepted", slug)
		}
	}
}

// TestPlatformHostsAreNoStores: a hostname of the platform's leads to no store
// and cannot be claimed or verified, also one that was a store's before.
func TestPlatformHostsAreNoStores(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o := b.shop(t, "Hub")
		b.prove(t, o, "panel.example.com")
		b.leads(t, "hub.shops.test", &o)
		b.leads(t, "panel.example.com", &o)
		b.ServePlatformAt(platformHosts)
		for _, host := range []string{"hub.shops.test", "HUB.shops.test.:80", "ｈub.shops.test", "hub。shops.test", "panel.example.com", "shops.test", "localhost"} {
			b.leads(t, host, nil)
		}
		for _, host := range []string{"panel.example.com", "PANEL.example.com", "hub.shops.test", "shops.test", "x.shops.test", "a.deep.shops.test"} {
			_, _, err := b.ClaimHostname(t.Context(), o.Principal, o.ID, host)
			wantCode(t, err, stoa.HostnameInvalid)
		}
		_, err := b.verify(t, o, "panel.example.com")
		wantCode(t, err, stoa.HostnameInvalid)

		pending := b.create(t, b.user(t), "Deep")
		b.exec(t, `UPDATE stores SET slug = 'deep' WHERE id = $1`, pending.ID)
		found, err := Collisions(t.Context(), b.db, "shops.test", platformHosts)
		must(t, err)
		want := []Collision{{pending.ID, "deep", "a.deep.shops.test"}, {o.ID, "hub", "hub.shops.test"}, {o.ID, "hub", "panel.example.com"}}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Error(diff)
		}
	})
}
