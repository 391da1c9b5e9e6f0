package tenantdb_test

import (
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/tenantdb"
	"github.com/stoahq/stoa/tenantdb/tenantdbtest"
)

// What went wrong in systems like this one, as far as connections go. Where
// another test shows that it does not happen here, it is named.
//
//   - A cap without eviction refused one tenant more: TestOneTenantMoreThanTheCap.
//   - Eviction without leases closed pools in use: TestEvictionSparesLeased.
//   - Opening under a global lock deadlocked: TestOneOpeningHoldsUpNoOther.
//   - A cap enforced by a reaper overshot, and eight meant sixteen: TestBudgetHolds.
//   - A loop over all tenants left a connection open at each: TestLoopOverAllTenants.
//   - Rotated credentials fought the pool cache: TestForgetWhileLeased, TestForgetWhileOpening, and the tests of
//     rotation in package provisioning.
//   - Negative caching hid a new tenant, a look-up in flight resurrected a removed domain, unknown hostnames evicted
//     good ones: stores/resolver_test.go.
//   - A token for one tenant was accepted on another's host: TestStoresAreNeverMixed in cmd/stoa.
//   - A retry died on "already exists": the interruption tests of package provisioning.

func TestOneTenantMoreThanTheCap(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxOpen: 64, MaxEmbedded: 32})
	for range 65 {
		must(t, h.ask(t.Context(), h.embedded(t)))
	}
	if n := h.Open(); n > 32 {
		t.Errorf("%d embedded databases are open", n)
	}
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
		must(t, h.ask(t.Context(), h.embedded(t)))
	}
	pass()
	for range 130 {
		r := <-waiting
		must(t, r.err)
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
			for range tenants { // a database of its own each would show no more
				store := h.store(t)
				h.save(t, store, c)
				stores = append(stores, store)
			}
			for _, store := range stores {
				must(t, h.ask(t.Context(), store))
				if n, _ := h.Connections(c); n > limit {
					t.Fatalf("%d connections after some tenants", n)
				}
			}
		})
	}
}
