package backups

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa/internal/masterdb"
)

// metrics count the archives that this process makes and checks. No label names a store.
type metrics struct {
	made   *prometheus.CounterVec
	checks *prometheus.CounterVec
}

func newMetrics() metrics {
	return metrics{
		made: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_backups_total", Help: "Attempts to make an archive of a store: succeeded, retried after a fault, or failed for the last time.",
		}, []string{"outcome"}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "stoa_backup_checks_total", Help: "Checks of archives by outcome: they were read, or restored as a drill and compared.",
		}, []string{"check", "outcome"}),
	}
}

// Metrics returns the metrics of archives in this process.
func (s *Service) Metrics() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.made, s.metrics.checks}
}

// MaxWaiting is how many rows are counted.
const MaxWaiting = 1000

// Overdue is the archives that the schedules want and that are not begun.
type Overdue struct {
	Stores int64      // MaxWaiting + 1 means more than MaxWaiting
	Oldest *time.Time // since when the first of them is due; nil: there is none
}

// ReadOverdue reads what is overdue. What it reads does not grow with the number of stores.
func ReadOverdue(ctx context.Context, q masterdb.Querier, now time.Time) (o Overdue, err error) {
	err = q.Get(ctx, &o, `SELECT count(*) AS stores FROM (SELECT 1 AS one FROM backup_schedules WHERE next_at <= $1 ORDER BY next_at LIMIT $2) d`, now, MaxWaiting+1)
	if err != nil || o.Stores == 0 {
		return o, err
	}
	var first struct{ NextAt time.Time }
	err = q.Get(ctx, &first, `SELECT next_at FROM backup_schedules WHERE next_at <= $1 ORDER BY next_at LIMIT 1`, now)
	if errors.Is(err, masterdb.ErrNotFound) { // it was begun meanwhile
		return o, nil
	}
	o.Oldest = &first.NextAt
	return o, err
}
