package webhooks

import (
	"context"
	"math"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// EventFilter selects events. Its zero value selects the newest 20.
type EventFilter struct {
	Types []string // empty: all
	// OldestFirst lists from the oldest event on. Every page then has a cursor: ask again
	// with it for what has happened since.
	OldestFirst bool
	Limit       int
	Cursor      string
}

// EventPage is one page of events.
type EventPage struct {
	Events     []events.Event
	NextCursor *string
}

// Events returns a page of the store's events of the last 30 days; the zero store is the whole
// platform, for operators. It fails with invalid_request.
func (s *Service) Events(ctx context.Context, p authz.Principal, store stoa.StoreID, f EventFilter) (EventPage, error) {
	if err := s.check(ctx, s.db, p, store, authz.ReadEvents); err != nil {
		return EventPage{}, err
	}
	var faults stoa.Invalid
	bounds := page.BySequence(f.Limit, f.Cursor, &faults)
	f.check(&faults)
	if err := faults.Err(); err != nil {
		return EventPage{}, err
	}
	if !f.OldestFirst {
		found, err := StreamRange{Store: store, UpTo: bounds.Before - 1, Types: f.Types, NewestFirst: true, Limit: bounds.Rows()}.Read(ctx, s.db, s.db.Engine)
		found, next := page.Cut(found, bounds.Limit, func(e events.Event) string { return page.EncodeSequence(e.Position) })
		return EventPage{found, next}, err
	}
	after := bounds.Before
	if f.Cursor == "" {
		after = 0
	}
	found, err := StreamRange{Store: store, After: after, UpTo: math.MaxInt64, Types: f.Types, Limit: bounds.Limit}.Read(ctx, s.db, s.db.Engine)
	if len(found) > 0 {
		after = found[len(found)-1].Position
	}
	next := f.Cursor
	if after > 0 {
		next = page.EncodeSequence(after)
	}
	return EventPage{found, &next}, err
}

func (f EventFilter) check(faults *stoa.Invalid) {
	for _, t := range f.Types {
		if _, ok := events.KindOf(events.Type(t)); !ok {
			faults.Add("type", "there is no type %.60q", t)
			return
		}
	}
}

// maxStreamed is the number of events that one call of EventsAfter returns.
const maxStreamed = 200

// Last returns the position of the last event that is published.
func (s *Service) Last(ctx context.Context) (int64, error) { return LastPosition(ctx, s.db) }

// LastPosition is Last on a master that q reads.
func LastPosition(ctx context.Context, q masterdb.Querier) (int64, error) {
	var position int64
	err := q.Get(ctx, &position, `SELECT position FROM event_stream WHERE id = 1`)
	return position, err
}

// EventsAfter returns the store's next events after a position, oldest first; the zero store is
// the whole platform.
func (s *Service) EventsAfter(ctx context.Context, p authz.Principal, store stoa.StoreID, types []string, position int64) ([]events.Event, error) {
	if err := s.check(ctx, s.db, p, store, authz.ReadEvents); err != nil {
		return nil, err
	}
	var faults stoa.Invalid
	EventFilter{Types: types}.check(&faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return ReadAfter(ctx, s.db, store, types, position)
}

// ReadAfter is EventsAfter for the operator at the command line: it checks no permission.
func ReadAfter(ctx context.Context, db *masterdb.DB, store stoa.StoreID, types []string, position int64) ([]events.Event, error) {
	return StreamRange{Store: store, After: position, UpTo: math.MaxInt64, Types: types, Limit: maxStreamed}.Read(ctx, db, db.Engine)
}
