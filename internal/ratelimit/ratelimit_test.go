package ratelimit

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/ratelimit/ratelimittest"
)

// eachCounter runs test on every implementation of counter.
func eachCounter(t *testing.T, test func(t *testing.T, c counter)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, newMemory(maxKeys))
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		s, err := newShared(keyring.NewSecret(ratelimittest.URL(t)), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.client.Close() }) //nolint:errcheck // the test is over
		test(t, s)
	})
}

// newKey returns a key that no other test uses.
func newKey() Key { return Of("test", rand.Text()) }

func take(t *testing.T, c counter, k Key, l Limit) Result {
	t.Helper()
	r, err := c.take(t.Context(), k, l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func attempt(t *testing.T, c counter, k Key, p Backoff) time.Duration {
	t.Helper()
	wait, err := c.attempt(t.Context(), k, p)
	if err != nil {
		t.Fatal(err)
	}
	return wait
}

func TestTake(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(t *testing.T, c counter) {
		slow, k := Limit{Name: "slow", PerMinute: 5}, newKey()
		for left := 4; left >= 0; left-- {
			r := take(t, c, k, slow)
			if !r.OK || r.Remaining != left || r.Reset <= 0 || r.RetryAfter != 0 {
				t.Fatalf("with %d to be left: %+v", left, r)
			}
		}
		r := take(t, c, k, slow)
		if r.OK || r.Remaining != 0 || r.RetryAfter <= 10*time.Second || r.RetryAfter > 12*time.Second || r.Reset > time.Minute {
			t.Errorf("the sixth: %+v", r)
		}
		if r := take(t, c, newKey(), slow); !r.OK {
			t.Errorf("another caller: %+v", r)
		}
		// A refused request is not counted: repeating it does not make the wait longer.
		if again := take(t, c, k, slow); again.RetryAfter > r.RetryAfter {
			t.Errorf("first %v, then %v", r.RetryAfter, again.RetryAfter)
		}
		if err := c.forget(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if r := take(t, c, k, slow); !r.OK {
			t.Errorf("after all was forgotten: %+v", r)
		}
	})
}

// TestTakeRefills checks that used requests become available again one by one.
func TestTakeRefills(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(t *testing.T, c counter) {
		quick, k := Limit{Name: "quick", PerMinute: 3000}, newKey() // one in 20 ms
		for take(t, c, k, quick).OK {
		}
		deadline := time.Now().Add(10 * time.Second)
		for !take(t, c, k, quick).OK {
			if time.Now().After(deadline) {
				t.Fatal("nothing comes back")
			}
		}
	})
}

// TestConcurrentTake checks that concurrent callers together get no more than the limit.
func TestConcurrentTake(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(t *testing.T, c counter) {
		const most = 10
		limit, k := Limit{Name: "at-once", PerMinute: most}, newKey()
		var got atomic.Int32
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if r, err := c.take(context.Background(), k, limit); err == nil && r.OK {
					got.Add(1)
				}
			})
		}
		all.Wait()
		if got.Load() != most {
			t.Errorf("%d of 50 got it, want %d", got.Load(), most)
		}
	})
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(t *testing.T, c counter) {
		k, p := newKey(), Backoff{Free: 3, Most: 3 * time.Second}
		for n := range 4 {
			if wait := attempt(t, c, k, p); wait != 0 {
				t.Fatalf("attempt %d waits %v", n, wait)
			}
		}
		if wait := attempt(t, c, k, p); wait <= 0 || wait > time.Second {
			t.Errorf("the fifth waits %v", wait)
		}
		if wait := attempt(t, c, newKey(), p); wait != 0 {
			t.Errorf("another waits %v", wait)
		}
		if err := c.forget(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if wait := attempt(t, c, k, p); wait != 0 {
			t.Errorf("after a success: %v", wait)
		}
	})
}

// TestConcurrentAttempts checks that an attempt is counted before it is made, so that
// concurrent attempts are not all the first.
func TestConcurrentAttempts(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(t *testing.T, c counter) {
		k, p := newKey(), Backoff{Free: 4, Most: time.Hour}
		var made atomic.Int32
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if wait, err := c.attempt(context.Background(), k, p); err == nil && wait == 0 {
					made.Add(1)
				}
			})
		}
		all.Wait()
		if made.Load() != 5 {
			t.Errorf("%d attempts were made, want 5", made.Load())
		}
	})
}

// TestAttemptsAtOnceAreFree checks that attempts at the same time do not refuse each other
// while they are free.
func TestAttemptsAtOnceAreFree(t *testing.T) {
	t.Parallel()
	c, p := newMemory(maxKeys), Backoff{Free: 8, Most: time.Hour}
	for range 2000 {
		k := newKey()
		var all sync.WaitGroup
		for range p.Free {
			all.Go(func() {
				if wait, err := c.attempt(context.Background(), k, p); err != nil || wait != 0 {
					t.Errorf("a free attempt waits %v, %v", wait, err)
				}
			})
		}
		all.Wait()
	}
}

// TestDelaysDouble checks the delays in the fake time of a synctest bubble.
func TestDelaysDouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, k, p := newMemory(maxKeys), newKey(), Backoff{Free: 2, Most: 10 * time.Second}
		attempt(t, m, k, p)
		attempt(t, m, k, p)
		for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			if wait := attempt(t, m, k, p); wait != 0 {
				t.Fatalf("before the delay of %d s: %v", want, wait)
			}
			if wait := attempt(t, m, k, p); wait != want*time.Second {
				t.Fatalf("waits %v, want %d s", wait, want)
			}
			time.Sleep(want * time.Second) //nolint:forbidigo // fake time of the bubble
		}
		time.Sleep(attemptTTL + time.Second) //nolint:forbidigo // fake time of the bubble
		for n := range 3 {
			if wait := attempt(t, m, k, p); wait != 0 {
				t.Errorf("attempt %d of another day waits %v", n, wait)
			}
		}
	})
}

func TestDelayHasABound(t *testing.T) {
	t.Parallel()
	p := Backoff{Free: 1, Most: time.Minute}
	for _, n := range []int{8, 40, 1000, 1 << 40} {
		if d := p.delay(n); d != time.Minute {
			t.Errorf("after %d: %v", n, d)
		}
	}
}

// TestMemoryIsBounded checks that a flood of addresses evicts addresses and not attempts.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const most = 4096
	m, guessed := newMemory(most), newKey()
	p := Backoff{Free: 1, Most: time.Hour}
	attempt(t, m, guessed, p)
	attempt(t, m, guessed, p)
	for i := range 20 * most {
		var id [16]byte
		binary.BigEndian.PutUint64(id[:], uint64(i))
		take(t, m, ID("flood", id), Limit{Name: "flood", PerMinute: 60})
	}
	if n := m.size(); n > most {
		t.Errorf("%d keys are kept, of at most %d", n, most)
	}
	if m.shard(guessed).keys[guessed].attempts != 2 {
		t.Error("the flood made it forget the attempts")
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		a, b := netip.MustParseAddr(c.a), netip.MustParseAddr(c.b)
		if got := Address("test", a) == Address("test", b); got != c.same {
			t.Errorf("%s and %s are the same: %v", a, b, got)
		}
	}
	if Address("test", netip.Addr{}) == Address("test", netip.MustParseAddr("127.0.0.1")) {
		t.Error("no address is an address")
	}
	if Address("a", netip.Addr{}) == Address("b", netip.Addr{}) {
		t.Error("names do not keep counts apart")
	}
	if Of("w", "ab", "c") == Of("w", "a", "bc") {
		t.Error("words run together")
	}
}

// TestTwoLimitersShareCounts checks that two servers count together.
func TestTwoLimitersShareCounts(t *testing.T) {
	t.Parallel()
	url := keyring.NewSecret(ratelimittest.URL(t))
	var both [2]*Limiter
	for i := range both {
		l, err := New(url, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
		both[i] = l
	}
	limited, limit := newKey(), Limit{Name: "both", PerMinute: 10}
	ok := 0
	for i := range 30 {
		if both[i%2].Take(t.Context(), limited, limit).OK {
			ok++
		}
	}
	if ok != 10 {
		t.Errorf("two servers let %d pass, want 10", ok)
	}
	k, p := newKey(), Backoff{Free: 1, Most: time.Minute}
	both[0].Attempt(t.Context(), k, p)
	both[1].Attempt(t.Context(), k, p)
	if both[0].Attempt(t.Context(), k, p) == 0 {
		t.Error("attempts are not shared")
	}
	if both[0].memory.size()+both[1].memory.size() != 0 {
		t.Error("with a server that answers something was counted in memory")
	}
}

// TestWithoutServer checks that, while the Redis server does not answer, limits still
// apply, requests are not refused because of it, and the delay is limited.
func TestWithoutServer(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	l, err := New(keyring.NewSecret("redis://:hunter2@127.0.0.1:1"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	k, limit := newKey(), Limit{Name: "alone", PerMinute: 5}
	ok, start := 0, time.Now()
	for range 200 {
		if l.Take(t.Context(), k, limit).OK {
			ok++
		}
	}
	if ok != 5 {
		t.Errorf("%d passed, want 5", ok)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("200 calls took %v", took)
	}
	if l.Ping(t.Context()) == nil {
		t.Error("a server that is not there answers")
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has %d warnings: %s", n, log.String())
	}
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	l, err := New(keyring.Secret{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if !l.Take(t.Context(), newKey(), Limit{Name: "none"}).OK {
			t.Fatal("refused")
		}
	}
	if l.memory.size() != 0 {
		t.Error("what has no limit is counted")
	}
}

func TestBadURL(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"localhost:6379", "http://u:hunter2@localhost", "redis://u:hunter2@local host", "redis://:hunter2@h:1/x"} {
		_, err := New(keyring.NewSecret(bad), slog.New(slog.DiscardHandler))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func BenchmarkTakeInMemory(b *testing.B) {
	m, k := newMemory(maxKeys), newKey()
	for b.Loop() {
		_, _ = m.take(b.Context(), k, Limit{Name: "bench", PerMinute: 1 << 20})
	}
}
