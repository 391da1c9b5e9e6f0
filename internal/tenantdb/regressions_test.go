package tenantdb_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// These are failures of connections in systems like this one. If another test
// shows that one does not occur here, its name is given.
//
//   - A cap without eviction refused one tenant more: TestOneTenantMoreThanTheCap.
//   - Eviction without leases closed pools in use: TestEvictionSparesLeased.
//   - Opening under a global lock deadlocked: TestOneOpeningHoldsUpNoOther.
//   - A cap enforced by a periodic task was exceeded, and eight meant sixteen: TestConnectionLimit, TestOpenFilesStayWithinTheCap.
//   - A loop over all tenants left a connection open at each: TestLoopOverAllTenants.
//   - Rotated credentials conflicted with the pool cache: TestForgetWhileLeased, TestForgetWhileOpening, and the tests of
//     rotation in package provisioning.
//   - Negative caching hid a new tenant, a concurrent look-up restored a removed domain, unknown hostnames evicted
//     good ones: stores/resolver_test.go.
//   - A token for one tenant was accepted on another's host: TestStoresAreNeverMixed in cmd/stoa.
//   - A retry failed with "already exists": the interruption tests of package provisioning.

func TestOneTenantMoreThanTheCap(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxOpen: 64, MaxEmbedded: 32})
	for range 65 {
		testkit.Must(t, h.ask(t.Context(), h.embedded(t)))
	}
	if n := h.Open(); n > 32 {
		t.Errorf("%d embedded databases are open", n)
	}
}

// TestOpenFilesStayWithinTheCap checks that a file counts from before it is
// opened until it is closed, whatever the number of callers and stores.
func TestOpenFilesStayWithinTheCap(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(openFiles); err != nil {
		t.Skip("only Linux tells which files a process has open")
	}
	const most, stores, callers, turns = 4, 12, 8, 25
	h := setup(t, tenantdb.Options{MaxEmbedded: most})
	ids := make([]stoa.StoreID, stores)
	for i := range ids {
		ids[i] = h.embedded(t)
	}
	h.beforeOpen(func() error {
		if n := h.openFiles(t); n >= most {
			t.Errorf("%d files are open and another is being opened", n)
		}
		return nil
	})
	var callersDone sync.WaitGroup
	for caller := range callers {
		callersDone.Go(func() {
			for turn := range turns {
				if err := h.ask(t.Context(), ids[(caller*5+turn*7)%stores]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callersDone.Wait()
}

// TestEveryFileInUse checks that a caller waits for a limited time if every
// file is in use.
func TestEveryFileInUse(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxEmbedded: 1, OpenTimeout: 100 * time.Millisecond})
	held, other := h.lease(t, h.embedded(t)), h.embedded(t)
	if err := h.ask(t.Context(), other); stoa.CodeOf(err) != stoa.TenantUnavailable {
		t.Errorf("with the only file in use: %v", err)
	}
	works(t, held)
	held.Release()
	testkit.Must(t, h.ask(t.Context(), other))
}

// openFiles is the folder in which Linux lists the files that this process has
// open.
const openFiles = "/proc/self/fd"

// openFiles counts the open databases in the test's data directory.
func (h *testManager) openFiles(t *testing.T) int {
	links, err := os.ReadDir(openFiles)
	if err != nil {
		t.Error(err)
	}
	files := map[string]bool{}
	for _, link := range links {
		name, err := os.Readlink(filepath.Join(openFiles, link.Name()))
		if err == nil && strings.HasPrefix(name, h.dir) && filepath.Ext(name) == ".db" {
			files[name] = true
		}
	}
	return len(files)
}

func TestOneOpeningHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxOpen: 4})
	slow := h.embedded(t)
	entered, pass := h.gate()
	waiting := h.come(t, 130, t.Context(), slow)
	<-entered
	h.beforeOpen(nil)
	for range 10 {
		testkit.Must(t, h.ask(t.Context(), h.embedded(t)))
	}
	pass()
	for range 130 {
		r := <-waiting
		testkit.Must(t, r.err)
		r.Release()
	}
}

func TestLoopOverAllTenants(t *testing.T) {
	t.Parallel()
	const limit, tenants = 3, 12
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{ConnsPerServer: limit, OpenTimeout: time.Minute, StatementTimeout: time.Minute})
			c := tenantdbtest.Create(t, engine)
			var stores []stoa.StoreID
			for range tenants { // separate databases would make no difference
				store := h.store(t)
				h.save(t, store, c)
				stores = append(stores, store)
			}
			for _, store := range stores {
				testkit.Must(t, h.ask(t.Context(), store))
				if n, _ := h.Connections(c); n > limit {
					t.Fatalf("%d connections after some tenants", n)
				}
			}
		})
	}
}
