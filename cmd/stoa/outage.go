package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outage is the state of the master database for the log.
type outage struct{ since atomic.Pointer[time.Time] }

// watchMaster logs the beginning and the end of each outage of the master database.
func (a *app) watchMaster() {
	ctx := context.Background()
	a.master.OnOutage(func(cause error) {
		now := time.Now()
		if cause != nil {
			a.outage.since.Store(&now)
			a.log.ErrorContext(ctx, "master database unreachable: cached stores are served, other requests get 503",
				"serve_stale", a.cfg.ServeStale.String(), "err", cause)
			return
		}
		if since := a.outage.since.Swap(nil); since != nil {
			a.log.InfoContext(ctx, "master database reachable again", "outage", now.Sub(*since).Round(time.Millisecond).String())
		}
	})
}

// masterMetrics returns the metrics of the master database's availability.
func (a *app) masterMetrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stoa_master_up", Help: "1 while the master database answers, 0 while it is unreachable.",
		}, func() float64 {
			if a.master.IsUnreachable() {
				return 0
			}
			return 1
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "stoa_stale_lookups_total", Help: "Lookups of hostnames answered from the cache because the master database gave no answer.",
		}, func() float64 { return float64(a.hostnames.StaleLookups()) }),
	}
}
