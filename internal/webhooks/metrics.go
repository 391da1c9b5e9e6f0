package webhooks

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa/internal/masterdb"
)

// metrics count what this process sends. No label names a store or an endpoint.
type metrics struct {
	attempts *prometheus.CounterVec
	disabled *prometheus.CounterVec
}

func newMetrics() metrics {
	return metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_webhook_deliveries_total", Help: "Attempts to deliver an event: accepted, refused by the endpoint's answer, or without an answer.",
		}, []string{"outcome"}),
		disabled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_webhook_endpoints_disabled_total", Help: "Endpoints that were disabled, by reason.",
		}, []string{"reason"}),
	}
}

// Metrics returns the metrics of the events that this process sends.
func (s *Service) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.attempts, s.metrics.disabled}
}

func (r *result) outcome() string {
	switch {
	case r.fault == "":
		return "accepted"
	case r.status == 0:
		return "no_answer"
	}
	return "refused"
}

// MaxWaiting is how many rows of one kind are counted.
const MaxWaiting = 1000

// Backlog is what waits to be published or sent.
type Backlog struct {
	Events    int64      // that are not published; MaxWaiting + 1 means more than MaxWaiting
	Endpoints int64      // that are due; as Events
	Oldest    *time.Time // since when the first of them is due; nil: there is none
}

// ReadBacklog reads what waits. What it reads does not grow with the number of events or
// endpoints.
func ReadBacklog(ctx context.Context, q masterdb.Querier, now time.Time) (w Backlog, err error) {
	err = q.Get(ctx, &w, `SELECT (SELECT count(*) FROM (SELECT 1 AS one FROM events WHERE position IS NULL AND type <> 'webhook.test' ORDER BY id LIMIT $2) e) AS events,
		(SELECT count(*) FROM (SELECT 1 AS one FROM webhook_endpoints WHERE next_at IS NOT NULL AND next_at <= $1 ORDER BY next_at LIMIT $2) d) AS endpoints`, now, MaxWaiting+1)
	if err != nil || w.Endpoints == 0 {
		return w, err
	}
	var first struct{ NextAt time.Time }
	err = q.Get(ctx, &first, `SELECT next_at FROM webhook_endpoints WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1`)
	if errors.Is(err, masterdb.ErrNotFound) { // it was served meanwhile
		return w, nil
	}
	w.Oldest = &first.NextAt
	return w, err
}
