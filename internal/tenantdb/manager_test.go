package tenantdb_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestAcquireOpensOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			store := h.embedded(t)
			if engine != credential.SQLite {
				h.save(t, store, tenantdbtest.Create(t, engine))
			}
			entered, pass := h.gate()
			results := h.come(t, 50, t.Context(), store)
			<-entered
			pass()
			var first *tenantdb.DB
			for range 50 {
				r := <-results
				if r.err != nil {
					t.Fatal(r.err)
				}
				works(t, r.Lease)
				if first == nil {
					first = r.DB
				}
				if r.DB != first || r.Engine != engine {
					t.Error("callers have different pools")
				}
				r.Release()
			}
			if n := h.opened(); n != 1 {
				t.Errorf("opened %d pools", n)
			}
		})
	}
}

func TestAcquireFailsForAllAndTriesAfresh(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	entered, through := make(chan struct{}, 10), make(chan struct{})
	h.beforeOpen(func() error {
		entered <- struct{}{}
		<-through
		return &net.OpError{Op: "dial", Err: errors.New("no route to " + marker)}
	})
	results := h.come(t, 20, t.Context(), store)
	close(through)
	for range 20 {
		if r := <-results; r.err == nil || !strings.Contains(r.err.Error(), marker) {
			t.Errorf("got %v", r.err)
		}
	}
	if len(entered) != 1 || h.Open() != 0 {
		t.Errorf("%d openers, %d pools", len(entered), h.Open())
	}
	h.beforeOpen(nil)
	l := h.lease(t, store)
	works(t, l)
	l.Release()
}

func TestAcquireCancelledWhileWaiting(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	entered, pass := h.gate()
	ctx, cancel := context.WithCancel(t.Context())
	first := h.come(t, 1, ctx, store) // the opener
	<-entered
	second := h.come(t, 1, t.Context(), store)
	third := h.come(t, 1, ctx, store)
	cancel()
	for _, results := range []<-chan acquired{first, third} {
		r := <-results // although no opener has been let through
		checkUnavailable(t, r.err)
		if !errors.Is(r.err, context.Canceled) {
			t.Errorf("got %v", r.err)
		}
	}
	if n := h.Leases(store); n != 1 {
		t.Errorf("%d leases, want the waiting one", n)
	}
	pass()
	r := <-second
	if r.err != nil {
		t.Fatal(r.err)
	}
	works(t, r.Lease)
	r.Release()
	if n := h.Leases(store); n != 0 || h.opened() != 1 {
		t.Errorf("%d leases, %d pools", n, h.opened())
	}
}

// TestAcquireAllCancelled checks that a pool whose waiters have all been
// cancelled serves the next caller.
func TestAcquireAllCancelled(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	entered, pass := h.gate()
	ctx, cancel := context.WithCancel(t.Context())
	results := h.come(t, 3, ctx, store)
	<-entered
	cancel()
	for range 3 {
		checkUnavailable(t, (<-results).err)
	}
	pass()
	l := h.lease(t, store)
	works(t, l)
	l.Release()
	if h.opened() != 1 {
		t.Errorf("opened %d pools", h.opened())
	}
	h.EvictIdleSince(time.Now().Add(time.Hour))
	testkit.Eventually(t, testkit.Timeout, "no pool is left", func() bool { return h.open() == 0 })
}

func TestEvictionIsLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxOpen: 3})
	var stores []stoa.StoreID
	use := func(i int) { h.lease(t, stores[i]).Release() }
	for i := range 3 {
		stores = append(stores, h.embedded(t))
		use(i)
	}
	use(0) // now the order is 1, 2, 0
	stores = append(stores, h.embedded(t))
	use(3)
	for i, want := range []bool{true, false, true, true} {
		if got := h.Has(stores[i]); got != want {
			t.Errorf("store %d: open is %v", i, got)
		}
	}
	testkit.Eventually(t, testkit.Timeout, "three pools are left", func() bool { return h.open() == 3 })
	held := h.lease(t, stores[2]) // 0 and 3 can be evicted
	use(1)
	for i, want := range []bool{false, true, true, true} {
		if got := h.Has(stores[i]); got != want {
			t.Errorf("store %d: open is %v", i, got)
		}
	}
	held.Release()
}

func TestEvictionSparesLeased(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxOpen: 1})
	a, b := h.embedded(t), h.embedded(t)
	held, also := h.lease(t, a), h.lease(t, b)
	for range 5 {
		h.lease(t, h.embedded(t)).Release()
	}
	h.EvictIdleSince(time.Now().Add(time.Hour))
	testkit.Eventually(t, testkit.Timeout, "two pools are left", func() bool { return h.open() == 2 })
	works(t, held)
	works(t, also)
	also.Release() // one too many: this pool closes
	testkit.Eventually(t, testkit.Timeout, "one pool is left", func() bool { return h.open() == 1 })
	works(t, held)
	if !h.Has(a) || h.Has(b) {
		t.Error("the wrong pool was closed")
	}
	held.Release()
	if h.Open() != 1 {
		t.Errorf("%d pools", h.Open())
	}
}

// TestReleaseTwice checks that releasing a lease several times ends only that
// lease.
func TestReleaseTwice(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxOpen: 1})
	store := h.embedded(t)
	held, other := h.lease(t, store), h.lease(t, store)
	other.Release()
	other.Release()
	if n := h.Leases(store); n != 1 {
		t.Errorf("%d leases, one is held", n)
	}
	h.lease(t, h.embedded(t)).Release()
	works(t, held)
	held.Release()
}

// TestLeaseCannotClose checks that a caller cannot close a leased database,
// because others share it.
func TestLeaseCannotClose(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	l := h.lease(t, h.embedded(t))
	defer l.Release()
	if err := l.Close(); err == nil {
		t.Error("closed")
	}
	works(t, l)
}

func TestEvictIdle(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	idle, held := h.embedded(t), h.lease(t, h.embedded(t))
	h.lease(t, idle).Release()
	h.EvictIdleSince(time.Now().Add(-time.Hour))
	if h.Open() != 2 {
		t.Error("closed one that was used just now")
	}
	h.EvictIdleSince(time.Now().Add(time.Hour))
	if h.Has(idle) || h.Open() != 1 {
		t.Error("the idle pool stays")
	}
	testkit.Eventually(t, testkit.Timeout, "one pool is left", func() bool { return h.open() == 1 })
	works(t, held)
	held.Release()
}

// TestSweep checks that the manager closes idle pools by itself.
func TestSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := setup(t, tenantdb.Options{IdleTimeout: 3 * time.Minute})
		held, idle := h.lease(t, h.embedded(t)), h.embedded(t)
		h.lease(t, idle).Release()
		<-time.After(2 * time.Minute) // in the bubble's time
		h.lease(t, idle).Release()
		<-time.After(2 * time.Minute) // in the bubble's time
		if !h.Has(idle) {
			t.Error("closed although used two minutes ago")
		}
		<-time.After(2 * time.Minute) // in the bubble's time
		if h.Has(idle) || h.Open() != 1 {
			t.Error("open although unused for four minutes")
		}
		works(t, held)
		held.Release()
	})
}

func TestForgetWhileLeased(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			store := h.embedded(t)
			if engine != credential.SQLite {
				h.save(t, store, tenantdbtest.Create(t, engine))
			}
			held, also := h.lease(t, store), h.lease(t, store)
			h.Forget(store)
			h.Forget(store)
			works(t, held)
			fresh := h.lease(t, store)
			if fresh.DB == held.DB || h.opened() != 2 {
				t.Error("still the old pool")
			}
			works(t, fresh)
			held.Release()
			works(t, also)
			if h.open() != 2 {
				t.Error("closed before the last lease ended")
			}
			also.Release()
			testkit.Eventually(t, testkit.Timeout, "one pool is left", func() bool { return h.open() == 1 })
			works(t, fresh)
			fresh.Release()
			h.Forget(store)
			testkit.Eventually(t, testkit.Timeout, "no pool is left", func() bool { return h.open() == 0 })
			h.Forget(store)
			h.Forget(stoa.NewID[stoa.StoreID]())
		})
	}
}

// TestForgetWhileOpening checks that callers that waited when the credentials
// changed get the earlier pool, and that later callers get a new one.
func TestForgetWhileOpening(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	entered, pass := h.gate()
	before := h.come(t, 1, t.Context(), store)
	<-entered
	h.Forget(store)
	after := h.come(t, 1, t.Context(), store)
	<-entered
	pass()
	old, fresh := <-before, <-after
	if old.err != nil || fresh.err != nil || old.DB == fresh.DB {
		t.Fatalf("got %v, %v", old.err, fresh.err)
	}
	works(t, old.Lease)
	old.Release()
	testkit.Eventually(t, testkit.Timeout, "one pool is left", func() bool { return h.open() == 1 })
	works(t, fresh.Lease)
	fresh.Release()
}

func TestClose(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	held := h.lease(t, store)
	h.lease(t, h.embedded(t)).Release()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := h.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a lease out: %v", err)
	}
	testkit.Eventually(t, testkit.Timeout, "one pool is left", func() bool { return h.open() == 1 })
	works(t, held)
	_, err := h.Acquire(t.Context(), store)
	checkUnavailable(t, err)
	if !errors.Is(err, tenantdb.ErrClosed) {
		t.Errorf("got %v", err)
	}

	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- h.Close(t.Context()) }()
	}
	held.Release()
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
	if n := h.open() + h.Open(); n != 0 {
		t.Errorf("%d pools are open", n)
	}
	held.Release() // a late release, without effect
	h.Forget(store)
	h.EvictIdleSince(time.Now().Add(time.Hour))
}

func TestCloseWhileOpening(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	entered, pass := h.gate()
	results := h.come(t, 2, t.Context(), store)
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- h.Close(t.Context()) }()
	testkit.Eventually(t, testkit.Timeout, "no pool is left", func() bool { return h.Open() == 0 })
	pass()
	for range 2 {
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		works(t, r.Lease)
		r.Release()
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestAcquireWithoutDatabase(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	for _, store := range []stoa.StoreID{h.store(t), stoa.NewID[stoa.StoreID]()} {
		if _, err := h.Acquire(t.Context(), store); stoa.CodeOf(err) != stoa.StorePendingDatabase {
			t.Errorf("got %v, want store_pending_database", err)
		}
	}
	if h.Open() != 0 || h.opened() != 0 {
		t.Error("something was opened")
	}
}

func TestServerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Cooldown: time.Millisecond})
			c, store := tenantdbtest.Create(t, engine), h.store(t)
			way := newLink(t, c)
			c.Port = way.port
			h.save(t, store, c)
			unleased, err := h.OpenUnleased(c)
			testkit.Must(t, err)
			defer unleased.Close() //nolint:errcheck // nothing is pending
			testkit.Must(t, unleased.Ping(t.Context()))
			l := h.lease(t, store)
			works(t, l)

			way.cut()
			var n int
			for range 3 {
				checkUnavailable(t, l.Get(t.Context(), &n, `SELECT 1`))
				checkUnavailable(t, l.Ping(t.Context()))
				checkUnavailable(t, l.Tx(t.Context(), func(*tenantdb.Tx) error { return nil }))
				if err := unleased.Get(t.Context(), &n, `SELECT 1`); stoa.CodeOf(err) != stoa.DatabaseUnreachable {
					t.Errorf("not leased: %v", err)
				}
			}
			h.Forget(store)
			_, err = h.Acquire(t.Context(), store)
			checkUnavailable(t, err)

			way.repair(t)
			testkit.Eventually(t, testkit.Timeout, "the old pool reconnects", func() bool { return l.Get(t.Context(), &n, `SELECT 1`) == nil }) // the old pool reconnects
			l.Release()
			l = h.lease(t, store)
			works(t, l)
			l.Release()
		})
	}
}

func TestEmbeddedDatabaseDamagedAndRepaired(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store := h.embedded(t)
	id := store.String()
	path := filepath.Join(h.dir, "stores", id[34:], id+".db")
	testkit.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	testkit.Must(t, os.WriteFile(path, []byte(strings.Repeat("something else ", 100)), 0o600))
	for range 2 {
		_, err := h.Acquire(t.Context(), store)
		checkUnavailable(t, err)
	}
	testkit.Must(t, os.Remove(path))
	l := h.lease(t, store)
	works(t, l)
	l.Release()
}

// TestLeasedErrorsSayLess checks that a shopper gets fewer details of an error
// than the owner.
func TestLeasedErrorsSayLess(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			c, store := tenantdbtest.Create(t, engine), h.store(t)
			c.Password = keyring.NewSecret(marker)
			h.save(t, store, c)
			_, err := h.Acquire(t.Context(), store)
			checkUnavailable(t, err)
			var e *stoa.Error
			if errors.As(err, &e) && strings.Contains(e.Message, "password") || strings.Contains(err.Error(), marker) {
				t.Errorf("says too much: %v", err)
			}
			db, err := h.OpenUnleased(c)
			testkit.Must(t, err)
			defer db.Close() //nolint:errcheck // nothing is pending
			checkFault(t, db.Ping(t.Context()), stoa.DatabaseAuthFailed, c)
		})
	}
}

// TestOpenTimeout checks that opening a database ends after a limited time,
// whatever its callers do.
func TestOpenTimeout(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{OpenTimeout: 50 * time.Millisecond})
	store := h.store(t)
	h.save(t, store, at(t, credential.PostgreSQL, credential.TLSDisable, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	_, err := h.Acquire(context.WithoutCancel(t.Context()), store)
	checkUnavailable(t, err)
}

// TestMigrateWithOneConnection checks that a migration can hold its lock on one
// connection and work on another.
func TestMigrateWithOneConnection(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{ConnsPerStore: 1})
			c := credential.ManagedSQLite(h.store(t))
			if engine != credential.SQLite {
				c = tenantdbtest.Create(t, engine)
			}
			db, err := h.OpenUnleased(c)
			testkit.Must(t, err)
			defer db.Close() //nolint:errcheck // nothing is pending
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = db.Migrate(ctx)
			testkit.Must(t, err)
		})
	}
}
