package tenantdb

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
)

// Lease is the permission to use a store's database until Release.
type Lease struct {
	*DB
	hold *hold
}

// hold is what all copies of a lease share.
type hold struct {
	manager *Manager
	pool    *pool
	ended   atomic.Bool
}

// Acquire leases the store's database and opens it if necessary. If several
// callers need it at the same time, one opens it and the others wait. Acquire
// fails with tenant_unavailable if the database cannot be reached and with
// store_pending_database if the store has none.
func (m *Manager) Acquire(ctx context.Context, store stoa.StoreID) (Lease, error) {
	p, opener, err := m.lease(store)
	if err != nil {
		m.counts.refused.Add(1)
		return Lease{}, err
	}
	if opener {
		// The caller's cancellation must not end the opening, because others
		// wait for it too.
		go m.open(context.WithoutCancel(ctx), p)
	}
	if !opener && p.isReady() {
		m.counts.warm.Add(1)
	} else if err := m.await(ctx, p); err != nil {
		m.release(p)
		return Lease{}, err
	}
	if p.err != nil {
		m.release(p)
		return Lease{}, p.err
	}
	return Lease{DB: p.db, hold: &hold{manager: m, pool: p}}, nil
}

// isReady reports whether p is open. A pool that failed to open is removed from
// the map before it is ready.
func (p *pool) isReady() bool {
	select {
	case <-p.ready:
		return p.err == nil
	default:
		return false
	}
}

// await waits until p is open or has failed to open.
func (m *Manager) await(ctx context.Context, p *pool) error {
	begin := time.Now()
	defer func() { m.counts.opening.Observe(time.Since(begin).Seconds()) }()
	select {
	case <-p.ready:
	case <-ctx.Done():
		m.counts.failed.Add(1)
		return unavailable(ctx.Err())
	}
	if p.err != nil {
		m.counts.failed.Add(1)
	} else {
		m.counts.cold.Add(1)
	}
	return nil
}

// Release ends the lease. A second call does nothing.
func (l Lease) Release() {
	if !l.hold.ended.Swap(true) {
		l.hold.manager.release(l.hold.pool)
	}
}

// lease adds a lease to the store's pool. The caller that finds no pool creates it
// and must open it.
func (m *Manager) lease(store stoa.StoreID) (p *pool, opener bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, false, unavailable(ErrClosed)
	}
	p = m.pools[store]
	if p == nil {
		if b := m.breakers[store]; b != nil && b.isOpen() {
			return nil, false, b.refusal()
		}
		p = &pool{store: store, bulkhead: m.newBulkhead(store), ready: make(chan struct{})}
		m.pools[store] = p
		m.drain.Add(1)
		m.evictOver()
		opener = true
	} else if p.bulkhead.breaker.isOpen() {
		return nil, false, p.bulkhead.breaker.refusal()
	}
	if p.place != nil {
		m.idle.Remove(p.place)
		p.place = nil
	}
	p.drained = false
	p.leases++
	m.index(p)
	return p, opener, nil
}

// newBulkhead returns the bulkhead of a store's new pool, which keeps the breaker of
// the previous pool.
func (m *Manager) newBulkhead(store stoa.StoreID) *bulkhead {
	b := m.breakers[store]
	if b == nil {
		b = newBreaker(m.opts.Cooldown)
		m.breakers[store] = b
	}
	return &bulkhead{
		breaker: b, limiter: limit.NewConcurrency(m.opts.ConnsPerStore), wait: m.opts.WaitTimeout, statement: m.opts.StatementTimeout,
		waited: m.counts.waiting, account: account{m.opts.Memory, ratelimit.ID("answers", store)},
	}
}

func (m *Manager) release(p *pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.leases--
	if p.leases > 0 {
		return
	}
	now := time.Now()
	p.use, p.lastUsed = p.usedAt(now)+1, now
	if p.retired {
		m.closePool(p)
		return
	}
	p.place = m.idle.PushFront(p)
	m.index(p)
	m.evictOver()
	m.notifyIdle(p)
}
