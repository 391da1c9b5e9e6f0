// Package events records what happens on the platform, for programs outside it. An event is
// written in the transaction of what it tells of, so that both are committed or neither.
// Package webhooks publishes the events in an order, and sends them out. This package owns
// the table events.
package events

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Topic is the topic of the notification that a transaction has recorded events: in this process
// only, or in the servers when this process is none.
const Topic = "events"

// Event is something that has happened.
type Event struct {
	ID        stoa.EventID
	Position  int64         // in the order of all events; 0: it is not published yet
	StoreID   *stoa.StoreID // nil: it concerns no store
	UserID    *stoa.UserID  // who did it; nil: the platform
	Type      Type
	Data      string // a JSON object with the members of the type
	CreatedAt time.Time
}

// Read returns the event with that id. It fails with masterdb.ErrNotFound.
func Read(ctx context.Context, q masterdb.Querier, id stoa.EventID) (Event, error) {
	var e Event
	err := q.Get(ctx, &e, `SELECT id, coalesce(position, 0) AS position, store_id, user_id, type, data, created_at FROM events WHERE id = $1`, id)
	return e, err
}

// message is an event as it leaves the platform.
type message struct {
	ID        stoa.EventID    `json:"id"`
	Type      Type            `json:"type"`
	Timestamp time.Time       `json:"timestamp"`
	StoreID   *stoa.StoreID   `json:"storeId"`
	UserID    *stoa.UserID    `json:"userId"`
	Data      json.RawMessage `json:"data"`
}

// JSON returns the event as it leaves the platform.
func (e Event) JSON() ([]byte, error) {
	return json.Marshal(message{ID: e.ID, Type: e.Type, Timestamp: e.CreatedAt.UTC(), StoreID: e.StoreID, UserID: e.UserID, Data: json.RawMessage(e.Data)})
}

// Record writes an event in tx. A zero store or user is none. data has the members that the
// catalogue lists for the type. A type that is not in the catalogue is an error.
func Record(ctx context.Context, tx *masterdb.Tx, t Type, store stoa.StoreID, user stoa.UserID, data any) error {
	tx.NotifyHere(Topic)
	tx.NotifyServers(Topic, "")
	return insert(ctx, tx, t, stoa.NewID[stoa.EventID](), store, user, data)
}

// RecordTest writes an event of the type WebhookTest and returns its id. It is never published:
// whoever asked for it has it sent.
func RecordTest(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, user stoa.UserID, data any) (stoa.EventID, error) {
	id := stoa.NewID[stoa.EventID]()
	return id, insert(ctx, tx, WebhookTest, id, store, user, data)
}

func insert(ctx context.Context, tx *masterdb.Tx, t Type, id stoa.EventID, store stoa.StoreID, user stoa.UserID, data any) error {
	if _, known := KindOf(t); !known {
		return fmt.Errorf("events: there is no type %q", t)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return tx.ExecLater(ctx, `INSERT INTO events (id, store_id, user_id, type, data, created_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		id, orNull(store), orNull(user), string(t), string(text), tx.Now)
}

// orNull returns nil for the zero id, which is stored as NULL.
func orNull[K any](id stoa.ID[K]) *stoa.ID[K] {
	if id.IsZero() {
		return nil
	}
	return &id
}

// Retention is how long an event can be read and sent again.
const Retention = 30 * 24 * time.Hour

// Expiry returns the rule by which events are deleted.
func Expiry() masterdb.Expiry {
	return masterdb.Expiry{Table: "events", Key: []string{"id"}, Age: "created_at", Keep: Retention}
}
