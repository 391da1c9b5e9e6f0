package fleet_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMigrate checks that the stores of every engine get the missing migrations, that a
// dry run changes none, and that a second run has nothing to do.
func TestMigrate(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, engine := range tenantdbtest.All() {
			b.store(t, engine)
		}
		suspended, pending := b.store(t, credential.SQLite), b.store(t, credential.SQLite)
		gone := b.store(t, credential.SQLite)
		b.exec(t, `UPDATE stores SET status = 'suspended' WHERE id = $1`, suspended.ID)
		b.exec(t, `UPDATE stores SET status = 'pending_database' WHERE id = $1`, pending.ID)
		b.exec(t, `UPDATE stores SET status = 'deleted' WHERE id = $1`, gone.ID)
		total := len(tenantdbtest.All()) + 1
		s := b.release(t, fleet.Options{})

		sum, r := migrate(t, s, fleet.MigrateOptions{DryRun: true})
		if sum.Lagging != total || r.states()[fleet.Pending] != total || b.hasNotes(t, suspended) {
			t.Errorf("dry run: %+v, %v", sum, r.states())
		}
		sum, r = migrate(t, s, fleet.MigrateOptions{})
		if sum.Migrated != total || !sum.OK() || r.states()[fleet.Migrated] != total {
			t.Fatalf("%+v %+v", sum, r.list)
		}
		for _, one := range r.list {
			if want := (tenantdb.Schema{Version: tenantdb.LatestVersion(), Own: 1}); one.Schema != want || one.Store.Schema.Own != 0 || one.Duration <= 0 {
				t.Errorf("%+v", one)
			}
		}
		if !b.hasNotes(t, suspended) || b.hasNotes(t, pending) || b.hasNotes(t, gone) {
			t.Error("other stores than those that count were migrated")
		}
		status, err := s.Status(t.Context())
		testkit.Must(t, err)
		if status.Stores != total || status.Current != total || status.Lagging+status.Ahead+status.Failed != 0 || status.Expected.Own != 1 {
			t.Errorf("%+v", status)
		}
		if sum, r := migrate(t, s, fleet.MigrateOptions{}); sum.Lagging != 0 || len(r.list) != 0 {
			t.Errorf("a second run: %+v", sum)
		}
	})
}

// TestCanary checks that the failure of the canary leaves the other stores unchanged, and
// that the next run selects another canary.
func TestCanary(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	list := b.stores(t, 4)
	repair := b.usurp(t, list[0])
	s := b.release(t, fleet.Options{})
	opts := fleet.MigrateOptions{Canary: fleet.Share{N: 1}, MaxFailures: many, Concurrency: 1}
	sum, r := migrate(t, s, opts)
	if sum.Failed != 1 || sum.Untouched != 3 || sum.Stopped == "" || sum.OK() || !r.list[0].Canary || r.list[0].Code != stoa.DatabaseNotEmpty {
		t.Errorf("%+v %+v", sum, r.list)
	}
	if b.hasNotes(t, list[0]) {
		t.Error("another store's database was changed")
	}
	sum, _ = migrate(t, s, opts)
	if sum.Lagging != 4 || sum.Migrated != 3 || sum.Failed != 1 || sum.Stopped != "" {
		t.Errorf("%+v", sum)
	}
	status, err := s.Status(t.Context())
	testkit.Must(t, err)
	if diff := cmp.Diff([]fleet.Cause{{Code: stoa.DatabaseNotEmpty, Message: r.list[0].Message, Stores: []string{list[0].Slug}}}, status.Causes); diff != "" {
		t.Error(diff)
	}
	repair()
	sum, r = migrate(t, s, opts)
	if sum.Lagging != 1 || !sum.OK() || r.list[0].Store.ID != list[0].ID || r.list[0].Store.Attempts != 2 {
		t.Errorf("%+v %+v", sum, r.list)
	}
	if status, err = s.Status(t.Context()); err != nil || status.Failed != 0 {
		t.Errorf("%+v %v", status, err)
	}
}

// TestMaxFailures checks that a run stops once more stores have failed than allowed, and
// that the messages of the operator's failed statements are kept.
func TestMaxFailures(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	b.stores(t, 6)
	b.write(t, "00002_wrong.sql", `INSERT INTO nowhere VALUES (1)`)
	s := b.release(t, fleet.Options{})
	sum, r := migrate(t, s, fleet.MigrateOptions{MaxFailures: fleet.Share{N: 30, Percent: true}, Concurrency: 1}) // 30% of 6, rounded up, is 2
	if sum.Failed != 3 || sum.Untouched != 3 || sum.Stopped == "" || len(sum.Causes) != 1 || len(sum.Causes[0].Stores) != 3 {
		t.Errorf("%+v", sum)
	}
	if one := r.list[0]; one.Code != stoa.MigrationFailed || one.Schema.Own != 1 ||
		!cmp.Equal(one.Message, "00002_wrong.sql: SQL logic error: no such table: nowhere (1)") {
		t.Errorf("%+v", one)
	}
	if sum, _ := migrate(t, s, fleet.MigrateOptions{Concurrency: 1}); sum.Failed != 1 {
		t.Errorf("without any failure allowed: %+v", sum)
	}
}

// TestNamedStoresAndVersions checks that only the named stores are migrated, and that a
// schema version that this binary does not have is refused.
func TestNamedStoresAndVersions(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	list := b.stores(t, 3)
	s := b.release(t, fleet.Options{})
	if sum, r := migrate(t, s, fleet.MigrateOptions{Stores: []stoa.StoreID{list[1].ID}}); sum.Migrated != 1 || r.list[0].Store.ID != list[1].ID {
		t.Errorf("%+v", sum)
	}
	for _, to := range []int64{-1, tenantdb.LatestVersion() + 1} {
		if _, err := s.Migrate(t.Context(), fleet.MigrateOptions{To: to}, &results{}); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("--to %d: %v", to, err)
		}
	}
	b.exec(t, `UPDATE store_databases SET schema_version = 3 WHERE store_id = $1`, list[0].ID) // lower than the actual version
	sum, r := migrate(t, s, fleet.MigrateOptions{To: 5})
	if sum.Migrated != 1 || r.list[0].Schema.Version != tenantdb.LatestVersion() || b.hasNotes(t, list[0]) {
		t.Errorf("%+v %+v", sum, r.list)
	}
}

// TestRunsAtOnce checks that two concurrent runs migrate each store once.
func TestRunsAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, engine := range tenantdbtest.Engines() {
			for range 2 {
				b.store(t, engine)
			}
		}
		b.write(t, "00002_fill.sql", `INSERT INTO notes VALUES (1, 'once')`) // a second execution would fail
		total := 2 * len(tenantdbtest.Engines())
		done := make(chan fleet.Summary, 2)
		for range 2 {
			s := b.release(t, fleet.Options{})
			go func() {
				sum, err := s.Migrate(t.Context(), fleet.MigrateOptions{MaxFailures: many}, &results{})
				if err != nil {
					t.Error(err)
				}
				done <- sum
			}()
		}
		for range 2 {
			if sum := <-done; !sum.OK() {
				t.Errorf("%+v", sum)
			}
		}
		status, err := b.release(t, fleet.Options{}).Status(t.Context())
		testkit.Must(t, err)
		if status.Current != total {
			t.Errorf("%+v", status)
		}
	})
}

// TestStop checks that a run that is stopped lets the stores in progress finish and
// starts no other.
func TestStop(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	b.stores(t, 5)
	s := b.release(t, fleet.Options{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sum, err := s.Migrate(ctx, fleet.MigrateOptions{Concurrency: 1, Grace: time.Minute}, &results{added: stop})
	testkit.Must(t, err)
	if sum.Migrated != 1 || sum.Untouched != 4 || sum.Failed+sum.Interrupted != 0 || sum.OK() || sum.Stopped == "" {
		t.Errorf("%+v", sum)
	}
	status, err := s.Status(t.Context())
	testkit.Must(t, err)
	if status.Current != sum.Migrated || status.Lagging != sum.Untouched || status.Failed != 0 {
		t.Errorf("%+v", status)
	}
	if sum, _ = migrate(t, s, fleet.MigrateOptions{}); !sum.OK() {
		t.Errorf("%+v", sum)
	}
}

// TestStopWithAStoreThatHangs checks that a migration that hangs is abandoned after the
// grace period, without a recorded result.
func TestStopWithAStoreThatHangs(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	h := newHole(t)
	b.redirect(t, b.store(t, credential.SQLite), h.address)
	service := b.release(t, fleet.Options{})
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		<-h.reached
		stop()
	}()
	sum, err := service.Migrate(ctx, fleet.MigrateOptions{Grace: time.Millisecond, Timeout: time.Minute}, &results{})
	testkit.Must(t, err)
	if sum.Interrupted != 1 || sum.Failed != 0 {
		t.Errorf("%+v", sum)
	}
	status, err := service.Status(t.Context())
	testkit.Must(t, err)
	if status.Failed != 0 || status.Lagging != 1 {
		t.Errorf("%+v", status)
	}
}

// hole is a server that accepts connections and sends nothing.
type hole struct {
	address *net.TCPAddr
	dials   atomic.Int32
	reached chan struct{}
}

func newHole(t *testing.T) *hole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	h := &hole{address: l.Addr().(*net.TCPAddr), reached: make(chan struct{})}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if h.dials.Add(1) == 1 {
				close(h.reached)
			}
		}
	}()
	return h
}

// TestNothingToDoOpensNothing checks that 1,000 stores that are up to date need no
// connection. One more store that lags needs one to its own server and none to theirs.
func TestNothingToDoOpensNothing(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		h := newHole(t)
		first := b.store(t, credential.SQLite)
		b.redirect(t, first, h.address)
		b.exec(t, `UPDATE store_databases SET schema_version = $1, own_version = 1, exposure_checked_at = created_at`, tenantdb.LatestVersion())
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return copies(t, tx, first.ID, 999) }))
		s := b.release(t, fleet.Options{})
		if sum, r := migrate(t, s, fleet.MigrateOptions{}); sum.Lagging != 0 || len(r.list) != 0 {
			t.Errorf("%+v", sum)
		}
		testkit.Must(t, s.Start(t.Context(), b.queue))
		testkit.Must(t, s.Run(t.Context(), s.Job()))
		status, err := s.Status(t.Context())
		testkit.Must(t, err)
		if status.Stores != 1000 || status.Current != 1000 {
			t.Errorf("%+v", status)
		}
		var queued int
		testkit.Must(t, db.Get(t.Context(), &queued, `SELECT count(*) FROM river_job WHERE kind = 'fleet.migrations'`))
		if n := h.dials.Load(); n != 0 || queued != 0 {
			t.Errorf("%d connections, %d jobs", n, queued)
		}

		b.exec(t, `UPDATE store_databases SET own_version = 0 WHERE store_id = $1`, first.ID)
		sum, r := migrate(t, s, fleet.MigrateOptions{Timeout: 100 * time.Millisecond})
		if sum.Lagging != 1 || r.list[0].Code != stoa.DatabaseUnreachable || h.dials.Load() != 1 {
			t.Errorf("%+v, %d connections", sum, h.dials.Load())
		}
	})
}

// copies registers n more stores with the database row of one.
func copies(t *testing.T, tx *masterdb.Tx, of stoa.StoreID, n int) error {
	t.Helper()
	var owner stoa.UserID
	if err := tx.Get(t.Context(), &owner, `SELECT created_by FROM stores WHERE id = $1`, of); err != nil {
		return err
	}
	rows, args := make([]string, n), []any{owner, tx.Now}
	for i := range rows {
		id := stoa.NewID[stoa.StoreID]()
		rows[i] = fmt.Sprintf("($%d, $%d, 'Copy', 'active', $1, $2, $2)", len(args)+1, len(args)+2)
		args = append(args, id, id.String())
	}
	_, err := tx.Exec(t.Context(), `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at) VALUES `+strings.Join(rows, ", "), args...)
	if err != nil {
		return err
	}
	_, err = tx.Exec(t.Context(), `INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials,
			credential_version, schema_version, own_version, exposure_checked_at, status, created_at, updated_at)
		SELECT s.id, x.kind, x.engine, x.host, x.port, x.database_name, x.credentials, x.credential_version, x.schema_version, x.own_version,
			x.exposure_checked_at, x.status, x.created_at, x.updated_at FROM stores s, store_databases x WHERE x.store_id = $1 AND s.id <> $1`, of)
	return err
}

// redirect gives the store credentials for the server at address.
func (b fixture) redirect(t *testing.T, s stores.Store, address *net.TCPAddr) {
	t.Helper()
	c := credential.Credentials{
		Kind: credential.KindPostgreSQL, Engine: credential.PostgreSQL, Host: address.IP.String(), Port: address.Port,
		Database: "shop", User: "shop", Password: keyring.NewSecret("x"), TLS: credential.TLSDisable,
	}
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.old.Save(t.Context(), tx, s.ID, c) }))
	b.exec(t, `UPDATE store_databases SET schema_version = $1 WHERE store_id = $2`, tenantdb.LatestVersion(), s.ID)
}

// TestShares checks numbers, percentages and invalid texts.
func TestShares(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"0": 0, "5": 5, "0%": 0, "1%": 1, "10%": 1, "11%": 2, "100%": 10} {
		s, err := fleet.ParseShare(text)
		if err != nil || s.Of(10) != want {
			t.Errorf("%s of 10 is %d, %v", text, s.Of(10), err)
		}
	}
	for _, text := range []string{"", "%", "-1", "101%", "1.5%", "x", "5 %", "99999999999999999999"} {
		if s, err := fleet.ParseShare(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		}
	}
}
