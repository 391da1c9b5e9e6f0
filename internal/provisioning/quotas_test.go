package provisioning

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestManagedDatabaseQuotaIsExact checks that, when fifty managed databases are connected
// concurrently to stores of one creator, exactly the allowed number are planned, whoever
// connects them. They count until they are dropped. A store that has one may connect it
// again.
func TestManagedDatabaseQuotaIsExact(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db) // no run is started in its process
		b.opts.Quotas = quotas.Limits{ManagedDatabases: quotas.PerUser{Unverified: 7, Verified: 8}}
		p := b.user(t)
		admin := b.user(t)
		list := make([]stores.Store, 50)
		for i := range list {
			s, err := b.registry.Create(t.Context(), p, stores.NewStore{Name: fmt.Sprintf("Store %d", i)})
			testkit.Must(t, err)
			list[i] = s
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return authz.Grant(t.Context(), tx, s.ID, admin.UserID, authz.Admin) }))
		}
		managed := credential.Credentials{Kind: credential.Managed}
		errs := make([]error, len(list))
		var running sync.WaitGroup
		for i, s := range list {
			running.Go(func() {
				who := p
				if i%2 == 1 {
					who = admin
				}
				_, errs[i] = b.Connect(t.Context(), who, s.ID, managed)
			})
		}
		running.Wait()
		var with, without stoa.StoreID
		planned := 0
		for i, err := range errs {
			if err == nil {
				planned++
				with = list[i].ID
				continue
			}
			without = list[i].ID
			wantQuota(t, err, 7)
		}
		if n := b.count(t, `store_databases`); planned != 7 || n != 7 {
			t.Fatalf("%d databases are planned, %d rows, want 7", planned, n)
		}
		b.exec(t, `UPDATE provisioning_runs SET state = 'failed' WHERE store_id = $1`, with)
		b.exec(t, `UPDATE stores SET status = 'pending_database' WHERE id = $1`, with)
		_, err := b.Connect(t.Context(), p, with, managed)
		testkit.Must(t, err)

		b.exec(t, `UPDATE stores SET status = 'deleted' WHERE id = $1`, with)
		_, err = b.Connect(t.Context(), p, without, managed)
		wantQuota(t, err, 7) // the database has not been dropped yet
		b.exec(t, `DELETE FROM store_databases WHERE store_id = $1`, with)
		_, err = b.Connect(t.Context(), p, without, managed)
		testkit.Must(t, err)
	})
}

func wantQuota(t *testing.T, err error, used int) {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != stoa.QuotaExceeded || *e.Quota != (stoa.Quota{Name: quotas.ManagedDatabases, Limit: used, Used: used}) {
		t.Fatalf("%v, want quota_exceeded", err)
	}
}

// TestOwnDatabasesHaveNoQuota checks that a merchant's own database does not count
// towards a quota, since it costs the platform nothing.
func TestOwnDatabasesHaveNoQuota(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	b.opts.Quotas = quotas.Limits{ManagedDatabases: quotas.PerUser{Unverified: 1, Verified: 1}}
	p := b.user(t)
	for i := range 3 {
		s, err := b.registry.Create(t.Context(), p, stores.NewStore{Name: fmt.Sprintf("Store %d", i)})
		testkit.Must(t, err)
		_, err = b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.KindPostgreSQL, Engine: credential.PostgreSQL, Host: "127.0.0.1", Port: 1,
			Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable})
		testkit.Must(t, err)
	}
}

// TestRunsPerHour checks that connecting and retrying is refused after a number of times
// within an hour, for that store only.
func TestRunsPerHour(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p, s := b.store(t)
		managed := credential.Credentials{Kind: credential.Managed}
		begin := func(i int) error {
			b.exec(t, `UPDATE provisioning_runs SET state = 'failed' WHERE store_id = $1`, s.ID)
			b.exec(t, `UPDATE stores SET status = 'pending_database' WHERE id = $1`, s.ID)
			var err error
			if i%3 == 0 {
				_, err = b.Connect(t.Context(), p, s.ID, managed)
			} else {
				_, err = b.Retry(t.Context(), p, s.ID)
			}
			return err
		}
		for i := range maxBegun {
			testkit.Must(t, begin(i))
		}
		for i := range 3 {
			var e *stoa.Error
			if err := begin(i); !errors.As(err, &e) || e.Code != stoa.RateLimited || e.RetryAfter <= 55*time.Minute || e.RetryAfter > time.Hour {
				t.Errorf("%v, retry after %v", err, e.RetryAfter)
			}
		}
		other, second := b.store(t)
		_, err := b.Connect(t.Context(), other, second.ID, managed)
		testkit.Must(t, err)
		b.exec(t, `UPDATE provisioning_events SET created_at = $1 WHERE seq = 1`, time.Now().UTC().Add(-61*time.Minute))
		testkit.Must(t, begin(0))
	})
}
