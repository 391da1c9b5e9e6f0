package hostnames

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// names is a resolver that reads from its own table instead of the master. Its answers
// can be delayed.
type names struct {
	*resolver
	mu    sync.Mutex
	table map[string]Resolution
	loads atomic.Int64
	// before and after are called around each lookup in the table.
	before, after func(ctx context.Context, name string)
}

func newNames(hosts ...string) *names {
	n := &names{resolver: newResolver(&masterdb.DB{Engine: masterdb.Postgres}), table: map[string]Resolution{}}
	for _, h := range hosts {
		n.put(h, Resolution{StoreID: stoa.NewID[stoa.StoreID](), Status: "active"})
	}
	nothing := func(context.Context, string) {}
	n.before, n.after = nothing, nothing
	n.load = func(ctx context.Context, name string) (Resolution, error) {
		n.loads.Add(1)
		n.before(ctx, name)
		n.mu.Lock()
		site, ok := n.table[name]
		n.mu.Unlock()
		n.after(ctx, name)
		switch {
		case ctx.Err() != nil:
			return Resolution{}, ctx.Err()
		case !ok:
			return Resolution{}, masterdb.ErrNotFound
		}
		return site, nil
	}
	return n
}

func (n *names) put(host string, s Resolution) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table[host] = s
}

// remove removes the name as another replica does: this replica is notified with the
// store's id.
func (n *names) remove(host string) {
	n.mu.Lock()
	site := n.table[host]
	delete(n.table, host)
	n.mu.Unlock()
	n.invalidate(site.StoreID)
}

// find fails the test unless host resolves to its store.
func (n *names) find(t testing.TB, host string) {
	t.Helper()
	site, err := n.lookup(t.Context(), host)
	testkit.Must(t, err)
	if want := n.table[host]; site != want {
		t.Fatalf("%s leads to %+v, want %+v", host, site, want)
	}
}

func (n *names) missing(t testing.TB, host string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // it must not wait for a delayed lookup
	defer cancel()
	_, err := n.lookup(ctx, host)
	wantCode(t, err, stoa.StoreNotFound)
}

// made fails the test unless fn looks up the table that many times.
func (n *names) made(t testing.TB, want int64, fn func()) {
	t.Helper()
	before := n.loads.Load()
	fn()
	if got := n.loads.Load() - before; got != want {
		t.Fatalf("%d lookups, want %d", got, want)
	}
}

// TestInFlightLookupDoesNotResurrectARemovedHostname covers a fault of another system: a
// lookup that had read before a domain was removed cached its answer afterwards, and the
// domain was served until the entry expired.
func TestInFlightLookupDoesNotResurrectARemovedHostname(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]func(n *names){
		"removed": func(n *names) { n.remove("a.test") },
		"missed": func(n *names) { // the notification was lost with the listener's connection
			delete(n.table, "a.test")
			n.invalidateAll()
		},
	} {
		for _, seen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, seen before: %t", name, seen), func(t *testing.T) {
				t.Parallel()
				n := newNames("a.test")
				if seen {
					n.find(t, "a.test")
					n.invalidate(n.table["a.test"].StoreID)
				}
				read, proceed := make(chan struct{}), make(chan struct{})
				n.after = func(context.Context, string) {
					n.after = func(context.Context, string) {}
					close(read)
					<-proceed
				}
				answered := make(chan error)
				go func() {
					_, err := n.lookup(context.Background(), "a.test")
					answered <- err
				}()
				<-read // the old answer has been read and is not cached yet
				gone(n)
				// A lookup that starts now must not get the old answer either.
				n.missing(t, "a.test")
				close(proceed)
				testkit.Must(t, <-answered) // it started before the change and returns the state at that time
				n.missing(t, "a.test")
			})
		}
	}
}

// TestInFlightLookupOfTheMaster is the same test with the master's own rows and the
// notification of the change.
func TestInFlightLookupOfTheMaster(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		s := r.store(t, "bakery")
		read, proceed := make(chan struct{}), make(chan struct{})
		query, once := r.resolver.load, sync.Once{}
		r.resolver.load = func(ctx context.Context, name string) (Resolution, error) {
			found, err := query(ctx, name)
			once.Do(func() {
				close(read)
				<-proceed
			})
			return found, err
		}
		answered := make(chan error)
		go func() {
			_, err := r.Resolve(context.Background(), "bakery.shops.test")
			answered <- err
		}()
		<-read
		r.change(t, s.ID, `DELETE FROM store_hostnames WHERE store_id = $1`, s.ID)
		close(proceed)
		testkit.Must(t, <-answered)
		_, err := r.Resolve(t.Context(), "bakery.shops.test")
		wantCode(t, err, stoa.StoreNotFound)
	})
}

// TestUnknownNamesAreNotRemembered covers a fault of another system: negative caching hid
// a newly created tenant.
func TestUnknownNamesAreNotRemembered(t *testing.T) {
	t.Parallel()
	n := newNames()
	n.missing(t, "new.test")
	n.put("new.test", Resolution{StoreID: stoa.NewID[stoa.StoreID](), Status: "active"}) // without a notification
	n.find(t, "new.test")
}

// TestUnknownNamesEvictNobody covers a fault of another system: unknown hostnames in the
// cache evicted valid ones.
func TestUnknownNamesEvictNobody(t *testing.T) {
	t.Parallel()
	n := newNames()
	n.cache.SetMaximum(50)
	var hosts []string
	for i := range 20 {
		hosts = append(hosts, fmt.Sprintf("good-%d.test", i))
		n.put(hosts[i], Resolution{StoreID: stoa.NewID[stoa.StoreID](), Status: "active"})
		n.find(t, hosts[i])
	}
	for i := range 5000 {
		n.missing(t, fmt.Sprintf("bad-%d.test", i))
	}
	n.cache.CleanUp()
	n.made(t, 0, func() {
		for _, h := range hosts {
			n.find(t, h)
		}
	})
	if n.cache.EstimatedSize() != len(hosts) {
		t.Errorf("%d names are cached", n.cache.EstimatedSize())
	}
}

func TestResolverIsBounded(t *testing.T) {
	t.Parallel()
	n := newNames()
	if got := n.cache.GetMaximum(); got != maxCached {
		t.Errorf("at most %d names", got)
	}
	n.cache.SetMaximum(50)
	for i := range 1000 {
		host := fmt.Sprintf("%d.test", i)
		n.put(host, Resolution{StoreID: stoa.NewID[stoa.StoreID](), Status: "active"})
		n.find(t, host)
	}
	n.cache.CleanUp()
	if got := n.cache.EstimatedSize(); got > 50 {
		t.Errorf("%d names are kept", got)
	}
}

// TestFloodOfUnknownNames checks that a flood of names that are not cached uses few of
// the master's connections, and that cached names do not wait behind them.
func TestFloodOfUnknownNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNames("good.test")
		n.find(t, "good.test")
		n.invalidateAll()
		stuck := make(chan struct{})
		var inside, most atomic.Int64
		n.before = func(_ context.Context, name string) {
			if name == "good.test" {
				return
			}
			most.Store(max(most.Load(), inside.Add(1)))
			<-stuck
			inside.Add(-1)
		}
		var flood sync.WaitGroup
		for i := range 100 {
			flood.Go(func() { n.missing(t, fmt.Sprintf("bad-%d.test", i)) })
		}
		synctest.Wait()
		if got := inside.Load(); got != maxUnknown {
			t.Errorf("%d lookups of unknown names at once, want %d", got, maxUnknown)
		}
		n.find(t, "good.test")
		close(stuck)
		flood.Wait()
		if got := most.Load(); got > maxUnknown {
			t.Errorf("%d lookups of unknown names at once", got)
		}

		// When the master does not answer, the wait still ends.
		n.before = func(ctx context.Context, _ string) { <-ctx.Done() }
		var codes sync.Map
		for i := range 2 * maxUnknown {
			flood.Go(func() {
				_, err := n.lookup(t.Context(), fmt.Sprintf("late-%d.test", i))
				codes.Store(stoa.CodeOf(err), true)
			})
		}
		flood.Wait()
		for _, want := range []stoa.Code{stoa.PlatformUnavailable, stoa.TenantUnavailable} {
			if _, ok := codes.Load(want); !ok {
				t.Errorf("nobody was told %s", want)
			}
		}
	})
}

// TestLookupsAreShared checks that concurrent lookups share one query to the master, and
// that the result does not depend on the refreshWait of the first caller.
func TestLookupsAreShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNames("a.test")
		proceed := make(chan struct{})
		n.before = func(ctx context.Context, _ string) {
			select {
			case <-proceed:
			case <-ctx.Done():
			}
		}
		first, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := n.lookup(first, "a.test"); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who left got %v", err)
			}
		})
		synctest.Wait()
		for range 20 {
			all.Go(func() { n.find(t, "a.test") })
		}
		synctest.Wait()
		n.made(t, 1, func() {
			leave()
			synctest.Wait()
			close(proceed)
			all.Wait()
		})
	})
}

func TestForgetConcernsOneStore(t *testing.T) {
	t.Parallel()
	n := newNames("a.test", "b.test")
	a, b := Resolution{StoreID: stoa.StoreID{15: 1}, Status: "active"}, Resolution{StoreID: stoa.StoreID{15: 2}, Status: "active"}
	n.put("a.test", a)
	n.put("www.a.test", a)
	n.put("b.test", b)
	all := func() {
		n.find(t, "a.test")
		n.find(t, "www.a.test")
		n.find(t, "b.test")
	}
	n.made(t, 3, all)
	n.made(t, 0, all)
	n.invalidate(a.StoreID)
	n.made(t, 2, all)
	n.made(t, 0, all)
	n.invalidate(stoa.StoreID{15: 3})
	n.made(t, 0, all)
	n.invalidateAll()
	n.made(t, 3, all)
	n.made(t, 0, all)

	// A name that moves to another store no longer resolves to the first one.
	n.put("www.a.test", b)
	n.invalidate(a.StoreID)
	n.made(t, 2, all)
}

// TestResolverTTL checks that a change without a notification is visible after half a
// minute or, on SQLite, where other processes are not notified, after five seconds.
func TestResolverTTL(t *testing.T) {
	t.Parallel()
	for engine, ttl := range map[masterdb.Engine]time.Duration{masterdb.Postgres: 30 * time.Second, masterdb.SQLite: 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n := newNames("a.test")
			n.ttl = newResolver(&masterdb.DB{Engine: engine}).ttl
			n.find(t, "a.test")
			delete(n.table, "a.test")
			start := time.Now()
			<-time.After(ttl - time.Millisecond) // in the fake time of the synctest bubble
			n.made(t, 0, func() {
				_, err := n.lookup(t.Context(), "a.test")
				testkit.Must(t, err)
			})
			<-time.After(time.Millisecond)
			n.missing(t, "a.test")
			if d := time.Since(start); d != ttl {
				t.Errorf("took %v", d)
			}
		})
	}
}

// cachedService returns a service that has cached the host of cachedHosts.
func cachedService(t testing.TB) *Service {
	n := newNames("bakery.shops.test")
	n.find(t, "bakery.shops.test")
	return &Service{resolver: n.resolver}
}

var cachedHosts = []string{"bakery.shops.test:3000", "bakery.shops.test", "bakery.shops.test.:443"}

// TestResolverHitAllocatesNothing is not parallel, since the allocations of other tests
// would be counted.
func TestResolverHitAllocatesNothing(t *testing.T) { //nolint:paralleltest // see above
	r := cachedService(t)
	for _, host := range cachedHosts {
		allocs := testing.AllocsPerRun(1000, func() {
			if _, err := r.Resolve(t.Context(), host); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", host, allocs)
		}
	}
}

func BenchmarkResolverHit(b *testing.B) {
	r := cachedService(b)
	for _, host := range cachedHosts {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Resolve(b.Context(), host); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := r.Resolve(b.Context(), cachedHosts[0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// TestStaleLookups: cached names resolve while the master is unreachable, up to
// maxStale. A notified change holds, and a resync does not end it.
func TestStaleLookups(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		before func(context.Context, string)
		wait   time.Duration // the maximum wait of a visitor
	}{
		"refuses":   {func(context.Context, string) {}, 0},
		"is silent": {func(ctx context.Context, _ string) { <-ctx.Done() }, refreshWait},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNames("a.test", "b.test")
				a, b := n.table["a.test"], n.table["b.test"]
				n.find(t, "a.test")
				n.find(t, "b.test")
				load := n.load
				n.load = func(ctx context.Context, name string) (Resolution, error) {
					fault.before(ctx, name)
					return Resolution{}, stoa.Errorf(stoa.PlatformUnavailable, "away")
				}
				stale := func(host string, want Resolution, age time.Duration) {
					t.Helper()
					begin := time.Now()
					site, err := n.lookup(t.Context(), host)
					testkit.Must(t, err)
					if took := time.Since(begin); took > fault.wait {
						t.Errorf("a visitor waited %v", took)
					}
					if site.StoreID != want.StoreID || site.StaleFor < age || site.StaleFor > age+15*time.Second {
						t.Errorf("%+v, want %+v read %v ago", site, want, age)
					}
				}
				unavailable := func(host string) {
					t.Helper()
					_, err := n.lookup(t.Context(), host)
					wantCode(t, err, stoa.PlatformUnavailable)
					var known *stoa.Error
					if !errors.As(err, &known) || known.RetryAfter <= 0 {
						t.Errorf("%v says not when to come again", err)
					}
				}
				<-time.After(n.ttl)
				stale("a.test", a, n.ttl)
				unavailable("new.test")
				n.invalidateAll() // as after the listener's connection was lost
				stale("a.test", a, n.ttl)
				n.invalidate(b.StoreID) // the store was suspended, and its new state cannot be read
				unavailable("b.test")
				stale("a.test", a, n.ttl)
				if n.stale.Load() != 3 {
					t.Errorf("%d stale answers are counted, want 3", n.stale.Load())
				}
				<-time.After(n.maxStale)
				unavailable("a.test")
				n.load = load
				<-time.After(lookupTimeout)
				n.find(t, "a.test")
				n.find(t, "b.test")
			})
		})
	}
}
