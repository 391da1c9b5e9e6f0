package screen_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/stoahq/stoa/internal/tenantdb/screen"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestHashingTakesTooLong checks that a connection that waits too long for a
// slot fails with an error of its own.
func TestHashingTakesTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limits := screen.Limits(nil)
		first, second := screen.NewHashingSlot(t.Context(), limits), screen.NewHashingSlot(t.Context(), limits)
		testkit.Must(t, first.Take(4096))
		begin := time.Now()
		err := second.Take(4096)
		if took := time.Since(begin); !errors.Is(err, screen.ErrHashing) || took != screen.HashingWait {
			t.Errorf("after %v: %v", took, err)
		}
		second.Release() // second does not have a slot
		if used, _ := limits.Slots(); used != 1 {
			t.Error("a turn was given back that was not taken")
		}
		first.Release()
		first.Release()
		testkit.Must(t, second.Take(4096))
	})
}

// TestUnusualHashingIsLimitedInTime checks that passwords with many iterations
// take turns that depend on the iterations of those before, that few of them wait,
// and that usual passwords do not wait for them.
func TestUnusualHashingIsLimitedInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		limits := screen.Limits(rate.NewLimiter(screen.MaxIterations, screen.MaxIterations)) // one in a second
		take := func(iterations int) (time.Duration, error) {
			begin := time.Now()
			err := limits.Acquire(t.Context(), iterations)
			if err == nil {
				limits.Release()
			}
			return time.Since(begin).Round(time.Millisecond), err
		}
		var waited []time.Duration
		var refused int
		var mu sync.Mutex
		var callers sync.WaitGroup
		for range 10 {
			callers.Go(func() {
				took, err := take(screen.MaxIterations)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					waited = append(waited, took)
				case !errors.Is(err, screen.ErrHashing) || took != 0:
					t.Errorf("after %v: %v", took, err)
				default:
					refused++
				}
			})
		}
		synctest.Wait()
		if took, err := take(screen.UsualIterations); took != 0 || err != nil {
			t.Errorf("a usual password took %v: %v", took, err)
		}
		callers.Wait()
		slices.Sort(waited)
		if want := []time.Duration{0, time.Second, screen.UnusualWait}; !slices.Equal(waited, want) || refused != 7 {
			t.Errorf("waited %v, want %v; %d refused", waited, want, refused)
		}
		if took, err := take(screen.UsualIterations + 1); took == 0 || err != nil { // what is left to pay
			t.Errorf("after %v: %v", took, err)
		}
	})
}
