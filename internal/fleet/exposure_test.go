package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// exposed is a fleet with a store in a project of a stand-in for Supabase. The store's
// tables are in public, accessible to the project's HTTP API.
type exposed struct {
	fixture
	admin *pgx.Conn
	store stores.Store
}

// eachExposed runs test on every master engine and through each pooler.
func eachExposed(t *testing.T, test func(t *testing.T, x exposed)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		sb := supabasetest.New(t, supabasetest.Options{})
		b := setup(t, db)
		b.rules = sb.Rules()
		b.old = b.manager(t, "")
		for i, mode := range []credential.Pooler{credential.SessionPooler, credential.TransactionPooler} {
			t.Run(string(mode), func(t *testing.T) {
				_, err := sb.AddProject(t.Context(), sb.Organization, string(mode))
				testkit.Must(t, err)
				p := sb.Projects()[i]
				c, err := sb.Rules().Parse(keyring.NewSecret(sb.ConnectionString(p.Ref, "postgres", p.Password, mode)))
				testkit.Must(t, err)
				s, err := b.registry.Create(t.Context(), b.owner, stores.NewStore{Name: "Shop"})
				testkit.Must(t, err)
				b.connect(t, s, c)
				sb.Expose(t, p.Ref)
				admin, err := pgx.Connect(t.Context(), sb.DatabaseURL(p.Ref))
				testkit.Must(t, err)
				t.Cleanup(func() { _ = admin.Close(context.Background()) })
				test(t, exposed{b, admin, s})
			})
		}
	})
}

// may runs a statement as that role, rolls it back, and reports whether it was allowed.
func (x exposed) may(t *testing.T, role, statement string) bool {
	t.Helper()
	tx, err := x.admin.Begin(t.Context())
	testkit.Must(t, err)
	defer tx.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // the transaction is always rolled back
	_, err = tx.Exec(t.Context(), "SET LOCAL ROLE "+role)
	testkit.Must(t, err)
	_, err = tx.Exec(t.Context(), statement)
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42501" {
		return false
	}
	testkit.Must(t, err)
	return true
}

// open reports whether a role of the HTTP API can read or change the store's tables.
func (x exposed) open(t *testing.T) bool {
	t.Helper()
	open := false
	for _, role := range []string{"anon", "authenticated", "service_role"} {
		for _, statement := range []string{`SELECT email FROM public.users`, `UPDATE public.stores SET name = 'Mine'`, `DELETE FROM public.pages`} {
			open = x.may(t, role, statement) || open
		}
	}
	return open
}

// content returns a digest of all rows of each table in public.
func (x exposed) content(t *testing.T) map[string]string {
	t.Helper()
	rows, _ := x.admin.Query(t.Context(), `SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'`)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	testkit.Must(t, err)
	digests := map[string]string{}
	for _, table := range tables {
		var digest string
		testkit.Must(t, x.admin.QueryRow(t.Context(), fmt.Sprintf(`SELECT md5(coalesce(string_agg(r::text, E'\n' ORDER BY r::text), '')) FROM public.%s r`, table)).Scan(&digest))
		digests[table] = digest
	}
	return digests
}

// checked returns the store's exposure as recorded in the master.
func (x exposed) checked(t *testing.T) (at, code string) {
	t.Helper()
	var row struct{ At, Code string }
	testkit.Must(t, x.db.Get(t.Context(), &row, `SELECT CASE WHEN exposure_checked_at IS NULL THEN '' ELSE 'checked' END AS at,
		coalesce(exposure_error, '') AS code FROM store_databases WHERE store_id = $1`, x.store.ID))
	return row.At, row.Code
}

// serve reads from and writes to the store until stop is closed. It returns the number of
// rounds and the first error.
func (x exposed) serve(t *testing.T, m *tenantdb.Manager, stop <-chan struct{}) (n int, failed error) {
	for {
		select {
		case <-stop:
			return n, failed
		default:
		}
		lease, err := m.Acquire(t.Context(), x.store.ID)
		if err == nil {
			var name string
			err = lease.Get(t.Context(), &name, `SELECT name FROM stores`)
			if _, execErr := lease.Exec(t.Context(), `UPDATE stores SET name = name`); err == nil {
				err = execErr
			}
			lease.Release()
		}
		if n++; failed == nil {
			failed = err
		}
	}
}

// TestFleetCloses checks that the fleet's job closes a store that was connected before
// each store had its own schema, that the store keeps every byte, and that it is served
// meanwhile.
func TestFleetCloses(t *testing.T) {
	t.Parallel()
	eachExposed(t, func(t *testing.T, x exposed) {
		if !x.open(t) {
			t.Fatal("the store is closed from the start")
		}
		m := x.manager(t, x.ownDir)
		s := fleet.New(x.db, m, slog.New(slog.DiscardHandler), fleet.Options{})
		before := x.content(t)
		stop, shoppers := make(chan struct{}), sync.WaitGroup{}
		for range 3 {
			shoppers.Go(func() {
				if n, err := x.serve(t, m, stop); err != nil || n == 0 {
					t.Errorf("served %d times, %v", n, err)
				}
			})
		}
		testkit.Must(t, s.Run(t.Context(), s.Job()))
		close(stop)
		shoppers.Wait()
		if x.open(t) {
			t.Error("the store is open")
		}
		if at, code := x.checked(t); at == "" || code != "" {
			t.Errorf("recorded: %q, %q", at, code)
		}
		after := x.content(t)
		for table, digest := range before {
			if table != tenantdb.CustomVersionTable && after[table] != digest {
				t.Errorf("table %s has changed", table)
			}
		}
		// The operator's own migration has created a table meanwhile.
		if _, ok := after["notes"]; !ok || x.may(t, "anon", `SELECT * FROM public.notes`) {
			t.Error("the operator's own table is open, or is not there")
		}
		if n := x.visits(t, s); n != 0 {
			t.Errorf("%d stores are looked at again", n)
		}
	})
}

// visits returns how many stores a further run of the job would close.
func (x exposed) visits(t *testing.T, s *fleet.Service) (n int) {
	t.Helper()
	x.exec(t, `UPDATE store_databases SET exposure_checked_at = $1 WHERE exposure_checked_at IS NOT NULL`, x.store.CreatedAt)
	testkit.Must(t, s.Run(t.Context(), s.Job()))
	testkit.Must(t, x.db.Get(t.Context(), &n, `SELECT count(*) FROM store_databases WHERE exposure_checked_at > $1 AND store_id = $2`, x.store.CreatedAt, x.store.ID))
	return n
}

// TestExposedIsNamedAndClosed checks that the operator's check names an exposed store and
// changes nothing, that closing it ends the exposure, and that a store that cannot be
// closed is recorded and retried.
func TestExposedIsNamedAndClosed(t *testing.T) {
	t.Parallel()
	eachExposed(t, func(t *testing.T, x exposed) {
		s := x.release(t, fleet.Options{Paused: true})
		named := func() (code stoa.Code) {
			testkit.Must(t, s.Exposed(t.Context(), 4, func(e fleet.Exposure) {
				if e.Store.ID == x.store.ID {
					code = e.Code
				}
			}))
			return code
		}
		if code := named(); code != stoa.DatabaseExposed || !x.open(t) {
			t.Errorf("named %q", code)
		}
		done := x.usurp(t, x.store)
		if err := s.CloseExposed(t.Context(), x.store.ID); err == nil || !x.open(t) {
			t.Errorf("another store's tables were changed: %v", err)
		}
		if at, code := x.checked(t); at == "" || code == "" {
			t.Errorf("recorded: %q, %q", at, code)
		}
		done()
		testkit.Must(t, s.CloseExposed(t.Context(), x.store.ID))
		if code := named(); code != "" || x.open(t) {
			t.Errorf("named %q after it was closed", code)
		}
	})
}

// TestPanicAtAnExposedStore checks that a panic at one store's database fails only that
// store, in the operator's check and in the job.
func TestPanicAtAnExposedStore(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	st := b.store(t, credential.SQLite)
	b.exec(t, `UPDATE store_databases SET engine = 'postgresql', kind = 'postgresql', own_version = 1`)
	own, err := tenantdb.LoadCustomMigrations(b.ownDir)
	testkit.Must(t, err)
	broken := tenantdb.NewManager(b.db, nil, tenantdb.Options{DataDir: b.dataDir, Custom: own}) // without encryption keys, reading credentials panics
	t.Cleanup(func() { testkit.Must(t, broken.Close(context.Background())) })
	s := fleet.New(b.db, broken, slog.New(slog.DiscardHandler), fleet.Options{})
	looked := 0
	testkit.Must(t, s.Exposed(t.Context(), 2, func(x fleet.Exposure) {
		if looked++; x.Store.ID != st.ID || x.Code != stoa.Internal {
			t.Errorf("%+v", x)
		}
	}))
	if looked != 1 {
		t.Errorf("%d stores were looked at", looked)
	}
	testkit.Must(t, s.Run(t.Context(), s.Job()))
	x := exposed{fixture: b, store: st}
	if at, code := x.checked(t); at != "checked" || code != string(stoa.Internal) {
		t.Errorf("recorded: %q, %q", at, code)
	}
}
