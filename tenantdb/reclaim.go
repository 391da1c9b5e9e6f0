package tenantdb

import (
	"math"
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

// looks is how many stores are looked at, at most, for some that have a
// connection to give up.
const looks = 8 * candidates

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
// It looks at few stores, however many there are on the server: it is called
// every few milliseconds while a server has no connection left. What it does not
// find it finds soon.
//
// Of a few stores taken at random it is the one that was used least. The one
// unused for longest would be the wrong choice whenever many stores take
// turns: with one store more than there are connections, each would lose its
// own just before its turn.
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
			m.markDrained(p) // its connections were closed for their age
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
