package credits

import "github.com/stoahq/stoa"

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
