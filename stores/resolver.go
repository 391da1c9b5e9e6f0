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

	// patience is how long who asks for a name that is known from before waits for
	// the master, before it gets what is known.
	patience = 250 * time.Millisecond
	// staleFor is the default of how old that may be.
	staleFor = time.Hour
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
// While the master cannot be asked, or is slow, what was last read goes on for
// staleFor, unless a change of that store has been heard of since: a suspension
// holds. That changes may have been missed is no reason to stop.
type Resolver struct {
	load    func(ctx context.Context, name string) (Site, error) // from the master
	ttl     time.Duration
	cache   *otter.Cache[string, entry]
	unknown chan struct{} // as long as the number of lookups of names never seen

	platform map[string]bool // hosts of the platform, at which no store answers

	staleFor time.Duration
	stale    atomic.Uint64 // lookups that were answered by what was known from before

	generation atomic.Uint64
	changed    [shards]atomic.Uint64 // the generation in which a store of the shard last changed
	doubted    atomic.Uint64         // the generation before which any change may have been missed

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
		ttl: postgresTTL, staleFor: staleFor,
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
	if seen && r.holds(e) && e.generation >= r.doubted.Load() && time.Since(e.asOf) < r.ttl {
		return e.Site, nil
	}
	if !seen {
		return r.ask(ctx, name, false)
	}
	return r.refresh(ctx, name, e)
}

// holds reports whether no change of the entry's store was heard of.
func (r *Resolver) holds(e entry) bool { return e.generation >= r.changed[shard(e.StoreID)].Load() }

// refresh asks the master anew for a name that was seen before. What was known
// of it is the answer while the master has none.
func (r *Resolver) refresh(ctx context.Context, name string, e entry) (Site, error) {
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	for {
		f, mine := r.join(name)
		if mine {
			go r.fly(context.WithoutCancel(ctx), f, name, true) // the next visitor wants to know it too
		}
		select {
		case <-f.done:
			if f.abandoned {
				continue
			}
			if f.err == nil || stoa.CodeOf(f.err) == stoa.StoreNotFound {
				return f.site, f.err
			}
			if site, ok := r.lastKnown(e); ok {
				return site, nil
			}
			return Site{}, f.err
		case <-impatient.C: // it fires once
			if site, ok := r.lastKnown(e); ok {
				return site, nil
			}
		case <-ctx.Done():
			return Site{}, ctx.Err()
		}
	}
}

// lastKnown is the entry, if it may be used although it is old.
func (r *Resolver) lastKnown(e entry) (Site, bool) {
	age := time.Since(e.asOf)
	if !r.holds(e) || age >= r.staleFor {
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
		return Site{}, unresolved(stoa.PlatformUnavailable, "This address cannot be looked up at the moment. Try again in a few seconds.").Because(err)
	}
	r.cache.Set(name, entry{site, generation, asOf})
	return site, nil
}

// retryAfter is when a lookup that failed is worth another.
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

// forgetAll makes every name be read again: changes may have been missed.
func (r *Resolver) forgetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubted.Store(r.generation.Add(1))
}

// shard takes the end of the id, where it is random.
func shard(id stoa.StoreID) int {
	return (int(id[14])<<8 | int(id[15])) % shards
}
