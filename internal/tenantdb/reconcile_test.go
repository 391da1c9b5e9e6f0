package tenantdb_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// changeWithoutNotification changes credentials as a replica whose notification is lost
// does.
func (h *testManager) changeWithoutNotification(t *testing.T, store stoa.StoreID) {
	t.Helper()
	h.tx(t, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE store_databases SET credential_version = credential_version + 1 WHERE store_id = $1`, store)
		return err
	})
}

// TestReconcile checks that of seven pools, exactly those whose credentials
// changed are replaced, whichever query read their stores, and that existing
// leases are not affected.
func TestReconcile(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, master *masterdb.DB) {
		h := setupOn(t, master, tenantdb.Options{})
		var held []tenantdb.Lease
		var list []stoa.StoreID
		for range 7 {
			store := h.embedded(t)
			held, list = append(held, h.lease(t, store)), append(list, store)
		}
		testkit.Must(t, h.Reconcile(t.Context()))
		changed := map[int]bool{0: true, 3: true, 6: true}
		for i := range changed {
			h.changeWithoutNotification(t, list[i])
		}
		testkit.Must(t, h.ReconcileBy(t.Context(), 2))
		if n := h.Stats().Stale; n != uint64(len(changed)) {
			t.Errorf("%d pools gave way, want %d", n, len(changed))
		}
		for i, store := range list {
			now := h.lease(t, store)
			if (now.DB != held[i].DB) != changed[i] {
				t.Errorf("store %d: changed %t, a new pool %t", i, changed[i], now.DB != held[i].DB)
			}
			works(t, held[i])
			works(t, now)
			now.Release()
			held[i].Release()
		}
		testkit.Eventually(t, testkit.Timeout, "every store has a pool", func() bool { return h.open() == len(list) })

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if h.Reconcile(ctx) == nil {
			t.Error("a pass that was cut short says that all is well")
		}
	})
}

func TestReconcileWithoutMaster(t *testing.T) {
	t.Parallel()
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{DataDir: t.TempDir()})
	testkit.Must(t, m.Reconcile(t.Context()))
	testkit.Must(t, m.Close(t.Context()))
}

// TestSweepReconciles checks that the manager looks for changes by itself.
func TestSweepReconciles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, tenantdb.Options{})
		changed, other := h.embedded(t), h.embedded(t)
		for _, store := range []stoa.StoreID{changed, other} {
			h.lease(t, store).Release()
		}
		h.changeWithoutNotification(t, changed)
		<-time.After(35 * time.Second) // in the bubble's time
		if h.Has(changed) || !h.Has(other) {
			t.Errorf("after a sweep: changed %t, other %t", h.Has(changed), h.Has(other))
		}
	})
}
