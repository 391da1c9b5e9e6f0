package provisioning

import (
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestWrongPasswordThenTheRightOne(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		right := credentials(t, engine)
		wrong := right
		wrong.Password = keyring.NewSecret("not " + right.Password.Reveal())
		first := b.connect(t, p, s.ID, wrong)
		b.failed(t, p, first, "connect", stoa.DatabaseAuthFailed)
		got, err := b.registry.Get(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if got.Database == nil || got.Database.Status != tenantdb.StatusFailed || got.Hostnames != nil {
			t.Errorf("the store is %+v", got)
		}
		second := b.connect(t, p, s.ID, right)
		b.succeeded(t, p, second)
		if second.ID == first.ID || second.Attempt != 1 {
			t.Errorf("run %+v", second)
		}
		kept, err := b.Wait(t.Context(), first.ID, 0)
		testkit.Must(t, err)
		if kept.State != Failed || kept.Fault.Code != stoa.DatabaseAuthFailed {
			t.Errorf("the first run is now %+v", kept)
		}
	})
}

func TestUnreachableHost(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db).start(t)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		testkit.Must(t, err)
		testkit.Must(t, listener.Close()) // no server listens there
		for _, kind := range []credential.Kind{credential.KindPostgreSQL, credential.KindMySQL} {
			p, s := b.store(t)
			b.failed(t, p, b.connect(t, p, s.ID, credential.Credentials{
				Kind: kind, Engine: credential.EngineName(kind), Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
				Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
			}), "connect", stoa.DatabaseUnreachable)
		}
	})
}

func TestForbiddenHost(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setupWith(t, db, newPlatform(t), jobs.Options{}, nil).start(t)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		testkit.Must(t, err)
		go func() {
			if conn, err := listener.Accept(); err == nil {
				conn.Close()
				t.Error("the forbidden address was reached")
			}
		}()
		for _, kind := range []credential.Kind{credential.KindPostgreSQL, credential.KindMySQL} {
			for host, code := range map[string]stoa.Code{
				"127.0.0.1": stoa.DatabaseHostForbidden, "::ffff:127.0.0.1": stoa.DatabaseHostForbidden,
				"localhost": stoa.DatabaseUnreachable, // treated as a name that does not exist
			} {
				p, s := b.store(t)
				b.failed(t, p, b.connect(t, p, s.ID, credential.Credentials{
					Kind: kind, Engine: credential.EngineName(kind), Host: host, Port: listener.Addr().(*net.TCPAddr).Port,
					Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
				}), "connect", code)
			}
		}
		testkit.Must(t, listener.Close())
	})
}

func TestDatabaseWithForeignTables(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		tenantdbtest.Exec(t, c, `CREATE TABLE legacy_customers (name VARCHAR(20))`, `INSERT INTO legacy_customers VALUES ('Olive')`)
		before := tables(t, c)
		p, s := b.store(t)
		run := b.connect(t, p, s.ID, c)
		b.failed(t, p, run, "inspect", stoa.DatabaseNotEmpty)
		if !strings.Contains(run.Fault.Message, "legacy_customers") {
			t.Errorf("the message does not name the table: %s", run.Fault.Message)
		}
		if diff := cmp.Diff(before, tables(t, c)); diff != "" || len(before) != 1 {
			t.Errorf("tables %v: %s", before, diff)
		}
		var name string
		testkit.Must(t, tenantdbtest.Open(t, c).Get(t.Context(), &name, `SELECT name FROM legacy_customers`))
		if name != "Olive" {
			t.Errorf("the foreign row holds %q", name)
		}
		// The owner drops the table and resumes the run.
		tenantdbtest.Exec(t, c, `DROP TABLE legacy_customers`)
		b.succeeded(t, p, b.retry(t, p, s.ID))
	})
}

func tables(t *testing.T, c credential.Credentials) []string {
	t.Helper()
	in, err := tenantdbtest.Open(t, c).Inspect(t.Context())
	testkit.Must(t, err)
	return in.Tables
}

func TestDatabaseOfAnotherStore(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		p, s := b.store(t)
		b.succeeded(t, p, b.connect(t, p, s.ID, c))
		before := snapshot(t, c)
		q, thief := b.store(t)
		run := b.connect(t, q, thief.ID, c)
		b.failed(t, q, run, "inspect", stoa.DatabaseNotEmpty)
		for _, private := range []string{s.ID.String(), s.Slug + ".", p.UserID.String()} {
			if strings.Contains(run.Fault.Message, private) {
				t.Errorf("the message tells of the other store: %s", run.Fault.Message)
			}
		}
		if diff := cmp.Diff(before, snapshot(t, c)); diff != "" {
			t.Error(diff)
		}
		b.checkOwner(t, p, s.ID)
	})
}

// TestOneDatabaseForTwoStoresAtOnce checks that only one of two stores that connect to
// one empty database at the same time gets it, although both find it empty.
func TestOneDatabaseForTwoStoresAtOnce(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		p, first := b.store(t)
		q, second := b.store(t)
		runs, errs := atOnce(2, func(i int) (Run, error) {
			if i == 0 {
				return b.Connect(t.Context(), p, first.ID, c)
			}
			return b.Connect(t.Context(), q, second.ID, c)
		})
		testkit.Must(t, errs[0])
		testkit.Must(t, errs[1])
		a, z := b.wait(t, runs[0]), b.wait(t, runs[1])
		if a.State == Failed {
			a, z, p, q = z, a, q, p
		}
		b.succeeded(t, p, a)
		if z.State != Failed || z.Step != "inspect" || z.Fault.Code != stoa.DatabaseNotEmpty || b.status(t, z.StoreID) != stores.PendingDatabase {
			t.Errorf("the other run is %s at %s with %+v; %s", z.State, z.Step, z.Fault, b.logged)
		}
		b.checkOwner(t, p, a.StoreID)
	})
}

// snapshot returns what provisioning writes to a tenant database.
func snapshot(t *testing.T, c credential.Credentials) []row {
	t.Helper()
	return rowsOf(t, tenantdbtest.Open(t, c))
}

type row struct {
	ID        string    `db:"id"`
	Name      string    `db:"name"`
	CreatedAt time.Time `db:"created_at"`
	UpdatedAt time.Time `db:"updated_at"`
}

func rowsOf(t *testing.T, db *tenantdb.DB) []row {
	t.Helper()
	var all []row
	for _, query := range []string{
		`SELECT id, slug AS name, created_at, updated_at FROM stores ORDER BY id`,
		`SELECT id, email AS name, created_at, updated_at FROM users ORDER BY id`,
		`SELECT id, slug AS name, created_at, updated_at FROM pages ORDER BY id`,
		`SELECT id, slug AS name, created_at, updated_at FROM categories ORDER BY id`,
		`SELECT setting_key AS id, setting_key AS name, created_at, updated_at FROM settings ORDER BY setting_key`,
	} {
		var rows []row
		testkit.Must(t, db.Select(t.Context(), &rows, query))
		if len(rows) == 0 {
			t.Errorf("no row for %s", query)
		}
		all = append(all, rows...)
	}
	return all
}

// TestRoleWithoutCreate checks a user who may log in but not create tables, and a retry
// after the owner has corrected that.
func TestRoleWithoutCreate(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		revoke, grant := "ALTER DATABASE DB OWNER TO session_user", "ALTER DATABASE DB OWNER TO USER"
		if engine == credential.MySQL {
			revoke, grant = "REVOKE CREATE ON DB.* FROM USER@'%'", "GRANT CREATE ON DB.* TO USER@'%'"
		}
		asAdmin(t, engine, revoke, c)
		p, s := b.store(t)
		run := b.connect(t, p, s.ID, c)
		b.failed(t, p, run, "inspect", stoa.DatabasePermissionDenied)
		if got := tables(t, c); len(got) != 0 {
			t.Errorf("tables %v", got)
		}
		asAdmin(t, engine, grant, c)
		b.succeeded(t, p, b.retry(t, p, s.ID))
	})
}

// asAdmin runs a statement as the user who created the test databases. It replaces DB and
// USER in the statement by those of c.
func asAdmin(t *testing.T, engine credential.EngineName, statement string, c credential.Credentials) {
	t.Helper()
	raw := os.Getenv(tenantdbtest.PostgresEnv)
	driver := "pgx"
	if engine == credential.MySQL {
		u, err := url.Parse(os.Getenv(tenantdbtest.MySQLEnv))
		testkit.Must(t, err)
		password, _ := u.User.Password()
		driver, raw = "mysql", fmt.Sprintf("%s:%s@tcp(%s)%s", u.User.Username(), password, u.Host, u.Path)
	}
	db, err := sql.Open(driver, raw)
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // a connection of the test
	_, err = db.ExecContext(t.Context(), strings.NewReplacer("DB", c.Database, "USER", c.User).Replace(statement))
	testkit.Must(t, err)
}

// TestFaultsQuoteTheServer checks that a fault that quotes names from a server, with any
// bytes, can be stored and shown. Otherwise the run could not even be recorded as failed.
func TestFaultsQuoteTheServer(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		name := "\"a\"\"b\x1b[31m\""
		if engine == credential.MySQL {
			name = "`a\"b\x1b[31m`"
		}
		tenantdbtest.Exec(t, c, "CREATE TABLE "+name+" (id INTEGER)")
		p, s := b.store(t)
		run := b.connect(t, p, s.ID, c)
		b.failed(t, p, run, "inspect", stoa.DatabaseNotEmpty)
		if strings.ContainsFunc(run.Fault.Message, unicode.IsControl) {
			t.Errorf("the message holds control characters: %q", run.Fault.Message)
		}
	})
	for _, names := range [][]string{{"a\x00b"}, {"a\xffb", "c"}, {"\u202ea", "b", "c", "d"}} {
		got := listTables(names)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", got)
		}
	}
	if got, want := listTables([]string{"a", "b", "c", "d", "e"}), `"a", "b", "c" and 2 more`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
