package tenantdb_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// unleased opens a new store's database, connected and with a mark on its
// connection.
func (h *testManager) unleased(t *testing.T, engine credential.EngineName) (stoa.StoreID, tenantdb.Registered, *tenantdb.DB) {
	t.Helper()
	store := h.store(t)
	c := credential.ManagedSQLite(store)
	if engine != credential.SQLite {
		c = tenantdbtest.Create(t, engine)
	}
	h.save(t, store, c)
	r, err := h.Read(t.Context(), h.master, store)
	testkit.Must(t, err)
	db, err := h.OpenUnleased(r.Credentials)
	testkit.Must(t, err)
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, exec(t, db, `CREATE TEMPORARY TABLE here (n integer)`))
	return store, r, db
}

// marked reports whether the lease has the connection that was marked.
func marked(t *testing.T, l tenantdb.Lease) bool {
	t.Helper()
	var n int
	return l.Get(t.Context(), &n, `SELECT count(*) FROM here`) == nil
}

// TestAdopt checks that the first lease of an adopted database has the existing
// connection, and that its pool is closed, evicted and replaced as any other.
func TestAdopt(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			store, r, db := h.unleased(t, engine)
			h.Adopt(t.Context(), store, r, db)
			first, second := h.lease(t, store), h.lease(t, store)
			if !marked(t, first) || first.DB != second.DB {
				t.Error("the first lease opened the database again")
			}
			if most := first.SQL().Stats().MaxOpenConnections; most != 8 {
				t.Errorf("the pool may have %d connections", most)
			}
			testkit.Must(t, h.Reconcile(t.Context())) // its credentials are those of the master
			first.Release()
			second.Release()
			if !h.Has(store) || h.opened() != 1 || h.open() != 1 {
				t.Errorf("%d pools were opened, %d are", h.opened(), h.open())
			}
			if engine != credential.SQLite {
				if open, _ := h.Connections(r.Credentials); open != 1 {
					t.Errorf("%d connections are counted", open)
				}
			}
			h.save(t, store, r.Credentials) // as after a rotation of the credentials
			next := h.lease(t, store)
			defer next.Release()
			if marked(t, next) {
				t.Error("the pool outlives its credentials")
			}
			testkit.Eventually(t, testkit.Timeout, "one pool is left", func() bool { return h.open() == 1 })
		})
	}
}

// TestAdoptFailure checks that Adopt closes a database that it cannot use: if
// other callers were faster, if no connection was made, if no more files may be
// open, or if the manager is closed.
func TestAdoptFailure(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		for _, files := range []int{1, 2} {
			t.Run(fmt.Sprint(engine, files), func(t *testing.T) {
				t.Parallel()
				h := setup(t, tenantdb.Options{MaxEmbedded: files})
				store, r, db := h.unleased(t, engine)
				fast := h.lease(t, store)
				soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				h.Adopt(soon, store, r, db)
				if marked(t, fast) || isOpen(db.SQL()) {
					t.Error("it takes the place of a pool that is leased")
				}
				fast.Release()
				h.Forget(store)
				// The limit has not shrunk: as many files as before can be
				// opened.
				for range files {
					l := h.lease(t, h.embedded(t))
					defer l.Release()
				}
				bare, err := h.OpenUnleased(r.Credentials)
				testkit.Must(t, err)
				h.Adopt(soon, store, r, bare)
				if h.Has(store) || isOpen(bare.SQL()) {
					t.Error("a pool without a connection is kept")
				}
			})
		}
		t.Run(string(engine)+" closed", func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			store, r, db := h.unleased(t, engine)
			testkit.Must(t, h.Close(t.Context()))
			h.Adopt(t.Context(), store, r, db)
			if isOpen(db.SQL()) {
				t.Error("a closed manager keeps it")
			}
		})
	}
}
