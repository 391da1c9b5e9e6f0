package credits

import (
	"context"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// spendUnderLock carries out every call of the batch in one transaction, under
// the locks of its accounts, and returns an outcome for each call. It takes the
// locks in the order of the stores. When the transaction fails, its error is
// the outcome of every call.
func (l *Ledger) spendUnderLock(ctx context.Context, batch []accountBatch) spendOutcomes {
	batch = slices.SortedFunc(slices.Values(batch), compareStores)
	outcomes := spendOutcomes{}
	err := l.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		for _, account := range batch {
			if outcomes[account.queue.store], err = l.spendAccount(ctx, tx, account); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		for _, account := range batch {
			outcomes[account.queue.store] = account.failed(err)
		}
	}
	return outcomes
}

func compareStores(a, b accountBatch) int {
	return slices.Compare(a.queue.store[:], b.queue.store[:])
}

// failed returns err as the outcome of every call.
func (b accountBatch) failed(err error) []spendOutcome {
	return slices.Repeat([]spendOutcome{{err: err}}, len(b.calls))
}

// spendAccount carries out the calls of one account. A fault of one call is
// that call's outcome. The error is one that concerns all calls.
func (l *Ledger) spendAccount(ctx context.Context, tx *masterdb.Tx, batch accountBatch) ([]spendOutcome, error) {
	var checks spendChecks
	var err error
	if checks.refused, err = batch.checkCallers(ctx, tx); err != nil {
		return nil, err
	}
	a, err := lockAccount(ctx, tx, batch.queue.store)
	if stoa.CodeOf(err) == stoa.StoreNotFound {
		return batch.failed(err), nil
	}
	if err != nil {
		return nil, err
	}
	if checks.used, err = findByKeys(ctx, tx, batch.queue.store, batch.keys(checks.refused)); err != nil {
		return nil, err
	}
	if checks.prices, err = pricesOf(ctx, tx, services(batch.calls), tx.Now); err != nil {
		return nil, err
	}
	outcomes, anyMoved := make([]spendOutcome, len(batch.calls)), false
	for i, call := range batch.calls {
		var moved bool
		outcomes[i], moved = checks.spend(a, call)
		anyMoved = anyMoved || moved
	}
	if !anyMoved { // a refused call writes nothing, not even changes that are due
		return outcomes, nil
	}
	return outcomes, l.flush(ctx, tx, a)
}

// checkCallers returns why each caller may not spend, or nil for one who may.
func (b accountBatch) checkCallers(ctx context.Context, tx *masterdb.Tx) (map[stoa.UserID]error, error) {
	refused := map[stoa.UserID]error{}
	for _, call := range b.calls {
		if _, known := refused[call.user.UserID]; known {
			continue
		}
		_, err := authz.Check(ctx, tx, call.user, call.store, authz.SpendCredits)
		if code := stoa.CodeOf(err); err != nil && code != stoa.StoreNotFound && code != stoa.Forbidden {
			return nil, err
		}
		refused[call.user.UserID] = err
	}
	return refused, nil
}

// keys returns the idempotency keys of the calls that are not refused.
func (b accountBatch) keys(refused map[stoa.UserID]error) (keys []string) {
	for _, call := range b.calls {
		if call.key != "" && refused[call.user.UserID] == nil {
			keys = append(keys, call.key)
		}
	}
	return keys
}

// services returns the service of each call, empty for a call of an amount.
func services(calls []*spendCall) (services []string) {
	for _, call := range calls {
		services = append(services, call.req.ServiceKey)
	}
	return services
}
