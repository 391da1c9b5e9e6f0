package provisioning

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Position is a position in the events of a store's runs: after event Seq of a run.
// The zero value is before all events of the last run.
type Position struct {
	Run stoa.RunID
	Seq int64
}

// Event is one recorded change of a run: of a step or, when Step is empty, of
// the run itself.
type Event struct {
	Position `db:"-"`
	Attempt  int
	Step     string
	State    State
	Fault    *Fault `db:"-"`
	At       time.Time
}

// maxEvents limits the events that one call of Events returns.
const maxEvents = 200

// Events returns the events that were recorded after a position, in order, without
// gaps and each event once. After the last event of the position's run it continues
// with the last run. ended reports that the last run has ended and no events are
// left; a retry adds more. Events fails with not_found when the store has had no
// run. A position that does not exist counts as the zero one.
//
// Every replica returns the same events: they are read from the master database.
func (s *Service) Events(ctx context.Context, p authz.Principal, store stoa.StoreID, after Position) (events []Event, ended bool, err error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadStore); err != nil {
		return nil, false, err
	}
	last, err := readLog(ctx, s.db, `store_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, false, errNoRun()
	}
	if err != nil {
		return nil, false, err
	}
	log := last
	if after.Run != last.ID && !after.Run.IsZero() {
		own, err := readLog(ctx, s.db, `store_id = $1 AND id = $2`, store, after.Run)
		if err != nil && !errors.Is(err, masterdb.ErrNotFound) {
			return nil, false, err
		}
		if err == nil && after.Seq < own.Changes {
			log = own
		}
	}
	if after.Run != log.ID || after.Seq < 0 || after.Seq > log.Changes {
		after = Position{Run: log.ID}
	}
	if after.Seq < log.Changes {
		if events, err = readEvents(ctx, s.db, after, maxEvents); err != nil {
			return nil, false, err
		}
		if len(events) > 0 {
			after = events[len(events)-1].Position
		}
	}
	done := log.State == Succeeded || log.State == Failed
	return events, log.ID == last.ID && done && after.Seq == log.Changes, nil
}

// eventLog contains the columns of a run that count its events.
type eventLog struct {
	ID      stoa.RunID
	State   State
	Attempt int
	Changes int64 // the number of the last event
}

func readLog(ctx context.Context, q masterdb.Querier, where string, args ...any) (log eventLog, err error) {
	err = q.Get(ctx, &log, `SELECT id, state, attempt, changes FROM provisioning_runs WHERE `+where, args...)
	return log, err
}

const selectEvents = `SELECT run_id, seq, attempt, step, state, error_code, error_message, created_at AS at FROM provisioning_events WHERE `

// eventRow is a row of provisioning_events.
type eventRow struct {
	Event
	RunID        stoa.RunID
	Seq          int64
	ErrorCode    *string
	ErrorMessage *string
}

func readEvents(ctx context.Context, q masterdb.Querier, after Position, limit int) ([]Event, error) {
	var rows []eventRow
	err := q.Select(ctx, &rows, selectEvents+`run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`, after.Run, after.Seq, limit)
	return eventsOf(rows), err
}

func eventsOf(rows []eventRow) []Event {
	events := make([]Event, len(rows))
	for i, row := range rows {
		events[i] = row.Event
		events[i].Position = Position{Run: row.RunID, Seq: row.Seq}
		events[i].Fault = NewFault(row.ErrorCode, row.ErrorMessage)
	}
	return events
}
