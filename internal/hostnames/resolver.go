package hostnames

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// The maximum age of a cached resolution for which no notification arrived. On SQLite no
// notification reaches another process, such as a command that runs at the same time as a
// server.
const (
	postgresTTL = 30 * time.Second
	sqliteTTL   = 5 * time.Second
)

const (
	maxCached     = 100_000         // names in the cache
	maxUnknown    = 4               // concurrent lookups of names that are not cached
	lookupTimeout = 5 * time.Second // of one query of the master
	shardCount    = 1 << 12

	// refreshWait is how long a lookup of a cached name waits for the master before it
	// returns the cached resolution.
	refreshWait = 250 * time.Millisecond
	// defaultMaxStale is the default of Service.SetMaxStale.
	defaultMaxStale = time.Hour
)

// Resolution is the store at a hostname.
type Resolution struct {
	StoreID  stoa.StoreID
	Status   string        // the store's state, as recorded in the registry of stores
	StaleFor time.Duration `db:"-"` // its age when the master gave no answer to a newer query; else 0
}

// resolver caches which store answers at which hostname. A cache hit sends no query,
// takes no lock and allocates nothing. It is safe for concurrent use.
//
// Unknown names are not cached, so a flood of them cannot evict others, and a new store
// is reachable at once. Two limits protect the master from such a flood: concurrent
// lookups of one name share a query, and only maxUnknown names that are not cached are
// looked up at the same time. Cached names do not wait for that limit.
//
// A change is notified with a store's id, and the resolver keeps no list of a store's
// names. Instead each change starts a new generation, which is stored for the shard of
// the store's id. An entry that was read in an earlier generation than its shard's is
// read again. A lookup reads its generation before it queries, so a lookup in progress
// during a change cannot cache the state before the change. Other stores of the shard are
// read again too, which is rare and harmless.
//
// While the master is unreachable or slow, a cached resolution is returned up to maxStale
// after it was read, unless a change of its store was notified since then. So a
// suspension takes effect. A resync, which means only that notifications may have been
// missed, does not end this.
type resolver struct {
	load    func(ctx context.Context, name string) (Resolution, error) // from the master
	ttl     time.Duration
	cache   *otter.Cache[string, cacheEntry]
	unknown chan struct{} // a slot for each lookup of a name that is not cached

	platform map[string]bool // hosts of the platform, at which no store answers

	maxStale time.Duration
	stale    atomic.Uint64 // lookups that returned a stale resolution

	generation atomic.Uint64
	changed    [shardCount]atomic.Uint64 // the generation in which a store of the shard last changed
	resynced   atomic.Uint64             // the generation of the last resync: entries of earlier ones are read again

	mu      sync.Mutex         // orders changes
	lookups singleflight.Group // by name and generation
}

// cacheEntry is a resolution as it was in a generation.
type cacheEntry struct {
	Resolution
	generation uint64
	asOf       time.Time // a time before the resolution was read
}

func newResolver(db *masterdb.DB) *resolver {
	r := &resolver{
		ttl: postgresTTL, maxStale: defaultMaxStale,
		cache:   otter.Must(&otter.Options[string, cacheEntry]{MaximumSize: maxCached}),
		unknown: make(chan struct{}, maxUnknown),
	}
	if db.Engine == masterdb.SQLite {
		r.ttl = sqliteTTL
	}
	// A custom hostname is mapped only after its owner has verified it.
	r.load = func(ctx context.Context, name string) (found Resolution, err error) {
		err = db.Get(ctx, &found, `
			SELECT h.store_id, s.status FROM store_hostnames h JOIN stores s ON s.id = h.store_id
			WHERE h.hostname = $1 AND h.verified_at IS NOT NULL`, name)
		return found, err
	}
	return r
}

// lookup returns the resolution of host, a Host header, or store_not_found.
func (r *resolver) lookup(ctx context.Context, host string) (Resolution, error) {
	name, err := Normalize(host)
	if err != nil || r.platform[name] {
		return Resolution{}, ErrUnknown()
	}
	e, cached := r.cache.GetIfPresent(name)
	if !cached {
		return r.lookupUnknown(ctx, name)
	}
	if r.isCurrent(e) && e.generation >= r.resynced.Load() && time.Since(e.asOf) < r.ttl {
		return e.Resolution, nil
	}
	return r.refresh(ctx, name, e)
}

// isCurrent reports whether no change of the entry's store was notified since it
// was read.
func (r *resolver) isCurrent(e cacheEntry) bool {
	return e.generation >= r.changed[shardOf(e.StoreID)].Load()
}

// refresh reads a cached name again. It returns the cached resolution when the
// master fails or takes longer than refreshWait.
func (r *resolver) refresh(ctx context.Context, name string, e cacheEntry) (Resolution, error) {
	timer := time.NewTimer(refreshWait)
	defer timer.Stop()
	// The query continues when this caller leaves: later lookups need its result too.
	shared := r.query(context.WithoutCancel(ctx), name, true)
	for {
		select {
		case result := <-shared:
			a := result.Val.(answer)
			switch {
			case a.abandoned:
				shared = r.query(context.WithoutCancel(ctx), name, true)
				continue
			case result.Err == nil || stoa.CodeOf(result.Err) == stoa.StoreNotFound:
				return a.resolution, result.Err
			}
			if stale, ok := r.staleResolution(e); ok {
				return stale, nil
			}
			return Resolution{}, result.Err
		case <-timer.C: // fires once
			if stale, ok := r.staleResolution(e); ok {
				return stale, nil
			}
		case <-ctx.Done():
			return Resolution{}, ctx.Err()
		}
	}
}

// staleResolution returns the cached resolution with its age, if it may still be
// used.
func (r *resolver) staleResolution(e cacheEntry) (Resolution, bool) {
	age := time.Since(e.asOf)
	if !r.isCurrent(e) || age >= r.maxStale {
		return Resolution{}, false
	}
	r.stale.Add(1)
	e.StaleFor = age
	return e.Resolution, true
}

// lookupUnknown resolves a name that is not cached. It shares the query that is in
// progress for the name. When the caller that sent that query leaves, the query ends, and
// one of the others sends another.
func (r *resolver) lookupUnknown(ctx context.Context, name string) (Resolution, error) {
	for {
		select {
		case result := <-r.query(ctx, name, false):
			if a := result.Val.(answer); !a.abandoned || ctx.Err() != nil {
				return a.resolution, result.Err
			}
		case <-ctx.Done():
			return Resolution{}, ctx.Err()
		}
	}
}

// answer is the result of a shared query.
type answer struct {
	resolution Resolution
	abandoned  bool // the caller that sent it left first, so the others have no result
}

// query reads a name from the master, or shares the query in progress for it. It never
// shares one of an earlier generation, which may have read before a change that the
// caller knows of. The query ends with the ctx of the caller that sent it. The value in
// the channel is an answer.
func (r *resolver) query(ctx context.Context, name string, cached bool) <-chan singleflight.Result {
	generation := r.generation.Load()
	return r.lookups.DoChan(strconv.FormatUint(generation, 10)+" "+name, func() (any, error) {
		found, err := r.read(ctx, generation, name, cached)
		return answer{resolution: found, abandoned: err != nil && ctx.Err() != nil}, err
	})
}

// read reads a name from the master and caches the result.
func (r *resolver) read(ctx context.Context, generation uint64, name string, cached bool) (Resolution, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if !cached {
		select {
		case r.unknown <- struct{}{}:
			defer func() { <-r.unknown }()
		case <-ctx.Done():
			return Resolution{}, unavailable(stoa.TenantUnavailable, "Too many unknown addresses are being asked for. Try again in a moment.")
		}
	}
	asOf := time.Now()
	found, err := r.load(ctx, name)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		r.cache.Invalidate(name) // the name may have been mapped to a store before
		return Resolution{}, ErrUnknown()
	case err != nil:
		return Resolution{}, unavailable(stoa.PlatformUnavailable, "This address cannot be looked up at the moment. Try again in a few seconds.").WithCause(err)
	}
	r.cache.Set(name, cacheEntry{Resolution: found, generation: generation, asOf: asOf})
	return found, nil
}

// retryAfter is the Retry-After of a failed lookup.
const retryAfter = 5 * time.Second

func unavailable(code stoa.Code, message string) *stoa.Error {
	e := stoa.Errorf(code, "%s", message)
	e.RetryAfter = retryAfter
	return e
}

// invalidate expires the cached names of the store, so that they are read again.
func (r *resolver) invalidate(store stoa.StoreID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed[shardOf(store)].Store(r.generation.Add(1))
}

// invalidateAll expires all cached names, since notifications may have been missed.
func (r *resolver) invalidateAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resynced.Store(r.generation.Add(1))
}

// shardOf returns the shard of a store, from the end of its id, where it is
// random.
func shardOf(id stoa.StoreID) int {
	return (int(id[14])<<8 | int(id[15])) % shardCount
}
