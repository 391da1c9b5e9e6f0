package masterdb

import (
	"context"
	"errors"
	"slices"
)

// message is one notification of a transaction.
type message struct{ topic, payload string }

// subscription is one subscriber of one topic.
type subscription struct {
	topic  string
	handle func(payload string)
	resync func()
}

// maxPayload is the largest payload of NOTIFY in bytes (PostgreSQL manual,
// sql-notify.html).
const maxPayload = 7999

// Notify sends a message to the subscribers of topic, in every replica, when tx commits.
// The subscribers in this process have been called when DB.Tx returns. Equal messages of
// one transaction are delivered once.
//
// PostgreSQL commits transactions that notify one after the other, so Notify is for rare
// changes. The messages are also stored in the change log. Other processes on SQLite read
// it every second, and replicas on PostgreSQL read it while they receive no notifications.
func (tx *Tx) Notify(topic, payload string) error {
	if len(payload) > maxPayload {
		return errors.New("masterdb: the payload of a notification is too long")
	}
	if m := (message{topic: topic, payload: payload}); !slices.Contains(tx.messages, m) {
		tx.messages = append(tx.messages, m)
	}
	return nil
}

// NotifyHere sends a message to the subscribers of topic in this process when tx commits. It
// costs no statement, so it is also for frequent changes; others find these by themselves.
func (tx *Tx) NotifyHere(topic string) {
	if m := (message{topic: topic}); !slices.Contains(tx.here, m) {
		tx.here = append(tx.here, m)
	}
}

// NotifyServers sends a message to the subscribers of topic in the servers when tx commits, if
// this process is none of them: a process that does not listen, such as a command, has nobody who
// does what follows a change. In a server it does nothing.
func (tx *Tx) NotifyServers(topic, payload string) {
	if m := (message{topic: topic, payload: payload}); !tx.listens && !slices.Contains(tx.servers, m) {
		tx.servers = append(tx.servers, m)
	}
}

// publish stores the messages in the change log under origin. PostgreSQL delivers them when
// tx commits.
func (tx *Tx) publish(ctx context.Context, origin string) error {
	messages := slices.Concat(tx.messages, tx.servers)
	if len(messages) == 0 {
		return nil
	}
	if tx.pg == nil {
		for _, m := range messages {
			if _, err := tx.Exec(ctx, `INSERT INTO change_log (origin, topic, payload, at) VALUES ($1, $2, $3, $4)`, origin, m.topic, m.payload, tx.Now); err != nil {
				return err
			}
		}
		return nil
	}
	topics, payloads := make([]string, len(messages)), make([]string, len(messages))
	for i, m := range messages {
		topics[i], payloads[i] = m.topic, m.payload
	}
	return tx.ExecLater(ctx, `WITH messages AS (SELECT topic, payload FROM unnest($1::text[], $2::text[]) AS m (topic, payload)),
			logged AS (INSERT INTO change_log (origin, topic, payload) SELECT $3, topic, payload FROM messages)
		SELECT pg_notify(topic, payload) FROM messages`, topics, payloads, origin)
}

// Subscribe registers two callbacks. It calls handle with the payload of each message on
// topic. It calls resync when messages may have been missed: when Listen begins to receive
// them, and when it begins to read the change log instead.
//
// Both must return at once, because later messages wait for them. Both may be called from
// several goroutines at the same time, and handle repeatedly for the same message. Everyone
// who can reach the database can send a payload: handle must validate it. Call Subscribe
// before Listen.
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

// deliver calls the subscribers in this process, so that its own changes take effect at
// once.
func (db *DB) deliver(messages []message) {
	for _, m := range messages {
		for _, s := range db.subscribed(m.topic) {
			s.handle(m.payload)
		}
	}
}
