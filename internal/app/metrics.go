package app

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// skewGauge returns the metric of the clock's skew, which is positive while this
// machine's clock is ahead.
func skewGauge(master *masterdb.DB) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stoa_master_clock_skew_seconds",
		Help: "How far this machine's clock is ahead of the master database's, as last measured; negative is behind.",
	}, func() float64 { return master.Skew().Seconds() })
}

// masterMetrics returns the metrics of the master database's availability.
func (a *App) masterMetrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stoa_master_up", Help: "1 while the master database answers, 0 while it is unreachable.",
		}, func() float64 {
			if a.Master.IsUnreachable() {
				return 0
			}
			return 1
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "stoa_stale_lookups_total", Help: "Lookups of hostnames answered from the cache because the master database gave no answer.",
		}, func() float64 { return float64(a.Hostnames.StaleLookups()) }),
	}
}

// buildInfo returns the metric that names the release, so that a graph shows when it changed.
func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stoa_build_info", Help: "1, with the release and the version of Go as labels.",
		ConstLabels: prometheus.Labels{"version": stoa.Build(), "go": runtime.Version()},
	}, func() float64 { return 1 })
}

// newRegistry returns the registry of this process's metrics.
func (a *App) newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), a.Tenants, skewGauge(a.Master))
	r.MustRegister(a.masterMetrics()...)
	r.MustRegister(buildInfo(), a.Master.Metrics(), newStateCollector(a.Master, a.Queue))
	for _, metrics := range [][]prometheus.Collector{
		a.Queue.Metrics(), a.Ledger.Metrics(), a.Payments.Metrics(), a.Webhooks.Metrics(), a.Backups.Metrics(), a.Provisioning.Metrics(), a.mail.Metrics(), a.limits.Metrics(), a.tracer.Metrics(),
	} {
		r.MustRegister(metrics...)
	}
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stoa_listen_deaf",
		Help: "1 while the master's notifications of other replicas' changes do not arrive and the change log is read instead.",
	}, func() float64 {
		if a.Master.MissesNotifications() {
			return 1
		}
		return 0
	}))
	return r
}
