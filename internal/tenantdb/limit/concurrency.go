package limit

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// ErrQueueFull means that too many callers already wait for one store.
var ErrQueueFull = errors.New("limit: too many callers wait for this store")

const (
	// growAfter is how long the queue must be non-empty before the store gets
	// another connection. A new connection costs about a hundred times as much as a
	// query, so a short wait is cheaper, also on a busy machine.
	growAfter = 50 * time.Millisecond
	// queuePerConn is how many callers may wait, for each connection of a store.
	queuePerConn = 64
)

// Pool is the pool whose connections the slots of a Concurrency represent.
type Pool interface {
	// ReadyIn returns 0 when the pool has made n connections, the newest has had
	// time to serve callers, and another one is worth its cost to callers that
	// have waited for some time. Otherwise it returns when to ask again.
	ReadyIn(n int, waited time.Duration) time.Duration
}

// Concurrency limits how many callers use a store's database at the same
// time and how many wait for it. It starts with one slot. It adds a slot, which
// is one connection, only while callers wait for longer than growAfter, so that
// many stores share few connections. It is safe for concurrent use.
type Concurrency struct {
	mu    sync.Mutex
	conns Pool // nil until the pool is open
	limit int  // maximum of slots
	slots int  // current maximum of inUse
	inUse int
	peak  int         // maximum of inUse since the last call of Shrink
	queue list.List   // of chan struct{}, closed when its owner has a slot
	since time.Time   // when the queue was last empty or a slot was added
	timer *time.Timer // calls grow; set while callers wait
}

// NewConcurrency returns a limiter with one slot, and at most limit of them.
func NewConcurrency(limit int) *Concurrency {
	return &Concurrency{limit: limit, slots: 1}
}

// Protect sets the pool whose connections the slots represent.
func (l *Concurrency) Protect(conns Pool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = conns
}

// TryAcquire takes a slot if one is free. It does not wait.
func (l *Concurrency) TryAcquire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inUse >= l.slots || l.queue.Len() > 0 {
		return false
	}
	l.admit()
	return true
}

// Acquire waits for a slot until ctx is done. It returns ErrQueueFull when too
// many callers wait already. After a nil error the caller must call Release.
func (l *Concurrency) Acquire(ctx context.Context) error {
	if l.TryAcquire() {
		return nil
	}
	l.mu.Lock()
	if l.queue.Len() >= l.limit*queuePerConn {
		l.mu.Unlock()
		return ErrQueueFull
	}
	admitted := make(chan struct{})
	place := l.queue.PushBack(admitted)
	if l.queue.Len() == 1 {
		l.since = time.Now()
		l.growIn(growAfter)
	}
	l.admitWaiters() // a slot may have become free meanwhile
	l.mu.Unlock()
	select {
	case <-admitted:
		return nil
	case <-ctx.Done():
		l.abandon(admitted, place)
		return ctx.Err()
	}
}

// abandon removes a waiter. If the waiter was given a slot meanwhile, the slot
// goes to the next waiter.
func (l *Concurrency) abandon(admitted chan struct{}, place *list.Element) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-admitted:
		l.inUse--
		l.admitWaiters()
	default:
		l.queue.Remove(place)
	}
}

// SetLimit changes the maximum of slots.
func (l *Concurrency) SetLimit(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
}

// Release gives the slot to the next waiter.
func (l *Concurrency) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inUse--
	l.admitWaiters()
}

// ConnectionBegun notifies the limiter that its pool makes another connection,
// which may let it grow.
func (l *Concurrency) ConnectionBegun() {
	l.mu.Lock()
	waiting := l.queue.Len() > 0
	l.mu.Unlock()
	if waiting {
		l.grow()
	}
}

// grow adds a slot if callers have waited for growAfter and the connections of
// all slots are ready. Otherwise it schedules itself for the earliest time at
// which that can be true. It asks the pool without holding the lock.
func (l *Concurrency) grow() {
	l.mu.Lock()
	slots, conns, waited := l.slots, l.conns, time.Since(l.since)
	due := l.growDue()
	l.mu.Unlock()
	if !due {
		return
	}
	wait := SafetyNet
	if conns != nil {
		wait = min(wait, conns.ReadyIn(slots, waited))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.slots != slots || !l.growDue():
	case wait > 0:
		l.growIn(wait)
	case l.inUse >= l.slots:
		l.slots++
		l.since = time.Now()
		l.admitWaiters()
		l.growIn(growAfter)
	}
}

// growDue reports whether callers have waited for growAfter. If they have
// waited for less, it schedules grow for the time at which they will have
// waited for growAfter.
func (l *Concurrency) growDue() bool {
	if l.queue.Len() == 0 || l.slots >= l.limit {
		return false
	}
	if wait := growAfter - time.Since(l.since); wait > 0 {
		l.growIn(wait)
		return false
	}
	return true
}

// growIn schedules grow, in place of an earlier schedule.
func (l *Concurrency) growIn(d time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(d, l.grow)
		return
	}
	l.timer.Reset(d)
}

// Slots returns how many callers may use the database at the same time now.
func (l *Concurrency) Slots() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slots
}

// Shrink removes the slots that were not needed since the last call.
func (l *Concurrency) Shrink() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slots = max(l.peak, 1)
	l.peak = l.inUse
}

// admitWaiters gives free slots to waiters, longest wait first.
func (l *Concurrency) admitWaiters() {
	for l.inUse < l.slots && l.queue.Len() > 0 {
		close(l.queue.Remove(l.queue.Front()).(chan struct{}))
		l.admit()
	}
	if l.queue.Len() == 0 && l.timer != nil {
		l.timer.Stop()
	}
}

func (l *Concurrency) admit() {
	l.inUse++
	l.peak = max(l.peak, l.inUse)
}
