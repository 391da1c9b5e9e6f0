package tenantdb

import (
	"math/rand/v2"
	"slices"
)

// serverPools are the pools of one server that may have an idle connection.
// They are guarded by Manager.mu.
type serverPools struct {
	idle   poolSet // have no leases; their idle connections were not closed since the last lease
	leased poolSet
}

// poolSet is a set with random sampling.
type poolSet struct{ all []*pool }

func (s *poolSet) add(p *pool) {
	p.set, p.at = s, len(s.all)
	s.all = append(s.all, p)
}

func (s *poolSet) remove(p *pool) {
	last := s.all[len(s.all)-1]
	s.all[p.at], last.at = last, p.at
	s.all[len(s.all)-1] = nil
	s.all = s.all[:len(s.all)-1]
	p.set = nil
}

// sample returns at most n random members.
func (s *poolSet) sample(n int) []*pool {
	n = min(n, len(s.all))
	for k := range n {
		s.swap(rand.IntN(len(s.all)-k), len(s.all)-1-k) //nolint:gosec // not a secret
	}
	return slices.Clone(s.all[len(s.all)-n:])
}

func (s *poolSet) swap(i, j int) {
	s.all[i], s.all[j] = s.all[j], s.all[i]
	s.all[i].at, s.all[j].at = i, j
}

// index moves p to the set that it belongs to. It must be called after each
// change of p's leases, place, server or connections.
func (m *Manager) index(p *pool) {
	s := m.servers[p.server]
	if s == nil {
		s = &serverPools{}
	}
	var want *poolSet
	switch {
	case p.server == "" || p.retired:
	case p.leases > 0:
		want = &s.leased
	case p.place != nil && !p.drained:
		want = &s.idle
	}
	if p.set == want {
		return
	}
	if p.set != nil {
		p.set.remove(p)
	}
	if want != nil {
		want.add(p)
		m.servers[p.server] = s
	} else if len(s.idle.all)+len(s.leased.all) == 0 {
		delete(m.servers, p.server)
	}
}
