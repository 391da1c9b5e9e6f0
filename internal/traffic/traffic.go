// Package traffic counts the requests of shoppers to each store, by hour: how many there
// were, how many failed and how long they took. Each process counts in memory and adds
// its counts to the table store_traffic, which the package owns, about once a minute.
package traffic

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	// flushEvery is how long counts are collected before they are stored.
	flushEvery = time.Minute
	// flushTimeout limits the storing of the counts when the process stops.
	flushTimeout = 3 * time.Second
	// maxCounts limits the memory of a process: counts of further stores are dropped
	// until the next flush.
	maxCounts = 20_000
	// Keep is how long the counts of an hour are stored.
	Keep = 30 * 24 * time.Hour
	// hoursOfDay is the length of Day.
	hoursOfDay = 24
)

// Hour is the traffic of a store in one hour, in UTC.
type Hour struct {
	Start     time.Time `db:"hour"`
	Requests  int64
	Errors    int64 // requests that failed through no fault of the shopper
	TotalMS   int64 `db:"total_ms"` // of all requests together
	SlowestMS int64 `db:"slowest_ms"`
}

// MeanMS returns the mean duration of a request in milliseconds, or 0 without requests.
func (h Hour) MeanMS() float64 {
	if h.Requests == 0 {
		return 0
	}
	return float64(h.TotalMS) / float64(h.Requests)
}

// key names one row of store_traffic. hour is in hours since 1970.
type key struct {
	store stoa.StoreID
	hour  int64
}

// count is what was counted for one row since the last flush.
type count struct {
	requests, errors int64
	total, slowest   time.Duration
}

func (c *count) add(other count) {
	c.requests += other.requests
	c.errors += other.errors
	c.total += other.total
	c.slowest = max(c.slowest, other.slowest)
}

// Service counts and reads traffic. It is safe for concurrent use.
type Service struct {
	db  *masterdb.DB
	log *slog.Logger

	mu      sync.Mutex
	counts  map[key]*count
	dropped int64         // requests that were not counted since the last flush
	wake    chan struct{} // has one element when something was counted
}

// New returns a service that counts for the stores of db. Run stores the counts.
func New(db *masterdb.DB, log *slog.Logger) *Service {
	return &Service{db: db, log: log, counts: map[key]*count{}, wake: make(chan struct{}, 1)}
}

// Count counts one request. It does not wait for the database.
func (s *Service) Count(store stoa.StoreID, took time.Duration, failed bool) {
	c := count{requests: 1, total: took, slowest: took}
	if failed {
		c.errors = 1
	}
	if s.add(key{store, s.db.Now().Unix() / 3600}, c) {
		select {
		case s.wake <- struct{}{}:
		default: // Run already has a wake-up pending
		}
	}
}

// add adds to the counts of a row and reports whether they are the first since the last
// flush.
func (s *Service) add(k key, c count) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.counts[k]
	if known == nil {
		if len(s.counts) >= maxCounts {
			s.dropped += c.requests
			return false
		}
		known = &count{}
		s.counts[k] = known
	}
	known.add(c)
	return len(s.counts) == 1 && known.requests == c.requests
}

// Run stores what is counted until ctx ends, and then once more. It sends no statement
// while nothing is counted.
func (s *Service) Run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			s.stop(ctx)
			return
		}
		select {
		case <-time.After(flushEvery):
		case <-ctx.Done():
			s.stop(ctx)
			return
		}
		if err := s.Flush(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "traffic of stores not recorded; the next minute tries again", "err", err)
		}
	}
}

func (s *Service) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := s.Flush(ctx); err != nil {
		s.log.WarnContext(ctx, "traffic of the last minute not recorded", "err", err)
	}
}

// Day returns the traffic of a store in the last 24 hours, the oldest hour first, with
// the current one. Hours without requests are zero. What the last minute counted may be
// missing.
func (s *Service) Day(ctx context.Context, p authz.Principal, store stoa.StoreID) ([]Hour, error) {
	return s.Hours(ctx, p, store, hoursOfDay)
}

// Hours is Day for the last n hours, at least 1 and at most those of Keep.
func (s *Service) Hours(ctx context.Context, p authz.Principal, store stoa.StoreID, n int) ([]Hour, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadStore); err != nil {
		return nil, err
	}
	n = min(max(n, 1), int(Keep/time.Hour))
	first := s.db.Now().UTC().Truncate(time.Hour).Add(-time.Duration(n-1) * time.Hour)
	var rows []Hour
	err := s.db.Select(ctx, &rows, `SELECT hour, requests, errors, total_ms, slowest_ms FROM store_traffic
		WHERE store_id = $1 AND hour >= $2 ORDER BY hour LIMIT $3`, store, first, n+1)
	if err != nil {
		return nil, err
	}
	hours := make([]Hour, n)
	for i := range hours {
		hours[i].Start = first.Add(time.Duration(i) * time.Hour)
	}
	for _, row := range rows {
		if i := int(row.Start.Sub(first) / time.Hour); i < n {
			row.Start = hours[i].Start
			hours[i] = row
		}
	}
	return hours, nil
}

// Expiry returns the rule for counts that are too old.
func Expiry() masterdb.Expiry {
	return masterdb.Expiry{Table: "store_traffic", Key: []string{"store_id", "hour"}, Age: "hour", Keep: Keep}
}
