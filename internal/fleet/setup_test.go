package fleet_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fixture is a platform with stores, and a replica of a release with migrations that the
// stores do not have.
type fixture struct {
	db       *masterdb.DB
	ring     *keyring.Ring
	dataDir  string
	ownDir   string
	old      *tenantdb.Manager // of the previous release
	registry *stores.Registry
	queue    *jobs.Queue
	owner    authz.Principal
	rules    credential.SupabaseRules
}

func setup(t *testing.T, db *masterdb.DB) fixture {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("test"))
	testkit.Must(t, err)
	log := slog.New(slog.DiscardHandler)
	queue, err := jobs.New(db, log, jobs.Options{})
	testkit.Must(t, err)
	b := fixture{db: db, ring: ring, dataDir: t.TempDir(), ownDir: t.TempDir(), queue: queue, rules: tenantdbtest.SupabaseRules()}
	b.old = b.manager(t, "")
	b.registry = stores.New(db, credits.New(db), b.old, queue, hostnames.New(db, "shops.test", log), log)
	b.owner = authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	b.exec(t, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
		VALUES ($1, 'owner@example.com', 'x', 'Olive', 'Owner', $2, $2)`, b.owner.UserID, time.Now().UTC())
	b.write(t, "00001_notes.sql", `CREATE TABLE IF NOT EXISTS notes (id integer PRIMARY KEY, body char(200))`)
	return b
}

// write adds a file to the operator's migrations, the same for every engine.
func (b fixture) write(t *testing.T, name, statement string) {
	t.Helper()
	for _, folder := range []string{"sqlite", "postgres", "mysql"} {
		testkit.Must(t, os.MkdirAll(filepath.Join(b.ownDir, folder), 0o700))
		testkit.Must(t, os.WriteFile(filepath.Join(b.ownDir, folder, name), []byte("-- +goose Up\n"+statement+";\n"), 0o600))
	}
}

// manager returns the connection manager of a replica, with the operator's migrations in
// ownDir if there is one.
func (b fixture) manager(t *testing.T, ownDir string) *tenantdb.Manager {
	t.Helper()
	own, err := tenantdb.LoadCustomMigrations(ownDir)
	testkit.Must(t, err)
	m := tenantdb.NewManager(b.db, b.ring, tenantdb.Options{
		DataDir: b.dataDir, Dialer: dial.Dialer{Allow: dial.Loopback}, Supabase: b.rules, Custom: own,
	})
	t.Cleanup(func() { testkit.Must(t, m.Close(context.Background())) })
	return m
}

// release returns the service of a replica with the operator's present migrations.
func (b fixture) release(t *testing.T, opts fleet.Options) *fleet.Service {
	t.Helper()
	return fleet.New(b.db, b.manager(t, b.ownDir), slog.New(slog.DiscardHandler), opts)
}

// store creates an active store with the schema of the previous release.
func (b fixture) store(t *testing.T, engine credential.EngineName) stores.Store {
	t.Helper()
	s, err := b.registry.Create(t.Context(), b.owner, stores.NewStore{Name: "Shop"})
	testkit.Must(t, err)
	c := credential.ManagedSQLite(s.ID)
	if engine != credential.SQLite {
		c = tenantdbtest.Create(t, engine)
	}
	b.connect(t, s, c)
	return s
}

func (b fixture) stores(t *testing.T, n int) (list []stores.Store) {
	t.Helper()
	for range n {
		list = append(list, b.store(t, credential.SQLite))
	}
	return list
}

func (b fixture) connect(t *testing.T, s stores.Store, c credential.Credentials) {
	t.Helper()
	ctx := t.Context()
	db, err := b.old.OpenUnleased(c)
	testkit.Must(t, err)
	version, err := db.Migrate(ctx)
	testkit.Must(t, err)
	testkit.Must(t, storedata.CreateStore(ctx, db, storedata.Profile{ID: s.ID, ProfileValues: storedata.ProfileValues{Name: s.Name, Slug: s.Slug}}))
	testkit.Must(t, db.Close())
	testkit.Must(t, b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := b.registry.BeginProvisioning(ctx, tx, s.ID); err != nil {
			return err
		}
		if err := b.old.Save(ctx, tx, s.ID, c); err != nil {
			return err
		}
		if err := tenantdb.RecordSchema(ctx, tx, s.ID, tenantdb.Schema{Version: version}); err != nil {
			return err
		}
		return b.registry.Activate(ctx, tx, s.ID)
	}))
}

// tenant runs a statement in a store's own database.
func (b fixture) tenant(t *testing.T, s stores.Store, query string, args ...any) {
	t.Helper()
	testkit.Must(t, b.in(t, s, func(db *tenantdb.DB) error {
		_, err := db.Exec(t.Context(), query, args...)
		return err
	}))
}

func (b fixture) in(t *testing.T, s stores.Store, do func(*tenantdb.DB) error) error {
	t.Helper()
	c, err := b.old.Load(t.Context(), b.db, s.ID)
	testkit.Must(t, err)
	db, err := b.old.OpenUnleased(c)
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // no statement is pending
	return do(db)
}

// usurp makes the store's database belong to another store. repair reverts that.
func (b fixture) usurp(t *testing.T, s stores.Store) (repair func()) {
	t.Helper()
	other := stoa.NewID[stoa.StoreID]()
	b.tenant(t, s, `UPDATE stores SET id = ? WHERE id = ?`, other, s.ID)
	return func() { b.tenant(t, s, `UPDATE stores SET id = ? WHERE id = ?`, s.ID, other) }
}

// hasNotes reports whether the table of the operator's migration exists.
func (b fixture) hasNotes(t *testing.T, s stores.Store) bool {
	t.Helper()
	return b.in(t, s, func(db *tenantdb.DB) error {
		var n int
		return db.Get(t.Context(), &n, `SELECT count(*) FROM notes`)
	}) == nil
}

// exec runs a statement in the master.
func (b fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// results is an observer that collects the results of a run.
type results struct {
	mu    sync.Mutex
	total int
	list  []fleet.Result
	added func() // called after each result; may be nil
}

// Begin implements fleet.Observer.
func (r *results) Begin(total int) { r.total = total }

// Add implements fleet.Observer.
func (r *results) Add(one fleet.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, one)
	if r.added != nil {
		r.added()
	}
}

// states counts the results.
func (r *results) states() map[fleet.State]int {
	n := map[fleet.State]int{}
	for _, one := range r.list {
		n[one.State]++
	}
	return n
}

// migrate runs a migration of the fleet and fails the test if it could not run.
func migrate(t *testing.T, s *fleet.Service, opts fleet.MigrateOptions) (fleet.Summary, *results) {
	t.Helper()
	r := &results{total: -1}
	sum, err := s.Migrate(t.Context(), opts, r)
	testkit.Must(t, err)
	if r.total != sum.Lagging {
		t.Errorf("begins with %d stores, %d lag", r.total, sum.Lagging)
	}
	return sum, r
}

// many allows any number of failures.
var many = fleet.Share{N: 1000}
