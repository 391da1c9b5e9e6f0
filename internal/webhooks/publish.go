package webhooks

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// publishBatch is the most recorded events, and the most transactions, that are published at
// once, and the most accounts that are read.
const publishBatch = 500

// changedAccounts are the accounts of credits that this process has changed and not published.
type changedAccounts struct {
	mu     sync.Mutex
	stores map[stoa.StoreID]bool
}

func (c *changedAccounts) add(stores ...stoa.StoreID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, store := range stores {
		c.stores[store] = true
	}
}

func (c *changedAccounts) take() []stoa.StoreID {
	c.mu.Lock()
	defer c.mu.Unlock()
	stores := slices.Collect(maps.Keys(c.stores))
	clear(c.stores)
	return stores
}

// publish gives a position to all events that are committed and have none. It reports whether
// an endpoint is due afterwards.
func (s *Service) publish(ctx context.Context) (due bool, err error) {
	accounts := s.changed.take()
	published := false
	for more := true; more; {
		b, err := s.publishBatch(ctx, accounts)
		if err != nil {
			s.changed.add(accounts...)
			return false, err
		}
		published, due = published || !b.empty(), due || b.due
		accounts, more = b.left, b.more
	}
	if published {
		s.signals.published()
		return due, nil
	}
	return s.exists(ctx, dueEndpoint)
}

// publishBatch publishes recorded events, and transactions of these accounts. On PostgreSQL it
// reads them without a lock and writes their positions in one statement, which does nothing when
// another publisher was faster. Only then it locks the stream, so that it is not overtaken again.
func (s *Service) publishBatch(ctx context.Context, accounts []stoa.StoreID) (b batch, err error) {
	if s.db.Engine == masterdb.Postgres {
		var written bool
		if b, err = s.readBatch(ctx, s.db, accounts); err == nil && !b.empty() {
			written, err = b.write(ctx, s.db, s.db.Now())
		}
		if err != nil || written || b.empty() {
			return b, err
		}
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var position int64
		if err := tx.Get(ctx, &position, `SELECT position FROM event_stream WHERE id = 1`+tx.ForUpdate()); err != nil {
			return err
		}
		if b, err = s.readBatch(ctx, tx, accounts); err != nil || b.empty() {
			return err
		}
		if tx.Postgres() == nil {
			return b.writeLite(ctx, tx)
		}
		_, err = b.write(ctx, tx, tx.Now)
		return err
	})
	if err == nil && s.db.Engine == masterdb.SQLite {
		b.due, err = s.exists(ctx, dueEndpoint)
	}
	return b, err
}

// batch is what is published at once.
type batch struct {
	events   []positioned // recorded ones and, while they are rows, transactions
	accounts map[stoa.StoreID]publishedAccount
	before   int64 // the last position that was given when the events were read
	after    int64 // the last position that is given to them

	left []stoa.StoreID // accounts that may have more transactions
	more bool           // there may be more events
	due  bool           // once written: an endpoint is due
}

func (b *batch) empty() bool { return b.after == b.before }

// positioned is an event with its position. A recorded event has its type and data already.
type positioned struct {
	ID       stoa.EventID `json:"id"`
	Position int64        `json:"position"`
	Type     *string      `json:"type"`
	Data     *string      `json:"data"`
}

// publishedAccount is how far the events of a store are published.
type publishedAccount struct {
	StoreID      stoa.StoreID `json:"store_id"`
	Position     int64        `json:"position"`     // of its last event
	Seq          int64        `json:"seq"`          // of its account's last transaction; 0: none is published
	Transactions int64        `json:"transactions"` // that are published as a range, which ends at Position
}

// readBatch reads what is unpublished, and gives positions to it.
func (s *Service) readBatch(ctx context.Context, q masterdb.Querier, accounts []stoa.StoreID) (batch, error) {
	now := accounts[:min(len(accounts), publishBatch)]
	b := batch{events: []positioned{}, accounts: map[stoa.StoreID]publishedAccount{}, left: accounts[len(now):]}
	found, err := readUnpublished(ctx, q, s.db.Engine, now)
	if err != nil {
		return b, err
	}
	recorded, rows := 0, 0
	for _, e := range found {
		switch {
		case e.Account == nil:
			recorded++
		case e.Type != "":
			rows++
		}
		if err := b.add(e); err != nil {
			return b, err
		}
	}
	if rows == publishBatch { // the last account and those after it may have more
		last := *found[len(found)-1].Account
		b.left = slices.Concat(b.left, slices.DeleteFunc(slices.Clone(now), func(id stoa.StoreID) bool { return bytes.Compare(id[:], last[:]) < 0 }))
	}
	b.more = recorded == publishBatch || len(b.left) > 0
	return b, nil
}

// add gives the next position to an event, or the next positions to a range.
func (b *batch) add(e unpublished) error {
	if b.empty() {
		b.before, b.after = e.Stream, e.Stream
	}
	if e.Account != nil && e.Type == "" {
		b.after += e.Transactions
		b.accounts[e.StoreID] = publishedAccount{StoreID: e.StoreID, Position: b.after, Seq: e.Sequence, Transactions: e.Transactions}
		return nil
	}
	b.after++
	event := positioned{ID: stoa.EventID(e.ID), Position: b.after}
	if e.Account != nil {
		data, err := transactionData(e.Transaction)
		if err != nil {
			return err
		}
		name := string(transactionTypes[e.Type])
		event.Type, event.Data = &name, &data
	}
	b.events = append(b.events, event)
	if !e.StoreID.IsZero() {
		b.accounts[e.StoreID] = publishedAccount{StoreID: e.StoreID, Position: b.after, Seq: max(b.accounts[e.StoreID].Seq, e.Sequence)}
	}
	return nil
}
