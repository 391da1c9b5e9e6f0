package tenantdb

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
)

// maxServerSeries is the number of database servers that have their own series.
// A deployment may use more servers than a monitoring system can handle.
const maxServerSeries = 10

// otherServers is the label of all other servers.
const otherServers = "other"

// These variables describe the manager's series. No series has a store as a
// label, because there would be as many series as stores.
var (
	poolsOpen = prometheus.NewDesc("stoa_tenant_pools_open", "Store databases at hand, open or opening.", nil, nil)
	leased    = prometheus.NewDesc("stoa_tenant_pools_leased", "Of these, in use.", nil, nil)
	embedded  = prometheus.NewDesc("stoa_tenant_pools_embedded", "Of these, embedded (SQLite): open files.", nil, nil)
	draining  = prometheus.NewDesc("stoa_tenant_pools_draining", "Store databases that were replaced or closed and still have a caller.", nil, nil)
	evicted   = prometheus.NewDesc("stoa_tenant_pools_evicted_total", "Store databases closed to make room for others.", nil, nil)
	reclaimed = prometheus.NewDesc("stoa_tenant_connections_reclaimed_total", "Times that a store gave its idle connections up to another on its server.", nil, nil)
	stale     = prometheus.NewDesc("stoa_tenant_pools_stale_total", "Store databases replaced by the sweep: their credentials had changed and no notification came.", nil, nil)
	missed    = prometheus.NewDesc("stoa_tenant_reconcile_failures_total", "Sweeps that could not compare credentials with the master database.", nil, nil)
	acquires  = prometheus.NewDesc("stoa_tenant_acquires_total", "Uses of a store's database: warm found it open, cold waited for it, failed waited in vain, refused met an open breaker.", []string{"outcome"}, nil)
	dials     = prometheus.NewDesc("stoa_tenant_dials_total", "Connections made to database servers.", []string{"outcome"}, nil)
	breakers  = prometheus.NewDesc("stoa_tenant_breakers", "Store databases by the state of their circuit breaker: those that are open are left alone.", []string{"state"}, nil)
	conns     = prometheus.NewDesc("stoa_tenant_server_connections", "Connections to the ten busiest database servers, and to all others together.", []string{"server"}, nil)
	waiting   = prometheus.NewDesc("stoa_tenant_server_waiting", "Callers who wait for a connection to that server.", []string{"server"}, nil)
)

// Describe implements prometheus.Collector.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		poolsOpen, leased, embedded, draining, evicted, reclaimed, stale, missed, acquires, dials, breakers, conns, waiting,
	} {
		ch <- d
	}
	m.counts.opening.Describe(ch)
	m.counts.waiting.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	s := m.Stats()
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge(poolsOpen, s.Open)
	gauge(leased, s.Leased)
	gauge(embedded, s.Embedded)
	gauge(draining, s.Draining)
	counter(evicted, s.Evicted)
	counter(reclaimed, s.Reclaimed)
	counter(stale, s.Stale)
	counter(missed, s.Unreconciled)
	counter(acquires, s.Warm, "warm")
	counter(acquires, s.Cold, "cold")
	counter(acquires, s.Failed, "failed")
	counter(acquires, s.Refused, "refused")
	counter(dials, s.Dials-s.FailedDials, "ok")
	counter(dials, s.FailedDials, "failed")
	gauge(breakers, s.Breakers.Closed, "closed")
	gauge(breakers, s.Breakers.HalfOpen, "half-open")
	gauge(breakers, s.Breakers.Open, "open")
	for _, server := range topServers(s.Servers) {
		gauge(conns, server.Open, server.Server)
		gauge(waiting, server.Waiting, server.Server)
	}
	m.counts.opening.Collect(ch)
	m.counts.waiting.Collect(ch)
}

// topServers adds up all servers except the busiest, which come first.
func topServers(servers []limit.Server) []limit.Server {
	if len(servers) <= maxServerSeries {
		return servers
	}
	other := limit.Server{Server: otherServers}
	for _, s := range servers[maxServerSeries:] {
		other.Open += s.Open
		other.Waiting += s.Waiting
	}
	return append(servers[:maxServerSeries:maxServerSeries], other)
}
