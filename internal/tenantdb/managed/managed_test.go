package managed_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// hosting is an installation with a database server of the operator, whose
// connections go through a proxy that can end them.
type hosting struct {
	*managed.Databases
	tenants *tenantdb.Manager
	engine  credential.EngineName
	wire    *cutter
	dir     string
}

// eachHosting runs test on every engine that supports managed databases.
func eachHosting(t *testing.T, test func(t *testing.T, h hosting)) {
	t.Helper()
	for _, engine := range tenantdbtest.Engines()[1:] {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(t, newHosting(t, engine, nil))
		})
	}
}

// newHosting returns an installation that uses the server's own administrator,
// or user if it is not nil.
func newHosting(t *testing.T, engine credential.EngineName, user *url.Userinfo) hosting {
	t.Helper()
	u, err := url.Parse(adminURL(engine))
	if err != nil {
		t.Fatal(err)
	}
	if user != nil {
		u.User = user
	}
	wire := newCutter(t, engine, u.Host)
	u.Host, u.Path, u.RawQuery = wire.address(), "", "sslmode=disable"
	server, err := credential.ParseServer(keyring.NewSecret(u.String()), "")
	if err != nil {
		t.Fatal(err)
	}
	h := hosting{engine: engine, wire: wire, dir: t.TempDir()}
	// No network is allowed, because the operator's server does not need to be
	// allowed.
	master := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	h.tenants = tenantdb.NewManager(master, nil, tenantdb.Options{DataDir: h.dir, Managed: server})
	h.Databases = managed.New(master, h.tenants)
	t.Cleanup(func() {
		if err := h.tenants.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

func adminURL(engine credential.EngineName) string {
	if engine == credential.MySQL {
		return os.Getenv(tenantdbtest.MySQLEnv)
	}
	return os.Getenv(tenantdbtest.PostgresEnv)
}

// plan returns credentials of a database that is not created yet. It drops the
// database, if it was created, at the end of the test.
func (h hosting) plan(t *testing.T) (stoa.StoreID, credential.Credentials) {
	t.Helper()
	id := stoa.NewID[stoa.StoreID]()
	c, err := h.NewCredentials(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.wire.repair()
		if err := h.Drop(context.Background(), id, infoOf(c)); err != nil {
			t.Error(err)
		}
	})
	return id, c
}

func infoOf(c credential.Credentials) tenantdb.Info {
	return tenantdb.Info{Kind: c.Kind, Engine: c.Engine, Host: c.Host, Port: c.Port, DatabaseName: c.Database}
}

func (h hosting) make(t *testing.T, c credential.Credentials) {
	t.Helper()
	if err := h.Make(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// ping tries to connect to the database as its store does.
func (h hosting) ping(t *testing.T, c credential.Credentials) error {
	t.Helper()
	db, err := h.tenants.OpenUnleased(c)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	return db.Ping(t.Context())
}

// enter tries to use the database as its store does.
func (h hosting) enter(t *testing.T, c credential.Credentials) error {
	t.Helper()
	db, err := h.tenants.OpenUnleased(c)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	if err := db.Ping(t.Context()); err != nil {
		return err
	}
	in, err := db.Inspect(t.Context())
	if err != nil || !in.MayCreate {
		t.Errorf("inspected: %+v, %v", in, err)
	}
	_, err = db.Migrate(t.Context())
	return err
}

func (h hosting) names(t *testing.T) string {
	t.Helper()
	orphans, err := testkit.Collect(h.Orphans(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(orphans)
}

// TestManagedIsolation checks that one store's role cannot connect to another
// store's database and has no right outside its own.
func TestManagedIsolation(t *testing.T) {
	t.Parallel()
	eachHosting(t, func(t *testing.T, h hosting) {
		_, one := h.plan(t)
		_, two := h.plan(t)
		h.make(t, one)
		h.make(t, two)
		for _, c := range []credential.Credentials{one, two} {
			if err := h.enter(t, c); err != nil {
				t.Fatalf("a store cannot use its own database: %v", err)
			}
		}
		trespass := one
		trespass.Database = two.Database
		if code := stoa.CodeOf(h.ping(t, trespass)); code != stoa.DatabasePermissionDenied {
			t.Errorf("one store's role in another's database: %q", code)
		}
		db, err := h.tenants.OpenUnleased(one)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close() //nolint:errcheck // nothing is pending
		forbidden := []string{"CREATE DATABASE stoa_stolen", "CREATE ROLE stoa_stolen", "GRANT ALL ON DATABASE " + two.Database + " TO " + one.User}
		if h.engine == credential.MySQL {
			forbidden = []string{
				"CREATE DATABASE stoa_stolen", "CREATE USER stoa_stolen", "SELECT * FROM " + two.Database + ".goose_db_version",
				"CREATE DATABASE " + strings.ReplaceAll(one.Database, "_", "x"), // a name that only a wildcard would match
			}
		}
		for _, statement := range forbidden {
			if _, err := db.Exec(t.Context(), statement); err == nil {
				t.Errorf("a store's role may %s", statement)
			}
		}
	})
}

// TestManagedAgain checks that creating an existing database changes only the
// password.
func TestManagedAgain(t *testing.T) {
	t.Parallel()
	eachHosting(t, func(t *testing.T, h hosting) {
		id, c := h.plan(t)
		h.make(t, c)
		if err := h.enter(t, c); err != nil {
			t.Fatal(err)
		}
		again, err := h.NewCredentials(t.Context(), id)
		if err != nil || again.Database != c.Database || again.User != c.User || again.Password == c.Password {
			t.Fatalf("planned again: %+v, %v", again, err)
		}
		h.make(t, again)
		if code := stoa.CodeOf(h.ping(t, c)); code != stoa.DatabaseAuthFailed {
			t.Errorf("with the password of before: %q", code)
		}
		db, err := h.tenants.OpenUnleased(again)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close() //nolint:errcheck // nothing is pending
		if version, err := db.SchemaVersion(t.Context()); err != nil || version == 0 {
			t.Errorf("the tables of before: version %d, %v", version, err)
		}
		// A drop does not wait for connected clients, and may be repeated.
		for range 2 {
			if err := h.Drop(t.Context(), id, infoOf(c)); err != nil {
				t.Fatal(err)
			}
		}
		if left := h.names(t); left != "[]" {
			t.Errorf("left: %s", left)
		}
	})
}

// TestManagedCutOff ends the connection after each statement of creating and
// dropping, before the answer arrives. It checks that another attempt completes
// the work.
func TestManagedCutOff(t *testing.T) {
	t.Parallel()
	eachHosting(t, func(t *testing.T, h hosting) {
		id, c := h.plan(t)
		drop := func() error { return h.Drop(t.Context(), id, infoOf(c)) }
		for n := 1; ; n++ {
			h.wire.cutAt(n)
			err := h.Make(t.Context(), c)
			cut := h.wire.repair()
			if cut {
				if code := stoa.CodeOf(err); code != stoa.DatabaseUnreachable {
					t.Errorf("cut off at statement %d: %q, %v", n, code, err)
				}
				h.make(t, c)
			}
			if err := h.ping(t, c); err != nil {
				t.Errorf("cut off at statement %d: %v", n, err)
			}
			h.wire.cutAt(n)
			err = drop()
			if h.wire.repair() && err == nil {
				t.Errorf("a drop that was cut off at statement %d has succeeded", n)
			}
			if err := drop(); err != nil {
				t.Errorf("cut off at statement %d: %v", n, err)
			}
			if left := h.names(t); left != "[]" {
				t.Errorf("left: %s", left)
			}
			if !cut {
				if n < 6 {
					t.Errorf("only %d statements were cut off", n-1)
				}
				return
			}
		}
	})
}

// TestManagedOrphans checks that exactly the databases that belong to no store
// are found.
func TestManagedOrphans(t *testing.T) {
	t.Parallel()
	eachHosting(t, func(t *testing.T, h hosting) {
		_, c := h.plan(t)
		if left := h.names(t); left != "[]" {
			t.Fatalf("of an empty installation: %s", left)
		}
		h.make(t, c)
		other := newHosting(t, h.engine, nil) // on the same server
		if left := other.names(t); left != "[]" {
			t.Errorf("another installation's: %s", left)
		}
		embedded := stoa.NewID[stoa.StoreID]()
		if err := h.enter(t, credential.ManagedSQLite(embedded)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"notes.txt", "nobody.db"} {
			if err := os.WriteFile(filepath.Join(h.dir, "stores", embedded.String()[34:], name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		orphans, err := testkit.Collect(h.Orphans(t.Context()))
		if err != nil || len(orphans) != 2 || orphans[0].Name != embedded.String() || orphans[1].Name != c.Database {
			t.Fatalf("orphans %+v, %v", orphans, err)
		}
		for _, s := range orphans {
			if err := h.DropOrphan(t.Context(), s); err != nil {
				t.Error(err)
			}
		}
		if left := h.names(t); left != "[]" {
			t.Errorf("left: %s", left)
		}
		hostile := managed.Orphan{Name: `x"; DROP DATABASE postgres; --`, Engine: h.engine}
		if err := h.DropOrphan(t.Context(), hostile); err == nil {
			t.Error("a name that is none of ours was dropped")
		}
	})
}

// TestManagedElsewhere checks that a database on a server that is no longer
// configured is not looked for on the configured server.
func TestManagedElsewhere(t *testing.T) {
	t.Parallel()
	eachHosting(t, func(t *testing.T, h hosting) {
		id, c := h.plan(t)
		h.make(t, c)
		moved := newHosting(t, h.engine, nil)
		if err := moved.Drop(t.Context(), id, infoOf(c)); err == nil || !strings.Contains(err.Error(), "STOA_MANAGED_DATABASE_URL") {
			t.Errorf("dropped elsewhere: %v", err)
		}
		if err := moved.Make(t.Context(), c); stoa.CodeOf(err) != stoa.DatabaseUnreachable {
			t.Errorf("made elsewhere: %v", err)
		}
		// A merchant's own database is never dropped.
		own := infoOf(c)
		own.Kind = credential.Kind(h.engine)
		if err := h.Drop(t.Context(), id, own); err != nil {
			t.Error(err)
		}
		if err := h.ping(t, c); err != nil {
			t.Errorf("the database is gone: %v", err)
		}
		// A merchant who names the operator's server gets no access to it.
		c.Kind = credential.Kind(h.engine)
		if code := stoa.CodeOf(h.ping(t, c)); code != stoa.DatabaseHostForbidden {
			t.Errorf("a merchant who names the operator's server: %q", code)
		}
	})
}

// TestManagedByAnOrdinaryRole checks a rented PostgreSQL server, on which no
// user is superuser.
func TestManagedByAnOrdinaryRole(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs a PostgreSQL server")
	}
	name := "stoa_t_" + strings.ToLower(rand.Text()[:14])
	tenantdbtest.Admin(t, credential.PostgreSQL, `CREATE ROLE `+name+` LOGIN CREATEROLE PASSWORD 'p'`)
	t.Cleanup(func() { tenantdbtest.Admin(t, credential.PostgreSQL, `DROP ROLE `+name) })
	h := newHosting(t, credential.PostgreSQL, url.UserPassword(name, "p"))
	if version, err := h.CheckServer(t.Context()); err == nil {
		t.Errorf("%s without the right to create databases is found to be well", version)
	}
	tenantdbtest.Admin(t, credential.PostgreSQL, `ALTER ROLE `+name+` CREATEDB`)
	h.works(t)
}

func TestManagedOnNewerServers(t *testing.T) {
	t.Parallel()
	tenantdbtest.OnNewerServers(t, "TestManagedAgain", "TestCheckServer")
}

func TestCheckServer(t *testing.T) {
	t.Parallel()
	eachHosting(t, func(t *testing.T, h hosting) {
		if version, err := h.CheckServer(t.Context()); err != nil || version == "" {
			t.Errorf("%q, %v", version, err)
		}
		guest := tenantdbtest.Create(t, h.engine)
		weak := newHosting(t, h.engine, url.UserPassword(guest.User, guest.Password.Reveal()))
		if version, err := weak.CheckServer(t.Context()); err == nil {
			t.Errorf("%s of a user without rights is found to be well", version)
		}
		wrong := newHosting(t, h.engine, url.UserPassword(guest.User, "wrong"))
		if _, err := wrong.CheckServer(t.Context()); stoa.CodeOf(err) != stoa.DatabaseAuthFailed {
			t.Errorf("with a wrong password: %v", err)
		}
	})
}
