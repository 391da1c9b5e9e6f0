package tenantdb_test

import (
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSpareLooksAtFew checks that few stores are examined for each connection
// that a server lacks, however many stores there are, and that each store gives
// up its connections once.
func TestSpareLooksAtFew(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	db, err := h.OpenUnleased(credential.ManagedSQLite(stoa.NewID[stoa.StoreID]()))
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing is pending
	var one int
	testkit.Must(t, db.Get(t.Context(), &one, `SELECT 1`)) // leaves an idle connection

	const many = 5000
	s := tenantdb.NewSpares(db, map[string]int{"full": many, "other": many, "small": 3})
	for server, n := range map[string]int{"full": many, "small": 3, "unknown": 0} {
		seen := map[stoa.StoreID]bool{}
		for range n {
			store, looked := s.Next(server)
			if store == (stoa.StoreID{}) || seen[store] || looked > tenantdb.Looks {
				t.Fatalf("%s: store %s after %d, %d were looked at", server, store, len(seen), looked)
			}
			seen[store] = true
		}
		if store, looked := s.Next(server); store != (stoa.StoreID{}) || looked != 0 {
			t.Errorf("%s: %s has a connection for a second time, %d were looked at", server, store, looked)
		}
	}
	if n := s.Servers(); n != 1 {
		t.Errorf("%d servers are kept in mind, want the one with connections to spare", n)
	}

	testkit.Must(t, db.Close())
	s = tenantdb.NewSpares(db, map[string]int{"aged": many})
	for left := many; left > 0; left -= tenantdb.Looks {
		if store, looked := s.Next("aged"); store != (stoa.StoreID{}) || looked > tenantdb.Looks {
			t.Fatalf("of stores whose connections were closed for their age: %s, %d were looked at", store, looked)
		}
	}
	if _, looked := s.Next("aged"); looked != 0 {
		t.Errorf("%d stores without connections are looked at again", looked)
	}
}

// TestColdStoreMakesRoom checks that a store that was connected for a single request gives
// up its connection before any busy store, although it was used last.
func TestColdStoreMakesRoom(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	db, err := h.OpenUnleased(credential.ManagedSQLite(stoa.NewID[stoa.StoreID]()))
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing is pending
	var one int
	testkit.Must(t, db.Get(t.Context(), &one, `SELECT 1`)) // leaves an idle connection
	for range 20 {
		s := tenantdb.NewSpares(db, map[string]int{"server": tenantdb.Looks})
		cold := s.Use()
		if store, _ := s.Next("server"); store != cold {
			t.Fatal("a busy store has lost its connection")
		}
	}
}

// TestRushMakesRoom checks that connections which a busy store no longer needs are taken
// before the only one of a store that is hardly used.
func TestRushMakesRoom(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{ConnsPerServer: 4, ConnsPerStore: 3})
			stores, _ := h.fleet(t, engine, 3)
			busy := h.lease(t, stores[0])
			rush(t, h, stores[0])
			busy.Release()
			rare := h.lease(t, stores[1])
			works(t, rare)
			rare.Release()
			for range 2 { // the rush is over
				h.Tidy()
			}
			other := h.lease(t, stores[2])
			works(t, other)
			other.Release()
			if b, r := busy.SQL().Stats().OpenConnections, rare.SQL().Stats().OpenConnections; b != 1 || r != 1 {
				t.Errorf("the busy store has %d connections, the other %d; want one each", b, r)
			}
		})
	}
}

// TestFurtherConnectionWaits checks that a store's callers wait for longer before the store
// gets a further connection if another store must give up its own.
func TestFurtherConnectionWaits(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{ConnsPerServer: 2})
			stores, databases := h.fleet(t, engine, 2)
			first := h.lease(t, stores[0])
			defer first.Release()
			works(t, first)
			soon := func() bool { return first.ReadyIn(1, 50*time.Millisecond) == 0 }
			testkit.Eventually(t, testkit.Timeout, "a further connection of the two that there are", soon)
			second := h.lease(t, stores[1])
			defer second.Release()
			works(t, second)
			if n, _ := h.Connections(databases[0]); n != 2 {
				t.Fatalf("%d connections, want 2", n)
			}
			if soon() || first.ReadyIn(1, 499*time.Millisecond) <= 0 {
				t.Error("another store loses its connection after a short wait")
			}
			if wait := first.ReadyIn(1, 500*time.Millisecond); wait > 0 {
				t.Errorf("no further connection for another %v", wait)
			}
		})
	}
}
