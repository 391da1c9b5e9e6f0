package webhooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// Origin is why an event was sent to an endpoint.
type Origin string

// The origins.
const (
	FromEvent  Origin = "event"
	FromResend Origin = "resend" // somebody asked for this one
	FromReplay Origin = "replay" // somebody asked for a range
	FromTest   Origin = "test"
)

// DeliveryState is the state of a delivery.
type DeliveryState string

// The states. A waiting one is tried again; a failed one is not.
const (
	Waiting   DeliveryState = "waiting"
	Succeeded DeliveryState = "succeeded"
	Failed    DeliveryState = "failed"
)

// Delivery is an event that was sent, or is to be sent again, to an endpoint.
type Delivery struct {
	ID         stoa.DeliveryID
	EndpointID stoa.WebhookID
	EventID    stoa.EventID
	Type       events.Type
	Origin     Origin
	State      DeliveryState
	Attempts   int
	NextAt     *time.Time // of a waiting one
	CreatedAt  time.Time
	FinishedAt *time.Time
}

// Attempt is one attempt of a delivery.
type Attempt struct {
	Number int
	At     time.Time
	TookMS int64
	Status int    // of the answer; 0: there was none
	Fault  string // "": it succeeded
	Answer string // the beginning of its body
}

// DeliveryRetention is how long deliveries are kept.
const DeliveryRetention = 30 * 24 * time.Hour

const selectDelivery = `SELECT id, endpoint_id, event_id, type, origin, state, attempts, next_at, created_at, finished_at FROM webhook_deliveries `

// insertResults records the results of a round.
func (c *claimed) insertResults(ctx context.Context, tx *masterdb.Tx, sent []*item) error {
	if len(sent) == 0 {
		return nil
	}
	var deliveries, attempts []any
	for _, i := range sent {
		d := c.outcome(i)
		deliveries = append(deliveries, d.ID, c.id, i.ID, string(i.Type), string(i.origin), string(d.State), d.Attempts, d.NextAt, i.result.at, d.FinishedAt)
		r := i.result
		attempts = append(attempts, d.ID, d.Attempts, r.at, r.took.Milliseconds(), r.status, r.fault, r.answer)
	}
	_, err := tx.Exec(ctx, `INSERT INTO webhook_deliveries (id, endpoint_id, event_id, type, origin, state, attempts, next_at, created_at, finished_at)
		VALUES `+masterdb.Placeholders(len(sent), 10)+` ON CONFLICT (id) DO UPDATE SET state = excluded.state, attempts = excluded.attempts,
		next_at = excluded.next_at, finished_at = excluded.finished_at`, deliveries...)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO webhook_attempts (delivery_id, number, at, took_ms, status, fault, answer)
		VALUES `+masterdb.Placeholders(len(sent), 7)+` ON CONFLICT DO NOTHING`, attempts...)
	return err
}

// outcome returns the state of an item's delivery after its result.
func (c *claimed) outcome(i *item) Delivery {
	d := Delivery{ID: i.delivery, Attempts: i.attempts + 1, State: Succeeded, FinishedAt: &i.result.at}
	retries := c.s.opts.Schedule.Retries
	switch {
	case i.result.fault == "":
	case i.result.final || d.Attempts > len(retries):
		d.State = Failed
	default:
		d.State, d.FinishedAt = Waiting, nil
		d.NextAt = new(i.result.at.Add(max(jitter(retries[d.Attempts-1]), i.result.retryAfter)))
	}
	return d
}

// DeliveryFilter selects deliveries of an endpoint. A zero field selects all.
type DeliveryFilter struct {
	State  string
	Type   string
	Limit  int
	Cursor string
}

// DeliveryPage is one page of deliveries, newest first.
type DeliveryPage struct {
	Deliveries []Delivery
	NextCursor *string
}

// Deliveries returns a page of what was sent to an endpoint.
func (s *Service) Deliveries(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.WebhookID, f DeliveryFilter) (DeliveryPage, error) {
	if err := s.check(ctx, s.db, p, store, authz.ReadWebhooks); err != nil {
		return DeliveryPage{}, err
	}
	if _, err := read(ctx, s.db, store, id, ""); err != nil {
		return DeliveryPage{}, err
	}
	var faults stoa.Invalid
	if f.State != "" && !slices.Contains([]DeliveryState{Waiting, Succeeded, Failed}, DeliveryState(f.State)) {
		faults.Add("state", "must be %s, %s or %s", Waiting, Succeeded, Failed)
	}
	if _, ok := events.KindOf(events.Type(f.Type)); f.Type != "" && !ok {
		faults.Add("type", "there is no type %.60q", f.Type)
	}
	bounds := page.ByEncodedID[stoa.DeliveryID](f.Limit, f.Cursor, &faults)
	if err := faults.Err(); err != nil {
		return DeliveryPage{}, err
	}
	query, args := selectDelivery+`WHERE endpoint_id = $1 AND id < $2`, []any{id, bounds.Before}
	for column, value := range map[string]string{"state": f.State, "type": f.Type} {
		if value != "" {
			args = append(args, value)
			query += fmt.Sprintf(` AND %s = $%d`, column, len(args))
		}
	}
	args = append(args, bounds.Rows())
	rows := []Delivery{}
	if err := s.db.Select(ctx, &rows, query+fmt.Sprintf(` ORDER BY id DESC LIMIT $%d`, len(args)), args...); err != nil {
		return DeliveryPage{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(d Delivery) string { return page.EncodeID(d.ID) })
	return DeliveryPage{Deliveries: rows, NextCursor: next}, nil
}

// Delivery returns a delivery with its attempts and the event, which is nil when it is deleted.
func (s *Service) Delivery(ctx context.Context, p authz.Principal, store stoa.StoreID, endpoint stoa.WebhookID, id stoa.DeliveryID) (Delivery, []Attempt, *events.Event, error) {
	if err := s.check(ctx, s.db, p, store, authz.ReadWebhooks); err != nil {
		return Delivery{}, nil, nil, err
	}
	d, err := s.readDelivery(ctx, s.db, store, endpoint, id)
	if err != nil {
		return Delivery{}, nil, nil, err
	}
	attempts := []Attempt{}
	err = s.db.Select(ctx, &attempts, `SELECT number, at, took_ms, status, fault, answer FROM webhook_attempts WHERE delivery_id = $1 ORDER BY number`, id)
	if err != nil {
		return Delivery{}, nil, nil, err
	}
	e, err := s.readEvent(ctx, s.db, d.EventID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return d, attempts, nil, nil
	}
	return d, attempts, &e, err
}

func (s *Service) readDelivery(ctx context.Context, q masterdb.Querier, store stoa.StoreID, endpoint stoa.WebhookID, id stoa.DeliveryID) (Delivery, error) {
	if _, err := read(ctx, q, store, endpoint, ""); err != nil {
		return Delivery{}, err
	}
	var d Delivery
	err := q.Get(ctx, &d, selectDelivery+`WHERE id = $1 AND endpoint_id = $2`, id, endpoint)
	if errors.Is(err, masterdb.ErrNotFound) {
		return d, stoa.Errorf(stoa.NotFound, "There is no such delivery.")
	}
	return d, err
}

// Resend sends the event of a delivery again at once, as a new delivery. It fails with
// webhook_not_enabled.
func (s *Service) Resend(ctx context.Context, p authz.Principal, store stoa.StoreID, endpoint stoa.WebhookID, id stoa.DeliveryID) (d Delivery, err error) {
	if err := s.check(ctx, s.db, p, store, authz.ManageWebhooks); err != nil {
		return d, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		e, err := s.lockEnabled(ctx, tx, store, endpoint)
		if err != nil {
			return err
		}
		old, err := s.readDelivery(ctx, tx, store, endpoint, id)
		if err != nil {
			return err
		}
		if _, err := s.readEvent(ctx, tx, old.EventID); errors.Is(err, masterdb.ErrNotFound) {
			return stoa.Errorf(stoa.NotFound, "The event is older than 30 days: it is deleted.")
		}
		d = Delivery{EventID: old.EventID, Type: old.Type, Origin: FromResend}
		if err := s.insertDue(ctx, tx, &d, endpoint); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.WebhookResent, Store: store, Details: e.details()})
	})
	return d, err
}

// Test sends an event of the type webhook.test to the endpoint, and to no other. It fails with
// webhook_not_enabled.
func (s *Service) Test(ctx context.Context, p authz.Principal, store stoa.StoreID, endpoint stoa.WebhookID) (d Delivery, err error) {
	if err := s.check(ctx, s.db, p, store, authz.ManageWebhooks); err != nil {
		return d, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		e, err := s.lockEnabled(ctx, tx, store, endpoint)
		if err != nil {
			return err
		}
		id, err := events.RecordTest(ctx, tx, store, p.UserID, map[string]string{"endpointId": endpoint.String()})
		if err != nil {
			return err
		}
		d = Delivery{EventID: id, Type: events.WebhookTest, Origin: FromTest}
		if err := s.insertDue(ctx, tx, &d, endpoint); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.WebhookTested, Store: store, Details: e.details()})
	})
	return d, err
}

// maxAsked is the number of deliveries of an endpoint that may wait because people asked for
// them.
const maxAsked = 100

// insertDue adds a delivery that somebody asked for, which is due now: whoever asks wants to
// see the outcome, also of an endpoint that fails.
func (s *Service) insertDue(ctx context.Context, tx *masterdb.Tx, d *Delivery, endpoint stoa.WebhookID) error {
	var asked int
	err := tx.Get(ctx, &asked, `SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = $1 AND state = 'waiting' AND origin IN ('resend', 'test')`, endpoint)
	if err != nil {
		return err
	}
	if asked >= maxAsked {
		return stoa.Errorf(stoa.WebhookReplaying, "%d deliveries that were asked for wait for this endpoint. Wait until it accepts them.", asked)
	}
	d.ID, d.EndpointID, d.State, d.NextAt, d.CreatedAt = stoa.NewID[stoa.DeliveryID](), endpoint, Waiting, &tx.Now, tx.Now
	_, err = tx.Exec(ctx, `INSERT INTO webhook_deliveries (id, endpoint_id, event_id, type, origin, state, next_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`,
		d.ID, endpoint, d.EventID, string(d.Type), string(d.Origin), string(d.State), tx.Now)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE webhook_endpoints SET next_at = $2 WHERE id = $1`, endpoint, tx.Now); err != nil {
		return err
	}
	tx.AfterCommit(s.signals.wake)
	return nil
}

// lockEnabled reads the endpoint and locks its row. It fails with webhook_not_enabled.
func (s *Service) lockEnabled(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, id stoa.WebhookID) (Endpoint, error) {
	e, err := read(ctx, tx, store, id, tx.ForUpdate())
	if err == nil && e.State != Enabled {
		return e, stoa.Errorf(stoa.WebhookNotEnabled, "The endpoint is %s. Enable it first.", e.State)
	}
	return e, err
}

// Range is a time; From is included, To is not.
type Range struct {
	From time.Time
	To   *time.Time // nil: now
}

// Replay sends the events of a range of time again, oldest first, beside what happens from now
// on. It returns how many events of the store the range has, at most; the endpoint receives
// those of its types. It fails with webhook_not_enabled, with webhook_replaying while an
// earlier replay is not finished, and with invalid_request.
func (s *Service) Replay(ctx context.Context, p authz.Principal, store stoa.StoreID, endpoint stoa.WebhookID, r Range) (count int64, err error) {
	if err := s.check(ctx, s.db, p, store, authz.ManageWebhooks); err != nil {
		return 0, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		to := tx.Now
		if r.To != nil {
			to = *r.To
		}
		var faults stoa.Invalid
		if !r.From.Before(to) {
			faults.Add("from", "must be before to")
		}
		if tx.Now.Sub(r.From) > events.Retention {
			faults.Add("from", "must be in the last 30 days: older events are deleted")
		}
		if err := faults.Err(); err != nil {
			return err
		}
		e, err := s.lockEnabled(ctx, tx, store, endpoint)
		if err != nil {
			return err
		}
		if e.Replaying {
			return stoa.Errorf(stoa.WebhookReplaying, "A replay to this endpoint is not finished yet.")
		}
		var found struct{ First, Last, Count int64 }
		query, args := replayQuery(r.From, to, store)
		if err := tx.Get(ctx, &found, query, args...); err != nil {
			return err
		}
		if count = found.Count; count == 0 {
			return nil
		}
		_, err = tx.Exec(ctx, `UPDATE webhook_endpoints SET replay_position = $2, replay_until = $3, next_at = $4 WHERE id = $1`,
			endpoint, found.First-1, found.Last, tx.Now)
		if err != nil {
			return err
		}
		tx.AfterCommit(s.signals.wake)
		details := e.details()
		details["from"], details["to"] = r.From.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339)
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.WebhookReplayed, Store: store, Details: details})
	})
	return count, err
}

// replayQuery returns the query of what was published of a range of time. A range of the ledger
// was published after its transactions; an hour is for clocks that differ.
func replayQuery(from, to time.Time, store stoa.StoreID) (query string, args []any) {
	where, args := `TRUE`, []any{from, to, from.Add(-time.Hour)}
	if !store.IsZero() {
		where, args = `e.store_id = $4`, append(args, store)
	}
	return `SELECT coalesce(min(position), 0) AS first, coalesce(max(position), 0) AS last, count(*) AS count FROM (
		SELECT position FROM events e WHERE position IS NOT NULL AND created_at >= $1 AND created_at < $2 AND ` + where + `
		UNION ALL
		SELECT e.last_position - (e.last_seq - t.seq) FROM event_ranges e
			JOIN credit_transactions t ON t.store_id = e.store_id AND t.seq >= e.last_seq - (e.last_position - e.first_position) AND t.seq <= e.last_seq
			WHERE e.created_at >= $3 AND t.created_at >= $1 AND t.created_at < $2 AND ` + where + `) p`, args
}
