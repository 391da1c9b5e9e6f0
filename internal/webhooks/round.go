package webhooks

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
)

// What is sent to one endpoint in a round, and how much of it at a time.
const (
	retriesPerRound = 8
	newPerRound     = 32
	replayPerRound  = 8
	inFlight        = 8
	inFlightSlow    = 2 // to a slow endpoint

	maxPerRound = retriesPerRound + newPerRound + replayPerRound
)

// claimed is an endpoint that this process sends to. It is used by one goroutine.
type claimed struct {
	s     *Service
	id    stoa.WebhookID
	lane  *lane
	lease lease.Lease
	last  bool // this round is the last one: the place is for others

	row     endpointRow
	secrets []string // that sign, the present one first
}

// endpointRow is what sending to an endpoint needs to know of it.
type endpointRow struct {
	StoreID        *stoa.StoreID
	URL            string
	TypeList       string `db:"types"`
	State          State
	Secret         string
	OldSecret      *string
	OldUntil       *time.Time
	Position       int64
	LastPosition   int64
	ReplayPosition int64
	ReplayUntil    int64
	Failures       int
	FailingSince   *time.Time
}

// item is one event to send.
type item struct {
	events.Event
	delivery stoa.DeliveryID
	origin   Origin
	attempts int  // before this one
	waiting  bool // the delivery has a row
	result   *result
}

// serve sends in rounds until nothing is due, or others are to have the place. After an error
// another process may go on.
func (c *claimed) serve(ctx context.Context) {
	for n := range roundsPerClaim {
		c.last = n == roundsPerClaim-1
		more, err := c.round(ctx)
		if err != nil {
			if !errors.Is(err, lease.ErrLost) && ctx.Err() == nil && !c.s.db.IsUnreachable() {
				c.s.opts.Log.WarnContext(ctx, "events not sent; sent again later", "endpoint", c.id.String(), "err", err)
			}
			c.giveBack(ctx)
		}
		if !more {
			return
		}
	}
}

// giveBack ends the lease after an error, or when nothing may be sent to the endpoint any more.
// If that fails too, the lease expires.
func (c *claimed) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // also while the process stops
	defer cancel()
	err := c.s.db.Tx(ctx, func(tx *masterdb.Tx) error { return c.lease.Release(ctx, tx) })
	if err != nil && !errors.Is(err, lease.ErrLost) && !c.s.db.IsUnreachable() {
		c.s.opts.Log.WarnContext(ctx, "endpoint not given back; its lease expires", "endpoint", c.id.String(), "err", err)
	}
}

// round sends what is due, and records what became of it. It reports whether the endpoint is
// still claimed, because more is due.
func (c *claimed) round(ctx context.Context) (more bool, err error) {
	if err := c.read(ctx); err != nil {
		return false, err
	}
	items, cursor, err := c.due(ctx)
	if err != nil {
		return false, err
	}
	c.send(ctx, items)
	sent := slices.DeleteFunc(slices.Clone(items), func(i *item) bool { return i.result == nil })
	// What has been sent is recorded even while the process stops.
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return c.record(record, items, sent, cursor)
}

// read reads the endpoint and its secrets.
func (c *claimed) read(ctx context.Context) error {
	err := c.s.db.Get(ctx, &c.row, `SELECT store_id, url, types, state, secret, old_secret, old_until, position, last_position, replay_position, replay_until,
		failures, failing_since FROM webhook_endpoints WHERE id = $1 AND claimed_by = $2 AND state = 'enabled'`, c.id, string(c.lease.Owner))
	if errors.Is(err, masterdb.ErrNotFound) {
		return lease.ErrLost
	}
	if err != nil {
		return err
	}
	sealed := []string{c.row.Secret}
	if c.row.OldSecret != nil && c.row.OldUntil != nil && c.s.db.Now().Before(*c.row.OldUntil) {
		sealed = append(sealed, *c.row.OldSecret)
	}
	c.secrets = nil
	for _, text := range sealed {
		secret, err := c.s.opts.Ring.Open(text, secretOwner(c.id.String()))
		if err != nil {
			return err
		}
		c.secrets = append(c.secrets, string(secret))
	}
	return nil
}

// cursors are the positions up to which events were looked at.
type cursors struct{ position, replay int64 }

// due returns what to send: deliveries to repeat, then new events, then those to replay; while
// the endpoint fails, one only.
func (c *claimed) due(ctx context.Context) ([]*item, cursors, error) {
	at := cursors{c.row.Position, c.row.ReplayPosition}
	items, err := c.retries(ctx)
	if err != nil {
		return nil, at, err
	}
	news, position, err := c.between(ctx, FromEvent, at.position, c.row.LastPosition, newPerRound)
	if err != nil {
		return nil, at, err
	}
	replays, replay, err := c.between(ctx, FromReplay, at.replay, c.row.ReplayUntil, replayPerRound)
	if err != nil {
		return nil, at, err
	}
	items = append(append(items, news...), replays...)
	if c.row.Failures > 0 && len(items) > 1 {
		items = items[:1]
	}
	return items, cursors{position, replay}, nil
}

// retries returns the deliveries that are to be repeated now.
func (c *claimed) retries(ctx context.Context) ([]*item, error) {
	var rows []struct {
		ID       stoa.DeliveryID
		EventID  stoa.EventID
		Type     events.Type
		Origin   Origin
		Attempts int
	}
	err := c.s.db.Select(ctx, &rows, `SELECT id, event_id, type, origin, attempts FROM webhook_deliveries
		WHERE endpoint_id = $1 AND state = 'waiting' AND next_at <= $2 ORDER BY next_at, id LIMIT $3`, c.id, c.s.db.Now(), retriesPerRound)
	if err != nil {
		return nil, err
	}
	items := make([]*item, len(rows))
	for i, r := range rows {
		items[i] = &item{delivery: r.ID, origin: r.Origin, attempts: r.Attempts, waiting: true}
		items[i].Event, err = c.s.readEvent(ctx, c.s.db, r.EventID)
		if errors.Is(err, masterdb.ErrNotFound) {
			items[i].Event = events.Event{ID: r.EventID, Type: r.Type}
			items[i].result = &result{at: c.s.db.Now(), fault: "The event is older than 30 days: it is deleted.", final: true}
		} else if err != nil {
			return nil, err
		}
	}
	return items, nil
}

// between returns the events between two positions that the endpoint wants, and the position up
// to which it has looked.
func (c *claimed) between(ctx context.Context, origin Origin, position, until int64, limit int) ([]*item, int64, error) {
	if position >= until {
		return nil, position, nil
	}
	of := StreamRange{After: position, UpTo: until, Limit: limit}
	if c.row.StoreID != nil {
		of.Store = *c.row.StoreID
	}
	found, err := of.Read(ctx, c.s.db, c.s.db.Engine)
	if err != nil {
		return nil, position, err
	}
	var items []*item
	for _, e := range found {
		position = e.Position
		if c.wants(e) {
			items = append(items, &item{Event: e, delivery: stoa.NewID[stoa.DeliveryID](), origin: origin})
		}
	}
	if len(found) < limit { // there are no more, though other stores' events may follow
		position = until
	}
	return items, position, nil
}

func (c *claimed) wants(e events.Event) bool {
	return c.row.TypeList == "" || slices.Contains(Endpoint{TypeList: c.row.TypeList}.Types(), string(e.Type))
}

// send sends the items in their order, several at a time. After a fault of the endpoint it
// begins no more, and their results stay nil.
func (c *claimed) send(ctx context.Context, items []*item) {
	var mu sync.Mutex
	next, stop := 0, false
	take := func() *item {
		mu.Lock()
		defer mu.Unlock()
		for next < len(items) && items[next].result != nil {
			next++
		}
		if stop || next >= len(items) || ctx.Err() != nil {
			return nil
		}
		next++
		return items[next-1]
	}
	var senders sync.WaitGroup
	at := inFlight
	if c.lane.slow {
		at = inFlightSlow
	}
	for range min(at, len(items)) {
		senders.Go(func() {
			for i := take(); i != nil; i = take() {
				r := c.s.deliver(ctx, c.row.URL, c.secrets, i.Event)
				mu.Lock()
				i.result = r
				stop = stop || r == nil || r.endpoint
				mu.Unlock()
			}
		})
	}
	senders.Wait()
}

// record stores the results and what is due next.
func (c *claimed) record(ctx context.Context, items, sent []*item, at cursors) (more bool, err error) {
	at = c.reached(items, at)
	var outcome verdict
	for _, i := range sent {
		outcome.add(i.result)
	}
	err = c.s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := c.insertResults(ctx, tx, sent); err != nil {
			return err
		}
		var waiting []struct{ NextAt time.Time }
		err := tx.Select(ctx, &waiting, `SELECT next_at FROM webhook_deliveries WHERE endpoint_id = $1 AND state = 'waiting' ORDER BY next_at LIMIT 1`, c.id)
		if err != nil {
			return err
		}
		var retry *time.Time
		if len(waiting) > 0 {
			retry = &waiting[0].NextAt
		}
		more, err = c.update(ctx, tx, at, outcome, len(sent) > 0, retry)
		return err
	})
	return more && err == nil, err
}

// reached returns the positions before the first new or replayed event that was not sent.
func (c *claimed) reached(items []*item, at cursors) cursors {
	for _, i := range slices.Backward(items) {
		if i.result != nil {
			continue
		}
		switch {
		case i.waiting:
		case i.origin == FromEvent:
			at.position = i.Position - 1
		case i.origin == FromReplay:
			at.replay = i.Position - 1
		}
	}
	if c.row.Failures > 0 { // due left out all but one item
		at = c.reachedByOne(items, at)
	}
	return at
}

// reachedByOne is reached for a round in which one item only was to be sent.
func (c *claimed) reachedByOne(items []*item, at cursors) cursors {
	position, replay := c.row.Position, c.row.ReplayPosition
	if len(items) == 0 {
		return at
	}
	if i := items[0]; !i.waiting && i.result != nil {
		if i.origin == FromEvent {
			position = i.Position
		} else {
			replay = i.Position
		}
	}
	return cursors{position, replay}
}
