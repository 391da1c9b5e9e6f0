package stores

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestMapHostname(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		_, errs := atOnce(4, func(int) (any, error) { return nil, b.mapHostname(t.Context(), s.ID) })
		testkit.Must(t, errors.Join(errs...))
		want := fmt.Sprint([]string{"bakery.shops.test"})
		if got := fmt.Sprint(b.hostnames(t, p, s.ID)); got != want {
			t.Errorf("hostnames %s, want %s", got, want)
		}
		// An operator changes the platform's domain: the store's hostname follows.
		moved := New(db, b.ledger, b.tenants, b.queue, hostnames.New(db, "Shops.Example", b.log), b.log)
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return moved.MapHostname(t.Context(), tx, s.ID) }))
		want = fmt.Sprint([]string{"bakery.shops.example"})
		if got := fmt.Sprint(b.hostnames(t, p, s.ID)); got != want {
			t.Errorf("hostnames %s, want %s", got, want)
		}
	})
}

func TestMapHostnameTaken(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, other := b.create(t, p, "Bakery"), b.create(t, p, "Other")
		b.exec(t, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, created_at)
			SELECT 'bakery.shops.test', id, true, true, created_at FROM stores WHERE id = $1`, other.ID)
		wantCode(t, b.mapHostname(t.Context(), s.ID), stoa.HostnameTaken)
		if got := b.hostnames(t, p, s.ID); got != nil {
			t.Errorf("hostnames %v", got)
		}
	})
}

func (b replica) hostnames(t *testing.T, p authz.Principal, id stoa.StoreID) []string {
	t.Helper()
	s, err := b.Get(t.Context(), p, id)
	testkit.Must(t, err)
	var names []string
	for _, h := range s.Hostnames {
		names = append(names, h.Hostname)
	}
	return names
}

func TestBeginProvisioning(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s := b.create(t, b.user(t), "Bakery")
		for from, want := range map[Status]stoa.Code{
			PendingDatabase: "", Provisioning: stoa.ProvisioningInProgress, Active: stoa.AlreadyConnected,
			Suspended: stoa.StoreSuspended, Deleting: stoa.StoreSuspended, Deleted: stoa.StoreNotFound,
		} {
			b.setStatus(t, s.ID, from)
			err := db.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.BeginProvisioning(t.Context(), tx, s.ID) })
			wantCode(t, err, want)
			if from == PendingDatabase {
				from = Provisioning
			}
			if got := b.status(t, s.ID); got != from {
				t.Errorf("the store is %s, want %s", got, from)
			}
		}
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			return b.BeginProvisioning(t.Context(), tx, stoa.NewID[stoa.StoreID]())
		})
		wantCode(t, err, stoa.StoreNotFound)
	})
}

// TestEndOfProvisioning checks that a run that ends late neither opens nor closes a store
// that has changed its state since.
func TestEndOfProvisioning(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s := b.create(t, b.user(t), "Bakery")
		for _, from := range []Status{PendingDatabase, Provisioning, Active, Suspended, Deleting, Deleted} {
			for to, end := range map[Status]func(*masterdb.Tx) error{
				PendingDatabase: func(tx *masterdb.Tx) error { return b.FailProvisioning(t.Context(), tx, s.ID) },
				Active:          func(tx *masterdb.Tx) error { return b.Activate(t.Context(), tx, s.ID) },
			} {
				b.setStatus(t, s.ID, from)
				testkit.Must(t, db.Tx(t.Context(), end))
				want := from
				if from == Provisioning {
					want = to
				}
				if got := b.status(t, s.ID); got != want {
					t.Errorf("from %s to %s: the store is %s, want %s", from, to, got, want)
				}
			}
		}
	})
}

func (b replica) status(t *testing.T, id stoa.StoreID) Status {
	t.Helper()
	var s Status
	testkit.Must(t, b.db.Get(t.Context(), &s, `SELECT status FROM stores WHERE id = $1`, id))
	return s
}
