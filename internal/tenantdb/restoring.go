package tenantdb

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// closedPoll is the interval at which AwaitClosed looks.
const closedPoll = 10 * time.Millisecond

// BeginRestore closes a store's database to all who lease it: Acquire fails with
// tenant_unavailable until EndRestore. When tx has committed, every replica retires its
// open pool: see Forget. It fails with store_pending_database if the store has none.
func BeginRestore(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	return setRestoring(ctx, tx, store, true)
}

// EndRestore opens the database again.
func EndRestore(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	return setRestoring(ctx, tx, store, false)
}

func setRestoring(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, restoring bool) error {
	n, err := tx.Exec(ctx, `UPDATE store_databases SET restoring = $2, credential_version = credential_version + 1, updated_at = $3
		WHERE store_id = $1 AND credentials <> ''`, store, restoring, tx.Now)
	if err != nil {
		return err
	}
	if n == 0 {
		return stoa.Errorf(stoa.StorePendingDatabase, "This store has no database yet. Connect one first.")
	}
	return notifyCredentials(tx, store)
}

// errRestoring is the error of leases while a store is restored.
func errRestoring() *stoa.Error {
	e := stoa.Errorf(stoa.TenantUnavailable, "This store is being restored from an archive. Try again shortly.")
	e.RetryAfter = migrationRetryAfter
	return e
}

// AwaitClosed waits until this process uses a store's database no more. The caller has
// called Forget, and sees to it that no new lease begins.
func (m *Manager) AwaitClosed(ctx context.Context, store stoa.StoreID) error {
	tick := time.NewTicker(closedPoll)
	defer tick.Stop()
	for m.uses(store) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (m *Manager) uses(store stoa.StoreID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pools[store] != nil || m.retiring[store] > 0
}
