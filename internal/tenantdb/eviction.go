package tenantdb

import (
	"context"
	"time"
)

// evictOver closes the least recently used idle pools beyond MaxOpen. Leased pools
// stay open, even beyond the limit.
func (m *Manager) evictOver() {
	for place := m.idle.Back(); place != nil && len(m.pools) > m.opts.MaxOpen; place = m.idle.Back() {
		m.evicted++
		m.retire(place.Value.(*pool))
	}
}

// embeddedFiles is the name of the only server whose connections Manager.files
// limits.
const embeddedFiles = "embedded"

// acquireFile waits until p may open its file, or ctx is done.
func (m *Manager) acquireFile(ctx context.Context, p *pool) error {
	if err := m.files.Acquire(ctx, embeddedFiles); err != nil {
		return unavailable(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.embedded = true
	return nil
}

// reclaimFile closes the least recently used idle embedded database, so that
// another can be opened, and reports whether there was one.
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

// sweep periodically closes unused pools and pools whose credentials have changed
// without a notification. It runs until ctx is done.
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
			_ = m.Reconcile(ctx) // a failure is counted, and retried at the next tick
		case <-m.missed:
			_ = m.Reconcile(ctx)
		}
	}
}

// tidy removes slots that stores no longer need and breakers that hold no failure.
func (m *Manager) tidy() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pools {
		p.bulkhead.limiter.Shrink()
	}
	for store, b := range m.breakers {
		if m.pools[store] == nil && b.isHealthy() {
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
