package stores

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// How long a change may go unnoticed that no notification told of. On SQLite
// none reaches another process, such as 'stoa demo' beside 'stoa serve'.
const (
	postgresTTL = 30 * time.Second
	sqliteTTL   = 5 * time.Second
)

const (
	maxNames      = 100_000         // remembered at most
	maxUnknown    = 4               // looked up at the same time
	lookupTimeout = 5 * time.Second // for one look into the master
	shards        = 1 << 12

	// refreshWait is how long a lookup of a cached name waits for the master before it
	// returns the cached site.
	refreshWait = 250 * time.Millisecond
	// defaultMaxStale is the default of Registry.ServeStale.
	defaultMaxStale = time.Hour
)

// Resolver remembers which store answers at which hostname. A hit asks
// nobody, takes no lock and allocates nothing.
//
// Names that lead nowhere are not remembered: no flood of them pushes out
// others, and a new store is there at once. What protects the master from
// such a flood is that one name is looked up once at a time, and few names
// that were never seen at the same time. Names seen before pass by that
// queue.
//
// Changes come as a store's id, and no list of its names is kept. Instead
// time is counted in generations: each change begins a new one and is noted
// as the latest of its store's shard; what was read in an earlier generation
// is no longer believed. A lookup takes its generation before it reads, so
// that one under way during a change cannot bring back what was true before.
// Stores that share a shard are read again too, which is rare and harmless.
//
// While the master is unreachable or slow, a cached site is returned up to maxStale
// after it was read, unless a change of its store was notified since: a suspension
// holds. A resync, which says only that notifications may have been missed, does
// not end this.
type Resolver struct {
	load    func(ctx context.Context, name string) (Site, error) // from the master
	ttl     time.Duration
	cache   *otter.Cache[string, entry]
	unknown chan struct{} // as long as the number of lookups of names never seen

	platform map[string]bool // hosts of the platform, at which no store answers

	maxStale time.Duration
	stale    atomic.Uint64 // lookups that returned a stale site

	generation atomic.Uint64
	changed    [shards]atomic.Uint64 // the generation in which a store of the shard last changed
	resynced   atomic.Uint64         // the generation of the last resync: entries of earlier ones are read again

	mu      sync.Mutex // orders changes; guards flights
	flights map[string]*flight
}

// entry is a site as it was in a generation, at a time before it was read.
type entry struct {
	Site
	generation uint64
	asOf       time.Time
}

// flight is one look into the master, for all who ask in its generation.
type flight struct {
	generation uint64
	done       chan struct{} // closed when the rest is set
	site       Site
	err        error
	abandoned  bool // by the one who made it: the others have no answer
}

func newResolver(db *masterdb.DB) *Resolver {
	r := &Resolver{
		ttl: postgresTTL, maxStale: defaultMaxStale,
		cache:   otter.Must(&otter.Options[string, entry]{MaximumSize: maxNames}),
		unknown: make(chan struct{}, maxUnknown),
		flights: map[string]*flight{},
	}
	if db.Engine == masterdb.SQLite {
		r.ttl = sqliteTTL
	}
	// A custom hostname counts only once its owner has proven it.
	r.load = func(ctx context.Context, name string) (site Site, err error) {
		err = db.Get(ctx, &site, `
			SELECT h.store_id, s.status FROM store_hostnames h JOIN stores s ON s.id = h.store_id
			WHERE h.hostname = $1 AND h.verified_at IS NOT NULL`, name)
		return site, err
	}
	return r
}

// lookup returns the site at host, a Host header, or store_not_found.
func (r *Resolver) lookup(ctx context.Context, host string) (Site, error) {
	name, err := NormalHostname(host)
	if err != nil {
		return Site{}, unknownHost()
	}
	if r.platform[name] {
		return Site{}, unknownHost()
	}
	e, seen := r.cache.GetIfPresent(name)
	if seen && r.isCurrent(e) && e.generation >= r.resynced.Load() && time.Since(e.asOf) < r.ttl {
		return e.Site, nil
	}
	if !seen {
		return r.ask(ctx, name, false)
	}
	return r.refresh(ctx, name, e)
}

// isCurrent reports whether no change of the entry's store was notified since it
// was read.
func (r *Resolver) isCurrent(e entry) bool { return e.generation >= r.changed[shard(e.StoreID)].Load() }

// refresh reads a cached name again. It returns the cached site when the master
// fails or takes longer than refreshWait.
func (r *Resolver) refresh(ctx context.Context, name string, e entry) (Site, error) {
	timer := time.NewTimer(refreshWait)
	defer timer.Stop()
	for {
		f, mine := r.join(name)
		if mine {
			go r.fly(context.WithoutCancel(ctx), f, name, true) // not under ctx: later lookups need the result too
		}
		select {
		case <-f.done:
			if f.abandoned {
				continue
			}
			if f.err == nil || stoa.CodeOf(f.err) == stoa.StoreNotFound {
				return f.site, f.err
			}
			if site, ok := r.staleSite(e); ok {
				return site, nil
			}
			return Site{}, f.err
		case <-timer.C: // fires once
			if site, ok := r.staleSite(e); ok {
				return site, nil
			}
		case <-ctx.Done():
			return Site{}, ctx.Err()
		}
	}
}

// staleSite returns the cached site with its age, if it may still be used.
func (r *Resolver) staleSite(e entry) (Site, bool) {
	age := time.Since(e.asOf)
	if !r.isCurrent(e) || age >= r.maxStale {
		return Site{}, false
	}
	r.stale.Add(1)
	e.StaleFor = age
	return e.Site, true
}

// ask joins the lookup that is under way for name, or makes one. Who makes it
// may leave early; one of those who wait then makes another.
func (r *Resolver) ask(ctx context.Context, name string, seen bool) (Site, error) {
	for {
		f, mine := r.join(name)
		if mine {
			r.fly(ctx, f, name, seen)
			return f.site, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Site{}, ctx.Err()
		}
		if !f.abandoned {
			return f.site, f.err
		}
	}
}

// join never returns a flight of an earlier generation: it may have read
// before the change that its caller knows of.
func (r *Resolver) join(name string) (f *flight, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.generation.Load()
	if f := r.flights[name]; f != nil && f.generation == now {
		return f, false
	}
	f = &flight{generation: now, done: make(chan struct{}), abandoned: true}
	r.flights[name] = f
	return f, true
}

func (r *Resolver) fly(ctx context.Context, f *flight, name string, seen bool) {
	defer func() {
		r.mu.Lock()
		if r.flights[name] == f {
			delete(r.flights, name)
		}
		r.mu.Unlock()
		close(f.done)
	}()
	f.site, f.err = r.read(ctx, f.generation, name, seen)
	f.abandoned = f.err != nil && ctx.Err() != nil
}

func (r *Resolver) read(ctx context.Context, generation uint64, name string, seen bool) (Site, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if !seen {
		select {
		case r.unknown <- struct{}{}:
			defer func() { <-r.unknown }()
		case <-ctx.Done():
			return Site{}, unresolved(stoa.TenantUnavailable, "Too many unknown addresses are being asked for. Try again in a moment.")
		}
	}
	asOf := time.Now()
	site, err := r.load(ctx, name)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		r.cache.Invalidate(name) // it may have led somewhere before
		return Site{}, unknownHost()
	case err != nil:
		return Site{}, unresolved(stoa.PlatformUnavailable, "This address cannot be looked up at the moment. Try again in a few seconds.").WithCause(err)
	}
	r.cache.Set(name, entry{site, generation, asOf})
	return site, nil
}

// retryAfter is the Retry-After of a failed lookup.
const retryAfter = 5 * time.Second

func unresolved(code stoa.Code, message string) *stoa.Error {
	e := stoa.Errorf(code, "%s", message)
	e.RetryAfter = retryAfter
	return e
}

// forget makes all names of the store be read again.
func (r *Resolver) forget(store stoa.StoreID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed[shard(store)].Store(r.generation.Add(1))
}

// forgetAll makes every name be read again, since notifications may have been missed.
func (r *Resolver) forgetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resynced.Store(r.generation.Add(1))
}

// shard takes the end of the id, where it is random.
func shard(id stoa.StoreID) int {
	return (int(id[14])<<8 | int(id[15])) % shards
}
