package webhooks

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
)

// The endpoints that one process sends to at a time. An endpoint that takes long is slow, and
// slow ones have places of their own, so that a hundred of them delay no other. Together they
// have at most 64 × inFlight + 64 × inFlightSlow = 640 connections in use, of the process's files.
const (
	quickEndpoints = 64
	slowEndpoints  = 64
	slowAfter      = 2 * time.Second
)

// roundsPerClaim is the number of rounds after which an endpoint gives its place to others.
const roundsPerClaim = 20

// publishPause is the least time between two publications: what happens meanwhile is published
// together, by the same number of statements.
const publishPause = 50 * time.Millisecond

// endpointLeases is the table with the leases of endpoints.
var endpointLeases = lease.Table{Name: "webhook_endpoints", Key: "id", Where: `state = 'enabled'`, KeepPresent: true}

// lane is the places of one kind of endpoint.
type lane struct {
	slow bool
	size int
	used *atomic.Int64
}

func newLane(slow bool, size int) lane { return lane{slow: slow, size: size, used: new(atomic.Int64)} }

// Run publishes and sends events until ctx ends. It returns when what it has sent is recorded.
func (s *Service) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	poll := time.NewTicker(s.opts.Schedule.Poll)
	defer poll.Stop()
	for {
		err := s.turn(ctx, &running)
		if err != nil && ctx.Err() == nil && !s.db.IsUnreachable() {
			s.opts.Log.WarnContext(ctx, "events not published or sent; tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(publishPause):
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		case <-s.signals.work:
		}
	}
}

// Release expires the leases of a process that has ended.
func (s *Service) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	_, err := endpointLeases.ExpireProcess(ctx, tx, process)
	if err == nil {
		tx.AfterCommit(s.signals.wake)
	}
	return err
}

// turn publishes what there is and starts to send to the endpoints that are due.
func (s *Service) turn(ctx context.Context, running *sync.WaitGroup) error {
	if pending, err := s.pending(ctx); err != nil || !pending {
		return err
	}
	// Most stores have no endpoint: what follows their events ends here.
	if due, err := s.publish(ctx); err != nil || !due {
		return err
	}
	return s.fill(ctx, running)
}

// pending reports whether there is something to publish or an endpoint that is due. An idle
// platform is asked this only.
func (s *Service) pending(ctx context.Context) (bool, error) {
	s.changed.mu.Lock()
	changed := len(s.changed.stores)
	s.changed.mu.Unlock()
	if changed > 0 {
		return true, nil
	}
	return s.exists(ctx, `SELECT 1 FROM events WHERE position IS NULL AND type <> 'webhook.test'`, dueEndpoint)
}

// dueEndpoint finds an endpoint that is due at $1.
const dueEndpoint = `SELECT 1 FROM webhook_endpoints WHERE state = 'enabled' AND next_at <= $1`

// exists reports whether one of the queries finds a row.
func (s *Service) exists(ctx context.Context, queries ...string) (found bool, err error) {
	err = s.db.Get(ctx, &found, `SELECT EXISTS (`+strings.Join(queries, `) OR EXISTS (`)+`)`, s.db.Now())
	return found, err
}

// fill claims endpoints that are due for the free places of each lane, and sends to them.
func (s *Service) fill(ctx context.Context, running *sync.WaitGroup) error {
	var claims []*claimed
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		claims = nil
		for i := range s.lanes {
			found, err := s.claim(ctx, tx, &s.lanes[i])
			if err != nil {
				return err
			}
			claims = append(claims, found...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range claims {
		c.lane.used.Add(1)
		running.Go(func() {
			defer s.signals.wake() // its place is free
			defer c.lane.used.Add(-1)
			c.serve(ctx)
		})
	}
	return nil
}

// claimFor is how long an endpoint is claimed, from each round on. A round takes one timeout
// for every inFlightSlow events at most, and a moment for its record.
func (s *Service) claimFor() time.Duration {
	return (maxPerRound/inFlightSlow+1)*s.opts.Schedule.Timeout + 30*time.Second
}

// claim leases endpoints that are due to the free places of a lane.
func (s *Service) claim(ctx context.Context, tx *masterdb.Tx, l *lane) (claims []*claimed, err error) {
	free := l.size - int(l.used.Load())
	if free <= 0 {
		return nil, nil
	}
	lock := ""
	if tx.Postgres() != nil {
		lock = tx.ForUpdate() + ` SKIP LOCKED`
	}
	var due []stoa.WebhookID
	err = tx.Select(ctx, &due, `SELECT id FROM webhook_endpoints WHERE state = 'enabled' AND next_at <= $1 AND slow = $3 AND (claimed_by IS NULL OR `+
		endpointLeases.Expired(1, 2)+`) ORDER BY next_at LIMIT $4`+lock, tx.Now, s.process.Name(), l.slow, free)
	if err != nil {
		return nil, err
	}
	for _, id := range due {
		c := &claimed{s: s, id: id, lane: l, lease: lease.Lease{Table: endpointLeases, Key: id, Owner: s.process.NewOwner(), Duration: s.claimFor()}}
		if err := c.lease.Acquire(ctx, tx); err != nil {
			return nil, err
		}
		claims = append(claims, c)
	}
	return claims, nil
}
