package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outage watches how the master database is, for the log and the metrics.
type outage struct{ since atomic.Pointer[time.Time] }

// watchMaster says in the log, once each, that the master database is away and
// that it is back.
func (a *app) watchMaster() {
	ctx := context.Background()
	a.master.OnOutage(func(cause error) {
		now := time.Now()
		if cause != nil {
			a.outage.since.Store(&now)
			a.log.ErrorContext(ctx, "the master database does not answer: store fronts are served from what is known, everything else is refused",
				"atMost", a.cfg.ServeStale.String(), "err", cause)
			return
		}
		if since := a.outage.since.Swap(nil); since != nil {
			a.log.InfoContext(ctx, "the master database answers again", "away", now.Sub(*since).Round(time.Millisecond).String())
		}
	})
}

// masterMetrics tell how the master database is, and what an outage costs.
func (a *app) masterMetrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stoa_master_up", Help: "1 while the master database answers, 0 while it is away.",
		}, func() float64 {
			if a.master.IsAway() {
				return 0
			}
			return 1
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "stoa_stale_lookups_total", Help: "Requests at stores' hostnames whose store was found by what was known from before, since the master database did not answer.",
		}, func() float64 { return float64(a.registry.StaleAnswers()) }),
	}
}
