package tenantdb

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
)

// adoptTimeout limits how long Adopt waits for other embedded databases to be
// closed.
const adoptTimeout = time.Second

// Adopt takes over a database that OpenUnleased has opened and that now belongs
// to the store, so that the next lease finds it open. r is the record that it
// was opened with. The manager owns db afterwards and closes it if it cannot be
// used.
func (m *Manager) Adopt(ctx context.Context, store stoa.StoreID, r Registered, db *DB) {
	if db.sqlx.Stats().OpenConnections == 0 { // no connection could be kept
		_ = db.Close()
		return
	}
	p := &pool{store: store, ready: make(chan struct{}), version: r.Version, lastUsed: time.Now()}
	close(p.ready)
	if !r.Credentials.Engine.Embedded() {
		p.server = serverOf(r.Credentials)
	} else if !m.acquireFileSoon(ctx, p) {
		_ = db.Close()
		return
	}
	if m.keep(p, db) {
		return
	}
	_ = db.Close()
	if p.embedded {
		m.files.Release(embeddedFiles)
	}
}

func (m *Manager) acquireFileSoon(ctx context.Context, p *pool) bool {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	return m.acquireFile(ctx, p) == nil
}

// keep makes p, with db's connections, the store's pool, unless the store
// already has one.
func (m *Manager) keep(p *pool, db *DB) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.pools[p.store] != nil {
		return false
	}
	p.bulkhead = m.newBulkhead(p.store)
	p.db = &DB{Engine: db.Engine, sqlx: db.sqlx, engine: db.engine, dialect: db.dialect, credentials: db.credentials,
		dial: db.dial, dials: db.dials, bulkhead: p.bulkhead, account: p.bulkhead.account, own: db.own, pinned: db.pinned, log: db.log}
	p.db.protectPool()
	m.trace(p.db, p.store)
	m.followPasswords(p.db, p.store)
	m.followMoves(p.db, p.store, p.version)
	if p.embedded {
		p.bulkhead.limiter.SetLimit(m.opts.ConnsPerEmbedded)
	}
	p.bulkhead.conns, p.bulkhead.server = m.conns, p.server
	m.limit(p.db)
	m.pools[p.store] = p
	m.drain.Add(1)
	p.place = m.idle.PushFront(p)
	m.index(p)
	m.evictOver()
	m.notifyIdle(p)
	return true
}
