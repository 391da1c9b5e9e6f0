package tenantdb_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSaveRetiresThePool checks that new credentials are used once the
// transaction that saves them has committed, and not before or without a
// commit.
func TestSaveRetiresThePool(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, master *masterdb.DB) {
		h := setupOn(t, master, tenantdb.Options{})
		store, other := h.embedded(t), h.embedded(t)
		before, untouched := h.lease(t, store), h.lease(t, other)
		defer before.Release()
		defer untouched.Release()

		changed := errors.New("changed my mind")
		err := master.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if err := h.Save(t.Context(), tx, store, credential.ManagedSQLite(store)); err != nil {
				return err
			}
			return changed
		})
		if !errors.Is(err, changed) {
			t.Fatal(err)
		}
		h.same(t, store, before, true)
		h.save(t, store, credential.ManagedSQLite(store))
		h.same(t, store, before, false)
		works(t, before)
		h.same(t, other, untouched, true)
	})
}

// same fails the test unless the store's pool is the one of that lease if want
// is true, or another one if want is false.
func (h *testManager) same(t *testing.T, store stoa.StoreID, as tenantdb.Lease, want bool) {
	t.Helper()
	if h.isSame(t, store, as) != want {
		t.Errorf("the pool is the one of before: %t, want %t", !want, want)
	}
}

func (h *testManager) isSame(t *testing.T, store stoa.StoreID, as tenantdb.Lease) bool {
	t.Helper()
	now := h.lease(t, store)
	defer now.Release()
	return now.DB == as.DB
}

// TestOtherReplicasLearnOfNewCredentials checks that a replica that did not
// change the credentials itself stops using the old ones. In other systems,
// rotated credentials conflicted with the pool cache.
func TestOtherReplicasLearnOfNewCredentials(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	url := masterdbtest.URL(t, masterdb.Postgres)
	b := setupOn(t, masterdbtest.Open(t, url), tenantdb.Options{})
	store := b.embedded(t)
	listening := make(chan struct{}, 10)
	b.master.Subscribe("another_topic", func(string) {}, func() { listening <- struct{}{} })
	ctx, stop := context.WithCancel(context.Background())
	var listener sync.WaitGroup
	listener.Go(func() { b.master.Listen(ctx, slog.New(slog.DiscardHandler)) })
	t.Cleanup(func() {
		stop()
		listener.Wait()
	})
	<-listening // what was open before is retired by now, because it may have changed without a notification

	old := b.lease(t, store)
	defer old.Release()
	a := masterdbtest.Open(t, url)
	say := func(payload string) {
		t.Helper()
		if err := a.Tx(t.Context(), func(tx *masterdb.Tx) error {
			return tx.Notify("stoa_credentials", payload)
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, nonsense := range []string{"", "x", "00000000-0000-0000-0000-000000000000", stoa.NewID[stoa.StoreID]().String()} {
		say(nonsense)
	}
	b.same(t, store, old, true)
	manager := tenantdb.NewManager(a, b.ring, tenantdb.Options{DataDir: t.TempDir()})
	defer manager.Close(context.Background()) //nolint:errcheck // it has opened nothing
	if err := a.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return manager.Save(t.Context(), tx, store, credential.ManagedSQLite(store))
	}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Timeout, "the store has another pool", func() bool { return !b.isSame(t, store, old) })
	works(t, old)
}
