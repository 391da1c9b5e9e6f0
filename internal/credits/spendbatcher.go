package credits

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// spendBatcher combines spends that wait at the same time into one statement. A row of
// PostgreSQL has one writer at a time, each with its own commit, so that many writers of
// one account are slower than one. A batch needs one commit. It is safe for concurrent
// use.
//
// At most one batch of each account is in progress. Calls that arrive meanwhile wait for
// the next batch. Workers take all accounts that are ready, up to a limit per account, so
// that a busy account does not delay the others. The calls of an account that the batch's
// single statement cannot decide are carried out under the account's lock, in a separate
// goroutine, while the worker takes the next batch.
type spendBatcher struct {
	ledger     *Ledger
	maxWorkers int

	mu      sync.Mutex
	queues  map[stoa.StoreID]*accountQueue // accounts with calls that wait or are in progress
	ready   []*accountQueue                // accounts with waiting calls and no batch in progress, oldest first
	workers int
}

// accountQueue holds the waiting calls of one account.
type accountQueue struct {
	store  stoa.StoreID
	calls  []*spendCall
	listed bool // the queue is in spendBatcher.ready
	busy   bool // a batch of this account is in progress
}

// spendCall is one call of Spend. It is not changed after it is queued.
type spendCall struct {
	user      authz.Principal
	store     stoa.StoreID
	req       SpendRequest
	key, hash string // both empty when the caller gave no key

	// outcome receives the call's outcome once. It is nil for a call that its caller
	// carries out itself. Its buffer holds one value, so that the send does not block
	// when the caller has given up.
	outcome chan spendOutcome
}

// spendOutcome is what Spend returns.
type spendOutcome struct {
	result SpendResult
	err    error
}

// accountBatch is the calls of one account that one batch carries out.
type accountBatch struct {
	queue *accountQueue
	calls []*spendCall
}

// spendOutcomes are the outcomes of an accountBatch by account, in the order
// of its calls.
type spendOutcomes map[stoa.StoreID][]spendOutcome

const (
	maxAccountCalls = 256 // calls of one account in one batch
	maxBatchCalls   = 512 // calls of all accounts in one batch
	batchDeadline   = 30 * time.Second
)

func newSpendBatcher(l *Ledger) *spendBatcher {
	b := &spendBatcher{ledger: l, maxWorkers: 3, queues: map[stoa.StoreID]*accountQueue{}}
	if l.db.Engine == masterdb.SQLite {
		b.maxWorkers = 1 // SQLite has one writer
	}
	return b
}

// spend carries out one call and returns its outcome. A caller that finds its
// account idle carries out the call itself. Other callers wait for a worker.
// When ctx ends, a waiting call is withdrawn, unless a batch has taken it.
func (b *spendBatcher) spend(ctx context.Context, call *spendCall) (result SpendResult, err error) {
	if err := ctx.Err(); err != nil {
		return SpendResult{}, err
	}
	span := b.ledger.db.BeginSpan(ctx, "SPEND")
	defer func() { span.End(err) }()
	if batch, alone := b.enter(call); alone {
		out := b.runAlone(ctx, batch)
		return out.result, out.err
	}
	select {
	case out := <-call.outcome:
		return out.result, out.err
	case <-ctx.Done():
		b.withdraw(call)
		return SpendResult{}, ctx.Err()
	}
}

// enter queues the call, or makes its caller a worker with a batch of one.
func (b *spendBatcher) enter(call *spendCall) (batch accountBatch, alone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[call.store]
	if q == nil {
		q = &accountQueue{store: call.store}
		b.queues[call.store] = q
		if b.workers < b.maxWorkers {
			b.workers++
			q.busy = true
			return accountBatch{queue: q, calls: []*spendCall{call}}, true
		}
	}
	call.outcome = make(chan spendOutcome, 1)
	q.calls = append(q.calls, call)
	if !q.listed && !q.busy {
		b.makeReadyLocked(q)
	}
	return accountBatch{}, false
}

// runAlone carries out a batch of one call in the caller's goroutine.
func (b *spendBatcher) runAlone(ctx context.Context, batch accountBatch) spendOutcome {
	ctx, cancel := context.WithTimeout(ctx, batchDeadline)
	defer cancel()
	b.ledger.metrics.batch.Observe(1)
	single := []accountBatch{batch}
	var outcomes spendOutcomes
	if b.ledger.db.Engine == masterdb.Postgres {
		outcomes = b.ledger.spendByStatement(ctx, single)
	}
	if len(outcomes) == 0 {
		outcomes = b.ledger.spendUnderLock(ctx, single)
	}
	b.mu.Lock()
	b.workers--
	b.mu.Unlock()
	b.release(batch)
	return outcomes[batch.queue.store][0]
}

// makeReadyLocked lists q for the workers. The caller holds mu.
func (b *spendBatcher) makeReadyLocked(q *accountQueue) {
	q.listed = true
	b.ready = append(b.ready, q)
	b.startWorkerLocked()
}

// startWorkerLocked starts a worker if an account is ready and the limit
// allows it. The caller holds mu.
func (b *spendBatcher) startWorkerLocked() {
	if len(b.ready) > 0 && b.workers < b.maxWorkers {
		b.workers++
		go b.work()
	}
}

// withdraw removes a waiting call. It does nothing when a batch has taken it.
func (b *spendBatcher) withdraw(call *spendCall) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.queues[call.store]; q != nil {
		q.calls = slices.DeleteFunc(q.calls, func(waiting *spendCall) bool { return waiting == call })
	}
}

// work runs batches until no account is ready.
func (b *spendBatcher) work() {
	for {
		// Callers that have just been answered may call again. One batch for all of them
		// costs less than a small batch and a large one.
		runtime.Gosched()
		batch := b.nextBatch()
		if batch == nil {
			return
		}
		b.run(batch)
	}
}

// nextBatch takes the next batch. It returns nil when no account is ready, and
// then counts the worker as ended.
func (b *spendBatcher) nextBatch() []accountBatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	var batch []accountBatch
	size, taken := 0, 0
	for _, q := range b.ready {
		if size >= maxBatchCalls {
			break
		}
		taken++
		q.listed = false
		n := min(len(q.calls), maxAccountCalls, maxBatchCalls-size)
		if n == 0 { // every call has been withdrawn
			delete(b.queues, q.store)
			continue
		}
		batch = append(batch, accountBatch{queue: q, calls: q.calls[:n:n]})
		q.calls, q.busy = slices.Clone(q.calls[n:]), true
		size += n
	}
	b.ready = slices.Delete(b.ready, 0, taken)
	if batch == nil {
		b.workers--
	}
	return batch
}

// run carries out a batch and delivers its outcomes.
func (b *spendBatcher) run(batch []accountBatch) {
	b.ledger.metrics.batch.Observe(float64(batchSize(batch)))
	// The callers' contexts differ, so the batch has a deadline of its own.
	ctx, cancel := context.WithTimeout(context.Background(), batchDeadline)
	defer cancel()
	if b.ledger.db.Engine == masterdb.SQLite {
		outcomes := b.ledger.spendUnderLock(ctx, batch)
		for _, account := range batch {
			b.deliver(account, outcomes)
		}
		return
	}
	outcomes := b.ledger.spendByStatement(ctx, batch)
	for _, account := range batch {
		if _, answered := outcomes[account.queue.store]; answered {
			b.deliver(account, outcomes)
		} else {
			go b.runUnderLock(account)
		}
	}
}

// runUnderLock carries out the calls of one account under its lock.
func (b *spendBatcher) runUnderLock(batch accountBatch) {
	ctx, cancel := context.WithTimeout(context.Background(), batchDeadline)
	defer cancel()
	b.deliver(batch, b.ledger.spendUnderLock(ctx, []accountBatch{batch}))
}

// deliver sends each call of batch its outcome and releases the account.
func (b *spendBatcher) deliver(batch accountBatch, outcomes spendOutcomes) {
	for i, out := range outcomes[batch.queue.store] {
		batch.calls[i].outcome <- out
	}
	b.release(batch)
}

// release ends a batch of an account and lets its next batch begin.
func (b *spendBatcher) release(batch accountBatch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := batch.queue
	q.busy = false
	// After a large batch some callers call again at once. The queue is kept, so
	// that they meet in one batch instead of one of them running alone.
	if len(q.calls) > 0 || len(batch.calls) > 1 {
		b.makeReadyLocked(q)
	} else {
		delete(b.queues, q.store)
		b.startWorkerLocked()
	}
}
