package tenantdb

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// errCrowded: more callers wait for one store than is good for anybody.
var errCrowded = errors.New("tenantdb: too many callers wait for this store")

const (
	// gatePatience is how long callers wait, without a moment when none does,
	// before the store is given another connection. To connect costs a hundred
	// times what a query does: a short wait is cheaper for everybody, and a
	// machine that is busy for a moment must not make itself busier.
	gatePatience = 50 * time.Millisecond
	gateLook     = gatePatience / 5 // how often a caller looks whether it is over
	// gateQueue is how many callers may wait, for each connection of a store.
	gateQueue = 64
)

// gate is a store's bulkhead: it bounds how many callers use the store's
// database at once and how many wait for it. It begins with one slot and
// gets more, one connection each, only when callers wait for long; so a fleet
// of stores shares few connections.
type gate struct {
	limit     int         // slots at most
	connected func() bool // every slot has its connection: none is being made

	mu     sync.Mutex
	slots  int // in use at once at most, for now
	inside int
	peak   int       // of inside, since narrow
	queue  list.List // of chan struct{}, closed when its owner is inside
	since  time.Time // when the queue was last empty, or a slot was added
}

func newGate(limit int) *gate { return &gate{limit: limit, slots: 1} }

// tryEnter enters if that needs no wait.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside >= g.slots || g.queue.Len() > 0 {
		return false
	}
	g.admit()
	return true
}

// enter waits for a slot until ctx is done. Who entered must leave.
func (g *gate) enter(ctx context.Context) error {
	if g.tryEnter() {
		return nil
	}
	g.mu.Lock()
	if g.queue.Len() >= g.limit*gateQueue {
		g.mu.Unlock()
		return errCrowded
	}
	if g.queue.Len() == 0 {
		g.since = time.Now()
	}
	turn := make(chan struct{})
	place := g.queue.PushBack(turn)
	g.call() // a slot may have become free meanwhile
	g.mu.Unlock()
	return g.wait(ctx, turn, place)
}

func (g *gate) wait(ctx context.Context, turn chan struct{}, place *list.Element) error {
	look := time.NewTicker(gateLook)
	defer look.Stop()
	for {
		if g.crowded() && g.connected() {
			g.widen()
		}
		select {
		case <-turn:
			return nil
		case <-look.C:
		case <-ctx.Done():
			g.mu.Lock()
			defer g.mu.Unlock()
			select {
			case <-turn: // too late: pass the slot on
				g.inside--
				g.call()
			default:
				g.queue.Remove(place)
			}
			return ctx.Err()
		}
	}
}

// setLimit is for a database that may have fewer connections than others.
func (g *gate) setLimit(limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = limit
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.call()
}

// crowded reports whether callers have waited for as long as is good.
func (g *gate) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queue.Len() > 0 && g.slots < g.limit && time.Since(g.since) >= gatePatience
}

// widen gives those who wait another slot.
func (g *gate) widen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.slots < g.limit && g.inside >= g.slots {
		g.slots++
		g.since = time.Now()
		g.call()
	}
}

// narrow takes back the slots that were not needed since it was last called.
func (g *gate) narrow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slots = max(g.peak, 1)
	g.peak = g.inside
}

// call lets in who has waited longest, as many as there are free slots.
func (g *gate) call() {
	for g.inside < g.slots && g.queue.Len() > 0 {
		close(g.queue.Remove(g.queue.Front()).(chan struct{}))
		g.admit()
	}
}

func (g *gate) admit() {
	g.inside++
	g.peak = max(g.peak, g.inside)
}

// width is how many connections the store may have for now.
func (g *gate) width() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.slots
}
