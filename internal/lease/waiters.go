package lease

import (
	"sync"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// Poll is the interval at which a waiter reads the row without a notification. It is the
// safety net for a lost notification.
const Poll = time.Second

// Waiters holds the callers that wait for the end of work on leased rows. They are woken by
// notifications of the master database, from this process and from others. It is safe for
// concurrent use.
type Waiters struct {
	mu    sync.Mutex
	calls map[chan struct{}]string // and the key that each waits for
}

// NewWaiters returns the waiters for a topic. The payload of a notification is
// the key of a row, or "" to wake all. Call it before masterdb.DB.Listen.
func NewWaiters(db *masterdb.DB, topic string) *Waiters {
	w := &Waiters{calls: map[chan struct{}]string{}}
	db.Subscribe(topic, w.wake, func() { w.wake("") })
	return w
}

// Join returns a channel that receives when the work on the row of that key may have ended.
// Call leave when done. Call Join before reading the row, so that no notification is
// missed.
func (w *Waiters) Join(key string) (woken <-chan struct{}, leave func()) {
	call := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[call] = key
	return call, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.calls, call)
	}
}

// Len returns the number of callers that wait.
func (w *Waiters) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

// wake wakes the callers that wait for the row of that key, or all for "". It
// does not block.
func (w *Waiters) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for call, waited := range w.calls {
		if waited != key && key != "" {
			continue
		}
		select {
		case call <- struct{}{}:
		default: // it is woken already
		}
	}
}
