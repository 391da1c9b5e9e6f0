// Package limits counts how much somebody asks for, and says when it is too
// much. It knows no domain: the door counts requests, accounts counts attempts
// to sign in. The counts are in this process's memory or, with a Redis server,
// shared by all; while that server does not answer, each process goes on by
// itself.
package limits

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/stoahq/stoa/keyring"
)

// Limit is how much one caller may ask for: PerMinute, all at once or spread.
// With none there is no limit.
type Limit struct {
	Name      string // for the caller to read: letters and hyphens
	PerMinute int
}

// interval is the time in which one act is regained, in whole microseconds.
func (l Limit) interval() time.Duration {
	return max((time.Minute / time.Duration(l.PerMinute)).Truncate(time.Microsecond), time.Microsecond)
}

// Patience is for attempts that have to be few: the first Free of them go on at
// once, after each further one the next waits twice as long, from a second to
// Most. After an hour without any, all is forgotten.
type Patience struct {
	Free int
	Most time.Duration
}

// memoryOfAttempts is how long attempts count after the last wait.
const memoryOfAttempts = time.Hour

// delay is what follows the n-th attempt.
func (p Patience) delay(n int) time.Duration {
	if n <= p.Free {
		return 0
	}
	return min(time.Second<<min(n-p.Free-1, 20), p.Most)
}

// Result is the answer to one who asks.
type Result struct {
	OK         bool
	Remaining  int           // what may be asked for at once, after this
	RetryAfter time.Duration // when it is not OK: how long until it would be
	Reset      time.Duration // until the whole limit is free again
}

// Key names who or what is counted. Names keep counts of different kinds apart.
type Key struct {
	name string
	id   [16]byte
}

// ID is the key of something that has an id.
func ID[T ~[16]byte](name string, id T) Key { return Key{name, id} }

// Of is the key of something that has words. No word can be read from it.
func Of(name string, words ...string) Key {
	h := sha256.New()
	for _, w := range words {
		sum := sha256.Sum256([]byte(w))
		h.Write(sum[:])
	}
	return Key{name, [16]byte(h.Sum(nil))}
}

// Address is the key of a client's network.
func Address(name string, a netip.Addr) Key { return Key{name, Network(a).Addr().As16()} }

// Network is what counts as one client: an IPv4 address, or an IPv6 network of
// 64 bits, of which one customer has at least one (RFC 6177).
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		a = netip.IPv6Unspecified() // all that have none are one
	}
	p, _ := a.Prefix(min(a.BitLen(), 64)) // within the address's length
	return p
}

func (k Key) String() string { return "stoa:" + k.name + ":" + hex.EncodeToString(k.id[:]) }

// counter keeps counts. Every call is atomic.
type counter interface {
	take(context.Context, Key, Limit) (Result, error)
	attempt(context.Context, Key, Patience) (wait time.Duration, err error)
	forget(context.Context, ...Key) error
}

// Limiter counts. It is safe for concurrent use.
type Limiter struct {
	memory  *memory
	shared  *shared // nil without Redis
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
}

// New counts in memory and, unless url is zero, in the Redis (or Valkey) server
// there: redis://, rediss:// for TLS. A server that does not answer is no error.
func New(url keyring.Secret, log *slog.Logger) (*Limiter, error) {
	l := &Limiter{memory: newMemory(maxKeys)}
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
				log.Info("REDIS_URL answers again: rate limits are shared")
			case from == gobreaker.StateClosed:
				log.Warn("REDIS_URL does not answer: each process counts its rate limits by itself")
			}
		},
	})
	return l, nil
}

// Take asks for one act under the key.
func (l *Limiter) Take(ctx context.Context, k Key, limit Limit) Result {
	if limit.PerMinute <= 0 {
		return Result{OK: true}
	}
	return ask(l, func(c counter) (Result, error) { return c.take(ctx, k, limit) })
}

// Attempt counts an attempt and returns zero, or counts none and returns how
// long to wait for the next. One that succeeds is to be forgotten.
func (l *Limiter) Attempt(ctx context.Context, k Key, p Patience) (wait time.Duration) {
	return ask(l, func(c counter) (time.Duration, error) { return c.attempt(ctx, k, p) })
}

// Forget forgets all that was counted under the keys.
func (l *Limiter) Forget(ctx context.Context, keys ...Key) {
	_ = l.memory.forget(ctx, keys...) // from when the server did not answer
	ask(l, func(c counter) (struct{}, error) { return struct{}{}, c.forget(ctx, keys...) })
}

// ask goes to the shared counts, or to memory when they cannot be had.
func ask[T any](l *Limiter, f func(counter) (T, error)) T {
	if l.shared != nil {
		if done, err := l.breaker.Allow(); err == nil {
			out, err := f(l.shared)
			done(err)
			if err == nil {
				return out
			}
		}
	}
	out, _ := f(l.memory) // which never fails
	return out
}

// Ping reports whether the shared counts can be had; without a server they
// need not.
func (l *Limiter) Ping(ctx context.Context) error {
	if l.shared == nil {
		return nil
	}
	return l.shared.client.Ping(ctx).Err()
}

// Shared reports whether there is a server for the counts.
func (l *Limiter) Shared() bool { return l.shared != nil }

// Close ends the connections.
func (l *Limiter) Close() error {
	if l.shared == nil {
		return nil
	}
	return l.shared.client.Close()
}
