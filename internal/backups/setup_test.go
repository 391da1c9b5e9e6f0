package backups

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fixture is a service with its dependencies, whose jobs run.
type fixture struct {
	*Service
	data   string // folder of the embedded databases
	folder string // of the archives
}

func setup(t *testing.T, db *masterdb.DB, opts Options) fixture {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("test"))
	testkit.Must(t, err)
	return setupIn(t, db, opts, ring, t.TempDir(), t.TempDir())
}

// sharing returns another service on the same databases and archives, whose jobs do not run
// yet.
func (f fixture) sharing(t *testing.T, opts Options) fixture {
	t.Helper()
	return setupIn(t, f.db, opts, f.ring, f.data, f.folder)
}

func setupIn(t *testing.T, db *masterdb.DB, opts Options, ring *keyring.Ring, data, folder string) fixture {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	queue, err := jobs.New(db, log, jobs.Options{})
	testkit.Must(t, err)
	tenants := tenantdb.NewManager(db, ring, tenantdb.Options{DataDir: data, Dialer: dial.Dialer{Allow: dial.Loopback}, Supabase: tenantdbtest.SupabaseRules()})
	t.Cleanup(func() { testkit.Must(t, tenants.Close(context.Background())) })
	registry := stores.New(db, credits.New(db), tenants, queue, hostnames.New(db, "shops.test", log), log)
	p := provisioning.New(db, registry, tenants, queue, log, provisioning.Options{Lease: 5 * time.Minute})
	opts.scryptWork = 10 // a passphrase costs nothing
	f := fixture{data: data, folder: folder}
	f.Service = New(db, registry, tenants, p, queue, archive.NewFolder(f.folder), ring, log, opts)
	jobs.Handle(queue, provisioning.Timeout, p.Provision)
	jobs.Handle(queue, stores.SyncIdentityTimeout, registry.SyncIdentity)
	jobs.Handle(queue, stores.SyncCreditsTimeout, registry.SyncCredits)
	f.Register()
	return f
}

// start runs the jobs until the test ends.
func (f fixture) start(t *testing.T) fixture {
	t.Helper()
	testkit.Must(t, f.queue.Start(t.Context()))
	t.Cleanup(func() { testkit.Must(t, f.queue.Stop(context.Background())) })
	return f
}

// each runs test with a fresh service on each master and each engine of stores.
func each(t *testing.T, test func(t *testing.T, f fixture, engine credential.EngineName)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := setup(t, db, Options{}).start(t)
		for _, engine := range tenantdbtest.Engines() {
			t.Run(string(engine), func(t *testing.T) { test(t, f, engine) })
		}
	})
}

// eachMaster runs test with a fresh service on each master.
func eachMaster(t *testing.T, test func(t *testing.T, f fixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) { test(t, setup(t, db, Options{}).start(t)) })
}

func (f fixture) user(t *testing.T) authz.Principal {
	t.Helper()
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	f.exec(t, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
		VALUES ($1, $2, 'x', 'Olive', 'Owner', $3, $3)`, p.UserID, p.UserID.String()+"@example.com", time.Now().UTC())
	return p
}

func (f fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, f.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// store creates an active store with a product, whose database is of that engine.
func (f fixture) store(t *testing.T, engine credential.EngineName) (authz.Principal, stores.Store) {
	t.Helper()
	p := f.user(t)
	s, err := f.registry.Create(t.Context(), p, stores.NewStore{Name: "Bakery"})
	testkit.Must(t, err)
	c := credential.Credentials{Kind: credential.Managed}
	if engine != credential.SQLite {
		c = tenantdbtest.Create(t, engine)
	}
	_, err = f.provisioning.Connect(t.Context(), p, s.ID, c)
	testkit.Must(t, err)
	testkit.Eventually(t, time.Minute, "the store is active", func() bool { return f.registry.CheckConnected(t.Context(), s.ID) == nil })
	f.addProduct(t, s.ID, "bread")
	return p, s
}

// within calls use with the store's database.
func (f fixture) within(t *testing.T, store stoa.StoreID, use func(*tenantdb.DB) error) {
	t.Helper()
	lease, err := f.tenants.Acquire(t.Context(), store)
	testkit.Must(t, err)
	defer lease.Release()
	testkit.Must(t, use(lease.DB))
}

func (f fixture) addProduct(t *testing.T, store stoa.StoreID, slug string) {
	t.Helper()
	f.within(t, store, func(db *tenantdb.DB) error {
		_, err := storedata.AddProduct(t.Context(), db, storedata.NewProduct{Name: "Product " + slug, Slug: slug, SKU: slug, PriceMinor: 100, Currency: "USD"})
		return err
	})
}

// products returns the slugs of the store's products.
func (f fixture) products(t *testing.T, store stoa.StoreID) (slugs []string) {
	t.Helper()
	f.within(t, store, func(db *tenantdb.DB) error {
		return db.Select(t.Context(), &slugs, `SELECT slug FROM products ORDER BY slug`)
	})
	return slugs
}

// made makes an archive and waits until it is checked.
func (f fixture) made(t *testing.T, p authz.Principal, store stoa.StoreID) Backup {
	t.Helper()
	b, err := f.Make(t.Context(), p, store)
	testkit.Must(t, err)
	return f.checked(t, b)
}

// checked waits until an archive is made and checked.
func (f fixture) checked(t *testing.T, b Backup) Backup {
	t.Helper()
	testkit.Eventually(t, time.Minute, "the archive is made and checked", func() bool {
		var err error
		b, err = f.get(t.Context(), b.StoreID, b.ID)
		testkit.Must(t, err)
		return b.State == Failed || b.State == Succeeded && b.CheckState != CheckQueued
	})
	return b
}

// restored waits for the end of a restore.
func (f fixture) restored(t *testing.T, r Restore) Restore {
	t.Helper()
	testkit.Eventually(t, time.Minute, "the restore is done", func() bool {
		row, err := readRestore(t.Context(), f.db, `id = $1`, r.ID)
		testkit.Must(t, err)
		r = row.restore()
		return r.Done()
	})
	return r
}

func wantCode(t *testing.T, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Errorf("error %v has code %q, want %q", err, got, want)
	}
}
