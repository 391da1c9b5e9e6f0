package tenantdb

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
)

// counts are the counters that need no lock.
type counts struct {
	warm    atomic.Uint64 // leases of a pool that was open
	cold    atomic.Uint64 // leases that had to wait for it to open
	failed  atomic.Uint64 // leases whose wait failed
	refused atomic.Uint64 // leases that were refused at once

	unreconciled atomic.Uint64 // passes of Reconcile that failed

	// Seconds that callers waited for a pool to open and for a connection.
	// Callers that did not have to wait are not included.
	opening, waiting prometheus.Histogram
}

func newCounts() counts {
	histogram := func(what string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "stoa_tenant_wait_seconds",
			Help: "How long callers waited for a store's database: for it to be opened, or for a connection in use. " +
				"Those who need not wait are only in stoa_tenant_acquires_total.",
			ConstLabels: prometheus.Labels{"for": what},
			Buckets:     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		})
	}
	return counts{opening: histogram("open"), waiting: histogram("connection")}
}

// Stats describes what the manager has open and has done since it was created.
type Stats struct {
	Open     int // pools, including those that are being opened
	Leased   int // the number of these that have leases
	Embedded int // the number of these that are embedded databases
	Draining int // retired pools that still have a lease

	Evicted   uint64 // pools closed to make room
	Reclaimed uint64 // how often a store's idle connections were closed for another store
	Stale     uint64 // pools replaced because their credentials had changed without a notification

	Warm, Cold, Failed, Refused uint64 // outcomes of Acquire
	Dials, FailedDials          uint64 // connections attempted, and those that failed
	Unreconciled                uint64 // passes of Reconcile that failed

	Servers  []limit.Server // the busiest server first
	Breakers BreakerStats
}

// BreakerStats counts the circuit breakers by state.
type BreakerStats struct{ Closed, HalfOpen, Open int }

// Limits are the limits of a Manager on what it keeps open.
type Limits struct {
	Pools            int // of all stores
	Embedded         int // embedded databases
	ConnsPerServer   int
	ConnsPerStore    int
	ConnsPerEmbedded int
}

// Limits returns the limits of this process.
func (m *Manager) Limits() Limits {
	o := m.opts
	return Limits{
		Pools: o.MaxOpen, Embedded: o.MaxEmbedded, ConnsPerServer: o.ConnsPerServer, ConnsPerStore: o.ConnsPerStore, ConnsPerEmbedded: o.ConnsPerEmbedded,
	}
}

// Stats returns a snapshot of the statistics.
func (m *Manager) Stats() Stats {
	s, breakers := m.stats()
	for _, b := range breakers { // each breaker has its own lock
		switch b.circuit.State() {
		case gobreaker.StateClosed:
			s.Breakers.Closed++
		case gobreaker.StateHalfOpen:
			s.Breakers.HalfOpen++
		case gobreaker.StateOpen:
			s.Breakers.Open++
		}
	}
	s.Warm, s.Cold, s.Failed, s.Refused = m.counts.warm.Load(), m.counts.cold.Load(), m.counts.failed.Load(), m.counts.refused.Load()
	s.Unreconciled = m.counts.unreconciled.Load()
	s.Dials, s.FailedDials = m.conns.Dials()
	s.Servers = m.conns.Servers()
	return s
}

// stats returns the part of Stats that needs the manager's lock.
func (m *Manager) stats() (Stats, []*breaker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	breakers := make([]*breaker, 0, len(m.breakers))
	for _, b := range m.breakers {
		breakers = append(breakers, b)
	}
	return Stats{
		Open: len(m.pools), Leased: len(m.pools) - m.idle.Len(), Embedded: m.files.Active(embeddedFiles), Draining: m.draining,
		Evicted: m.evicted, Reclaimed: m.reclaimed.Load(), Stale: m.stale,
	}, breakers
}
