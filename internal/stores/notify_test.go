package stores

import (
	"context"
	"fmt"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestChangesAreNotified checks that every change of a store's state or hostnames is
// notified after it has happened, and that nothing else is.
func TestChangesAreNotified(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		var told []string
		db.Subscribe(hostnames.ChangeTopic, func(id string) { told = append(told, id) }, func() {})
		tx := func(fn func(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error) func() error {
			return func() error {
				return db.Tx(t.Context(), func(tx *masterdb.Tx) error { return fn(t.Context(), tx, s.ID) })
			}
		}
		slug := func(slug string) func() error {
			return func() error { return b.renameMaster(t, s.ID, storedata.ProfilePatch{Slug: &slug}) }
		}
		b.create(t, p, "Taken")
		for _, c := range []struct {
			what string
			do   func() error
			want int
			fail stoa.Code
		}{
			{"begin", tx(b.BeginProvisioning), 1, ""},
			{"begin again", tx(b.BeginProvisioning), 0, stoa.ProvisioningInProgress},
			{"fail", tx(b.FailProvisioning), 1, ""},
			{"fail again", tx(b.FailProvisioning), 0, ""},
			{"begin once more", tx(b.BeginProvisioning), 1, ""},
			{"map", func() error { return b.mapHostname(t.Context(), s.ID) }, 1, ""},
			{"activate", tx(b.Activate), 1, ""},
			{"activate again", tx(b.Activate), 0, ""},
			{"move", slug("moved"), 1, ""},
			{"move to a place that is taken", slug("taken"), 0, stoa.HostnameTaken},
			{"rename", func() error {
				return b.renameMaster(t, s.ID, storedata.ProfilePatch{Name: ptr("Bakery 2")})
			}, 0, ""},
		} {
			told = nil
			wantCode(t, c.do(), c.fail)
			if len(told) != c.want || c.want > 0 && told[0] != s.ID.String() {
				t.Errorf("%s: told %v, want %d times", c.what, told, c.want)
			}
		}
	})
}

// TestRenameHoldsAtOnce checks that a rename is effective on its own replica when the
// call returns: the old address resolves to no store, and the new one to this store.
func TestRenameHoldsAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		at := "bakery"
		for i := range 20 {
			_, err := b.Resolve(t.Context(), at+".shops.test")
			testkit.Must(t, err)
			next := fmt.Sprintf("bakery-%d", i%5) // a store can have only a few released slugs
			_, err = b.Update(t.Context(), p, s.ID, nil, storedata.ProfilePatch{Slug: &next})
			testkit.Must(t, err)
			_, err = b.Resolve(t.Context(), at+".shops.test")
			wantCode(t, err, stoa.StoreNotFound)
			at = next
		}
	})
}
