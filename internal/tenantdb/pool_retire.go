package tenantdb

import (
	"github.com/stoahq/stoa"
)

// Forget retires the store's pool. Existing leases finish on it. The next
// Acquire opens a new pool with the credentials that are current then. Forget
// also resets the circuit breaker, whose failures belong to the old
// credentials.
func (m *Manager) Forget(store stoa.StoreID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(store)
}

func (m *Manager) forget(store stoa.StoreID) {
	m.changes++
	m.credentials.rows.Invalidate(store)
	if p := m.pools[store]; p != nil {
		m.retire(p)
	}
	delete(m.breakers, store)
}

// retire removes p from the map and closes it when its last lease ends.
func (m *Manager) retire(p *pool) {
	if p.retired {
		return
	}
	p.retired = true
	m.draining++
	m.retiring[p.store]++
	delete(m.pools, p.store)
	if p.bulkhead.breaker.isHealthy() {
		delete(m.breakers, p.store)
	}
	if p.place != nil {
		m.idle.Remove(p.place)
		p.place = nil
	}
	m.index(p)
	if p.leases == 0 {
		m.closePool(p)
	}
}

// closePool closes p's connections without holding the manager's lock, because
// a server may answer slowly.
func (m *Manager) closePool(p *pool) {
	if p.embedded {
		m.files.MarkClosing(embeddedFiles)
	}
	closing := p.embedded
	go func() {
		defer m.drain.Done()
		<-p.ready
		if p.db != nil {
			_ = stoa.CatchPanic(p.db.sqlx.Close) // p's resources are released in any case
		}
		if closing {
			m.files.MarkClosed(embeddedFiles)
		} else if p.embedded {
			m.files.Release(embeddedFiles) // its file was still being opened
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.draining--
		if m.retiring[p.store]--; m.retiring[p.store] == 0 {
			delete(m.retiring, p.store)
		}
	}()
}
