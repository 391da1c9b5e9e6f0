package ratelimit_test

import (
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/ratelimit"
)

// TestByteBudgetIsFair checks that a key gets its share and, when the budget runs short, no
// more than is left for all others.
func TestByteBudgetIsFair(t *testing.T) {
	t.Parallel()
	b := ratelimit.NewByteBudget(100, 30)
	key := func(name string) ratelimit.Key { return ratelimit.Of("test", name) }
	take := func(name string, n int64, want bool) {
		t.Helper()
		if got := b.Take(key(name), n); got != want {
			t.Errorf("%s takes %d: %v, want %v; %+v", name, n, got, want, b.Stats())
		}
	}
	take("a", 30, true)
	take("a", 1, false) // above its share
	take("b", 30, true)
	take("c", 20, true)  // as much as is left
	take("c", 1, false)  // 21 of 20
	take("d", 10, true)  // half of what is left
	take("d", 1, false)  // 11 of 10
	take("e", 5, true)   // a new key still gets bytes
	take("a", 1, false)  // a key with many bytes does not
	take("e", 0, true)   // 0 bytes are always granted
	take("f", 6, false)  // 5 are left
	take("f", -6, true)  // a negative number is granted too
	b.Give(key("a"), 30) // now 35 are left
	take("f", 6, true)
	if s := b.Stats(); s.Used != 71 || s.Total != 100 || s.Refused != 5 {
		t.Errorf("stats are %+v", s)
	}
}

// TestReservedBytesReturn checks that all bytes of a request are returned when it ends,
// whichever keys took them and however many goroutines did so concurrently.
func TestReservedBytesReturn(t *testing.T) {
	t.Parallel()
	b := ratelimit.NewByteBudget(1000, 500)
	ctx, reserved := b.Reserve(t.Context())
	if ratelimit.ReservationIn(t.Context()) != nil || ratelimit.ReservationIn(ctx) != reserved {
		t.Fatal("the context carries another one")
	}
	if _, ok := reserved.Key(); ok {
		t.Error("a key before anything was taken")
	}
	first := ratelimit.Of("test", "first")
	if !reserved.Take(first, 1) {
		t.Fatal("refused")
	}
	var wg sync.WaitGroup
	for _, name := range []string{"first", "second"} {
		for range 50 {
			wg.Go(func() {
				if !reserved.Take(ratelimit.Of("test", name), 2) {
					t.Error("refused")
				}
			})
		}
	}
	wg.Wait()
	if k, ok := reserved.Key(); !ok || k != first {
		t.Errorf("the key is %v", k)
	}
	if used := b.Stats().Used; used != 201 {
		t.Errorf("%d bytes are reserved", used)
	}
	reserved.Release()
	reserved.Release()
	if used := b.Stats().Used; used != 0 {
		t.Errorf("%d bytes are reserved by nobody", used)
	}
	if !b.Take(first, 500) {
		t.Error("the share has not returned")
	}
}

// TestExpectedBytes checks that a request takes what the last answer to its question needed,
// from the reading to the sending, before it asks, and that answers that shrink, or that
// exceed the share, do not refuse a key for ever.
func TestExpectedBytes(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	b := ratelimit.NewByteBudget(64*mib, 16*mib)
	k := ratelimit.Of("test", "k")
	ask := func(question string, read, sent int64) (r *ratelimit.Reservation, expected int64, ok bool) {
		t.Helper()
		_, r = b.Reserve(t.Context())
		before := b.Stats().Used
		if !r.Expect(k, question) {
			return r, 0, false
		}
		expected = b.Stats().Used - before
		ok = r.Take(k, read) && r.Take(k, sent)
		return r, expected, ok
	}
	finish := func(r *ratelimit.Reservation, sent int64) {
		r.Give(k, sent)
		r.Release()
	}
	r, expected, ok := ask("page", mib, 3*mib)
	if expected != 0 || !ok {
		t.Fatalf("the first request expects %d bytes, %v", expected, ok)
	}
	finish(r, 3*mib)
	var held []*ratelimit.Reservation
	for range 4 {
		r, expected, ok := ask("page", mib, 3*mib)
		if expected != 4*mib || !ok {
			t.Fatalf("a later request expects %d bytes, %v", expected, ok)
		}
		held = append(held, r)
	}
	if used := b.Stats().Used; used != 16*mib {
		t.Errorf("four answers have %d bytes", used)
	}
	if r, _, ok := ask("page", 0, 0); ok {
		t.Error("a fifth is asked for")
	} else {
		r.Release() // a refusal says nothing about the size
	}
	if r, expected, ok := ask("profile", 0, 0); expected != 0 || !ok {
		t.Error("a small answer is refused")
	} else {
		r.Release()
	}
	for _, r := range held {
		finish(r, 3*mib)
	}
	if used := b.Stats().Used; used != 0 {
		t.Errorf("%d bytes are held by nobody", used)
	}

	for _, want := range []int64{4 * mib, 3 * mib, 9 * mib / 4} {
		r, expected, _ := ask("page", 100, 100)
		if expected != want {
			t.Errorf("%d bytes are expected, want %d", expected, want)
		}
		finish(r, 100)
	}
	for range 12 {
		r, _, _ := ask("page", 100, 100)
		finish(r, 100)
	}
	if r, expected, _ := ask("page", 10*mib, 10*mib); expected != 0 {
		t.Errorf("%d bytes are expected after many short answers", expected)
	} else {
		r.Release()
	}
	if r, expected, _ := ask("page", 0, 0); expected != 8*mib {
		t.Errorf("%d bytes are expected after an answer above the share", expected)
	} else {
		r.Release()
	}
	if used := b.Stats().Used; used != 0 {
		t.Errorf("%d bytes are held by nobody", used)
	}
}

// TestNoByteBudget checks that without a budget nothing is counted or refused.
func TestNoByteBudget(t *testing.T) {
	t.Parallel()
	var none *ratelimit.ByteBudget
	_, reserved := none.Reserve(t.Context())
	k := ratelimit.Of("test", "k")
	if !none.Take(k, 1<<60) || !reserved.Take(k, 1<<60) || !(*ratelimit.Reservation)(nil).Take(k, 1<<60) {
		t.Error("refused")
	}
	if !reserved.Expect(k, "q") || !(*ratelimit.Reservation)(nil).Expect(k, "q") {
		t.Error("refused")
	}
	none.Give(k, 1)
	reserved.Give(k, 1)
	reserved.Release()
	if none.Stats() != (ratelimit.ByteStats{}) {
		t.Error("counted")
	}
}
