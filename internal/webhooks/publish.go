package webhooks

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// publishBatch is the number of events after which a transaction publishes no further account.
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
// there were any.
func (s *Service) publish(ctx context.Context) (any bool, err error) {
	accounts := s.changed.take()
	for {
		n, left, err := s.publishBatch(ctx, accounts)
		if err != nil {
			s.changed.add(accounts...)
			return any, err
		}
		any = any || n > 0
		if accounts = left; n < publishBatch && len(left) == 0 {
			break
		}
	}
	if any {
		s.signals.published()
	}
	return any, nil
}

// published is what one transaction publishes.
type published struct {
	position int64                  // the last one that was given
	last     map[stoa.StoreID]int64 // the last position of each store
	count    int
}

func (p *published) next(store *stoa.StoreID) int64 {
	p.position++
	p.count++
	if store != nil {
		p.last[*store] = p.position
	}
	return p.position
}

// publishBatch publishes recorded events, and the transactions of these accounts. It stops after
// publishBatch events, and returns the accounts that are left. Publishers take turns by the lock
// on event_stream, so that a position becomes visible only after all smaller ones.
func (s *Service) publishBatch(ctx context.Context, accounts []stoa.StoreID) (n int, left []stoa.StoreID, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		p := published{last: map[stoa.StoreID]int64{}}
		var recorded []recordedEvent
		var told []publishedAccount
		left = accounts
		now := left[:min(len(left), publishBatch)] // one that has nothing new takes a query as well
		queries := []masterdb.Query{masterdb.One(&p.position, `SELECT position FROM event_stream WHERE id = 1`+tx.ForUpdate()),
			masterdb.All(&recorded, `SELECT id, store_id FROM events WHERE position IS NULL AND type <> 'webhook.test' ORDER BY id LIMIT $1`, publishBatch)}
		if len(now) > 0 {
			queries = append(queries, publishedQuery(&told, now))
		}
		if err := tx.Batch(ctx, queries...); err != nil {
			return err
		}
		if err := p.recorded(ctx, tx, recorded); err != nil {
			return err
		}
		seqs := map[stoa.StoreID]int64{}
		for _, account := range told {
			seqs[account.StoreID] = account.Seq
		}
		for _, store := range now {
			if p.count >= publishBatch {
				break
			}
			left = left[1:]
			if err := s.publishAccount(ctx, tx, &p, store, seqs[store]); err != nil {
				return err
			}
		}
		if n = p.count; n == 0 {
			return nil
		}
		if err := tx.ExecLater(ctx, `UPDATE event_stream SET position = $1 WHERE id = 1`, p.position); err != nil {
			return err
		}
		return p.wakeEndpoints(ctx, tx)
	})
	return n, left, err
}

// recordedEvent is an event that has no position yet.
type recordedEvent struct {
	ID      stoa.EventID
	StoreID *stoa.StoreID
}

// recorded gives positions to recorded events.
func (p *published) recorded(ctx context.Context, tx *masterdb.Tx, found []recordedEvent) error {
	if len(found) == 0 {
		return nil
	}
	positions := map[string]int64{}
	for _, e := range found {
		positions[e.ID.String()] = p.next(e.StoreID)
	}
	return setByKey(ctx, tx, positions, `UPDATE events SET position = given.value`, `events.id`, ``)
}

// setByKey runs an update of the rows whose column uuid is among the keys. Its SQL reads a
// row's value as given.value, and args as $2 and so on.
func setByKey(ctx context.Context, tx *masterdb.Tx, values map[string]int64, update, column, and string, args ...any) error {
	text, err := json.Marshal(values)
	if err != nil {
		return err
	}
	from := ` FROM (SELECT key, value FROM json_each($1)) AS given WHERE given.key = `
	if tx.Postgres() != nil {
		from = ` FROM (SELECT CAST(key AS uuid) AS key, CAST(value AS bigint) AS value FROM json_each_text(CAST($1 AS json))) AS given WHERE given.key = `
	}
	return tx.ExecLater(ctx, update+from+column+and, append([]any{string(text)}, args...)...)
}

// wakeEndpoints makes the endpoints due that the events are for, but for those that fail: they
// go on when their pause is over.
func (p *published) wakeEndpoints(ctx context.Context, tx *masterdb.Tx) error {
	const due = `, next_at = CASE WHEN failures = 0 THEN $2 ELSE next_at END`
	err := tx.ExecLater(ctx, `UPDATE webhook_endpoints SET last_position = $1`+due+` WHERE store_id IS NULL AND state <> 'deleted'`, p.position, tx.Now)
	if err != nil || len(p.last) == 0 {
		return err
	}
	last := map[string]int64{}
	for store, position := range p.last {
		last[store.String()] = position
	}
	return setByKey(ctx, tx, last, `UPDATE webhook_endpoints SET last_position = given.value`+due, `webhook_endpoints.store_id`, ` AND state <> 'deleted'`, tx.Now)
}
