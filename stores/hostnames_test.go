package stores

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
	"github.com/stoahq/stoa/tenantdb"
)

func TestNormalHostname(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"bakery.shops.test":        "bakery.shops.test",
		"Bakery.SHOPS.Test":        "bakery.shops.test",
		"bakery.shops.test:3000":   "bakery.shops.test",
		"bakery.shops.test:":       "bakery.shops.test",
		"bakery.shops.test.":       "bakery.shops.test",
		"BAKERY.shops.test.:443":   "bakery.shops.test",
		"localhost":                "localhost",
		"127.0.0.1:3000":           "127.0.0.1",
		"a--b.example":             "a--b.example",
		"müller.example":           "xn--mller-kva.example",
		"MÜLLER.example:80":        "xn--mller-kva.example",
		"mu\u0308ller.example":     "xn--mller-kva.example",
		"xn--mller-kva.example":    "xn--mller-kva.example",
		"XN--MLLER-KVA.example":    "xn--mller-kva.example",
		"straße.example":           "xn--strae-oqa.example",
		"ｂａｋｅｒｙ.example":           "bakery.example",
		"bakery。shops。test":        "bakery.shops.test",
		strings.Repeat("a", 253):   strings.Repeat("a", 253),
		"小店.example":               "xn--yetu2d.example",
		"xn--yetu2d.example.:8080": "xn--yetu2d.example",
	} {
		if got, err := NormalHostname(in); got != want || err != nil {
			t.Errorf("%q becomes %q, %v, want %q", in, got, err, want)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "dot": ".", "port only": ":80", "too long": strings.Repeat("a", 254),
		"IPv6": "::1", "IPv6 in brackets": "[::1]", "IPv6 with port": "[::1]:80", "IPv6 with zone": "[fe80::1%eth0]:80",
		"NUL": "a\x00.example", "newline": "a.example\nb", "space": "a b.example", "tab": "\ta.example", "broken UTF-8": "a\xff.example",
		"slash": "a.example/b", "at": "a@b.example", "percent": "a%2e.example", "wildcard": "*.example", "quote": "a'.example",
		"underscore": "_a.example", "two ports": "a.example:80:90", "bad punycode": "xn--a.example", "not normal punycode": "xn--ls8h=.example",
		"bidi override": "a\u202eb.example",
	} {
		if got, err := NormalHostname(in); err == nil {
			t.Errorf("%s: %q becomes %q", name, in, got)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		const host = "bakery.shops.test"
		resolve := func(host string) error {
			t.Helper()
			site, err := b.Resolve(t.Context(), host)
			if err == nil && site != (Site{StoreID: s.ID, Status: Active}) {
				t.Errorf("%q leads to %+v", host, site)
			}
			return err
		}
		wantCode(t, resolve(host), stoa.StoreNotFound)
		wantCode(t, resolve("no such host"), stoa.StoreNotFound)
		wantCode(t, resolve(""), stoa.StoreNotFound)
		must(t, b.mapHostname(t.Context(), s.ID))
		wantCode(t, resolve(host), stoa.StorePendingDatabase) // the miss was not kept
		for _, c := range []struct {
			status Status
			want   stoa.Code
		}{
			{Provisioning, stoa.StorePendingDatabase}, {Active, ""}, {Suspended, stoa.StoreSuspended}, {Active, ""},
			{Deleting, stoa.StoreSuspended}, {Deleted, stoa.StoreNotFound},
		} {
			b.setStatus(t, s.ID, c.status)
			for range 2 { // from the master, then from the cache
				wantCode(t, resolve(host), c.want)
				wantCode(t, resolve("Bakery.Shops.Test.:3000"), c.want)
			}
		}
	})
}

func TestResolveCustomHostname(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s := b.create(t, b.user(t), "Bakery")
		b.setStatus(t, s.ID, Active)
		b.exec(t, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, created_at)
			SELECT 'xn--mller-kva.example', id, false, true, created_at FROM stores`)
		_, err := b.Resolve(t.Context(), "müller.example")
		wantCode(t, err, stoa.StoreNotFound)
		b.exec(t, `UPDATE store_hostnames SET verified_at = created_at`)
		site, err := b.Resolve(t.Context(), "Müller.example:443")
		must(t, err)
		if site.StoreID != s.ID {
			t.Errorf("leads to %+v", site)
		}
	})
}

func TestResolveFromTheCacheAsksNobody(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s := b.create(t, b.user(t), "Bakery")
		b.setStatus(t, s.ID, Active)
		must(t, b.mapHostname(t.Context(), s.ID))
		_, err := b.Resolve(t.Context(), "bakery.shops.test")
		must(t, err)
		db.Close()
		for range 100 {
			site, err := b.Resolve(t.Context(), "bakery.shops.test")
			must(t, err)
			if site.StoreID != s.ID {
				t.Fatalf("leads to %+v", site)
			}
		}
		_, err = b.Resolve(t.Context(), "other.shops.test")
		wantCode(t, err, stoa.PlatformUnavailable) // not "no such store": the master does not answer
	})
}

// Visitors who come at once share one look into the master. One who leaves
// early must not take the answer away from the others.
func TestResolveAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s, _ := b.open(t, b.user(t), tenantdb.SQLite, "Bakery")
		for range 20 {
			b.setStatus(t, s.ID, Active)
			ctx, leave := context.WithCancel(t.Context())
			_, errs := atOnce(8, func(i int) (Site, error) {
				if i%4 == 3 {
					leave()
				}
				if i%2 == 0 {
					return b.Resolve(t.Context(), "bakery.shops.test")
				}
				_, _ = b.Resolve(ctx, "bakery.shops.test") // may fail or not
				return Site{}, nil
			})
			must(t, errors.Join(errs...))
		}
	})
}
