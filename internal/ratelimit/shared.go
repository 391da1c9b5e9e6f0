package ratelimit

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/stoahq/stoa/internal/keyring"
)

const (
	sharedTimeout = 250 * time.Millisecond // how long a request waits for the server
	sharedConns   = 32
)

// shared counts in a Redis or Valkey server, with its clock.
type shared struct {
	client  *redis.Client
	timeout time.Duration // for one call
}

// newShared returns a counter on the server at url. It does not connect.
func newShared(url keyring.Secret, timeout time.Duration) (*shared, error) {
	opts, err := redis.ParseURL(url.Reveal())
	if err != nil { // err is not wrapped: it contains the password
		return nil, errors.New("must be redis://HOST:PORT or, with TLS, rediss://HOST:PORT, with user:password@ before the host if need be")
	}
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout, opts.PoolTimeout = timeout, timeout, timeout, timeout
	opts.MaxRetries, opts.DialerRetries, opts.PoolSize = -1, 1, sharedConns
	opts.ContextTimeoutEnabled = true
	opts.DisableIdentity = true // servers before 7.2 support neither this nor the next option
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	redis.SetLogger(&logging.VoidLogger{}) // it writes each failure to standard error
	return &shared{redis.NewClient(opts), timeout}, nil
}

// takeScript is memory.take. Times are in microseconds, which Lua's numbers
// represent exactly for centuries. It returns whether the request is allowed, and
// the time until the bucket is full again.
var takeScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local interval, whole = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
if full - now + interval > whole then return {0, full - now} end
full = full + interval
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return {1, full - now}`)

// attemptScript is memory.attempt. It returns the wait.
var attemptScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local free, most, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local open = tonumber(redis.call('HGET', KEYS[1], 'open') or 0)
if open > now then return open - now end
local n = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
local delay = 0
if n > free then delay = math.min(1000000 * 2 ^ math.min(n - free - 1, 20), most) end
redis.call('HSET', KEYS[1], 'open', string.format('%.0f', now + delay))
redis.call('PEXPIRE', KEYS[1], math.ceil((delay + kept) / 1000))
return 0`)

func (s *shared) take(ctx context.Context, k Key, limit Limit) (Result, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	interval := limit.interval().Microseconds()
	answer, err := takeScript.Run(ctx, s.client, []string{k.String()}, interval, interval*int64(limit.PerMinute)).Int64Slice()
	if err != nil {
		return Result{}, err
	}
	if len(answer) != 2 {
		return Result{}, errors.New("ratelimit: unexpected result of the script")
	}
	return resultOf(limit, time.Duration(answer[1])*time.Microsecond, answer[0] == 1), nil
}

func (s *shared) attempt(ctx context.Context, k Key, p Backoff) (time.Duration, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	wait, err := attemptScript.Run(ctx, s.client, []string{k.String()}, p.Free, p.Most.Microseconds(), attemptTTL.Microseconds()).Int64()
	return time.Duration(wait) * time.Microsecond, err
}

func (s *shared) forget(ctx context.Context, keys ...Key) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	return s.client.Unlink(ctx, names...).Err()
}

// bounded returns the context of one call. It ignores the cancellation of ctx: a
// client that disconnects is not a failure of the server.
func (s *shared) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
}
