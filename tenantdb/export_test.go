package tenantdb

import (
	"context"
	"database/sql"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
)

// What the tests of this package reach that nobody else may.

var (
	IsPublic = isPublic
	Unseal   = unseal
	AtLeast  = atLeast

	TopServers = topServers
)

func (c Credentials) Seal(ring *keyring.Ring, store stoa.StoreID) (string, error) {
	return c.seal(ring, store)
}

func (d *Dialer) Check(network, address string, plaintext bool) error {
	return d.check(network, address, plaintext)
}

// Wrap puts wrap around one of the manager's engines.
func (m *Manager) Wrap(name EngineName, wrap func(Engine) Engine) {
	m.engines[name] = wrap(m.engines[name])
}

// Leases is how many callers hold the store's pool or wait for it.
func (m *Manager) Leases(store stoa.StoreID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pools[store]; p != nil {
		return p.leases
	}
	return 0
}

// Has reports whether the store's pool is open or opening.
func (m *Manager) Has(store stoa.StoreID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pools[store] != nil
}

func (m *Manager) EvictIdleSince(t time.Time) { m.evictIdleSince(t) }

// SQL is the pool below db.
func (db *DB) SQL() *sql.DB { return db.sqlx.DB }

// ReconcileBy is Reconcile with so many stores in one query.
func (m *Manager) ReconcileBy(ctx context.Context, size int) error { return m.reconcile(ctx, size) }
