package credits

import (
	"context"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
)

// WaitingSpends returns how many calls of the store wait for a batch.
func WaitingSpends(l *Ledger, store stoa.StoreID) int {
	l.spends.mu.Lock()
	defer l.spends.mu.Unlock()
	if q := l.spends.queues[store]; q != nil {
		return len(q.calls)
	}
	return 0
}

// SpendInProgress reports whether a batch of the store is in progress.
func SpendInProgress(l *Ledger, store stoa.StoreID) bool {
	l.spends.mu.Lock()
	defer l.spends.mu.Unlock()
	q := l.spends.queues[store]
	return q != nil && q.busy
}

// SpendQueues returns the number of accounts in the spend batcher.
func SpendQueues(l *Ledger) int {
	l.spends.mu.Lock()
	defer l.spends.mu.Unlock()
	return len(l.spends.queues)
}

// Call is one call of a batch that a test creates itself.
type Call struct {
	User    authz.Principal
	Request SpendRequest
}

// Outcome is the outcome of a Call.
type Outcome struct {
	Result SpendResult
	Err    error
}

// SpendByStatement carries out the calls by the spend statement. Stores that it
// could not decide about are missing from the answer.
func SpendByStatement(ctx context.Context, l *Ledger, calls map[stoa.StoreID][]Call) map[stoa.StoreID][]Outcome {
	return exported(l.spendByStatement(ctx, batchOf(calls)))
}

// SpendUnderLock carries out the calls under the locks of their accounts.
func SpendUnderLock(ctx context.Context, l *Ledger, calls map[stoa.StoreID][]Call) map[stoa.StoreID][]Outcome {
	return exported(l.spendUnderLock(ctx, batchOf(calls)))
}

func batchOf(calls map[stoa.StoreID][]Call) (batch []accountBatch) {
	for store, calls := range calls {
		b := accountBatch{queue: &accountQueue{store: store}}
		for _, c := range calls {
			call := &spendCall{user: c.User, store: store, req: c.Request}
			call.key, call.hash = c.Request.idempotency()
			b.calls = append(b.calls, call)
		}
		batch = append(batch, b)
	}
	return batch
}

func exported(all spendOutcomes) map[stoa.StoreID][]Outcome {
	out := map[stoa.StoreID][]Outcome{}
	for store, outcomes := range all {
		for _, o := range outcomes {
			out[store] = append(out[store], Outcome{Result: o.result, Err: o.err})
		}
	}
	return out
}

// Repeated returns n calls of req. Each has a key of its own if req has one.
func Repeated(n int, user authz.Principal, req SpendRequest) (calls []Call) {
	for i := range n {
		c := Call{User: user, Request: req}
		if req.IdempotencyKey != "" && i > 0 {
			c.Request.IdempotencyKey += fmt.Sprint("#", i)
		}
		calls = append(calls, c)
	}
	return calls
}

// Plan returns PostgreSQL's plan of the spend statement for a call of each store.
func Plan(ctx context.Context, l *Ledger, stores []stoa.StoreID, user authz.Principal) ([]string, error) {
	var priced []pricedBatch
	for _, store := range stores {
		b := accountBatch{queue: &accountQueue{store: store}, calls: []*spendCall{{user: user, store: store, req: SpendRequest{Amount: 1}}}}
		p, _ := b.price(nil)
		priced = append(priced, p)
	}
	var lines []string
	err := l.db.Select(ctx, &lines, "EXPLAIN "+spendMany, spendManyArgs(priced, time.Now())...)
	return lines, err
}
