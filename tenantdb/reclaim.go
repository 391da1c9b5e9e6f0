package tenantdb

import (
	"math"
	"math/rand/v2"
	"time"
)

// halfLife is how long it takes until a use of a store counts half.
const halfLife = time.Minute

// candidates is how many stores are compared before one gives up its idle
// connections.
const candidates = 8

// usedAt weighs how often the pool was leased, of late above all.
func (p *pool) usedAt(now time.Time) float64 {
	return p.use * math.Exp2(-now.Sub(p.lastUsed).Seconds()/halfLife.Seconds())
}

// reclaim closes the idle connections of one store on server, so that another
// can have one there. The store stays at hand: its next caller connects anew,
// and need not ask the master. While every connection is in use there is
// nothing to close.
func (m *Manager) reclaim(server string) {
	if p := m.spare(server); p != nil {
		p.db.sqlx.SetMaxIdleConns(-1)
		p.db.sqlx.SetMaxIdleConns(m.opts.ConnsPerStore)
		m.reclaimed.Add(1)
	}
}

// spare finds a store on server with an idle connection: one that nobody has
// leased, or else one that has more connections than its callers use.
//
// Of a few stores taken at random it is the one that was used least. The one
// unused for longest would be the wrong choice whenever many stores take
// turns: with one store more than there are connections, each would lose its
// own just before its turn.
func (m *Manager) spare(server string) *pool {
	m.mu.Lock()
	defer m.mu.Unlock()
	var idle []*pool
	for place := m.idle.Front(); place != nil; place = place.Next() {
		if p := place.Value.(*pool); p.server == server && !p.drained {
			idle = append(idle, p)
		}
	}
	now := time.Now()
	var least *pool
	for compared := 0; compared < candidates && len(idle) > 0; {
		i := rand.IntN(len(idle)) //nolint:gosec // not a secret
		p := idle[i]
		idle[i] = idle[len(idle)-1]
		idle = idle[:len(idle)-1]
		if p.db.sqlx.Stats().Idle == 0 {
			p.drained = true // its connections were closed for their age
			continue
		}
		compared++
		if least == nil || p.usedAt(now) < least.usedAt(now) {
			least = p
		}
	}
	if least != nil {
		least.drained = true
		return least
	}
	for _, p := range m.pools {
		if p.server == server && p.leases > 0 && p.db.sqlx.Stats().Idle > 0 {
			return p
		}
	}
	return nil
}
