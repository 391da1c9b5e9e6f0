package app

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/webhooks"
)

// These variables describe what waits in the master database. Every replica reports the same.
var (
	jobsWaiting      = prometheus.NewDesc("stoa_jobs_waiting", "Jobs that are due and have not started, by queue; 1001 means more than 1,000.", []string{"queue"}, nil)
	jobsOldest       = prometheus.NewDesc("stoa_jobs_oldest_seconds", "How long the oldest of them has waited.", []string{"queue"}, nil)
	jobsByState      = prometheus.NewDesc("stoa_jobs", "Jobs that failed and are tried again (retryable), or have failed for good (discarded), at most about 1,000 of each.", []string{"state"}, nil)
	mailQueued       = prometheus.NewDesc("stoa_mails_queued", "Mails that wait to be sent or sent again, at most about 1,000 of each state.", nil, nil)
	purchasesPending = prometheus.NewDesc("stoa_purchases_pending", "Purchases that are not paid yet; 1001 means more than 1,000.", nil, nil)
	paymentWaiting   = prometheus.NewDesc("stoa_payment_events_waiting", "Events of the payment provider that are not applied; 1001 means more than 1,000.", nil, nil)
	paymentOldest    = prometheus.NewDesc("stoa_payment_events_oldest_seconds", "How long the oldest of them has waited.", nil, nil)
	eventsWaiting    = prometheus.NewDesc("stoa_events_unpublished", "Events that are not published yet; 1001 means more than 1,000.", nil, nil)
	webhooksWaiting  = prometheus.NewDesc("stoa_webhook_endpoints_waiting", "Webhook endpoints to which something is due; 1001 means more than 1,000.", nil, nil)
	webhooksOldest   = prometheus.NewDesc("stoa_webhook_oldest_seconds", "How long the first of them has been due.", nil, nil)
	backupsOverdue   = prometheus.NewDesc("stoa_backups_overdue", "Stores whose scheduled archive is due and not begun; 1001 means more than 1,000.", nil, nil)
	backupsOldest    = prometheus.NewDesc("stoa_backups_overdue_oldest_seconds", "How long the first of them has been due.", nil, nil)
)

var stateDescs = []*prometheus.Desc{
	jobsWaiting, jobsOldest, jobsByState, mailQueued, purchasesPending, paymentWaiting, paymentOldest, eventsWaiting, webhooksWaiting, webhooksOldest, backupsOverdue, backupsOldest,
}

const (
	// stateAge is how long what was read is served, however often it is asked for.
	stateAge = 15 * time.Second
	// stateTimeout limits the reading. A scrape that finds the master busy has no such series.
	stateTimeout = 2 * time.Second
)

// stateCollector reports what waits in the master database. It reads at most about a
// thousand rows of each kind by an index, when it is asked, and never by itself.
type stateCollector struct {
	master *masterdb.DB
	kinds  []string // of jobs that send mail

	mu     sync.Mutex
	readAt time.Time
	last   []prometheus.Metric
}

func newStateCollector(master *masterdb.DB, queue *jobs.Queue) *stateCollector {
	c := &stateCollector{master: master}
	for _, kind := range queue.Kinds() {
		if _, name, _ := strings.Cut(kind, "."); strings.HasPrefix(name, "mail_") {
			c.kinds = append(c.kinds, kind)
		}
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range stateDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector. While the master cannot be read, there are no
// series: old numbers would hide that.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.readAt) > stateAge {
		c.last, c.readAt = nil, time.Now()
		if !c.master.IsUnreachable() {
			ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
			defer cancel()
			if read, err := c.read(ctx); err == nil {
				c.last = read
			}
		}
	}
	for _, m := range c.last {
		ch <- m
	}
}

func (c *stateCollector) read(ctx context.Context) (out []prometheus.Metric, err error) {
	now := c.master.Now()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	age := func(d *prometheus.Desc, since *time.Time) {
		seconds := 0.0
		if since != nil {
			seconds = max(now.Sub(*since).Seconds(), 0)
		}
		gauge(d, seconds)
	}
	if err := c.readJobs(ctx, now, gauge); err != nil {
		return nil, err
	}
	paid, err := payments.ReadWaiting(ctx, c.master)
	if err != nil {
		return nil, err
	}
	gauge(purchasesPending, float64(paid.Purchases))
	gauge(paymentWaiting, float64(paid.Events))
	age(paymentOldest, paid.Oldest)
	sent, err := webhooks.ReadBacklog(ctx, c.master, now)
	if err != nil {
		return nil, err
	}
	gauge(eventsWaiting, float64(sent.Events))
	gauge(webhooksWaiting, float64(sent.Endpoints))
	age(webhooksOldest, sent.Oldest)
	overdue, err := backups.ReadOverdue(ctx, c.master, now)
	if err != nil {
		return nil, err
	}
	gauge(backupsOverdue, float64(overdue.Stores))
	age(backupsOldest, overdue.Oldest)
	return out, nil
}

func (c *stateCollector) readJobs(ctx context.Context, now time.Time, gauge func(*prometheus.Desc, float64, ...string)) error {
	queues, err := jobs.QueueStates(ctx, c.master, now)
	if err != nil {
		return err
	}
	for _, q := range queues {
		gauge(jobsWaiting, float64(q.Waiting), q.Queue)
		gauge(jobsOldest, q.Age(now).Seconds(), q.Queue)
	}
	counts, err := jobs.Counts(ctx, c.master)
	if err != nil {
		return err
	}
	for _, state := range []string{"retryable", "discarded"} {
		n, _ := jobs.Total(counts, state)
		gauge(jobsByState, float64(n), state)
	}
	mails := int64(0)
	for _, n := range counts {
		for _, kind := range c.kinds {
			if n.Kind == kind && (n.State == "available" || n.State == "retryable" || n.State == "scheduled") {
				mails += n.Jobs
			}
		}
	}
	gauge(mailQueued, float64(mails))
	return nil
}
