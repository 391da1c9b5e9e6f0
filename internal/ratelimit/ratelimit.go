// Package ratelimit limits the rate of requests and attempts. It is independent of the
// domains: the API counts requests, accounts counts attempts to sign in. The counts are in
// this process's memory or, with a Redis server, shared by all processes. While that server
// does not respond, each process counts by itself.
package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/stoahq/stoa/internal/keyring"
)

// Limit is a rate limit of one caller: PerMinute requests, in a burst or spread
// over the minute. 0 is no limit.
type Limit struct {
	Name      string // shown to the caller: letters and hyphens
	PerMinute int
}

// interval returns the time after which one more request is allowed, in whole
// microseconds.
func (l Limit) interval() time.Duration {
	return max((time.Minute / time.Duration(l.PerMinute)).Truncate(time.Microsecond), time.Microsecond)
}

// Backoff limits attempts: the first Free are allowed at once. After each further
// attempt the wait for the next doubles, from a second to Most. The count is
// deleted an hour after the last wait.
type Backoff struct {
	Free int
	Most time.Duration
}

// attemptTTL is how long attempts count after the last wait.
const attemptTTL = time.Hour

// delay returns the wait after the n-th attempt.
func (p Backoff) delay(n int) time.Duration {
	if n <= p.Free {
		return 0
	}
	return min(time.Second<<min(n-p.Free-1, 20), p.Most)
}

// Result is the result of Take.
type Result struct {
	OK         bool
	Remaining  int           // the requests that are still allowed at once
	RetryAfter time.Duration // unless OK: the time until a request is allowed
	Reset      time.Duration // the time until the whole limit is available again
}

// Key identifies what is counted. Its name separates counts of different kinds.
type Key struct {
	name string
	id   [16]byte
}

// ID returns the key of something with an id.
func ID[T ~[16]byte](name string, id T) Key { return Key{name, id} }

// Of returns the key of words. It contains a hash that does not reveal them.
func Of(name string, words ...string) Key {
	h := sha256.New()
	for _, w := range words {
		sum := sha256.Sum256([]byte(w))
		h.Write(sum[:])
	}
	return Key{name, [16]byte(h.Sum(nil))}
}

// Address returns the key of a client's network.
func Address(name string, a netip.Addr) Key { return Key{name, Network(a).Addr().As16()} }

// Network returns the network that counts as one client: an IPv4 address, or an
// IPv6 network of 64 bits, of which one customer has at least one (RFC 6177).
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		a = netip.IPv6Unspecified() // all invalid addresses are one network
	}
	p, _ := a.Prefix(min(a.BitLen(), 64)) // cannot fail: the length is valid
	return p
}

func (k Key) String() string { return "stoa:" + k.name + ":" + hex.EncodeToString(k.id[:]) }

// counter stores counts. Every call is atomic.
type counter interface {
	take(context.Context, Key, Limit) (Result, error)
	attempt(context.Context, Key, Backoff) (wait time.Duration, err error)
	forget(context.Context, ...Key) error
}

// Limiter limits rates. It is safe for concurrent use.
type Limiter struct {
	memory  *memory
	shared  *shared // nil without Redis
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]

	refusals *prometheus.CounterVec
}

// New returns a limiter that counts in memory or, unless url is zero, in the Redis
// (or Valkey) server at url: redis://, or rediss:// for TLS. A server that does not
// respond is not an error.
func New(url keyring.Secret, log *slog.Logger) (*Limiter, error) {
	l := &Limiter{memory: newMemory(maxKeys), refusals: newRefusals()}
	if url.IsZero() {
		return l, nil
	}
	var err error
	if l.shared, err = newShared(url, sharedTimeout); err != nil {
		return nil, err
	}
	l.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     time.Second,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case to == gobreaker.StateClosed:
				log.Info("rate limit server reachable again: limits are shared")
			case from == gobreaker.StateClosed:
				log.Warn("rate limit server unreachable: each process counts by itself")
			}
		},
	})
	return l, nil
}

// Take counts one request under the key, if the limit allows it.
func (l *Limiter) Take(ctx context.Context, k Key, limit Limit) Result {
	if limit.PerMinute <= 0 {
		return Result{OK: true}
	}
	return call(l, func(c counter) (Result, error) { return c.take(ctx, k, limit) })
}

// Attempt counts an attempt and returns zero, or counts none and returns the wait
// for the next. The caller calls Forget when an attempt succeeds.
func (l *Limiter) Attempt(ctx context.Context, k Key, p Backoff) (wait time.Duration) {
	wait = call(l, func(c counter) (time.Duration, error) { return c.attempt(ctx, k, p) })
	if wait > 0 {
		l.refusals.WithLabelValues(k.name).Inc()
	}
	return wait
}

// Forget deletes the counts of the keys.
func (l *Limiter) Forget(ctx context.Context, keys ...Key) {
	_ = l.memory.forget(ctx, keys...) // attempts that were counted while the server did not respond
	call(l, func(c counter) (struct{}, error) { return struct{}{}, c.forget(ctx, keys...) })
}

// call calls f with the shared counter, or with the one in memory when the server
// does not respond.
func call[T any](l *Limiter, f func(counter) (T, error)) T {
	if l.shared != nil {
		if done, err := l.breaker.Allow(); err == nil {
			out, err := f(l.shared)
			done(err)
			if err == nil {
				return out
			}
		}
	}
	out, _ := f(l.memory) // never fails
	return out
}

// Ping checks the connection to the server. It returns nil without a server.
func (l *Limiter) Ping(ctx context.Context) error {
	if l.shared == nil {
		return nil
	}
	return l.shared.client.Ping(ctx).Err()
}

// Shared reports whether counts are shared by a server.
func (l *Limiter) Shared() bool { return l.shared != nil }

// Close closes the connections.
func (l *Limiter) Close() error {
	if l.shared == nil {
		return nil
	}
	return l.shared.client.Close()
}
