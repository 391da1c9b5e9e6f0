package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fleetBench is a platform with stores, on which an operator runs commands.
type fleetBench struct {
	*app.App
	t     *testing.T
	owner authz.Principal
	flags []string
}

func newFleetBench(t *testing.T) fleetBench {
	t.Helper()
	cfg := testConfig(t, masterdb.SQLite)
	a, err := app.NewApp(t.Context(), cfg, slog.New(slog.DiscardHandler), "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f := fleetBench{a, t, authz.Principal{UserID: stoa.NewID[stoa.UserID]()}, []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}}
	f.tx(func(ctx context.Context, tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, 'owner@example.com', 'x', 'Olive', 'Owner', $2, $2)`, f.owner.UserID, tx.Now)
		return err
	})
	return f
}

func (f fleetBench) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f fleetBench) tx(fn func(context.Context, *masterdb.Tx) error) {
	f.t.Helper()
	f.must(f.Master.Tx(f.t.Context(), func(tx *masterdb.Tx) error { return fn(f.t.Context(), tx) }))
}

// stoa runs a command on the platform, as a shell would.
func (f fleetBench) stoa(args ...string) (status int, stdout, stderr string) {
	f.t.Helper()
	return command(f.t, append(args, f.flags...)...)
}

// member is a store of the fleet.
type member struct {
	stores.Store
	c credential.Credentials
}

// store creates an active store. Its stored credentials lead through via, if not nil.
func (f fleetBench) store(engine credential.EngineName, via *gateway) member {
	f.t.Helper()
	ctx := f.t.Context()
	s, err := f.Registry.Create(ctx, f.owner, stores.NewStore{Name: string(engine)})
	f.must(err)
	c := credential.ManagedSQLite(s.ID)
	if engine != credential.SQLite {
		c = tenantdbtest.Create(f.t, engine)
	}
	if engine == credential.SQLite {
		f.copyEmbedded(s.ID)
	}
	f.in(c, func(db *tenantdb.DB) error {
		if _, err := db.Migrate(ctx); err != nil {
			return err
		}
		return storedata.CreateStore(ctx, db, storedata.Profile{ID: s.ID, ProfileValues: storedata.ProfileValues{Name: s.Name, Slug: s.Slug}})
	})
	kept := c
	if via != nil {
		via.target = net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
		kept.Host, kept.Port = "127.0.0.1", via.port
	}
	f.tx(func(ctx context.Context, tx *masterdb.Tx) error {
		if err := f.Registry.BeginProvisioning(ctx, tx, s.ID); err != nil {
			return err
		}
		if err := f.Tenants.Save(ctx, tx, s.ID, kept); err != nil {
			return err
		}
		if err := tenantdb.RecordSchema(ctx, tx, s.ID, tenantdb.Schema{Version: tenantdb.LatestVersion()}); err != nil {
			return err
		}
		return f.Registry.Activate(ctx, tx, s.ID)
	})
	return member{s, c}
}

// embeddedSchema is a migrated, empty embedded database. It is created once and copied
// for most stores of a fleet.
var embeddedSchema = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "stoa-fleet-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	id := stoa.NewID[stoa.StoreID]()
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{DataDir: dir})
	db, err := m.OpenUnleased(credential.ManagedSQLite(id))
	if err != nil {
		return nil, err
	}
	_, err = db.Migrate(context.Background())
	if err = errors.Join(err, db.Close(), m.Close(context.Background())); err != nil {
		return nil, err
	}
	return os.ReadFile(embeddedPath(dir, id))
})

func embeddedPath(dataDir string, id stoa.StoreID) string {
	name := id.String()
	return filepath.Join(dataDir, "stores", name[len(name)-2:], name+".db")
}

// copyEmbedded gives an embedded store its tables.
func (f fleetBench) copyEmbedded(id stoa.StoreID) {
	f.t.Helper()
	content, err := embeddedSchema()
	f.must(err)
	path := embeddedPath(f.Cfg.DataDir, id)
	f.must(os.MkdirAll(filepath.Dir(path), 0o700))
	f.must(os.WriteFile(path, content, 0o600))
}

func (f fleetBench) in(c credential.Credentials, do func(*tenantdb.DB) error) {
	f.t.Helper()
	db, err := f.Tenants.OpenUnleased(c)
	f.must(err)
	defer db.Close() //nolint:errcheck // no statement is running
	f.must(do(db))
}

// exec runs a statement in the store's own database.
func (f fleetBench) exec(m member, query string, args ...any) {
	f.t.Helper()
	f.in(m.c, func(db *tenantdb.DB) error {
		_, err := db.Exec(f.t.Context(), query, args...)
		return err
	})
}

// gateway is a proxy in front of a server. It forwards nothing until it is open.
type gateway struct {
	port   int
	target string
	open   atomic.Bool
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	g := &gateway{port: l.Addr().(*net.TCPAddr).Port}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if g.open.Load() {
				go g.pass(conn)
			}
		}
	}()
	return g
}

func (g *gateway) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// trouble breaks a store, and states what a migration reports and how to repair the
// store.
type trouble struct {
	name string
	member
	code   stoa.Code
	repair func()
}

// troubles returns five stores, each broken in a different way.
func (f fleetBench) troubles() []trouble {
	f.t.Helper()
	password := f.store(credential.PostgreSQL, nil)
	tenantdbtest.NewPassword(f.t, password.c)

	hole := newGateway(f.t)
	silent := f.store(credential.MySQL, hole)

	foreign := f.store(credential.SQLite, nil)
	other := stoa.NewID[stoa.StoreID]()
	f.exec(foreign, `UPDATE stores SET id = ?`, other)

	// A table without room for another row, in which the migration inserts one.
	full := f.store(credential.MySQL, nil)
	f.exec(full, `CREATE TABLE notes (id integer PRIMARY KEY, body char(200)) ENGINE=MEMORY MAX_ROWS=1`)
	f.in(full.c, func(db *tenantdb.DB) error {
		for n := 100; n < 100_000; n++ {
			if _, err := db.Exec(f.t.Context(), `INSERT INTO notes VALUES (?, 'x')`, n); err != nil {
				return nil //nolint:nilerr // the table is full
			}
		}
		return fmt.Errorf("the table takes every row")
	})

	// This is not a fault: the setting does not apply to Stoa's sessions.
	readOnly := f.store(credential.PostgreSQL, nil)
	tenantdbtest.Admin(f.t, credential.PostgreSQL, fmt.Sprintf(`ALTER DATABASE %s SET default_transaction_read_only = on`, readOnly.c.Database))

	forbidden := f.store(credential.PostgreSQL, nil)
	f.exec(forbidden, `REVOKE CREATE ON SCHEMA public FROM pg_database_owner`)

	return []trouble{
		{"wrong password", password, stoa.DatabaseAuthFailed, func() {
			tenantdbtest.Admin(f.t, credential.PostgreSQL, fmt.Sprintf(`ALTER ROLE %q PASSWORD '%s'`, password.c.User, password.c.Password.Reveal()))
		}},
		{"black hole", silent, stoa.DatabaseUnreachable, func() { hole.open.Store(true) }},
		{"another store's", foreign, stoa.DatabaseNotEmpty, func() { f.exec(foreign, `UPDATE stores SET id = ?`, foreign.ID) }},
		{"full", full, stoa.DatabaseUnreachable, func() { f.exec(full, `DELETE FROM notes`) }},
		{"no right to make tables", forbidden, stoa.DatabasePermissionDenied, func() {
			f.exec(forbidden, `GRANT CREATE ON SCHEMA public TO pg_database_owner`)
		}},
	}
}

// events returns the event of each store in the output of 'stoa tenants migrate
// --json'.
func (f fleetBench) events(out string) map[string]cli.StoreEvent {
	f.t.Helper()
	events := map[string]cli.StoreEvent{}
	for line := range strings.Lines(out) {
		var e cli.StoreEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			f.t.Fatalf("%v: %s", err, line)
		}
		if e.Slug != "" {
			events[e.Slug] = e
		}
	}
	return events
}

func (f fleetBench) status() (s fleet.Status) {
	f.t.Helper()
	status, out, errOut := f.stoa("tenants", "status", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil || status != 0 {
		f.t.Fatalf("status %d, %v: %s", status, err, errOut)
	}
	return s
}

// notes returns the flag for an operator's custom migrations. The second one adds a
// row.
func (f fleetBench) notes() (flag string) {
	f.t.Helper()
	dir := f.t.TempDir()
	for folder, insert := range map[string]string{"sqlite": "INSERT", "postgres": "INSERT", "mysql": "REPLACE"} {
		f.must(os.Mkdir(filepath.Join(dir, folder), 0o700))
		for name, statement := range map[string]string{
			"00001_notes.sql": "CREATE TABLE IF NOT EXISTS notes (id integer PRIMARY KEY, body char(200));",
			"00002_row.sql":   insert + " INTO notes VALUES (1, 'one');",
		} {
			f.must(os.WriteFile(filepath.Join(dir, folder, name), []byte("-- +goose Up\n"+statement+"\n"), 0o600))
		}
	}
	return "--tenant-migrations=" + dir
}

// TestFleetOfSixty checks that 55 stores are migrated although 5 others fail, and that
// after their repair a second run completes exactly those 5.
func TestFleetOfSixty(t *testing.T) {
	t.Parallel()
	if len(tenantdbtest.Engines()) < 3 {
		t.Skip("needs a PostgreSQL and a MySQL server")
	}
	f := newFleetBench(t)
	for engine, n := range map[credential.EngineName]int{credential.SQLite: 48, credential.PostgreSQL: 3, credential.MySQL: 3} {
		for range n {
			f.store(engine, nil)
		}
	}
	broken := f.troubles()
	f.flags = append(f.flags, f.notes())
	if s := f.status(); s.Stores != 60 || s.Lagging != 60 || s.Failed != 0 || s.Expected.Own != 2 {
		t.Fatalf("before: %+v", s)
	}

	status, out, errOut := f.stoa("tenants", "migrate", "--json", "--timeout=40s")
	events := f.events(out)
	if status != 1 || len(events) != 60 || !strings.Contains(errOut, "5 stores failed") {
		t.Errorf("status %d, %d stores: %s\n%s", status, len(events), errOut, out)
	}
	for _, b := range broken {
		if e := events[b.Slug]; e.State != fleet.Failed || e.Code != b.code || e.Message == "" {
			t.Errorf("%s: %+v, want %s", b.name, e, b.code)
		}
		if strings.Contains(out+errOut, b.c.Password.Reveal()) && !b.c.Password.IsZero() {
			t.Errorf("%s: the password is printed", b.name)
		}
	}
	if s := f.status(); s.Current != 55 || s.Lagging != 5 || s.Failed != 5 || len(s.Causes) != 5 {
		t.Errorf("after the first run: %+v", s)
	}

	for _, b := range broken {
		b.repair()
	}
	status, out, errOut = f.stoa("tenants", "migrate", "--json")
	events = f.events(out)
	if status != 0 || len(events) != 5 {
		t.Errorf("status %d, %d stores: %s\n%s", status, len(events), errOut, out)
	}
	for _, b := range broken {
		if e := events[b.Slug]; e.State != fleet.Migrated || e.To.Own != 2 {
			t.Errorf("%s, repaired: %+v", b.name, e)
		}
	}
	if s := f.status(); s.Current != 60 || s.Failed != 0 {
		t.Errorf("after the second run: %+v", s)
	}
	if status, out, _ := f.stoa("tenants", "migrate"); status != 0 || !strings.Contains(out, "Nothing to do") {
		t.Errorf("status %d: %s", status, out)
	}
	if status, out, errOut := f.stoa("tenants", "check"); status != 0 || !strings.HasPrefix(out, "60 stores are as they should be") {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
}

// TestTenantsCommands checks the commands' output, their errors for wrong arguments,
// and drift.
func TestTenantsCommands(t *testing.T) {
	t.Parallel()
	f := newFleetBench(t)
	one, two := f.store(credential.SQLite, nil), f.store(credential.SQLite, nil)
	own := f.notes()
	for _, tt := range []struct {
		args   string
		status int
		want   []string // in stdout and stderr together
	}{
		{"status", 0, []string{"2 current, 0 lagging"}},
		{"status " + own, 0, []string{"0 current, 2 lagging", "own 2", "stoa tenants migrate"}},
		{"migrate", 0, []string{"Nothing to do"}},
		{"migrate --dry-run " + own, 0, []string{"2 stores would be migrated", "pending " + one.Slug}},
		{"migrate " + own + " --store=" + two.Slug, 0, []string{"1/1 migrated " + two.Slug + ": 15 → 15, own 2", "1 of 1 stores"}},
		{"migrate --to=99", 1, []string{"must be between 1 and 15"}},
		{"migrate --canary=x", 2, []string{"a number of stores"}},
		{"migrate --max-failures=101%", 2, []string{"percentage"}},
		{"migrate --concurrency=0", 1, []string{"--concurrency"}},
		{"migrate --timeout=0s", 1, []string{"--timeout"}},
		{"migrate --store=nobody", 1, []string{"No store has"}},
		{"migrate --tenant-migrations=/nowhere", 1, []string{"STOA_TENANT_MIGRATIONS"}},
		{"migrate --help", 0, []string{"Ctrl-C begins no more stores"}},
		{"check", 0, []string{"2 stores are as they should be"}},
		{"check --store=nobody", 1, []string{"No store has"}},
	} {
		status, out, errOut := f.stoa(append([]string{"tenants"}, strings.Fields(tt.args)...)...)
		for _, want := range tt.want {
			if status != tt.status || !strings.Contains(strings.Join(strings.Fields(out+errOut), " "), want) {
				t.Errorf("%s: status %d, want %d and %q:\n%s%s", tt.args, status, tt.status, want, out, errOut)
			}
		}
	}
	f.exec(one, `DROP INDEX products_status`)
	status, out, _ := f.stoa("tenants", "check")
	if status != 1 || !strings.Contains(out, one.Slug+": index products.products_status on status, id is missing") {
		t.Errorf("status %d: %s", status, out)
	}
	if status, out, _ := f.stoa("tenants", "check", "--json"); status != 1 || !strings.Contains(out, `"drifted":1`) {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestProgressBar checks the displayed progress, rate and remaining time.
func TestProgressBar(t *testing.T) {
	t.Parallel()
	p := &cli.Bar{Things: "stores", Ills: "failed", Total: 60, Done: 20, Failed: 1}
	if got := p.Line(10 * time.Second); got != "[##########....................] 20/60 stores, 1 failed, 2.0/s, 20s left" {
		t.Error(got)
	}
	p = &cli.Bar{Things: "stores"}
	if got := p.Line(0); !strings.Contains(got, "0/0 stores") {
		t.Error(got)
	}
}

// TestServeMigratesStores checks that a release with new migrations updates the stores
// automatically, unless that is left to the operator.
func TestServeMigratesStores(t *testing.T) {
	t.Parallel()
	f := newFleetBench(t)
	f.store(credential.SQLite, nil)
	cfg := *f.Cfg
	cfg.TenantMigrations = strings.TrimPrefix(f.notes(), "--tenant-migrations=")
	cfg.HoldTenantMigrations = true
	held, err := launch(t.Context(), &cfg, slog.New(slog.DiscardHandler))
	f.must(err)
	var queued int
	f.must(f.Master.Get(t.Context(), &queued, `SELECT count(*) FROM river_job WHERE kind = 'fleet.migrations'`))
	if queued != 0 {
		t.Errorf("%d jobs although held back", queued)
	}
	f.must(held.Stop())
	released := cfg
	released.HoldTenantMigrations = false
	startServer(t, &released)
	f.flags = append(f.flags, "--tenant-migrations="+cfg.TenantMigrations)
	testkit.Eventually(t, testkit.Timeout, "the store is migrated", func() bool { return f.status().Current == 1 })
}
