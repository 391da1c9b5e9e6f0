package stores

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestListPages(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, stranger := b.user(t), b.user(t)
		var want []stoa.StoreID // newest first
		for i := range 23 {
			b.create(t, stranger, "Not yours")
			s := b.create(t, p, "Bakery")
			if i%7 == 3 {
				b.setStatus(t, s.ID, Deleted)
				continue
			}
			want = slices.Insert(want, 0, s.ID)
		}
		for _, limit := range []int{1, 7, len(want), 0, page.MaxLimit} {
			if diff := cmp.Diff(want, walk(t, b, p, limit)); diff != "" {
				t.Errorf("limit %d: %s", limit, diff)
			}
		}
		if got := walk(t, b, b.user(t), 0); got != nil {
			t.Errorf("a user without stores sees %v", got)
		}
	})
}

// walk reads all pages.
func walk(t *testing.T, b replica, p authz.Principal, limit int) []stoa.StoreID {
	t.Helper()
	var ids []stoa.StoreID
	cursor := ""
	for range 100 {
		page, err := b.List(t.Context(), p, limit, cursor)
		testkit.Must(t, err)
		for _, s := range page.Stores {
			ids = append(ids, s.ID)
		}
		if page.NextCursor == nil {
			return ids
		}
		if limit > 0 && len(page.Stores) != limit {
			t.Errorf("an inner page has %d stores, want %d", len(page.Stores), limit)
		}
		cursor = *page.NextCursor
	}
	t.Fatal("the list has no end")
	return nil
}

func TestListWhileItGrows(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		a, c, d := b.create(t, p, "A"), b.create(t, p, "C"), b.create(t, p, "D")
		first, err := b.List(t.Context(), p, 2, "")
		testkit.Must(t, err)
		b.create(t, p, "E")
		b.setStatus(t, c.ID, Deleted) // the store that the cursor points to
		second, err := b.List(t.Context(), p, 2, *first.NextCursor)
		testkit.Must(t, err)
		var got []stoa.StoreID
		for _, s := range slices.Concat(first.Stores, second.Stores) {
			got = append(got, s.ID)
		}
		if diff := cmp.Diff([]stoa.StoreID{d.ID, c.ID, a.ID}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestListRefuses(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		b.create(t, p, "Bakery")
		for _, c := range []struct {
			limit        int
			cursor, want string
		}{
			{-1, "", "[limit]"},
			{page.MaxLimit + 1, "", "[limit]"},
			{1, "x", "[cursor]"},
			{1, "' OR 1=1 --", "[cursor]"},
			{1, "\x00", "[cursor]"},
			{1, "urn:uuid:" + stoa.NewID[stoa.StoreID]().String(), "[cursor]"},
			{-1, "x", "[limit cursor]"},
		} {
			_, err := b.List(t.Context(), p, c.limit, c.cursor)
			if got := fields(err); stoa.CodeOf(err) != stoa.InvalidRequest || got != c.want {
				t.Errorf("limit %d, cursor %q: got %v with faults in %s, want %s", c.limit, c.cursor, err, got, c.want)
			}
		}
	})
}

// TestListAttachesDetails checks that List and Get return the same details of a store,
// whatever rows lie between those of its page.
func TestListAttachesDetails(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, stranger := b.user(t), b.user(t)
		pending := b.create(t, p, "Pending")
		b.open(t, stranger, credential.SQLite, "Not yours")
		active, _ := b.open(t, p, credential.SQLite, "Active")
		b.open(t, stranger, credential.SQLite, "Not yours either")
		theirs, _ := b.open(t, stranger, credential.SQLite, "Shared")
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			return authz.Grant(t.Context(), tx, theirs.ID, p.UserID, authz.Viewer)
		}))
		// A custom hostname that is not verified and sorts before the primary one.
		b.exec(t, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, created_at)
			SELECT 'a.example', store_id, false, true, created_at FROM store_hostnames WHERE store_id = $1`, active.ID)
		b.exec(t, `UPDATE credit_balances SET balance = 50000, reserved = 10000 WHERE store_id = $1`, active.ID)

		page, err := b.List(t.Context(), p, 10, "")
		testkit.Must(t, err)
		var want []Store
		for _, id := range []stoa.StoreID{theirs.ID, active.ID, pending.ID} {
			s, err := b.Get(t.Context(), p, id)
			testkit.Must(t, err)
			s.Profile = nil // a list opens no tenant database
			want = append(want, s)
		}
		if diff := cmp.Diff(want, page.Stores); diff != "" {
			t.Error(diff)
		}
		got := page.Stores[1]
		if len(got.Hostnames) != 2 || got.Hostnames[0].Hostname != "active.shops.test" || got.Hostnames[1].VerifiedAt != nil {
			t.Errorf("hostnames %+v", got.Hostnames)
		}
		if got.Database == nil || got.Database.Kind != credential.Managed || got.Credits.Available() != 4*credits.Credit {
			t.Errorf("database %+v, credits %+v", got.Database, got.Credits)
		}
		if page.Stores[0].Role != authz.Viewer || page.Stores[2].Database != nil {
			t.Errorf("%+v", page.Stores)
		}
	})
}

func TestGetByANonMember(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s, deleted := b.create(t, b.user(t), "Bakery"), b.create(t, b.user(t), "Gone")
		b.setStatus(t, deleted.ID, Deleted)
		stranger := b.user(t)
		_, unknown := b.Get(t.Context(), stranger, stoa.NewID[stoa.StoreID]())
		wantCode(t, unknown, stoa.StoreNotFound)
		for _, id := range []stoa.StoreID{s.ID, deleted.ID, {}} {
			_, err := b.Get(t.Context(), stranger, id)
			if diff := cmp.Diff(unknown, err); diff != "" {
				t.Errorf("a store of somebody else is told apart from one that does not exist: %s", diff)
			}
		}
	})
}

func TestGetWithTheTenantDown(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		tn := b.tenant(t, engine, s.ID)
		b.connect(t, s, tn.Credentials)
		tn.down()
		for range 2 { // the second call has nothing new to record
			got, err := b.Get(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if got.Profile != nil || got.Database.Status != tenantdb.StatusFailed || got.Status != Active || len(got.Hostnames) != 1 || got.Credits == nil {
				t.Errorf("while it is down: %+v", got)
			}
			info, err := tenantdb.ReadInfo(t.Context(), b.db, s.ID)
			testkit.Must(t, err)
			if diff := cmp.Diff(info, got.Database); diff != "" {
				t.Errorf("the master notes otherwise: %s", diff)
			}
		}
		tn.up()
		got, err := b.Get(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if got.Profile == nil || got.Profile.Name != "Bakery" || got.Database.Status != tenantdb.StatusOK {
			t.Errorf("after recovery: %+v", got)
		}
		if engine != credential.SQLite { // its file can only be moved while no pool is open
			tn.down() // the pool is open
			got, err = b.Get(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if got.Profile != nil || got.Database.Status != tenantdb.StatusFailed {
				t.Errorf("down again: %+v", got)
			}
		}
	})
}

// TestGetWithTheTenantInDisorder checks that changes of the merchant in their own
// database do not affect what the registry returns.
func TestGetWithTheTenantInDisorder(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		for _, damage := range []string{`DELETE FROM stores`, `ALTER TABLE stores RENAME TO stores_old`} {
			s, _ := b.open(t, p, engine, "Bakery")
			lease, err := b.tenants.Acquire(t.Context(), s.ID)
			testkit.Must(t, err)
			_, err = lease.Exec(t.Context(), damage)
			lease.Release()
			testkit.Must(t, err)
			got, err := b.Get(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if got.Profile != nil || got.Database.Status != tenantdb.StatusFailed {
				t.Errorf("%s: %+v", damage, got)
			}
		}
	})
}

// TestGetCancelled checks that a cancelled call does not change the recorded health of
// the database.
func TestGetCancelled(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.addProfile(ctx, &s); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled call gives %v", err)
		}
		if s.Database.Status != tenantdb.StatusOK || b.logged.Load() != 0 {
			t.Errorf("status %s, %d lines logged", s.Database.Status, b.logged.Load())
		}
	})
}

// TestGetLeavesUncheckedDatabasesAlone checks that the database of a failed run's
// credentials is not used: nobody has verified it, and it may be another store's.
func TestGetLeavesUncheckedDatabasesAlone(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			return b.tenants.Save(t.Context(), tx, s.ID, credential.ManagedSQLite(s.ID))
		}))
		for _, status := range []Status{PendingDatabase, Provisioning} {
			b.setStatus(t, s.ID, status)
			got, err := b.Get(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if got.Profile != nil || got.Database.Status != tenantdb.StatusUnknown || b.tenants.Open() != 0 {
				t.Errorf("%s: %+v, %d pools open", status, got, b.tenants.Open())
			}
		}
	})
}
