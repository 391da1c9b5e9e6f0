package tenantdb

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
)

// adoptTimeout bounds how long an embedded database that is to be kept open
// waits for others to be closed.
const adoptTimeout = time.Second

// Adopt keeps a database that OpenUnleased has opened and that has become the
// store's: the next lease finds it open, with its connection. r is what it was
// opened with. It is the manager's from now on, which closes it where it has no
// use for it.
func (m *Manager) Adopt(ctx context.Context, store stoa.StoreID, r Registered, db *DB) {
	if db.sqlx.Stats().OpenConnections == 0 { // nothing that would be spared
		_ = db.Close()
		return
	}
	p := &pool{store: store, ready: make(chan struct{}), version: r.Version, lastUsed: time.Now()}
	close(p.ready)
	if r.Credentials.Engine != SQLite {
		p.server = serverOf(r.Credentials)
	} else if !m.takeFileSoon(ctx, p) {
		_ = db.Close()
		return
	}
	if m.keep(p, db) {
		return
	}
	_ = db.Close()
	if p.embedded {
		m.files.release(embeddedFiles)
	}
}

func (m *Manager) takeFileSoon(ctx context.Context, p *pool) bool {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	return m.takeFile(ctx, p) == nil
}

// keep makes p the store's pool, of db's connections, unless there is one.
func (m *Manager) keep(p *pool, db *DB) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.pools[p.store] != nil {
		return false
	}
	p.bulkhead = m.newBulkhead(p.store)
	p.db = &DB{Engine: db.Engine, sqlx: db.sqlx, engine: db.engine, credentials: db.credentials,
		dial: db.dial, dials: db.dials, bulkhead: p.bulkhead, account: p.bulkhead.account, own: db.own, pinned: db.pinned, log: db.log}
	p.db.protectPool()
	if p.embedded {
		p.bulkhead.limiter.setLimit(m.opts.ConnsPerEmbedded)
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
