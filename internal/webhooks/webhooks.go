// Package webhooks tells the owners' programs what happens. It publishes the events of package
// events in one order, serves them to those who ask, and sends them to endpoints: addresses
// that owners, and operators for the whole platform, have chosen.
//
// An endpoint remembers the position up to which it was served, so that a million events that
// wait for an endpoint cost no row. Each process claims endpoints that are due, one lease per
// endpoint, and sends to each of them independently of the others. A delivery is repeated until
// the endpoint accepts it; a process that is killed after it has sent leaves the delivery to be
// sent again, with the same webhook-id. The form is that of Standard Webhooks
// (https://www.standardwebhooks.com). docs/adr/0038-events-and-webhooks.md has the reasons.
package webhooks

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tracing"
)

// Options configure a Service.
type Options struct {
	Process  string // the name of this process, for leases
	Ring     *keyring.Ring
	Dialer   dial.Dialer // makes the connections to endpoints
	Mail     *mail.Sender
	URL      string // of the platform, for mails
	Limit    int    // endpoints of a store; 0 is no limit
	Log      *slog.Logger
	Schedule Schedule        // zero: the default
	Tracer   *tracing.Tracer // nil: deliveries have no spans
}

// Schedule are the times of deliveries.
type Schedule struct {
	// Timeout limits one attempt, from the name's resolution to the answer. Default 15 s.
	Timeout time.Duration
	// Retries are the pauses before each further attempt of a delivery, each ± 20 %. After the
	// last one the delivery has failed. By default they take three days.
	Retries []time.Duration
	// Backoffs are the pauses of an endpoint after each further round without a success. The
	// last one is repeated. Only one event is sent in the next round.
	Backoffs []time.Duration
	// DisableAfter is how long an endpoint may fail before it is disabled. Default 72 h.
	DisableAfter time.Duration
	// Poll is how often a process looks for work that it was not told of. Default 30 s.
	Poll time.Duration
}

var defaults = Schedule{
	Timeout: 15 * time.Second,
	Retries: []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
		14 * time.Hour, 14 * time.Hour, 16 * time.Hour,
	},
	Backoffs:     []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute},
	DisableAfter: 72 * time.Hour,
	Poll:         30 * time.Second,
}

// Service publishes and sends events. It is safe for concurrent use.
type Service struct {
	db      *masterdb.DB
	ledger  *credits.Ledger
	queue   *jobs.Queue
	opts    Options
	process *lease.Process
	client  *http.Client
	signals signals
	metrics metrics

	changed changedAccounts
	lanes   [2]lane // quick and slow
}

// New returns the service on db. It follows the changes of l's accounts: call New before l is
// used.
func New(db *masterdb.DB, l *credits.Ledger, queue *jobs.Queue, opts Options) *Service {
	if opts.Schedule.Timeout == 0 {
		opts.Schedule = defaults
	}
	s := &Service{
		db: db, ledger: l, queue: queue, opts: opts, process: lease.NewProcess(opts.Process),
		metrics: newMetrics(),
		client:  newClient(opts.Dialer, opts.Schedule.Timeout),
		signals: signals{followers: map[chan struct{}]bool{}, work: make(chan struct{}, 1)},
		changed: changedAccounts{stores: map[stoa.StoreID]bool{}},
		lanes:   [2]lane{newLane(false, quickEndpoints), newLane(true, slowEndpoints)},
	}
	db.Subscribe(events.Topic, func(string) { s.signals.wake() }, s.signals.wake)
	l.OnChange(func(store stoa.StoreID) {
		s.changed.add(store)
		s.signals.wake()
	})
	return s
}

// signals wakes the publisher when there is something to publish, and the followers when
// something was published.
type signals struct {
	work chan struct{} // has one element when there may be work

	mu        sync.Mutex
	followers map[chan struct{}]bool
}

func (s *signals) wake() {
	select {
	case s.work <- struct{}{}:
	default: // a wake-up is pending
	}
}

func (s *signals) published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.followers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Follow returns a channel that receives when this process has published events, until leave
// is called. Other processes publish too: followers also look from time to time.
func (s *Service) Follow() (published <-chan struct{}, leave func()) {
	c := make(chan struct{}, 1)
	s.signals.mu.Lock()
	s.signals.followers[c] = true
	s.signals.mu.Unlock()
	return c, func() {
		s.signals.mu.Lock()
		delete(s.signals.followers, c)
		s.signals.mu.Unlock()
	}
}
