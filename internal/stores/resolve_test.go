package stores

import (
	"context"
	"errors"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

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
			if err == nil && site != (hostnames.Resolution{StoreID: s.ID, Status: string(Active)}) {
				t.Errorf("%q leads to %+v", host, site)
			}
			return err
		}
		wantCode(t, resolve(host), stoa.StoreNotFound)
		wantCode(t, resolve("no such host"), stoa.StoreNotFound)
		wantCode(t, resolve(""), stoa.StoreNotFound)
		testkit.Must(t, b.mapHostname(t.Context(), s.ID))
		wantCode(t, resolve(host), stoa.StorePendingDatabase) // the negative result was not cached
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
				if answers, err := b.Answers(t.Context(), host); err != nil || answers != (c.status != Deleted) {
					t.Errorf("%s: answers %t, %v", c.status, answers, err)
				}
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
		testkit.Must(t, err)
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
		testkit.Must(t, b.mapHostname(t.Context(), s.ID))
		_, err := b.Resolve(t.Context(), "bakery.shops.test")
		testkit.Must(t, err)
		db.Close()
		for range 100 {
			site, err := b.Resolve(t.Context(), "bakery.shops.test")
			testkit.Must(t, err)
			if site.StoreID != s.ID {
				t.Fatalf("leads to %+v", site)
			}
		}
		_, err = b.Resolve(t.Context(), "other.shops.test")
		wantCode(t, err, stoa.PlatformUnavailable) // the master does not answer, which does not mean that there is no such store
	})
}

// TestResolveAtOnce checks that concurrent visitors share one query to the master, and
// that one who leaves early does not cancel it for the others.
func TestResolveAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s, _ := b.open(t, b.user(t), credential.SQLite, "Bakery")
		for range 20 {
			b.setStatus(t, s.ID, Active)
			ctx, leave := context.WithCancel(t.Context())
			_, errs := atOnce(8, func(i int) (hostnames.Resolution, error) {
				if i%4 == 3 {
					leave()
				}
				if i%2 == 0 {
					return b.Resolve(t.Context(), "bakery.shops.test")
				}
				_, _ = b.Resolve(ctx, "bakery.shops.test") // the error does not matter
				return hostnames.Resolution{}, nil
			})
			testkit.Must(t, errors.Join(errs...))
		}
	})
}

// TestResolveAllocatesNothing checks that a cache hit allocates no memory. It is not
// parallel, since the allocations of other tests would be counted.
func TestResolveAllocatesNothing(t *testing.T) { //nolint:paralleltest // see above
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	s := b.create(t, b.user(t), "Bakery")
	b.setStatus(t, s.ID, Active)
	testkit.Must(t, b.mapHostname(t.Context(), s.ID))
	_, err := b.Resolve(t.Context(), "bakery.shops.test")
	testkit.Must(t, err)
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := b.Resolve(t.Context(), "bakery.shops.test"); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
