package limit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/limit"
	"github.com/stoahq/stoa/internal/testkit"
)

// readyIn is a limit.Pool.
type readyIn func() time.Duration

func (f readyIn) ReadyIn(int, time.Duration) time.Duration { return f() }

func always() time.Duration { return 0 }

// newConcurrency returns a limiter of a pool.
func newConcurrency(most int, pool readyIn) *limit.Concurrency {
	l := limit.NewConcurrency(most)
	l.Protect(pool)
	return l
}

// queue starts n callers one after the other. Each sends its number when it has
// a slot.
func queue(ctx context.Context, l *limit.Concurrency, n int) <-chan int {
	inside := make(chan int, n)
	for i := range n {
		go func() {
			if l.Acquire(ctx) == nil {
				inside <- i
			}
		}()
		synctest.Wait()
	}
	return inside
}

func TestConcurrencyServesInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := newConcurrency(8, always)
		testkit.Must(t, l.Acquire(t.Context()))
		inside := queue(t.Context(), l, 3)
		if l.Waiting() != 3 || l.Slots() != 1 {
			t.Fatalf("%d wait for %d slots", l.Waiting(), l.Slots())
		}
		for want := range 3 {
			l.Release()
			if got := <-inside; got != want {
				t.Errorf("caller %d before caller %d", got, want)
			}
		}
		l.Release()
		if took := time.Since(start); took != 0 {
			t.Errorf("a free slot was given away after %v", took)
		}
	})
}

func TestConcurrencyGrowsForWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newConcurrency(3, always)
		testkit.Must(t, l.Acquire(t.Context()))
		start := time.Now()
		inside := queue(t.Context(), l, 5)
		for range 2 {
			<-inside
		}
		if took := time.Since(start); took > 3*limit.GrowAfter {
			t.Errorf("three slots after %v", took)
		}
		<-time.After(time.Second) // in the bubble's time
		if l.Slots() != 3 || l.Waiting() != 3 {
			t.Errorf("%d slots, %d wait; the limit is 3", l.Slots(), l.Waiting())
		}
		for range 6 {
			l.Release()
		}
		l.Shrink() // three slots were needed since the last call
		if l.Slots() != 3 {
			t.Errorf("%d slots right after a rush", l.Slots())
		}
		l.Shrink()
		if l.Slots() != 1 {
			t.Errorf("%d slots after a time without a rush", l.Slots())
		}
	})
}

// TestConcurrencyDoesNotGrowForShortWaits checks that an occasional
// short queue causes no new connection. A busy machine has such queues.
func TestConcurrencyDoesNotGrowForShortWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newConcurrency(8, always)
		for range 20 {
			testkit.Must(t, l.Acquire(t.Context()))
			inside := queue(t.Context(), l, 1)
			<-time.After(limit.GrowAfter - time.Millisecond) // in the bubble's time
			l.Release()
			<-inside
			l.Release()
		}
		if l.Slots() != 1 {
			t.Errorf("%d slots", l.Slots())
		}
	})
}

// TestConcurrencyGrowsForConstantQueue checks that a store whose queue
// is never empty gets more slots, however short each wait is.
func TestConcurrencyGrowsForConstantQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := newConcurrency(2, always)
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() {
				for ctx.Err() == nil && l.Acquire(ctx) == nil {
					<-time.After(2 * time.Millisecond) // in the bubble's time
					l.Release()
				}
			})
		}
		<-time.After(2 * limit.GrowAfter) // in the bubble's time
		cancel()
		callers.Wait()
		if l.Slots() != 2 {
			t.Errorf("%d slots", l.Slots())
		}
	})
}

// TestConcurrencyDoesNotGrowWhileConnecting checks that no slot is added
// while the first connection is being made, because a second connection would
// not be ready sooner.
func TestConcurrencyDoesNotGrowWhileConnecting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var connected atomic.Bool
		var asked atomic.Int32
		l := newConcurrency(8, func() time.Duration {
			asked.Add(1)
			if connected.Load() {
				return 0
			}
			return limit.SafetyNet
		})
		testkit.Must(t, l.Acquire(t.Context()))
		inside := queue(t.Context(), l, 1)
		<-time.After(time.Second) // in the bubble's time
		if l.Slots() != 1 || asked.Load() != 1 {
			t.Errorf("%d slots, the pool was asked %d times", l.Slots(), asked.Load())
		}
		connected.Store(true)
		before := time.Now()
		l.ConnectionBegun()
		<-inside
		if took := time.Since(before); took != 0 {
			t.Errorf("a slot %v after the notification", took)
		}
	})
}

// TestConcurrencyGrowsWhenConnectionSettles checks that the limiter asks
// the pool again at the time that the pool returns, and not earlier.
func TestConcurrencyGrowsWhenConnectionSettles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var asked atomic.Int32
		l := newConcurrency(8, func() time.Duration {
			asked.Add(1)
			return max(0, 200*time.Millisecond-time.Since(start))
		})
		testkit.Must(t, l.Acquire(t.Context()))
		<-queue(t.Context(), l, 1)
		if took := time.Since(start); took != 200*time.Millisecond || asked.Load() != 2 {
			t.Errorf("a slot after %v, the pool was asked %d times", took, asked.Load())
		}
	})
}

func TestConcurrencyLimitsItsQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := newConcurrency(1, always)
		testkit.Must(t, l.Acquire(ctx))
		queue(ctx, l, limit.QueuePerConn)
		if err := l.Acquire(ctx); !errors.Is(err, limit.ErrQueueFull) {
			t.Errorf("got %v", err)
		}
		cancel()
		synctest.Wait()
		if l.Waiting() != 0 {
			t.Errorf("%d wait who have given up", l.Waiting())
		}
		l.Release()
		testkit.Must(t, l.Acquire(t.Context()))
	})
}

// TestConcurrencyUnderStress checks that no slot is lost and none is
// given away twice, whenever callers give up.
func TestConcurrencyUnderStress(t *testing.T) {
	t.Parallel()
	const limited = 4
	l := newConcurrency(limited, always)
	var inside, most atomic.Int32
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
				if l.Acquire(ctx) == nil {
					n := inside.Add(1)
					for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
					}
					inside.Add(-1)
					l.Release()
				}
				cancel()
			}
		})
	}
	callers.Wait()
	if n := most.Load(); n > limited {
		t.Errorf("%d inside at once", n)
	}
	for range l.Slots() { // each slot can still be acquired
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		testkit.Must(t, l.Acquire(ctx))
		cancel()
	}
}
