package tenantdb_test

import (
	"testing"

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
