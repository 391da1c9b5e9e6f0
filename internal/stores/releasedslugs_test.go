package stores

import (
	"fmt"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

func (b replica) renameTo(t *testing.T, id stoa.StoreID, slug string) error {
	t.Helper()
	return b.renameMaster(t, id, storedata.ProfilePatch{Slug: &slug})
}

// active creates a store that can be renamed, without a database.
func (b replica) active(t *testing.T, p authz.Principal, slug string) Store {
	t.Helper()
	s, err := b.Create(t.Context(), p, NewStore{Name: slug, Slug: slug})
	testkit.Must(t, err)
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.MapHostname(t.Context(), tx, s.ID) }))
	b.setStatus(t, s.ID, Active)
	return s
}

// expire ends the time for which released slugs are kept.
func (b replica) expire(t *testing.T) {
	t.Helper()
	b.exec(t, `UPDATE released_slugs SET kept_until = $1`, time.Now().UTC().Add(-time.Second))
}

// TestReleasedSlugIsKept checks that after a rename or a deletion no store answers at the
// old name, and that no other owner gets it by creating a store, renaming one or through
// a store's name. Its owner can take it back. When its time has passed it is free.
func TestReleasedSlugIsKept(t *testing.T) {
	t.Parallel()
	releases := map[string]func(t *testing.T, b replica, p authz.Principal, s Store){
		"renamed": func(t *testing.T, b replica, p authz.Principal, s Store) {
			_, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Slug: ptr("elsewhere")})
			testkit.Must(t, err)
		},
		"deleted": func(t *testing.T, b replica, p authz.Principal, s Store) {
			_, err := b.Delete(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.end(t, s.ID)
		},
	}
	for name, release := range releases {
		t.Run(name, func(t *testing.T) {
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				b := setup(t, db)
				p, stranger := b.user(t), b.user(t)
				s, _ := b.open(t, p, credential.SQLite, "Bakery")
				theirs := b.active(t, stranger, "theirs")
				_, err := b.Resolve(t.Context(), "bakery.shops.test") // the name is cached now
				testkit.Must(t, err)
				release(t, b, p, s)

				_, err = b.Resolve(t.Context(), "bakery.shops.test")
				wantCode(t, err, stoa.StoreNotFound)
				_, err = b.Create(t.Context(), stranger, NewStore{Name: "Bakery", Slug: "bakery"})
				wantCode(t, err, stoa.HostnameTaken)
				wantCode(t, b.renameTo(t, theirs.ID, "bakery"), stoa.HostnameTaken)
				if named := b.create(t, stranger, "Bakery"); named.Slug != "bakery-2" {
					t.Errorf("a stranger's store is named %s", named.Slug)
				}
				if n := b.count(t, `stores WHERE slug = 'bakery'`); n != 0 {
					t.Errorf("%d stores have the kept slug", n)
				}

				again, err := b.Create(t.Context(), p, NewStore{Name: "Bakery", Slug: "bakery"})
				testkit.Must(t, err) // the store has the same owner
				if n := b.count(t, `released_slugs WHERE slug = 'bakery'`); n != 0 {
					t.Error("the slug is in use and released")
				}
				_, err = b.Delete(t.Context(), p, again.ID)
				testkit.Must(t, err)
				b.end(t, again.ID)

				wantCode(t, b.renameTo(t, theirs.ID, "bakery"), stoa.HostnameTaken)
				b.expire(t)
				testkit.Must(t, b.renameTo(t, theirs.ID, "bakery"))
				site, err := b.Resolve(t.Context(), "bakery.shops.test")
				testkit.Must(t, err)
				if site.StoreID != theirs.ID {
					t.Errorf("the slug leads to %s", site.StoreID)
				}
			})
		})
	}
}

// TestRenameBack checks that a store can take its own slugs back, and that its owners can
// use them for other stores. Former owners cannot.
func TestRenameBack(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		seller := b.user(t)
		s := b.active(t, seller, "first")
		testkit.Must(t, b.renameTo(t, s.ID, "second"))
		testkit.Must(t, b.renameTo(t, s.ID, "third"))
		buyer := b.member(t, s.ID, authz.Owner)
		b.exec(t, `DELETE FROM store_members WHERE user_id = $1`, seller.UserID)
		testkit.Must(t, b.renameTo(t, s.ID, "first"))
		testkit.Must(t, b.renameTo(t, s.ID, "first")) // the slug does not change
		if n := b.count(t, `released_slugs WHERE slug IN ('second', 'third')`); n != 2 || b.count(t, `released_slugs`) != 2 {
			t.Errorf("%d of the slugs second and third are kept", n)
		}
		admin := b.member(t, s.ID, authz.Admin)
		for _, slug := range []string{"second", "third"} {
			for _, p := range []authz.Principal{seller, admin, b.user(t)} {
				_, err := b.Create(t.Context(), p, NewStore{Name: "Another", Slug: slug})
				wantCode(t, err, stoa.HostnameTaken)
			}
			_, err := b.Create(t.Context(), buyer, NewStore{Name: "Another", Slug: slug})
			testkit.Must(t, err)
		}
		b.exec(t, `DELETE FROM store_members WHERE store_id = $1`, s.ID)
		testkit.Must(t, b.renameTo(t, s.ID, "without-owner"))
	})
}

// TestSlugRaces checks that, in any concurrency, a slug has at most one store, and that a
// slug that is being released does not go to another owner.
func TestSlugRaces(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for round := range 10 {
			p, stranger := b.user(t), b.user(t)
			own, old, fresh := b.active(t, p, fmt.Sprintf("old-%d", round)), fmt.Sprintf("old-%d", round), fmt.Sprintf("new-%d", round)
			theirs := b.active(t, stranger, fmt.Sprintf("theirs-%d", round))
			_, errs := atOnce(9, func(i int) (bool, error) {
				switch i % 3 {
				case 0:
					return true, b.renameTo(t, own.ID, fresh)
				case 1:
					return true, b.renameTo(t, theirs.ID, old)
				}
				_, err := b.Create(t.Context(), stranger, NewStore{Name: "Theirs", Slug: old})
				return true, err
			})
			for i, err := range errs {
				if i%3 == 0 {
					testkit.Must(t, err)
				} else {
					wantCode(t, err, stoa.HostnameTaken)
				}
			}
			b.expire(t)
			_, errs = atOnce(8, func(i int) (bool, error) {
				if i%2 == 0 {
					return true, b.renameTo(t, theirs.ID, old)
				}
				_, err := b.Create(t.Context(), p, NewStore{Name: "Mine", Slug: old})
				return true, err
			})
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else {
					wantCode(t, err, stoa.HostnameTaken)
				}
			}
			if n := b.count(t, `stores WHERE slug = '`+old+`'`); n != 1 || won == 0 {
				t.Errorf("%d stores have the slug of two owners' race, %d calls won", n, won)
			}
		}
	})
}

// TestSwappedSlugs checks that neither of two stores that concurrently take each other's
// slug gets it while both slugs are in use.
func TestSwappedSlugs(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for round := range 10 {
			slugs := [2]string{fmt.Sprintf("a-%d", round), fmt.Sprintf("b-%d", round)}
			pair := [2]Store{b.active(t, b.user(t), slugs[0]), b.active(t, b.user(t), slugs[1])}
			_, errs := atOnce(2, func(i int) (bool, error) { return true, b.renameTo(t, pair[i].ID, slugs[1-i]) })
			for i, err := range errs {
				wantCode(t, err, stoa.HostnameTaken)
				site, err := b.Resolve(t.Context(), slugs[i]+".shops.test")
				testkit.Must(t, err)
				if site.StoreID != pair[i].ID {
					t.Errorf("%s leads to the other store", slugs[i])
				}
			}
		}
	})
}

// TestRenamesReserveFewNames: a store cannot reserve names by renaming.
func TestRenamesReserveFewNames(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s := b.active(t, b.user(t), "name")
		for i := range maxReleasedSlugs {
			testkit.Must(t, b.renameTo(t, s.ID, fmt.Sprintf("name-%d", i)))
		}
		wantQuota(t, b.renameTo(t, s.ID, "one-more"), stoa.Quota{Name: quotas.ReleasedSlugs, Limit: maxReleasedSlugs, Used: maxReleasedSlugs})
		if n := b.count(t, `stores WHERE slug = 'one-more'`) + b.count(t, `released_slugs WHERE slug = 'one-more'`); n != 0 {
			t.Error("the refused rename has changed something")
		}
		testkit.Must(t, b.renameTo(t, s.ID, "name")) // one of its own released slugs
		b.expire(t)
		testkit.Must(t, b.renameTo(t, s.ID, "one-more"))
	})
}

// TestExpiry checks that the retention rule deletes slugs that are free, and nothing
// else.
func TestExpiry(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s := b.active(t, b.user(t), "name")
		testkit.Must(t, b.renameTo(t, s.ID, "kept"))
		b.exec(t, `INSERT INTO released_slugs (slug, store_id, released_at, kept_until) VALUES ('over', $1, $2, $2)`,
			s.ID, time.Now().UTC().Add(-2*time.Hour))
		_, err := b.db.DeleteExpired(t.Context(), []masterdb.Expiry{Expiry()})
		testkit.Must(t, err)
		if b.count(t, `released_slugs WHERE slug = 'name'`) != 1 || b.count(t, `released_slugs`) != 1 {
			t.Error("not just the slug that is free has gone")
		}
	})
}

// TestSlugsNotKept checks that a released slug is free at once when it is not kept.
func TestSlugsNotKept(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.KeepSlugs(0)
		s := b.active(t, b.user(t), "name")
		testkit.Must(t, b.renameTo(t, s.ID, "other"))
		_, err := b.Create(t.Context(), b.user(t), NewStore{Name: "Name", Slug: "name"})
		testkit.Must(t, err)
	})
}
