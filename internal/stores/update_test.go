package stores

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestUpdate(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s, _ := b.open(t, p, engine, "Bakery")
		_, err := b.Resolve(t.Context(), s.Hostnames[0].Hostname) // the name is cached now
		testkit.Must(t, err)
		slug := "bread-" + string(engine)
		got, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{
			Name: ptr("Bread & Salt 🥖"), Slug: &slug, City: ptr("Wien"), Currency: ptr("EUR"),
		})
		testkit.Must(t, err)
		if got.Name != "Bread & Salt 🥖" || got.Slug != slug || len(got.Hostnames) != 1 || got.Hostnames[0].Hostname != slug+".shops.test" {
			t.Errorf("the master has %+v", got)
		}
		if f := got.Profile; f.Name != got.Name || f.Slug != got.Slug || f.City != "Wien" || f.Currency != "EUR" {
			t.Errorf("the tenant has %+v", f)
		}
		if !got.UpdatedAt.After(s.UpdatedAt) {
			t.Errorf("updated at %v, before that %v", got.UpdatedAt, s.UpdatedAt)
		}
		_, err = b.Resolve(t.Context(), s.Hostnames[0].Hostname)
		wantCode(t, err, stoa.StoreNotFound)
		site, err := b.Resolve(t.Context(), slug+".shops.test")
		testkit.Must(t, err)
		if site.StoreID != s.ID {
			t.Errorf("the new hostname leads to %+v", site)
		}
		// A field that is not set is unchanged, and a value may be set to itself.
		again, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{City: ptr(""), Slug: &slug})
		testkit.Must(t, err)
		if f := again.Profile; f.City != "" || f.Currency != "EUR" || f.Name != got.Name {
			t.Errorf("after a second patch: %+v", f)
		}
		if _, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{}); err != nil {
			t.Errorf("an empty patch: %v", err)
		}
	})
}

// state returns everything that an update can change.
func (b replica) state(t *testing.T, p authz.Principal, id stoa.StoreID) string {
	t.Helper()
	s, err := b.Get(t.Context(), p, id)
	testkit.Must(t, err)
	profile := b.profile(t, id)
	return fmt.Sprint(s.Name, s.Slug, s.UpdatedAt, s.Hostnames, profile, b.count(t, `river_job`))
}

func TestUpdateNamesEveryFaultAndWritesNothing(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		b.create(t, p, "Taken")
		before := b.state(t, p, s.ID)
		for _, c := range []struct {
			patch storedata.ProfilePatch
			want  string
		}{
			{storedata.ProfilePatch{Name: ptr(" "), Slug: ptr("A B"), City: ptr("\x00"), Currency: ptr("EURO")}, "[city currency name slug]"},
			{storedata.ProfilePatch{Name: ptr("Fine"), Slug: ptr("www")}, "[slug]"},
			{storedata.ProfilePatch{Name: ptr("evil.com"), Slug: ptr("www")}, "[name slug]"},
			{storedata.ProfilePatch{Name: ptr("Pay\u202e"), Slug: ptr("fine")}, "[name]"},
			{storedata.ProfilePatch{Slug: ptr("ab--c"), Country: ptr("XX")}, "[country slug]"},
			{storedata.ProfilePatch{Name: ptr("Fine"), Slug: ptr("fine"), Timezone: ptr("Mars/Base")}, "[timezone]"},
			{storedata.ProfilePatch{Name: ptr(strings.Repeat("é", 121))}, "[name]"},
			{storedata.ProfilePatch{Theme: ptr(storedata.JSON(`[]`)), Slug: ptr("")}, "[slug theme]"},
		} {
			_, err := b.Update(t.Context(), p, s.ID, nil, c.patch)
			wantCode(t, err, stoa.InvalidRequest)
			names := strings.Fields(strings.Trim(fields(err), "[]"))
			slices.Sort(names)
			if got := fmt.Sprint(names); got != c.want {
				t.Errorf("faults in %s, want %s", got, c.want)
			}
		}
		_, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Name: ptr("New"), Slug: ptr("taken"), City: ptr("Wien")})
		wantCode(t, err, stoa.HostnameTaken)
		if got := fields(err); got != "[slug]" {
			t.Errorf("faults in %s, want [slug]", got)
		}
		if diff := cmp.Diff(before, b.state(t, p, s.ID)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestUpdateAsksForTheRight(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		before := b.state(t, p, s.ID)
		viewer, stranger := b.member(t, s.ID, authz.Viewer), b.user(t)
		// A caller without permission to write is not told the faults of the patch.
		for _, patch := range []storedata.ProfilePatch{{Name: ptr("Mine")}, {City: ptr("Wien")}, {Name: ptr("")}} {
			_, err := b.Update(t.Context(), viewer, s.ID, nil, patch)
			wantCode(t, err, stoa.Forbidden)
			_, err = b.Update(t.Context(), stranger, s.ID, nil, patch)
			wantCode(t, err, stoa.StoreNotFound)
		}
		if diff := cmp.Diff(before, b.state(t, p, s.ID)); diff != "" {
			t.Error(diff)
		}
		for _, role := range []authz.Role{authz.Admin, authz.Member} {
			_, err := b.Update(t.Context(), b.member(t, s.ID, role), s.ID, nil, storedata.ProfilePatch{City: ptr(string(role))})
			testkit.Must(t, err)
		}
	})
}

func TestUpdateWithTheTenantDown(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		tn := b.tenant(t, engine, s.ID)
		b.connect(t, s, tn.Credentials)
		before := b.state(t, p, s.ID)
		if engine == credential.SQLite {
			b.tenants.Forget(s.ID) // its file can only be moved while no pool is open
			testkit.Eventually(t, testkit.Timeout, "the pool is closed", func() bool { return !b.fileInUse(t, s.ID) })
		}
		tn.down() // for the other engines the pool is open
		for _, patch := range []storedata.ProfilePatch{{Name: ptr("New"), Slug: ptr("new"), City: ptr("Wien")}, {City: ptr("Wien")}} {
			_, err := b.Update(t.Context(), p, s.ID, nil, patch)
			wantCode(t, err, stoa.TenantUnavailable)
		}
		b.wantBalancedUpdates(t, s.ID)
		var name, slug string
		testkit.Must(t, b.db.Get(t.Context(), &name, `SELECT name FROM stores WHERE id = $1`, s.ID))
		testkit.Must(t, b.db.Get(t.Context(), &slug, `SELECT slug FROM stores WHERE id = $1`, s.ID))
		if name != s.Name || slug != s.Slug {
			t.Errorf("the master has changed to %q, %q", name, slug)
		}
		tn.up()
		if diff := cmp.Diff(before, b.state(t, p, s.ID)); diff != "" {
			t.Error(diff)
		}
		_, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Name: ptr("New")})
		testkit.Must(t, err)
	})
}

// TestUpdateOfAStoreThatIsNotActive checks that a store without a verified database is
// not written to, even if a failed run has left credentials.
func TestUpdateOfAStoreThatIsNotActive(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		for _, saved := range []bool{false, true} {
			if saved {
				testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
					return b.tenants.Save(t.Context(), tx, s.ID, credential.ManagedSQLite(s.ID))
				}))
			}
			for status, want := range map[Status]stoa.Code{
				PendingDatabase: stoa.StorePendingDatabase, Provisioning: stoa.StorePendingDatabase,
				Suspended: stoa.StoreSuspended, Deleting: stoa.StoreSuspended, Deleted: stoa.StoreNotFound,
			} {
				b.setStatus(t, s.ID, status)
				for _, patch := range []storedata.ProfilePatch{{City: ptr("Wien")}, {Name: ptr("New")}, {}} {
					_, err := b.Update(t.Context(), p, s.ID, nil, patch)
					if got := stoa.CodeOf(err); got != want {
						t.Errorf("%s, credentials saved: %v: got %v, want %s", status, saved, err, want)
					}
				}
			}
		}
		if n := b.tenants.Open(); n != 0 {
			t.Errorf("%d pools are open: the unchecked database was used", n)
		}
	})
}

// TestSyncIdentityRepairsTheTenant ends the process between the master's commit and the
// tenant's write.
func TestSyncIdentityRepairsTheTenant(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s, _ := b.open(t, p, engine, "Bakery")
		_, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{City: ptr("Wien")})
		testkit.Must(t, err)
		slug := "bread-" + string(engine)
		testkit.Must(t, b.renameMaster(t, s.ID, storedata.ProfilePatch{Name: ptr("Bread"), Slug: &slug}))
		if got := b.profile(t, s.ID); got.Name != "Bakery" {
			t.Fatalf("the tenant knows already: %+v", got)
		}
		b.start(t)
		b.settle(t)
		if got := b.profile(t, s.ID); got.Name != "Bread" || got.Slug != slug || got.City != "Wien" {
			t.Errorf("the tenant has %+v", got)
		}
	})
}

// TestSyncIdentityOvertaken checks that a late writer writes the values that the master
// has by then.
func TestSyncIdentityOvertaken(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s, _ := b.open(t, p, engine, "Bakery")
		first, second := "first-"+string(engine), "second-"+string(engine)
		testkit.Must(t, b.renameMaster(t, s.ID, storedata.ProfilePatch{Name: ptr("First"), Slug: &first}))
		_, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Name: ptr("Second"), Slug: &second})
		testkit.Must(t, err)
		testkit.Must(t, b.SyncIdentity(t.Context(), SyncIdentity{StoreID: s.ID})) // the late job of the first change
		b.agree(t, p, s.ID, "Second", second)
	})
}

// TestSyncIdentityOvertakenInTheMiddle changes the name again, and completes the other
// writer, between a writer's read of the master and its write. The late writer must
// detect that.
func TestSyncIdentityOvertakenInTheMiddle(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL, which tells who waits for a lock")
	}
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, tn := b.open(t, p, credential.PostgreSQL, "Bakery")
		testkit.Must(t, b.renameMaster(t, s.ID, storedata.ProfilePatch{Name: ptr("First"), Slug: ptr("first")}))
		other := tenantdbtest.Open(t, tn.Credentials)
		done := make(chan error, 1)
		testkit.Must(t, other.Tx(t.Context(), func(tx *tenantdb.Tx) error {
			if _, err := tx.Exec(t.Context(), `UPDATE stores SET city = city`); err != nil {
				return err
			}
			go func() { done <- b.SyncIdentity(t.Context(), SyncIdentity{StoreID: s.ID}) }()
			testkit.Eventually(t, testkit.Timeout, "the writer waits for the row", func() bool {
				var n int
				testkit.Must(t, other.Get(t.Context(), &n, `SELECT count(*) FROM pg_stat_activity
					WHERE datname = current_database() AND wait_event_type = 'Lock'`))
				return n == 1
			})
			testkit.Must(t, b.renameMaster(t, s.ID, storedata.ProfilePatch{Name: ptr("Second"), Slug: ptr("second")}))
			_, err := tx.Exec(t.Context(), `UPDATE stores SET name = 'Second', slug = 'second'`)
			return err
		}))
		testkit.Must(t, <-done)
		b.agree(t, p, s.ID, "Second", "second")
	})
}

// agree checks that master, hostname and tenant all have the name and slug.
func (b replica) agree(t *testing.T, p authz.Principal, id stoa.StoreID, name, slug string) {
	t.Helper()
	s, err := b.Get(t.Context(), p, id)
	testkit.Must(t, err)
	if s.Profile == nil || len(s.Hostnames) != 1 {
		t.Fatalf("%+v", s)
	}
	got := []string{s.Name, s.Slug, s.Hostnames[0].Hostname, s.Profile.Name, s.Profile.Slug}
	if diff := cmp.Diff([]string{name, slug, slug + ".shops.test", name, slug}, got); diff != "" {
		t.Error(diff)
	}
}

func TestUpdateAtOnce(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		b.start(t)
		p := b.user(t)
		s, _ := b.open(t, p, engine, "Bakery")
		const writers = 6
		slugOf := func(i int) string { return fmt.Sprintf("bread-%s-%d", engine, i) }
		_, errs := atOnce(writers, func(i int) (any, error) {
			slug := slugOf(i)
			if _, err := b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Name: &slug, Slug: &slug}); err != nil {
				return nil, err
			}
			_, err := b.Resolve(t.Context(), slug+".shops.test") // the name is cached if it still exists
			if stoa.CodeOf(err) == stoa.StoreNotFound {
				err = nil
			}
			return nil, err
		})
		testkit.Must(t, errors.Join(errs...))
		identity, err := b.ReadIdentity(t.Context(), s.ID)
		testkit.Must(t, err)
		for i := range writers {
			site, err := b.Resolve(t.Context(), slugOf(i)+".shops.test")
			switch {
			case slugOf(i) != identity.Slug:
				if stoa.CodeOf(err) != stoa.StoreNotFound {
					t.Errorf("a hostname of before still leads to %+v, %v", site, err)
				}
			case err != nil:
				t.Error(err)
			}
		}
		b.settle(t)
		b.agree(t, p, s.ID, identity.Name, identity.Slug)
	})
}

// TestUpdateAtOnceToOneSlug checks that exactly one of two stores that request one slug
// gets it.
func TestUpdateAtOnceToOneSlug(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		var open []Store
		for range 4 {
			s, _ := b.open(t, p, credential.SQLite, "Bakery")
			open = append(open, s)
		}
		_, errs := atOnce(len(open), func(i int) (Store, error) {
			return b.Update(t.Context(), p, open[i].ID, nil, storedata.ProfilePatch{Slug: ptr("bread")})
		})
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
				b.agree(t, p, open[i].ID, "Bakery", "bread")
				continue
			}
			wantCode(t, err, stoa.HostnameTaken)
			b.agree(t, p, open[i].ID, "Bakery", open[i].Slug)
		}
		if won != 1 {
			t.Errorf("%d stores have the slug", won)
		}
	})
}
