package tenantdb

import (
	"database/sql"
	"math"
	"time"
)

// useHalfLife is the time after which a past use of a store counts half.
const useHalfLife = time.Minute

// looks is the maximum number of stores that one search examines. With the default
// limit of connections these are most of the stores that have one.
const looks = 64

// usedAt returns how often the pool was leased. Recent leases count most.
func (p *pool) usedAt(now time.Time) float64 {
	return p.use * math.Exp2(-now.Sub(p.lastUsed).Seconds()/useHalfLife.Seconds())
}

// maxSearches limits the searches for one connection on a server with many stores.
const maxSearches = 16

// reclaim closes idle connections of one store on server, so that another
// store can have one, and reports whether it found any. The store's pool stays
// open: its next caller connects again without reading the master.
func (m *Manager) reclaim(server string) bool {
	for range m.searches(server) {
		if p, keep := m.spare(server); p != nil {
			m.closeIdle(p, keep)
			m.reclaimed.Add(1)
			return true
		}
	}
	return false
}

// closeIdle closes all of p's idle connections except some.
func (m *Manager) closeIdle(p *pool, keep int) {
	p.db.sqlx.SetMaxIdleConns(keep) // database/sql closes the others at once
	p.db.sqlx.SetMaxIdleConns(m.opts.ConnsPerStore)
}

// searches returns how often spare must examine some of the server's stores until
// it has examined about as many as there are.
func (m *Manager) searches(server string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.servers[server]
	if s == nil {
		return 0
	}
	return min(1+(len(s.idle.all)+len(s.leased.all))/looks, maxSearches)
}

// notifyIdle notifies the limiters that p, or one of its connections, may have
// become idle, because callers may be waiting.
func (m *Manager) notifyIdle(p *pool) {
	switch {
	case p.embedded:
		m.files.Idle(embeddedFiles)
	case p.server != "":
		m.conns.Idle(p.server)
	}
}

// spare returns the pool of a store on server with an idle connection, and how
// many idle connections the store keeps: a pool that has more connections than
// its callers need or, if there is none, a pool without leases, which keeps none.
// It returns nil if it finds neither.
//
// It examines few stores, regardless of how many are on the server, because it
// holds the manager's lock and runs each time a connection becomes idle while
// callers wait.
//
// It compares random stores and chooses the least used one. Where few stores are
// busy, this is usually one that was connected for a single request. The least
// recently used one would be wrong if many stores are used in turn: with one
// store more than there are connections, each store would lose its connection
// just before its next use.
func (m *Manager) spare(server string) (_ *pool, keep int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.servers[server]
	if s == nil {
		return nil, 0
	}
	now := time.Now()
	var least, leased *pool
	for _, p := range s.idle.sample(looks) {
		m.looked++
		stats := p.db.sqlx.Stats()
		if stats.Idle == 0 {
			m.markDrained(p) // its connections were closed because of their age
			continue
		}
		if keep, surplus := p.needs(stats); surplus {
			return p, keep
		}
		if least == nil || p.usedAt(now) < least.usedAt(now) {
			least = p
		}
	}
	for _, p := range s.leased.sample(looks) {
		m.looked++
		stats := p.db.sqlx.Stats()
		if keep, surplus := p.needs(stats); surplus {
			return p, keep
		}
		if stats.Idle > 0 {
			leased = p
		}
	}
	if least == nil {
		return leased, 0
	}
	m.markDrained(least)
	return least, 0
}

// needs returns how many idle connections p's callers need, and whether p has
// more. A rush leaves connections behind that no later caller needs.
func (p *pool) needs(stats sql.DBStats) (idle int, surplus bool) {
	if stats.OpenConnections < 2 {
		return stats.Idle, false
	}
	idle = max(p.bulkhead.limiter.Slots()-stats.InUse, 0)
	return idle, stats.Idle > idle
}

func (m *Manager) markDrained(p *pool) {
	p.drained = true
	m.index(p)
}
