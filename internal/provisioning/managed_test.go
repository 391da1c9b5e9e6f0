package provisioning

import (
	"context"
	"net"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// door is a proxy in front of the operator's server. While it is closed, it does
// not answer.
type door struct{ closed atomic.Bool }

// eachManaged runs test on every master with every kind of managed database server, in the
// short form on the pairs of partners. No network is allowed for merchants' databases.
func eachManaged(t *testing.T, test func(t *testing.T, b fixture, engine credential.EngineName, d *door)) {
	t.Helper()
	engines := servers(t)
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for _, engine := range partners(db, engines) {
			t.Run(string(engine), func(t *testing.T) {
				shared, d := newPlatform(t), &door{}
				shared.server = d.server(t, engine)
				b := setupWith(t, db, shared, jobs.Options{}, nil)
				t.Cleanup(func() { b.dropManaged(t) })
				test(t, b, engine, d)
			})
		}
	})
}

func (d *door) server(t *testing.T, engine credential.EngineName) *credential.Server {
	t.Helper()
	env := tenantdbtest.PostgresEnv
	if engine == credential.MySQL {
		env = tenantdbtest.MySQLEnv
	}
	u, err := url.Parse(os.Getenv(env))
	testkit.Must(t, err)
	target := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if d.closed.Load() {
				_ = conn.Close()
				continue
			}
			go pass(conn, target)
		}
	}()
	u.Host, u.Path, u.RawQuery = listener.Addr().String(), "/", "sslmode=disable"
	server, err := credential.ParseServer(keyring.NewSecret(u.String()), "")
	testkit.Must(t, err)
	return server
}

// dropManaged drops the databases and roles of the test on the server.
func (b fixture) dropManaged(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	testkit.Must(t, b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM store_databases`)
		return err
	}))
	orphans, err := testkit.Collect(b.managed.Orphans(ctx))
	testkit.Must(t, err)
	for _, s := range orphans {
		testkit.Must(t, b.managed.DropOrphan(ctx, s))
	}
}

// TestManagedLife checks that a store gets its database on the operator's server, and
// that the database is dropped with the store.
func TestManagedLife(t *testing.T) {
	t.Parallel()
	eachManaged(t, func(t *testing.T, b fixture, engine credential.EngineName, d *door) {
		p, s := b.store(t)
		d.closed.Store(true) // the server is unreachable at first
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.failed(t, p, run, "connect", stoa.DatabaseUnreachable)
		d.closed.Store(false)
		run, err = b.Retry(t.Context(), p, s.ID)
		testkit.Must(t, err)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		s = b.succeeded(t, p, run)
		if s.Database.Kind != credential.Managed || s.Database.Engine != engine {
			t.Errorf("the database is %+v", s.Database)
		}
		b.checkOwner(t, p, s.ID)
		if found := b.inconsistencies(t); len(found) != 0 {
			t.Errorf("of a store that is well: %+v", found)
		}

		// The store is deleted while the server is down. The registry keeps the record
		// until the database is dropped.
		doomed := b.doom(t, p, s.ID)
		d.closed.Store(true)
		if err := b.registry.FinishDeletion(t.Context(), doomed); stoa.CodeOf(err) != stoa.DatabaseUnreachable {
			t.Errorf("with the server down: %v", err)
		}
		kept, err := stores.Find(t.Context(), b.db, s.ID.String())
		if err != nil || kept.Status != stores.Deleted || kept.Database == nil || kept.Database.LastError != stoa.DatabaseUnreachable {
			t.Errorf("the operator is shown %+v, %v", kept.Database, err)
		}
		d.closed.Store(false)
		testkit.Must(t, b.registry.FinishDeletion(t.Context(), doomed))
		if n := b.count(t, `store_databases WHERE store_id = '`+s.ID.String()+`'`); n != 0 {
			t.Error("the registry still has the database")
		}
		if orphans, err := testkit.Collect(b.managed.Orphans(t.Context())); err != nil || len(orphans) > 0 {
			t.Errorf("left on the server: %v, %v", orphans, err)
		}
	})
}

// doom deletes the store and ends its grace period.
func (b fixture) doom(t *testing.T, p authz.Principal, id stoa.StoreID) stores.DeleteStore {
	t.Helper()
	_, err := b.registry.Delete(t.Context(), p, id)
	testkit.Must(t, err)
	b.exec(t, `UPDATE stores SET delete_after = $2 WHERE id = $1`, id, time.Now().UTC().Add(-time.Second))
	return stores.DeleteStore{StoreID: id}
}

// TestManagedConnectDies ends the process in the step that creates the database, at the
// most critical moments for the master.
func TestManagedConnectDies(t *testing.T) {
	t.Parallel()
	eachManaged(t, func(t *testing.T, b fixture, _ credential.EngineName, _ *door) {
		p, s := b.store(t)
		run, err := b.Connect(t.Context(), p, s.ID, credential.Credentials{Kind: credential.Managed})
		testkit.Must(t, err)
		// The credentials are saved before anything is created. Then the process ends
		// after the creation and before the record.
		c, err := b.tenants.Load(t.Context(), b.db, s.ID)
		testkit.Must(t, err)
		if orphans, err := testkit.Collect(b.managed.Orphans(t.Context())); err != nil || len(orphans) > 0 || c.Password.IsZero() {
			t.Fatalf("before the run: %v, %v", orphans, err)
		}
		w := b.begin(t, run)
		testkit.Must(t, b.managed.Make(t.Context(), c))
		w.close()
		b.resumable(t, p, run)
		b.expireLease(t, run.ID)
		testkit.Must(t, b.Provision(t.Context(), job(run)))
		run, err = b.Latest(t.Context(), p, s.ID)
		testkit.Must(t, err)
		b.succeeded(t, p, run)
		// A merchant's credentials cannot name the operator's server.
		if _, err := b.Test(t.Context(), p, s.ID, &c); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("tested as given: %v", err)
		}
		wantCode(t, b.Rotate(t.Context(), p, s.ID, c), stoa.InvalidRequest)
	})
}
