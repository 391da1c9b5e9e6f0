package masterdb

import (
	"context"
	"errors"
	"slices"
)

// message is what one transaction has to tell under one topic.
type message struct{ topic, payload string }

// subscription is one domain's interest in one topic.
type subscription struct {
	topic  string
	handle func(payload string)
	resync func()
}

// maxPayload is PostgreSQL's limit in bytes (sql-notify.html).
const maxPayload = 7999

// Notify tells the subscribers of topic, in every replica, when tx commits;
// never, if it does not. In this process they have been called when DB.Tx
// returns. The same message twice in one transaction is delivered once.
//
// PostgreSQL lets transactions that notify commit one after the other: this
// is for what changes rarely, not for what every request does. The messages are
// also in the change log, which other processes on SQLite read every second, and
// replicas on PostgreSQL while they receive no notifications.
func (tx *Tx) Notify(topic, payload string) error {
	if len(payload) > maxPayload {
		return errors.New("masterdb: the payload of a notification is too long")
	}
	if m := (message{topic, payload}); !slices.Contains(tx.messages, m) {
		tx.messages = append(tx.messages, m)
	}
	return nil
}

// tellOthers records the messages and has PostgreSQL deliver them when tx commits.
func (tx *Tx) tellOthers(ctx context.Context) error {
	if len(tx.messages) == 0 {
		return nil
	}
	if tx.pg == nil {
		for _, m := range tx.messages {
			if _, err := tx.Exec(ctx, `INSERT INTO change_log (topic, payload, at) VALUES ($1, $2, $3)`, m.topic, m.payload, tx.Now); err != nil {
				return err
			}
		}
		return nil
	}
	topics, payloads := make([]string, len(tx.messages)), make([]string, len(tx.messages))
	for i, m := range tx.messages {
		topics[i], payloads[i] = m.topic, m.payload
	}
	_, err := tx.pg.Exec(ctx, `WITH messages AS (SELECT topic, payload FROM unnest($1::text[], $2::text[]) AS m (topic, payload)),
			logged AS (INSERT INTO change_log (topic, payload) SELECT topic, payload FROM messages)
		SELECT pg_notify(topic, payload) FROM messages`, topics, payloads)
	return err
}

// Subscribe has handle called with the payload of each message on topic, and
// resync whenever messages may have been missed: when Listen begins to receive
// them, and when it begins to read the change log instead. Both must return at once, since they hold up all that comes
// after them; both may be called at the same time from several goroutines,
// and handle again for the same message. Payloads come from whoever can reach
// the database: handle has to check them. Subscribe before Listen.
func (db *DB) Subscribe(topic string, handle func(payload string), resync func()) {
	db.subscribers.Lock()
	defer db.subscribers.Unlock()
	db.subscriptions = append(db.subscriptions, subscription{topic, handle, resync})
}

// subscribed returns the subscriptions to topic, or all for "".
func (db *DB) subscribed(topic string) []subscription {
	db.subscribers.RLock()
	defer db.subscribers.RUnlock()
	var out []subscription
	for _, s := range db.subscriptions {
		if topic == "" || s.topic == topic {
			out = append(out, s)
		}
	}
	return out
}

// tellLocally is for this process, whose own changes must hold at once.
func (db *DB) tellLocally(messages []message) {
	for _, m := range messages {
		for _, s := range db.subscribed(m.topic) {
			s.handle(m.payload)
		}
	}
}
