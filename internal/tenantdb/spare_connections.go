package tenantdb

import (
	"math"
	"time"
)

// useHalfLife is the time after which a past use of a store counts half.
const useHalfLife = time.Minute

// candidates is the number of stores that are compared before one of them loses
// its idle connections.
const candidates = 8

// usedAt returns how often the pool was leased. Recent leases count most.
func (p *pool) usedAt(now time.Time) float64 {
	return p.use * math.Exp2(-now.Sub(p.lastUsed).Seconds()/useHalfLife.Seconds())
}

// looks is the maximum number of stores that one search examines.
const looks = 8 * candidates

// maxSearches limits the searches for one connection on a server with many stores.
const maxSearches = 16

// reclaim closes the idle connections of one store on server, so that another
// store can have one, and reports whether it found any. The store's pool stays
// open: its next caller connects again without reading the master.
func (m *Manager) reclaim(server string) bool {
	for range m.searches(server) {
		if p := m.spare(server); p != nil {
			p.db.sqlx.SetMaxIdleConns(-1)
			p.db.sqlx.SetMaxIdleConns(m.opts.ConnsPerStore)
			m.reclaimed.Add(1)
			return true
		}
	}
	return false
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

// spare returns the pool of a store on server with an idle connection: a pool
// without leases or, if there is none, a pool that has more connections than
// its callers use. It returns nil if it finds neither.
//
// It examines few stores, regardless of how many are on the server, because it
// holds the manager's lock and runs each time a connection becomes idle while
// callers wait.
//
// It compares a few random stores and chooses the least used one. The least
// recently used one would be wrong if many stores are used in turn: with one
// store more than there are connections, each store would lose its connection
// just before its next use.
func (m *Manager) spare(server string) *pool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.servers[server]
	if s == nil {
		return nil
	}
	now := time.Now()
	var least *pool
	compared := 0
	for _, p := range s.idle.sample(looks) {
		m.looked++
		if p.db.sqlx.Stats().Idle == 0 {
			m.markDrained(p) // its connections were closed because of their age
			continue
		}
		if least == nil || p.usedAt(now) < least.usedAt(now) {
			least = p
		}
		if compared++; compared == candidates {
			break
		}
	}
	if least != nil {
		m.markDrained(least)
		return least
	}
	for _, p := range s.leased.sample(looks) {
		m.looked++
		if p.db.sqlx.Stats().Idle > 0 {
			return p
		}
	}
	return nil
}

func (m *Manager) markDrained(p *pool) {
	p.drained = true
	m.index(p)
}
