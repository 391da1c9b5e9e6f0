package masterdb

import "github.com/prometheus/client_golang/prometheus"

// These variables describe the series of the connections to the master.
var (
	poolConns    = prometheus.NewDesc("stoa_master_connections", "Connections to the master database by state.", []string{"state"}, nil)
	poolLimit    = prometheus.NewDesc("stoa_master_connections_limit", "How many there may be.", nil, nil)
	poolAcquires = prometheus.NewDesc("stoa_master_acquires_total", "Times that a connection to the master database was taken from the pool; on PostgreSQL only.", nil, nil)
	poolWaits    = prometheus.NewDesc("stoa_master_waits_total", "Times that a caller had to wait for a connection to the master database.", nil, nil)
	poolWaited   = prometheus.NewDesc("stoa_master_wait_seconds_total", "How long callers waited for one.", nil, nil)
)

// Metrics returns the metrics of the connections of this process. They read no database.
func (db *DB) Metrics() prometheus.Collector { return poolCollector{db} }

type poolCollector struct{ db *DB }

// Describe implements prometheus.Collector.
func (poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolConns, poolLimit, poolAcquires, poolWaits, poolWaited} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	if c.db.pool != nil {
		s := c.db.pool.Stat()
		gauge(poolConns, float64(s.AcquiredConns()), "in_use")
		gauge(poolConns, float64(s.IdleConns()), "idle")
		gauge(poolLimit, float64(s.MaxConns()))
		counter(poolAcquires, float64(s.AcquireCount()))
		counter(poolWaits, float64(s.EmptyAcquireCount()))
		counter(poolWaited, s.EmptyAcquireWaitTime().Seconds())
		return
	}
	read, write := c.db.read.Stats(), c.db.write.Stats()
	gauge(poolConns, float64(read.InUse+write.InUse), "in_use")
	gauge(poolConns, float64(read.Idle+write.Idle), "idle")
	gauge(poolLimit, float64(read.MaxOpenConnections+write.MaxOpenConnections))
	counter(poolWaits, float64(read.WaitCount+write.WaitCount))
	counter(poolWaited, (read.WaitDuration + write.WaitDuration).Seconds())
}
