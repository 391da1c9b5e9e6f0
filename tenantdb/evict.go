package tenantdb

import (
	"context"
	"time"
)

// evictOver closes the least recently used idle pools beyond the limit.
// Leased ones stay, even if that leaves more open.
func (m *Manager) evictOver() {
	for place := m.idle.Back(); place != nil && len(m.pools) > m.opts.MaxOpen; place = m.idle.Back() {
		m.evicted++
		m.retire(place.Value.(*pool))
	}
}

// embeddedFiles is what Manager.files calls the one server it knows.
const embeddedFiles = "embedded"

// takeFile waits until p may open its file.
func (m *Manager) takeFile(ctx context.Context, p *pool) error {
	if err := m.files.acquire(ctx, embeddedFiles); err != nil {
		return unavailable(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.embedded = true
	return nil
}

// reclaimFile closes the embedded database that nobody has used for longest,
// so that another can be opened.
func (m *Manager) reclaimFile(string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for place := m.idle.Back(); place != nil; place = place.Prev() {
		if p := place.Value.(*pool); p.embedded {
			m.evicted++
			m.retire(p)
			return true
		}
	}
	return false
}

// sweep closes pools that nobody has used for a while, and those whose
// credentials have changed unheard.
func (m *Manager) sweep(ctx context.Context) {
	ticker := time.NewTicker(m.opts.sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			m.evictIdleSince(time.Now().Add(-m.opts.IdleTimeout))
			m.tidy()
			_ = m.Reconcile(ctx) // counted, and tried again at the next tick
		case <-m.missed:
			_ = m.Reconcile(ctx)
		}
	}
}

// tidy takes back connections that stores had for a rush, and forgets the
// breakers of stores that are well.
func (m *Manager) tidy() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pools {
		p.bulkhead.limiter.shrink()
	}
	for store, b := range m.breakers {
		if m.pools[store] == nil && b.isCalm() {
			delete(m.breakers, store)
		}
	}
}

func (m *Manager) evictIdleSince(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for back := m.idle.Back(); back != nil && back.Value.(*pool).lastUsed.Before(t); back = m.idle.Back() {
		m.retire(back.Value.(*pool))
	}
}
