package limit_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/limit"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSlowReclaimDelaysNoOtherServer checks that a server that closes
// connections slowly delays only the callers that wait for that server.
func TestSlowReclaimDelaysNoOtherServer(t *testing.T) {
	t.Parallel()
	slow, release := make(chan struct{}), make(chan struct{})
	var l *limit.Connections
	l = limit.NewConnections(1, func(server string) bool {
		if server == "slow" {
			close(slow)
			<-release
			return false
		}
		l.Release(server) // as an idle connection that was closed does
		return true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	testkit.Must(t, l.Acquire(ctx, "slow"))
	testkit.Must(t, l.Acquire(ctx, "other"))
	served := make(chan error, 1)
	go func() { served <- l.Acquire(ctx, "slow") }()
	<-slow
	testkit.Must(t, l.Acquire(ctx, "other"))
	l.Release("slow")
	close(release)
	testkit.Must(t, <-served)
}

// TestIdleConnectionWakesWaiter checks that a waiter is served at once when a
// connection becomes idle, without a poll.
func TestIdleConnectionWakesWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l *limit.Connections
		var idle atomic.Bool
		var searches atomic.Int32
		l = limit.NewConnections(1, func(server string) bool {
			searches.Add(1)
			found := idle.Swap(false)
			if found {
				l.Release(server)
			}
			return found
		})
		testkit.Must(t, l.Acquire(t.Context(), "server"))
		start, served := time.Now(), make(chan error, 1)
		go func() { served <- l.Acquire(t.Context(), "server") }()
		synctest.Wait()
		<-time.After(limit.SafetyNet / 2) // in the bubble's time
		if n := searches.Load(); n != 1 {
			t.Errorf("%d searches while nothing changed", n)
		}
		idle.Store(true)
		l.Idle("server")
		testkit.Must(t, <-served)
		if took := time.Since(start); took != limit.SafetyNet/2 {
			t.Errorf("served after %v", took)
		}
		l.Release("server")
	})
}

// TestSafetyNetServesWaiter checks that a lost notification delays a waiter by
// at most the interval of the safety net.
func TestSafetyNetServesWaiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l *limit.Connections
		var idle atomic.Bool
		l = limit.NewConnections(1, func(server string) bool {
			found := idle.Swap(false)
			if found {
				l.Release(server)
			}
			return found
		})
		testkit.Must(t, l.Acquire(t.Context(), "server"))
		start, served := time.Now(), make(chan error, 1)
		go func() { served <- l.Acquire(t.Context(), "server") }()
		synctest.Wait()
		idle.Store(true)
		testkit.Must(t, <-served)
		if took := time.Since(start); took != limit.SafetyNet {
			t.Errorf("served after %v", took)
		}
		l.Release("server")
	})
}

// TestConnectionsUnderStress checks that no connection is lost and none
// is given away twice, whenever waiters give up.
func TestConnectionsUnderStress(t *testing.T) {
	t.Parallel()
	const limited = 3
	var spare atomic.Int32 // connections that are open and unused
	var l *limit.Connections
	l = limit.NewConnections(limited, func(server string) bool {
		for n := spare.Load(); n > 0; n = spare.Load() {
			if spare.CompareAndSwap(n, n-1) {
				l.Release(server)
				return true
			}
		}
		return false
	})
	var inUse, most atomic.Int32
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
				if l.Acquire(ctx, "server") == nil {
					n := inUse.Add(1)
					for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
					}
					inUse.Add(-1)
					spare.Add(1)
					l.Idle("server")
				}
				cancel()
			}
		})
	}
	callers.Wait()
	if n := most.Load(); n > limited || n == 0 {
		t.Errorf("%d connections in use at once, the limit is %d", n, limited)
	}
	if n := l.Waiting(); n != 0 {
		t.Errorf("%d callers wait", n)
	}
	for range limited { // each connection can still be acquired
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		testkit.Must(t, l.Acquire(ctx, "server"))
		cancel()
	}
}
