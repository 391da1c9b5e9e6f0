package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// twoReplicas are two servers on one PostgreSQL master. Changes are made on a and
// observed on b.
type twoReplicas struct {
	t     *testing.T
	a, b  *server
	owner client // signed in on a
	stoa.StoreID
}

// TestReplicas checks that the other replica sees a change long before its caches
// expire, also a change that it missed while its listener was disconnected.
func TestReplicas(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	cfg := testConfig(t, masterdb.Postgres)
	r := twoReplicas{t: t, a: startServer(t, cfg)}
	second := *cfg // the replicas share the data directory, which holds the keys and embedded stores
	r.b = startServer(t, &second)
	r.owner, _ = register(t, r.a, "owner@example.com")

	renamed, suspended, moved, rotated := r.store("renamed"), r.store("suspended"), r.store("moved"), r.store("rotated")
	for round, cut := range []bool{false, true, false} {
		slug, next, custom := "renamed", fmt.Sprintf("renamed-%d", round), fmt.Sprintf("custom-%d.example", round)
		if round > 0 {
			slug = fmt.Sprintf("renamed-%d", round-1)
		}
		r.change(moved, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
			SELECT '`+custom+`', id, false, true, created_at, created_at FROM stores WHERE id = $1`)
		for _, host := range []string{slug + ".localhost", "suspended.localhost", custom} {
			r.until(time.Now(), host, http.StatusOK)
		}
		session := client{t: t, url: r.a.URL}
		session.token = session.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": testPassword}).
			want(http.StatusOK).text("accessToken")
		elsewhere := client{t: t, url: r.b.URL, token: session.token}
		elsewhere.call("GET", "/api/auth/me", nil).want(http.StatusOK)
		lease, err := r.b.Tenants.Acquire(t.Context(), rotated)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(lease.Release)

		// Without notifications b would use what it has cached for half a minute.
		start := time.Now()
		for _, host := range []string{slug + ".localhost", "suspended.localhost", custom} {
			r.front(host).want(http.StatusOK)
		}
		if cut {
			r.cutListeners()
		}
		r.owner.call("PATCH", "/api/stores/"+renamed.String(), object{"slug": next}).want(http.StatusOK)
		r.change(suspended, `UPDATE stores SET status = 'suspended' WHERE id = $1`)
		r.change(moved, `DELETE FROM store_hostnames WHERE store_id = $1 AND custom`)
		r.tx(func(tx *masterdb.Tx) error {
			return r.a.Tenants.Save(t.Context(), tx, rotated, credential.ManagedSQLite(rotated))
		})
		session.call("POST", "/api/auth/logout", nil).want(http.StatusNoContent)

		elsewhere.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked")
		r.until(start, slug+".localhost", http.StatusNotFound)
		r.until(start, next+".localhost", http.StatusOK)
		r.until(start, "suspended.localhost", http.StatusServiceUnavailable)
		r.until(start, custom, http.StatusNotFound)
		r.soon(start, "the other replica opens the database anew", func() bool {
			now, err := r.b.Tenants.Acquire(t.Context(), rotated)
			if err != nil {
				t.Fatal(err)
			}
			defer now.Release()
			return now.DB != lease.DB
		})
		lease.Release()
		r.change(suspended, `UPDATE stores SET status = 'active' WHERE id = $1`)
		r.until(start, "suspended.localhost", http.StatusOK)
	}
}

// store creates an active store on embedded SQLite at <slug>.localhost.
func (r twoReplicas) store(slug string) stoa.StoreID {
	r.t.Helper()
	s := r.owner.call("POST", "/api/stores", object{"name": slug, "slug": slug}).want(http.StatusCreated).text("id")
	r.owner.call("POST", "/api/stores/"+s+"/connect-database", object{"type": "managed"}).want(http.StatusOK).is("active", "status")
	id, err := stoa.ParseID[stoa.StoreID](s)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r twoReplicas) tx(fn func(*masterdb.Tx) error) {
	r.t.Helper()
	if err := r.a.Master.Tx(r.t.Context(), fn); err != nil {
		r.t.Fatal(err)
	}
}

// change makes a change to the store on a, as a method of the registry would.
func (r twoReplicas) change(id stoa.StoreID, query string) {
	r.t.Helper()
	r.tx(func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(r.t.Context(), query, id); err != nil {
			return err
		}
		return tx.Notify(hostnames.ChangeTopic, id.String())
	})
}

// cutListeners ends both listeners' connections at the database server.
func (r twoReplicas) cutListeners() {
	r.t.Helper()
	const listeners = ` FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()`
	testkit.Eventually(r.t, testkit.Timeout, "both listen", func() bool {
		var n int
		if err := r.a.Master.Get(r.t.Context(), &n, `SELECT count(*)`+listeners, masterdb.ListenName); err != nil {
			r.t.Fatal(err)
		}
		return n == 2
	})
	var ended []bool
	if err := r.a.Master.Select(r.t.Context(), &ended, `SELECT pg_terminate_backend(pid)`+listeners, masterdb.ListenName); err != nil {
		r.t.Fatal(err)
	}
}

// front requests the store at host from b.
func (r twoReplicas) front(host string) answer {
	r.t.Helper()
	return client{t: r.t, url: r.b.URL}.call("GET", "/api/storefront/store", nil, "Host", host)
}

// until polls b until the request for the store at host gets the status.
func (r twoReplicas) until(start time.Time, host string, status int) {
	r.t.Helper()
	what := fmt.Sprintf("%s answers %d", strings.TrimSuffix(host, ".localhost"), status)
	r.soon(start, what, func() bool { return r.front(host).status == status })
}

// soon polls until ok. It fails when that takes about as long as the resolver's time to
// live, 30 s after start, which would have the same effect.
func (r twoReplicas) soon(start time.Time, what string, ok func() bool) {
	r.t.Helper()
	testkit.Eventually(r.t, testkit.Timeout, what, ok)
	if d := time.Since(start); d > 25*time.Second {
		r.t.Fatalf("took %v: %s", d, what)
	}
}
