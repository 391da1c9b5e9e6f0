package credits

import (
	"context"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
)

// Waiting is how many calls of the store wait for a batch.
func Waiting(l *Ledger, store stoa.StoreID) int {
	l.combiner.mu.Lock()
	defer l.combiner.mu.Unlock()
	if q := l.combiner.queues[store]; q != nil {
		return len(q.calls)
	}
	return 0
}

// UnderWay reports whether a batch of the store is under way.
func UnderWay(l *Ledger, store stoa.StoreID) bool {
	l.combiner.mu.Lock()
	defer l.combiner.mu.Unlock()
	q := l.combiner.queues[store]
	return q != nil && q.busy
}

// Queues is how many accounts the combiner knows at the moment.
func Queues(l *Ledger) int {
	l.combiner.mu.Lock()
	defer l.combiner.mu.Unlock()
	return len(l.combiner.queues)
}

// AtOnce makes n calls of each request in one statement. It returns, by store,
// the sequences and balances of those that were answered.
func AtOnce(ctx context.Context, l *Ledger, n int, requests map[stoa.StoreID]SpendRequest, user func(stoa.StoreID) access.Principal) map[stoa.StoreID][]Spent {
	var batch []group
	for store, req := range requests {
		g := group{queue: &queue{store: store}}
		for i := range n {
			c := &call{user: user(store), store: store, req: req, done: make(chan struct{})}
			if req.IdempotencyKey != "" && i > 0 {
				c.req.IdempotencyKey += fmt.Sprint("#", i)
			}
			c.key, c.hash = c.req.idempotency()
			g.calls = append(g.calls, c)
		}
		batch = append(batch, g)
	}
	out := map[stoa.StoreID][]Spent{}
	l.spendAtOnce(ctx, batch, func(g group) {
		for _, c := range g.calls {
			out[g.queue.store] = append(out[g.queue.store], c.spent)
		}
	})
	return out
}

// Plan is how PostgreSQL carries out the one statement for a call of each store.
func Plan(ctx context.Context, l *Ledger, stores []stoa.StoreID, user access.Principal) ([]string, error) {
	var quotes []quote
	for _, store := range stores {
		g := group{queue: &queue{store: store}, calls: []*call{{user: user, store: store, req: SpendRequest{Amount: 1}}}}
		q, _ := g.quote(nil)
		quotes = append(quotes, q)
	}
	var lines []string
	err := l.db.Select(ctx, &lines, "EXPLAIN "+spendMany, manyArgs(quotes, time.Now())...)
	return lines, err
}
