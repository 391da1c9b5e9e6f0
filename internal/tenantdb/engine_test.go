package tenantdb_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestEngines is the conformance test: it checks what every engine guarantees,
// on each available engine.
func TestEngines(t *testing.T) {
	t.Parallel()
	promises := map[string]func(*testing.T, credential.Credentials){
		"opens without connecting":     opensWithoutConnecting,
		"inspects":                     inspects,
		"migrates once":                migratesOnce,
		"migrates for many at once":    migratesForManyAtOnce,
		"resumes a migration":          resumesMigration,
		"reads and writes":             readsAndWrites,
		"counts matched rows":          countsMatchedRows,
		"knows duplicates":             knowsDuplicates,
		"commits, rolls back":          commitsAndRollsBack,
		"survives deadlocks":           survivesDeadlocks,
		"keeps times":                  keepsTimes,
		"keeps types":                  keepsTypes,
		"stops a query when cancelled": stopsWhenCancelled,
	}
	for _, engine := range tenantdbtest.All() {
		in, err := tenantdbtest.Open(t, tenantdbtest.Create(t, engine)).Inspect(t.Context())
		testkit.Must(t, err)
		t.Logf("the %s server is %s", engine, in.Version)
		for name, promise := range promises {
			t.Run(string(engine)+" "+name, func(t *testing.T) {
				t.Parallel()
				promise(t, tenantdbtest.Create(t, engine))
			})
		}
	}
}

// TestToyEngine checks that an engine which nothing but its own type and one line of
// the registry knows keeps the promises of every engine.
func TestToyEngine(t *testing.T) {
	t.Parallel()
	toy := func(t *testing.T) credential.Credentials {
		t.Helper()
		return credential.Credentials{Kind: credential.Managed, Engine: tenantdb.Toy, Host: t.TempDir(), Database: stoa.NewID[stoa.StoreID]().String()}
	}
	for name, promise := range map[string]func(*testing.T, credential.Credentials){
		"counts matched rows": countsMatchedRows, "knows duplicates": knowsDuplicates, "commits, rolls back": commitsAndRollsBack,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			promise(t, toy(t))
		})
	}
	ctx, db, store := t.Context(), tenantdbtest.Open(t, toy(t)), stoa.NewID[stoa.StoreID]()
	testkit.Must(t, db.Ping(ctx))
	testkit.Must(t, db.PinSession(ctx, store))
	testkit.Must(t, db.Mark(ctx, store))
	testkit.Must(t, db.SelfTest(ctx))
	_, err := db.Migrate(ctx)
	testkit.Must(t, err)
	if marked, err := db.Marked(ctx, store); !marked || err != nil {
		t.Errorf("marked: %t, %v", marked, err)
	}
	expected, err := tenantdb.Expected(tenantdb.Toy)
	testkit.Must(t, err)
	structure, err := db.Structure(ctx)
	testkit.Must(t, err)
	if drift := structure.Drift(expected, true); len(drift) != 0 {
		t.Errorf("drift: %v", drift)
	}
	testkit.Must(t, db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		_, err := s.Structure(ctx)
		return err
	}))
	archives(t, db, tenantdbtest.Open(t, toy(t)))
	moves(t, db)
	if in, err := db.Inspect(ctx); err != nil || in.Version != "toy 1" || !slices.Contains(in.Tables, tenantdb.MarkerTable) {
		t.Errorf("got %+v, %v", in, err)
	}
}

// archives checks that archive reads and writes databases of an engine that it does not name.
func archives(t *testing.T, from, to *tenantdb.DB) {
	t.Helper()
	testkit.Must(t, exec(t, from, `INSERT INTO pages (id, slug, title, body, published, created_at, updated_at)
		VALUES ('018f8e6e-0000-7000-8000-000000000001', 'about', 'About', 'Bread', true, '2026-01-01 00:00:00', '2026-01-01 00:00:00')`))
	_, err := archive.Copy(t.Context(), from, to, stoa.NewID[stoa.StoreID](), archive.CopyOptions{})
	testkit.Must(t, err)
	tables, err := archive.Tables(t.Context(), tenantdb.LatestVersion())
	testkit.Must(t, err)
	pages := tables[slices.IndexFunc(tables, func(table archive.Table) bool { return table.Name == "pages" })]
	var row []any
	testkit.Must(t, to.Snapshot(t.Context(), func(s *tenantdb.Snapshot) error {
		return s.EachRow(t.Context(), func(values []any) error {
			row = slices.Clone(values)
			return nil
		}, `SELECT id, slug, title, body, published, created_at, updated_at FROM pages`)
	}))
	row[2] = "About us"
	testkit.Must(t, to.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		return archive.Replace(t.Context(), tx, to.ArchiveSQL(), pages, []archive.Row{{Values: row}})
	}))
	var title string
	testkit.Must(t, to.Get(t.Context(), &title, `SELECT title FROM pages`))
	if title != "About us" {
		t.Errorf("replaced by %q", title)
	}
}

// moves checks that the changes of a database are recorded and refused for a move, on an engine
// that moves does not name.
func moves(t *testing.T, db *tenantdb.DB) {
	t.Helper()
	tables, err := tenantdb.Tables(t.Context(), tenantdb.LatestVersion())
	testkit.Must(t, err)
	pages := tables[slices.IndexFunc(tables, func(table tenantdb.Table) bool { return table.Name == "pages" })]
	for _, statement := range append(db.Recorder().State(), db.Recorder().CreateTriggers(pages, tables)...) {
		testkit.Must(t, exec(t, db, statement))
	}
	testkit.Must(t, exec(t, db, `INSERT INTO `+tenantdb.MoveControlTable+` (one, move_id, role, fenced) VALUES (1, 'm', 'source', false)`))
	const change = `UPDATE pages SET title = 'Bread' WHERE slug = 'about'`
	testkit.Must(t, exec(t, db, change))
	var recorded string
	testkit.Must(t, db.Get(t.Context(), &recorded, `SELECT name FROM `+tenantdb.MoveJournalTable))
	if recorded != "pages" {
		t.Errorf("a change of %q is recorded", recorded)
	}
	testkit.Must(t, exec(t, db, `UPDATE `+tenantdb.MoveControlTable+` SET fenced = true`))
	if err := exec(t, db, change); !tenantdb.IsFenced(err) {
		t.Errorf("a fenced database answers %v", err)
	}
}

func TestEnginesOnNewerServers(t *testing.T) {
	t.Parallel()
	tenantdbtest.OnNewerServers(t, "TestEngines", "TestEveryServerError")
}

// things creates a table for tests.
func things(t *testing.T, c credential.Credentials) *tenantdb.DB {
	t.Helper()
	db := tenantdbtest.Open(t, c)
	timestamp := map[credential.EngineName]string{credential.SQLite: "timestamp", credential.PostgreSQL: "timestamptz", credential.MySQL: "DATETIME(6)"}[c.Engine]
	testkit.Must(t, exec(t, db, `CREATE TABLE things (id varchar(36) NOT NULL PRIMARY KEY, name varchar(100) NOT NULL UNIQUE,
		n integer NOT NULL, made `+timestamp+` NULL)`))
	testkit.Must(t, exec(t, db, `INSERT INTO things (id, name, n) VALUES (?, ?, ?), (?, ?, ?)`, "1", "one", 1, "2", "two", 2))
	return db
}

func exec(t *testing.T, db *tenantdb.DB, query string, args ...any) error {
	_, err := db.Exec(t.Context(), query, args...)
	return err
}

func opensWithoutConnecting(t *testing.T, c credential.Credentials) {
	var dials atomic.Int32
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		if want := net.JoinHostPort(c.Host, strconv.Itoa(c.Port)); network != "tcp" || address != want {
			t.Errorf("dials %s %s, want tcp %s", network, address, want)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	db, err := tenantdb.NewEngines(tenantdb.Options{DataDir: t.TempDir(), Supabase: tenantdbtest.SupabaseRules()})[c.Rules()].Open(c, dial, new(tenantdb.SessionState))
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing is pending
	if n := db.Stats().OpenConnections + int(dials.Load()); n != 0 {
		t.Errorf("%d connections before the first query", n)
	}
	testkit.Must(t, db.PingContext(t.Context()))
	if networked := c.Engine != credential.SQLite; networked != (dials.Load() == 1) {
		t.Errorf("%d dials for one connection", dials.Load())
	}
}

func inspects(t *testing.T, c credential.Credentials) {
	db := tenantdbtest.Open(t, c)
	testkit.Must(t, db.Ping(t.Context()))
	in, err := db.Inspect(t.Context())
	testkit.Must(t, err)
	if in.Version == "" || in.Minimum == "" || !in.Supported || !in.MayCreate || len(in.Tables) != 0 {
		t.Errorf("empty database: %+v", in)
	}
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, exec(t, db, `CREATE TABLE aaa (n integer)`))
	testkit.Must(t, exec(t, db, `CREATE VIEW zzz AS SELECT n FROM aaa`))
	in, err = db.Inspect(t.Context())
	testkit.Must(t, err)
	for _, table := range []string{"aaa", "zzz", "stores", "products", "credit_balance_cache", tenantdb.VersionTable} {
		if !slices.Contains(in.Tables, table) {
			t.Errorf("table %s is not seen in %v", table, in.Tables)
		}
	}
}

// lastMigration returns the version of a migrated database.
func lastMigration(t *testing.T, engine credential.EngineName) (version int64) {
	t.Helper()
	folder := map[credential.EngineName]string{credential.SQLite: "sqlite", credential.PostgreSQL: "postgres", credential.MySQL: "mysql"}[engine]
	files, err := fs.Glob(tenantdb.Migrations, "migrations/"+folder+"/*.sql")
	testkit.Must(t, err)
	for _, f := range files {
		number, _, _ := strings.Cut(f[strings.LastIndex(f, "/")+1:], "_")
		n, err := strconv.ParseInt(number, 10, 64)
		testkit.Must(t, err)
		version = max(version, n)
	}
	return version
}

// migrated fails the test unless the database has the whole schema and each
// migration is recorded once.
func migrated(t *testing.T, db *tenantdb.DB) {
	t.Helper()
	var got, want []int64
	testkit.Must(t, db.Select(t.Context(), &got, `SELECT version_id FROM `+tenantdb.VersionTable+` ORDER BY version_id`))
	for v := range lastMigration(t, db.Engine) + 1 {
		want = append(want, v)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recorded migrations: %s", diff)
	}
	in, err := db.Inspect(t.Context())
	testkit.Must(t, err)
	clean := tenantdbtest.Open(t, tenantdbtest.Create(t, db.Engine))
	_, err = clean.Migrate(t.Context())
	testkit.Must(t, err)
	whole, err := clean.Inspect(t.Context())
	testkit.Must(t, err)
	if diff := cmp.Diff(whole.Tables, in.Tables); diff != "" {
		t.Errorf("tables: %s", diff)
	}
}

func migratesOnce(t *testing.T, c credential.Credentials) {
	db := tenantdbtest.Open(t, c)
	for range 2 {
		version, err := db.Migrate(t.Context())
		testkit.Must(t, err)
		if want := lastMigration(t, c.Engine); version != want {
			t.Errorf("version %d, want %d", version, want)
		}
		migrated(t, db)
	}
}

func migratesForManyAtOnce(t *testing.T, c credential.Credentials) {
	begin(t, tenantdbtest.Open(t, c))
	const callers = 4
	errs, start := make(chan error, callers), make(chan struct{})
	for range callers {
		db := tenantdbtest.Open(t, c)
		testkit.Must(t, db.Ping(t.Context()))
		go func() {
			<-start
			_, err := db.Migrate(t.Context())
			errs <- err
		}()
	}
	close(start)
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	migrated(t, tenantdbtest.Open(t, c))
}

// countdown is a context that is cancelled when it is checked for the nth time.
// It interrupts code at a chosen point.
type countdown struct {
	context.Context
	left   atomic.Int32
	cancel context.CancelFunc
}

func (c *countdown) Done() <-chan struct{} {
	if c.left.Add(-1) == 0 {
		c.cancel()
	}
	return c.Context.Done()
}

// interrupt migrates with a context that is cancelled at its nth check. It
// reports whether there were fewer checks.
func interrupt(t *testing.T, db *tenantdb.DB, n int32) (finished bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cd := &countdown{Context: ctx, cancel: cancel}
	cd.left.Store(n)
	_, err := db.Migrate(cd)
	if err != nil && ctx.Err() == nil {
		t.Fatalf("interrupted at %d: %v", n, err)
	}
	return err == nil
}

// begin leaves a migration that has just begun. On an empty database, goose
// lets one caller begin and the others wait.
func begin(t *testing.T, db *tenantdb.DB) {
	t.Helper()
	version := int64(-1)
	for n := int32(1); version < 1; n += 1 + n/8 {
		if interrupt(t, db, n) {
			t.Fatal("nothing is left to do")
		}
		_ = db.Get(t.Context(), &version, `SELECT max(version_id) FROM `+tenantdb.VersionTable) // the table may not exist yet
	}
}

func resumesMigration(t *testing.T, c credential.Credentials) {
	db, interrupted := tenantdbtest.Open(t, c), 0
	for n := int32(1); !interrupt(t, db, n); n += 1 + n/8 {
		interrupted++
	}
	if interrupted < 10 {
		t.Errorf("interrupted only %d times", interrupted)
	}
	migrated(t, db)
}

func readsAndWrites(t *testing.T, c credential.Credentials) {
	db := things(t, c)
	type thing struct {
		ID   string
		Name string
		N    int64
		Made *time.Time
	}
	var one thing
	testkit.Must(t, db.Get(t.Context(), &one, `SELECT id, name, n, made FROM things WHERE id = ? AND n < ?`, "1", 5))
	if diff := cmp.Diff(thing{ID: "1", Name: "one", N: 1}, one); diff != "" {
		t.Error(diff)
	}
	var all []thing
	testkit.Must(t, db.Select(t.Context(), &all, `SELECT * FROM things ORDER BY n DESC`))
	if len(all) != 2 || all[0].Name != "two" {
		t.Errorf("got %+v", all)
	}
	var none []thing
	testkit.Must(t, db.Select(t.Context(), &none, `SELECT * FROM things WHERE n > ?`, 5))
	if len(none) != 0 {
		t.Errorf("got %+v", none)
	}
	var n int64
	testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM things`))
	if n != 2 {
		t.Errorf("counted %d", n)
	}
	if err := db.Get(t.Context(), &one, `SELECT * FROM things WHERE id = ?`, "no"); !errors.Is(err, tenantdb.ErrNotFound) {
		t.Errorf("no row: %v", err)
	}
	testkit.Must(t, db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		if err := tx.Get(t.Context(), &one, `SELECT * FROM things WHERE id = ?`, "no"); !errors.Is(err, tenantdb.ErrNotFound) {
			t.Errorf("no row in a transaction: %v", err)
		}
		return tx.Select(t.Context(), &all, `SELECT * FROM things WHERE n = ?`, 2)
	}))
	err := db.Get(t.Context(), &n, `SELECT no_such_column FROM things`)
	want := stoa.TenantError
	if db.Engine == credential.SQLite { // SQLite has no server that others use
		want = stoa.Internal
	}
	if err == nil || errors.Is(err, tenantdb.ErrNotFound) || stoa.CodeOf(err) != want {
		t.Errorf("wrong SQL: %v", err)
	}
}

func countsMatchedRows(t *testing.T, c credential.Credentials) {
	db := things(t, c)
	for _, tt := range []struct {
		query string
		want  int64
	}{
		{`UPDATE things SET n = n`, 2},
		{`UPDATE things SET n = 1 WHERE id = '1'`, 1},
		{`UPDATE things SET n = 1 WHERE id = 'no'`, 0},
		{`DELETE FROM things WHERE id = '2'`, 1},
		{`DELETE FROM things WHERE id = '2'`, 0},
	} {
		n, err := db.Exec(t.Context(), tt.query)
		testkit.Must(t, err)
		if n != tt.want {
			t.Errorf("%s: %d rows, want %d", tt.query, n, tt.want)
		}
	}
	testkit.Must(t, db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		n, err := tx.Exec(t.Context(), `UPDATE things SET n = n WHERE name = ?`, "one")
		if n != 1 {
			t.Errorf("in a transaction: %d rows", n)
		}
		return err
	}))
}

func knowsDuplicates(t *testing.T, c credential.Credentials) {
	db := things(t, c)
	for _, tt := range []struct {
		name, query string
		want        bool
	}{
		{"primary key", `INSERT INTO things (id, name, n) VALUES ('1', 'new', 1)`, true},
		{"unique column", `INSERT INTO things (id, name, n) VALUES ('3', 'one', 1)`, true},
		{"unique column on update", `UPDATE things SET name = 'one' WHERE id = '2'`, true},
		{"NULL", `INSERT INTO things (id, name, n) VALUES ('3', NULL, 1)`, false},
		{"syntax", `INSERT things`, false},
	} {
		err := exec(t, db, tt.query)
		if err == nil || tenantdb.IsUnique(err) != tt.want {
			t.Errorf("%s: IsUnique(%v) = %v", tt.name, err, !tt.want)
		}
		// None of this means that the database has failed.
		if stoa.CodeOf(err) != stoa.Internal {
			t.Errorf("%s: got code %s", tt.name, stoa.CodeOf(err))
		}
		err = db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
			_, err := tx.Exec(t.Context(), tt.query)
			return err
		})
		if err == nil || tenantdb.IsUnique(err) != tt.want {
			t.Errorf("%s in a transaction: IsUnique(%v) = %v", tt.name, err, !tt.want)
		}
	}
	if tenantdb.IsUnique(nil) || tenantdb.IsUnique(tenantdb.ErrNotFound) {
		t.Error("IsUnique without a violation")
	}
}

func commitsAndRollsBack(t *testing.T, c credential.Credentials) {
	db := things(t, c)
	count := func() (n int) {
		t.Helper()
		testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM things`))
		return n
	}
	insert := func(tx *tenantdb.Tx, id string) {
		t.Helper()
		_, err := tx.Exec(t.Context(), `INSERT INTO things (id, name, n) VALUES (?, ?, 0)`, id, id)
		testkit.Must(t, err)
		var n int
		testkit.Must(t, tx.Get(t.Context(), &n, `SELECT count(*) FROM things WHERE id = ?`, id))
		if n != 1 {
			t.Error("the transaction does not see its own row")
		}
	}
	testkit.Must(t, db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		insert(tx, "3")
		return nil
	}))
	if n := count(); n != 3 {
		t.Errorf("%d rows after a commit", n)
	}
	cause := stoa.Errorf(stoa.NotFound, "as it happens")
	if err := db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		insert(tx, "4")
		return cause
	}); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_ = db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
			insert(tx, "5")
			panic("as it happens")
		})
	}()
	ctx, cancel := context.WithCancel(t.Context())
	if err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
		insert(tx, "6")
		cancel()
		return nil
	}); err == nil {
		t.Error("committed although cancelled")
	}
	if n := count(); n != 3 {
		t.Errorf("%d rows after three transactions that failed", n)
	}
	if n := db.SQL().Stats().InUse; n != 0 {
		t.Errorf("%d connections are still in use", n)
	}
}

// survivesDeadlocks checks two transactions that lock two rows in opposite
// order: one of them fails and is run again. The embedded engine lets only one
// of them begin.
func survivesDeadlocks(t *testing.T, c credential.Credentials) {
	db := things(t, c)
	var met sync.WaitGroup // both transactions hold their first row
	met.Add(2)
	cross := func(first, second string) error {
		attempts := 0
		return db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
			attempts++
			if _, err := tx.Exec(t.Context(), `UPDATE things SET n = n + 1 WHERE id = ?`, first); err != nil {
				return err
			}
			if attempts == 1 && c.Engine != credential.SQLite {
				met.Done()
				met.Wait()
			}
			_, err := tx.Exec(t.Context(), `UPDATE things SET n = n + 1 WHERE id = ?`, second)
			return err
		})
	}
	errs := make(chan error, 2)
	go func() { errs <- cross("1", "2") }()
	go func() { errs <- cross("2", "1") }()
	testkit.Must(t, errors.Join(<-errs, <-errs))
	var sum int
	testkit.Must(t, db.Get(t.Context(), &sum, `SELECT sum(n) FROM things`))
	if sum != 3+4 {
		t.Errorf("the rows add up to %d, want each transaction once", sum)
	}
}

func keepsTimes(t *testing.T, c credential.Credentials) {
	db := things(t, c)
	for _, want := range []time.Time{
		time.Date(2024, 2, 29, 23, 59, 59, 123456000, time.UTC),
		time.Date(2024, 7, 1, 0, 30, 0, 1000, time.FixedZone("", 5*3600+1800)),
		time.Date(2024, 10, 27, 2, 30, 0, 999999000, time.FixedZone("", -9*3600)),
		time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC),
	} {
		testkit.Must(t, exec(t, db, `UPDATE things SET made = ? WHERE id = '1'`, want))
		var got time.Time
		testkit.Must(t, db.Get(t.Context(), &got, `SELECT made FROM things WHERE made = ?`, want))
		if !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%v came back as %v in %v", want, got, got.Location())
		}
	}
}

// keepsTypes checks that parameters of every type, and NULL for each, reach
// their columns, however the driver describes them to the server.
func keepsTypes(t *testing.T, c credential.Credentials) {
	db := tenantdbtest.Open(t, c)
	types := map[credential.EngineName]string{
		credential.SQLite:     `id text PRIMARY KEY, doc text, yes boolean, big bigint, num numeric(12,2), ratio double precision, made timestamp, note text`,
		credential.PostgreSQL: `id uuid PRIMARY KEY, doc jsonb, yes boolean, big bigint, num numeric(12,2), ratio double precision, made timestamptz, note text`,
		credential.MySQL:      `id char(36) PRIMARY KEY, doc JSON, yes boolean, big bigint, num decimal(12,2), ratio double, made DATETIME(6), note text`,
	}[c.Engine]
	testkit.Must(t, exec(t, db, `CREATE TABLE kinds (`+types+`)`))
	type row struct {
		ID    stoa.StoreID
		Doc   *string
		Yes   *bool
		Big   *int64
		Num   *string
		Ratio *float64
		Made  *time.Time
		Note  *string
	}
	made := time.Date(2024, 2, 29, 23, 59, 59, 123456000, time.UTC)
	want := row{
		ID: stoa.NewID[stoa.StoreID](), Doc: new(`{"a": [1, "ü'\\\"", null]}`), Yes: new(true), Big: new(int64(-1 << 62)), Num: new("1234.50"),
		Ratio: new(0.1), Made: &made, Note: new("'; -- ? $1 \\ \x01 日本"),
	}
	empty := row{ID: stoa.NewID[stoa.StoreID]()}
	insert := func(r row) {
		t.Helper()
		testkit.Must(t, exec(t, db, `INSERT INTO kinds (id, doc, yes, big, num, ratio, made, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			r.ID, r.Doc, r.Yes, r.Big, r.Num, r.Ratio, r.Made, r.Note))
	}
	check := func(want row) {
		t.Helper()
		var got row
		testkit.Must(t, db.Get(t.Context(), &got, `SELECT * FROM kinds WHERE id = ?`, want.ID))
		if diff := cmp.Diff(want, got, sameJSON); diff != "" {
			t.Error(diff)
		}
	}
	insert(want)
	insert(empty)
	check(want)
	check(empty)
	// This is the same statement with arguments of other types.
	testkit.Must(t, exec(t, db, `UPDATE kinds SET doc = ?, yes = ?, big = ?, num = ?, ratio = ?, made = ?, note = ? WHERE id = ?`, want.Doc, false, 7, 3, 2, made, nil, empty.ID))
	check(row{ID: empty.ID, Doc: want.Doc, Yes: new(false), Big: new(int64(7)), Num: new("3.00"), Ratio: new(2.0), Made: &made})
	testkit.Must(t, exec(t, db, `UPDATE kinds SET doc = ?, yes = ?, big = ?, num = ?, ratio = ?, made = ?, note = ? WHERE id = ?`, nil, nil, nil, nil, nil, nil, want.Note, empty.ID))
	check(row{ID: empty.ID, Note: want.Note})
	var n int
	testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM kinds WHERE yes = ? AND big < ? AND num > ? AND note = ? AND made <= ?`, true, 5, 1000, *want.Note, made))
	if n != 1 {
		t.Errorf("%d rows match", n)
	}
}

// sameJSON compares texts. It compares texts that are JSON, including numbers,
// by their meaning.
var sameJSON = cmp.Comparer(func(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	return cmp.Equal(x, y)
})

// endless is a query that runs until it is stopped.
var endless = map[credential.EngineName]string{
	credential.SQLite:     `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`,
	credential.PostgreSQL: `SELECT pg_sleep(120)::text`,
	credential.MySQL:      `SELECT SLEEP(120)`,
}

// underWay counts endless queries in the server's own list.
var underWay = map[credential.EngineName]string{
	credential.PostgreSQL: `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT pg_sleep%'`,
	credential.MySQL:      `SELECT count(*) FROM information_schema.processlist WHERE db = database() AND info LIKE 'SELECT SLEEP%'`,
}

func stopsWhenCancelled(t *testing.T, c credential.Credentials) {
	db, other := things(t, c), tenantdbtest.Open(t, c)
	running := func() int {
		n := db.SQL().Stats().InUse
		if query, ok := underWay[c.Engine]; ok {
			testkit.Must(t, other.Get(t.Context(), &n, query))
		}
		return n
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var s string
		done <- db.Get(ctx, &s, endless[c.Engine])
	}()
	testkit.Eventually(t, testkit.Timeout, "the query runs", func() bool { return running() == 1 })
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		// The caller cancelled the call, which says nothing about the database.
		if code := stoa.CodeOf(err); code != stoa.Internal {
			t.Errorf("got code %s", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the query goes on")
	}
	testkit.Must(t, exec(t, db, `UPDATE things SET n = 7`))
	testkit.Eventually(t, testkit.Timeout, "the connection is returned", func() bool { return db.SQL().Stats().InUse == 0 })
	testkit.Eventually(t, testkit.Timeout, "the server has ended the query", func() bool { return running() == 0 }) // at the server too
}

// TestFileOpenedWhileOthersClose checks that opening a file does not fail while
// another pool closes it. The first pool to open a file switches it to WAL, and
// the last one to close it switches it back.
func TestFileOpenedWhileOthersClose(t *testing.T) {
	t.Parallel()
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{DataDir: t.TempDir()})
	defer m.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is leased
	for range 10 {
		c := credential.ManagedSQLite(stoa.NewID[stoa.StoreID]())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 10 {
					db, err := m.OpenUnleased(c)
					if err != nil {
						t.Error(err)
						return
					}
					if err := errors.Join(db.Ping(t.Context()), db.Close()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
}
