package credits

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// combiner makes one statement of the spends that wait at the same time. A
// row of PostgreSQL takes one writer at a time, each with a commit of its own,
// so that many writers of one account are slower than one; a batch pays once
// for all of them.
//
// Of each account at most one batch is under way; what comes meanwhile waits
// for the next. Workers take all accounts that are ready, up to a limit per
// account, so that a hot one does not delay the others. An account for which
// the batch's single statement could not answer goes on alone, under its lock,
// while the worker takes the next batch.
type combiner struct {
	ledger     *Ledger
	maxWorkers int

	mu      sync.Mutex
	queues  map[stoa.StoreID]*queue // those with calls that wait or are under way
	ready   []*queue                // with calls that wait and none under way, oldest first
	workers int
}

// queue is the calls of one account that wait.
type queue struct {
	store  stoa.StoreID
	calls  []*call
	listed bool // among the ready ones
	busy   bool // a batch of this account is under way
}

// call is one spend and, once done is closed, its outcome.
type call struct {
	user      access.Principal
	store     stoa.StoreID
	req       SpendRequest
	key, hash string

	done  chan struct{}
	spent Spent
	err   error
}

// group is what one batch takes of one account.
type group struct {
	queue *queue
	calls []*call
}

const (
	maxCalls      = 256 // of one account in one batch
	maxBatch      = 512 // of all accounts in one batch
	batchDeadline = 30 * time.Second
)

func newCombiner(l *Ledger) *combiner {
	c := &combiner{ledger: l, maxWorkers: 3, queues: map[stoa.StoreID]*queue{}}
	if l.db.Engine == masterdb.SQLite {
		c.maxWorkers = 1 // as many as there are writers
	}
	return c
}

// do makes one call and returns its outcome. A caller whom nobody is before
// makes it itself, at once. Others wait; who gives up takes the call with it,
// unless a batch has taken it already.
func (c *combiner) do(ctx context.Context, it *call) (Spent, error) {
	if err := ctx.Err(); err != nil {
		return Spent{}, err
	}
	if g, alone := c.enter(it); alone {
		c.runAlone(ctx, g)
		return it.spent, it.err
	}
	select {
	case <-it.done:
		return it.spent, it.err
	case <-ctx.Done():
		c.withdraw(it)
		return Spent{}, ctx.Err()
	}
}

// enter queues the call, or makes its caller a worker with a batch of one.
func (c *combiner) enter(it *call) (g group, alone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[it.store]
	if q == nil {
		q = &queue{store: it.store}
		c.queues[it.store] = q
		if c.workers < c.maxWorkers {
			c.workers++
			q.busy = true
			return group{q, []*call{it}}, true
		}
	}
	q.calls = append(q.calls, it)
	if !q.listed && !q.busy {
		c.makeReady(q)
	}
	return group{}, false
}

// runAlone makes a batch of one on its caller's time.
func (c *combiner) runAlone(ctx context.Context, g group) {
	ctx, cancel := context.WithTimeout(ctx, batchDeadline)
	defer cancel()
	rest := []group{g}
	if c.ledger.db.Engine == masterdb.Postgres {
		rest = c.ledger.spendAtOnce(ctx, rest, func(group) {})
	}
	if len(rest) > 0 {
		c.ledger.spendLocked(ctx, rest)
	}
	c.mu.Lock()
	c.workers--
	c.mu.Unlock()
	c.finish(g)
}

// makeReady hands q to a worker. The caller holds the lock.
func (c *combiner) makeReady(q *queue) {
	q.listed = true
	c.ready = append(c.ready, q)
	c.callWorker()
}

// callWorker starts one if there is work and room. The caller holds the lock.
func (c *combiner) callWorker() {
	if len(c.ready) > 0 && c.workers < c.maxWorkers {
		c.workers++
		go c.work()
	}
}

func (c *combiner) withdraw(it *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q := c.queues[it.store]; q != nil {
		q.calls = slices.DeleteFunc(q.calls, func(waiting *call) bool { return waiting == it })
	}
}

// work runs batches until no account is ready.
func (c *combiner) work() {
	for {
		// Those who were just answered may be about to call again: one batch for
		// all of them costs less than a small one and a large one.
		runtime.Gosched()
		batch := c.next()
		if batch == nil {
			return
		}
		c.run(batch)
	}
}

// next takes a batch, or nil when there is nothing to do; the worker then
// counts no longer.
func (c *combiner) next() []group {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []group
	size, taken := 0, 0
	for _, q := range c.ready {
		if size >= maxBatch {
			break
		}
		taken++
		q.listed = false
		n := min(len(q.calls), maxCalls, maxBatch-size)
		if n == 0 { // all have given up
			c.drop(q)
			continue
		}
		batch = append(batch, group{q, q.calls[:n:n]})
		q.calls, q.busy = slices.Clone(q.calls[n:]), true
		size += n
	}
	c.ready = slices.Delete(c.ready, 0, taken)
	if batch == nil {
		c.workers--
	}
	return batch
}

// finish answers the calls of g and lets the next batch of its account begin.
func (c *combiner) finish(g group) {
	for _, it := range g.calls {
		close(it.done)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g.queue.busy = false
	// Of a crowd some will call again at once: they find their queue waiting, and
	// meet in one batch instead of one of them going ahead alone.
	if len(g.queue.calls) > 0 || len(g.calls) > 1 {
		c.makeReady(g.queue)
	} else {
		c.drop(g.queue)
		c.callWorker()
	}
}

// drop forgets a queue without calls. The caller holds the lock.
func (c *combiner) drop(q *queue) { delete(c.queues, q.store) }

func (c *combiner) run(batch []group) {
	// The callers' contexts differ: the batch has a deadline of its own.
	ctx, cancel := context.WithTimeout(context.Background(), batchDeadline)
	defer cancel()
	if c.ledger.db.Engine == masterdb.SQLite {
		c.ledger.spendLocked(ctx, batch)
		for _, g := range batch {
			c.finish(g)
		}
		return
	}
	for _, g := range c.ledger.spendAtOnce(ctx, batch, c.finish) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), batchDeadline)
			defer cancel()
			c.ledger.spendLocked(ctx, []group{g})
			c.finish(g)
		}()
	}
}

// spendLocked answers every call of the batch in one transaction, under the
// locks of its accounts.
func (l *Ledger) spendLocked(ctx context.Context, batch []group) {
	slices.SortFunc(batch, func(a, b group) int { return slices.Compare(a.queue.store[:], b.queue.store[:]) })
	err := l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		for _, g := range batch {
			if err := l.spendGroup(ctx, tx, g); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return
	}
	for _, g := range batch {
		g.fail(err)
	}
}

// fail gives every call of the group the same error.
func (g group) fail(err error) {
	for _, it := range g.calls {
		it.spent, it.err = Spent{}, err
	}
}

// spendGroup answers the calls of one account. It fails only when no call can
// be answered: what is wrong with one is its own outcome.
func (l *Ledger) spendGroup(ctx context.Context, tx *masterdb.Tx, g group) error {
	keys, services, err := g.check(ctx, tx)
	if err != nil {
		return err
	}
	a, err := load(ctx, tx, g.queue.store)
	if stoa.CodeOf(err) == stoa.StoreNotFound {
		return nil // each call has been told by check
	}
	if err != nil {
		return err
	}
	first, err := findByKeys(ctx, tx, g.queue.store, keys)
	if err != nil {
		return err
	}
	prices, err := pricesOf(ctx, tx, services, tx.Now)
	if err != nil {
		return err
	}
	spent := false
	for _, it := range g.calls {
		spent = it.answer(a, first, prices) || spent
	}
	if !spent { // a refusal changes nothing, not even what was due anyway
		return nil
	}
	return l.flush(ctx, tx, a)
}

// check gives each call that its caller may not make its error, and returns
// what is to be looked up for the others.
func (g group) check(ctx context.Context, tx *masterdb.Tx) (keys, services []string, err error) {
	refused := map[stoa.UserID]error{}
	for _, it := range g.calls {
		err, known := refused[it.user.UserID]
		if !known {
			_, err = access.Check(ctx, tx, it.user, it.store, access.SpendCredits)
			if code := stoa.CodeOf(err); err != nil && code != stoa.StoreNotFound && code != stoa.Forbidden {
				return nil, nil, err
			}
			refused[it.user.UserID] = err
		}
		it.spent, it.err = Spent{}, err
		if err == nil && it.key != "" {
			keys = append(keys, it.key)
		}
		services = append(services, it.req.ServiceKey)
	}
	return keys, services, nil
}

// answer gives the call its outcome and reports whether credits moved. First
// has what the keys did before, and learns what this call does.
func (c *call) answer(a *account, first map[string]firstAnswer, prices map[string]Amount) (spent bool) {
	if c.err != nil {
		return false
	}
	if f, used := first[c.key]; used && c.key != "" {
		if f.RequestHash != c.hash {
			c.err = ErrIdempotencyConflict()
			return false
		}
		c.spent = Spent{Transaction: f.Transaction, Balance: a.Balance}
		return false
	}
	if c.spent, c.err = a.spend(c, prices); c.err != nil {
		return false
	}
	if c.key != "" {
		first[c.key] = firstAnswer{Transaction: c.spent.Transaction, RequestHash: c.hash}
	}
	return true
}
