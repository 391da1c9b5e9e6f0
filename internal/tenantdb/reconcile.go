package tenantdb

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
)

const (
	// reconcileChunk is the number of stores that one query reads.
	reconcileChunk = 500
	// reconcileTimeout limits one pass over all pools.
	reconcileTimeout = 20 * time.Second
)

// Reconcile retires every pool whose credentials differ from those in the
// master database. Notifications normally do the same at once; Reconcile covers
// a notification that was lost. It does nothing for a manager without a master.
func (m *Manager) Reconcile(ctx context.Context) error {
	if m.master == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	return m.reconcile(ctx, reconcileChunk)
}

func (m *Manager) reconcile(ctx context.Context, size int) error {
	open := m.loaded()
	for len(open) > 0 {
		chunk := open[:min(size, len(open))]
		open = open[len(chunk):]
		versions, err := m.versions(ctx, chunk)
		if err != nil {
			if ctx.Err() == nil {
				m.counts.unreconciled.Add(1)
			}
			return err
		}
		m.retireStale(chunk, versions)
	}
	return nil
}

// loadedPool is a pool with a copy of the version of its credentials, because
// the pool's own field is guarded by the lock.
type loadedPool struct {
	*pool
	version int64
}

// loaded returns the pools whose credentials are known.
func (m *Manager) loaded() []loadedPool {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]loadedPool, 0, len(m.pools))
	for _, p := range m.pools {
		if p.version > 0 {
			list = append(list, loadedPool{p, p.version})
		}
	}
	return list
}

// versions reads the current credential versions of the pools' stores.
func (m *Manager) versions(ctx context.Context, pools []loadedPool) (map[stoa.StoreID]int64, error) {
	marks, args := make([]string, len(pools)), make([]any, len(pools))
	for i, p := range pools {
		marks[i], args[i] = "$"+strconv.Itoa(i+1), p.store
	}
	var rows []struct {
		StoreID           stoa.StoreID
		CredentialVersion int64
	}
	err := m.master.Select(ctx, &rows, `SELECT store_id, credential_version FROM store_databases
		WHERE store_id IN (`+strings.Join(marks, ", ")+`)`, args...)
	versions := make(map[stoa.StoreID]int64, len(rows))
	for _, row := range rows {
		versions[row.StoreID] = row.CredentialVersion
	}
	return versions, err
}

// retireStale retires those of the pools that still use a version other than
// the master's. The versions were read after the pools were listed, so a pool
// that was opened meanwhile is not treated as an old one.
func (m *Manager) retireStale(pools []loadedPool, versions map[stoa.StoreID]int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range pools {
		if m.pools[p.store] == p.pool && versions[p.store] != p.version {
			m.stale++
			m.forget(p.store)
		}
	}
}
