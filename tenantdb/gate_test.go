package tenantdb_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa/tenantdb"
)

func always() bool { return true }

// queue starts n callers one after the other; each reports its number when it
// is inside.
func queue(ctx context.Context, g tenantdb.Gate, n int) <-chan int {
	inside := make(chan int, n)
	for i := range n {
		go func() {
			if g.Enter(ctx) == nil {
				inside <- i
			}
		}()
		synctest.Wait()
	}
	return inside
}

func TestGateHandsOverInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		g := tenantdb.NewGate(8, always)
		must(t, g.Enter(t.Context()))
		inside := queue(t.Context(), g, 3)
		if g.Waiting() != 3 || g.Slots() != 1 {
			t.Fatalf("%d wait for %d slots", g.Waiting(), g.Slots())
		}
		for want := range 3 {
			g.Leave()
			if got := <-inside; got != want {
				t.Errorf("caller %d before caller %d", got, want)
			}
		}
		g.Leave()
		if took := time.Since(start); took != 0 {
			t.Errorf("a free slot was given away after %v", took)
		}
	})
}

func TestGateWidensForWhoWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := tenantdb.NewGate(3, always)
		must(t, g.Enter(t.Context()))
		start := time.Now()
		inside := queue(t.Context(), g, 5)
		for range 2 {
			<-inside
		}
		if took := time.Since(start); took > 3*tenantdb.GatePatience {
			t.Errorf("three slots after %v", took)
		}
		<-time.After(time.Second) // of the bubble
		if g.Slots() != 3 || g.Waiting() != 3 {
			t.Errorf("%d slots, %d wait; the limit is 3", g.Slots(), g.Waiting())
		}
		for range 6 {
			g.Leave()
		}
		g.Narrow() // three were needed since the last time
		if g.Slots() != 3 {
			t.Errorf("%d slots right after a rush", g.Slots())
		}
		g.Narrow()
		if g.Slots() != 1 {
			t.Errorf("%d slots after a time without a rush", g.Slots())
		}
	})
}

// A crowd now and then that is soon served costs no connection: a busy
// machine looks like that.
func TestGateStaysNarrowWhileItKeepsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := tenantdb.NewGate(8, always)
		for range 20 {
			must(t, g.Enter(t.Context()))
			inside := queue(t.Context(), g, 1)
			<-time.After(tenantdb.GatePatience - time.Millisecond) // of the bubble
			g.Leave()
			<-inside
			g.Leave()
		}
		if g.Slots() != 1 {
			t.Errorf("%d slots", g.Slots())
		}
	})
}

// A store that somebody always waits for gets more, however short each wait.
func TestGateWidensForASteadyCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := tenantdb.NewGate(2, always)
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() {
				for ctx.Err() == nil && g.Enter(ctx) == nil {
					<-time.After(2 * time.Millisecond) // of the bubble
					g.Leave()
				}
			})
		}
		<-time.After(2 * tenantdb.GatePatience) // of the bubble
		cancel()
		callers.Wait()
		if g.Slots() != 2 {
			t.Errorf("%d slots", g.Slots())
		}
	})
}

// While the first connection is still being made, a second would not be
// there sooner.
func TestGateStaysNarrowWhileConnecting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var connected atomic.Bool
		g := tenantdb.NewGate(8, connected.Load)
		must(t, g.Enter(t.Context()))
		inside := queue(t.Context(), g, 1)
		<-time.After(time.Second) // of the bubble
		if g.Slots() != 1 {
			t.Errorf("%d slots", g.Slots())
		}
		connected.Store(true)
		<-inside
	})
}

func TestGateLimitsItsQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := tenantdb.NewGate(1, always)
		must(t, g.Enter(ctx))
		queue(ctx, g, tenantdb.GateQueue)
		if err := g.Enter(ctx); !errors.Is(err, tenantdb.ErrCrowded) {
			t.Errorf("got %v", err)
		}
		cancel()
		synctest.Wait()
		if g.Waiting() != 0 {
			t.Errorf("%d wait who have given up", g.Waiting())
		}
		g.Leave()
		must(t, g.Enter(t.Context()))
	})
}

// Whoever gives up when, no slot is lost and none is given away twice.
func TestGateUnderStress(t *testing.T) {
	t.Parallel()
	const limit = 4
	g := tenantdb.NewGate(limit, always)
	var inside, most atomic.Int32
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
				if g.Enter(ctx) == nil {
					n := inside.Add(1)
					for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
					}
					inside.Add(-1)
					g.Leave()
				}
				cancel()
			}
		})
	}
	callers.Wait()
	if n := most.Load(); n > limit {
		t.Errorf("%d inside at once", n)
	}
	for range g.Slots() { // each slot can still be had
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		must(t, g.Enter(ctx))
		cancel()
	}
}
