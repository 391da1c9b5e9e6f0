package ratelimit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

const (
	// maxKeys limits the memory in use to about 20 MB.
	maxKeys = 1 << 17
	shards  = 32
	// sampled is how many keys are compared to find one to evict.
	sampled = 8
)

// memory counts in this process. The number of keys is limited: a full shard
// evicts, of a few random keys, the one that expires first. A flood of addresses
// therefore evicts addresses before attempts to sign in, which expire after an hour.
type memory struct {
	seed   maphash.Seed
	shards [shards]shard
	most   int // keys in a shard
}

type shard struct {
	mu   sync.Mutex
	keys map[Key]count
}

// count is the state of a key.
type count struct {
	full     time.Time // of a limit: when all of it is available again (GCRA's theoretical arrival time)
	open     time.Time // of attempts: when the next is allowed
	attempts int
	expires  time.Time
}

func newMemory(most int) *memory {
	m := &memory{seed: maphash.MakeSeed(), most: most / shards}
	for i := range m.shards {
		m.shards[i].keys = map[Key]count{}
	}
	return m
}

func (m *memory) shard(k Key) *shard {
	return &m.shards[maphash.Comparable(m.seed, k)%shards]
}

// take implements the generic cell rate algorithm: a bucket of a minute's requests
// that refills one by one, stored as one point in time.
func (m *memory) take(_ context.Context, k Key, limit Limit) (Result, error) {
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now() // under the lock: an earlier time would be before what another call has stored
	full := s.keys[k].full
	if full.Before(now) {
		full = now
	}
	used, whole := full.Sub(now), time.Duration(limit.PerMinute)*limit.interval()
	if used+limit.interval() > whole {
		return resultOf(limit, used, false), nil
	}
	full = full.Add(limit.interval())
	s.put(k, count{full: full, expires: full}, now, m.most)
	return resultOf(limit, full.Sub(now), true), nil
}

// resultOf returns the result for a bucket that is full again after used.
func resultOf(limit Limit, used time.Duration, ok bool) Result {
	whole := time.Duration(limit.PerMinute) * limit.interval()
	r := Result{OK: ok, Reset: used, Remaining: int((whole - used) / limit.interval())}
	if !ok {
		r.Remaining, r.RetryAfter = 0, used+limit.interval()-whole
	}
	return r
}

func (m *memory) attempt(_ context.Context, k Key, p Backoff) (time.Duration, error) {
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now() // under the lock: an earlier time would be before what another call has stored
	c, ok := s.keys[k]
	if !ok || c.expires.Before(now) {
		c = count{}
	}
	if wait := c.open.Sub(now); wait > 0 {
		return wait, nil
	}
	c.attempts++
	c.open = now.Add(p.delay(c.attempts))
	c.expires = c.open.Add(attemptTTL)
	s.put(k, c, now, m.most)
	return 0, nil
}

func (m *memory) forget(_ context.Context, keys ...Key) error {
	for _, k := range keys {
		s := m.shard(k)
		s.mu.Lock()
		delete(s.keys, k)
		s.mu.Unlock()
	}
	return nil
}

// put stores a count, and evicts another one when the shard is full.
func (s *shard) put(k Key, c count, now time.Time, most int) {
	if _, known := s.keys[k]; !known && len(s.keys) >= most {
		s.evict(now)
	}
	s.keys[k] = c
}

// evict deletes the key, of a few random ones, that expires first.
func (s *shard) evict(now time.Time) {
	var victim Key
	var soonest time.Time
	looked := 0
	for k, c := range s.keys { // in random order
		if looked == 0 || c.expires.Before(soonest) {
			victim, soonest = k, c.expires
		}
		if looked++; looked == sampled || soonest.Before(now) {
			break
		}
	}
	delete(s.keys, victim)
}

// size returns the number of keys.
func (m *memory) size() (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.keys)
		s.mu.Unlock()
	}
	return n
}
