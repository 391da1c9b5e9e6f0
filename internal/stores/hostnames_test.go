package stores

import (
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/hostnames/hostnamestest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPlatformLabelsAreReserved checks that no store gets a slug whose hostname is the
// platform's, in any way. A store that already has such a slug keeps it and can be
// changed.
func TestPlatformLabelsAreReserved(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		before, _ := b.open(t, p, credential.SQLite, "Hub")
		b.Registry.hostnames.ReservePlatformHosts(hostnames.PlatformHosts(
			"shops.test", "https://hub.shops.test", []string{"a.deep.shops.test", "panel.example.com"}))
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		for _, slug := range []string{"hub", "deep", "wpad", "autodiscover", "autoconfig", "mta-sts", "isatap", "localhost", "smtp", "imap", "ns1", "www", "postmaster"} {
			_, err := b.Create(t.Context(), p, NewStore{Name: "A store", Slug: slug})
			wantCode(t, err, stoa.InvalidRequest)
			_, err = b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Slug: &slug})
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
		got, err := b.Update(t.Context(), p, before.ID, nil, storedata.ProfilePatch{Slug: ptr("hub"), City: ptr("Wien")})
		testkit.Must(t, err)
		if got.Slug != "hub" || got.Profile.City != "Wien" {
			t.Errorf("the store of before became %+v", got)
		}
	})
}

// TestHostnameBeforeTheStore: a custom hostname can be verified before the store
// has a database. The store's hostname below the platform's domain is added then.
func TestHostnameBeforeTheStore(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, dns := setup(t, db), hostnamestest.NewDNS(t)
		hosts := b.Registry.hostnames
		hosts.UseDNS(dns.Address)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		const host = "shop.example.com"
		leads := func(host string) {
			t.Helper()
			found, err := b.Resolve(t.Context(), host)
			testkit.Must(t, err)
			if found.StoreID != s.ID {
				t.Errorf("%s leads to %+v", host, found)
			}
		}
		h, _, err := hosts.Claim(t.Context(), p, s.ID, host)
		testkit.Must(t, err)
		dns.Put(h.RecordName(), h.RecordValue())
		h, err = hosts.Verify(t.Context(), p, s.ID, host)
		testkit.Must(t, err)
		if h.VerifiedAt == nil {
			t.Fatalf("not verified: %+v", *h.Verification)
		}
		_, err = b.Resolve(t.Context(), host)
		wantCode(t, err, stoa.StorePendingDatabase)
		_, err = hosts.MakePrimary(t.Context(), p, s.ID, host)
		testkit.Must(t, err)
		b.connect(t, s, credential.ManagedSQLite(s.ID))
		leads(host)
		leads("bakery.shops.test")
		list, err := hosts.List(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if len(list) != 2 || list[0].Hostname.Hostname != host || !list[0].Primary || list[1].Primary {
			t.Errorf("the hostnames are %+v", list)
		}
		_, err = b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Slug: ptr("moved")})
		testkit.Must(t, err)
		leads("moved.shops.test")
	})
}
