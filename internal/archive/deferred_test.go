package archive

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// drift returns how the schema of a database differs from Stoa's.
func drift(t *testing.T, db *tenantdb.DB) []string {
	t.Helper()
	structure, err := db.Structure(t.Context())
	testkit.Must(t, err)
	expected, err := tenantdb.Expected(db.Engine)
	testkit.Must(t, err)
	return structure.Drift(expected, true)
}

// storeArchive returns the archive of a store.
func storeArchive(t *testing.T, id *age.X25519Identity) []byte {
	t.Helper()
	source := migrated(t, credential.SQLite)
	fillStore(t, source)
	file, _, _ := archived(t, source, id, WriteOptions{})
	return file
}

// onPostgres skips a test without PostgreSQL.
func onPostgres(t *testing.T) {
	t.Helper()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
}

var again = LoadOptions{Done: func(string) bool { return false }}

// TestInterruptedLoadMakesTheSchemaAgain interrupts a load, which leaves a database without
// indexes and foreign keys, and loads again.
func TestInterruptedLoadMakesTheSchemaAgain(t *testing.T) {
	t.Parallel()
	onPostgres(t)
	id := newIdentity(t)
	file := storeArchive(t, id)
	target := migrated(t, credential.PostgreSQL)
	stop := errors.New("stop")
	opts := again
	opts.OnTable = func(s Summary) error {
		if s.Table == "order_items" {
			return stop
		}
		return nil
	}
	if err := Load(t.Context(), target, reader(t, file, id), opts); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if !slices.Contains(drift(t, target), "index order_items.order_items_order is missing") || !slices.Contains(drift(t, target), "constraint order_items.order_items_order_id_fkey is missing") {
		t.Errorf("the load makes the indexes row by row: %q", drift(t, target))
	}
	testkit.Must(t, Load(t.Context(), target, reader(t, file, id), again))
	if d := drift(t, target); d != nil {
		t.Errorf("after the load: %q", d)
	}
}

// TestCopyKeepsTheSchema copies a store between databases of PostgreSQL, as a move does.
func TestCopyKeepsTheSchema(t *testing.T) {
	t.Parallel()
	onPostgres(t)
	source, target := migrated(t, credential.PostgreSQL), migrated(t, credential.PostgreSQL)
	fillStore(t, source)
	_, err := Copy(t.Context(), source, target, stoa.NewID[stoa.StoreID](), CopyOptions{})
	testkit.Must(t, err)
	if d := drift(t, target); d != nil {
		t.Errorf("after the copy: %q", d)
	}
}

// TestChangedIndexStays loads a database whose owner has changed an index.
func TestChangedIndexStays(t *testing.T) {
	t.Parallel()
	onPostgres(t)
	id := newIdentity(t)
	target := migrated(t, credential.PostgreSQL)
	exec(t, target, `DROP INDEX products_status`)
	exec(t, target, `CREATE INDEX products_status ON products (name)`)
	testkit.Must(t, Load(t.Context(), target, reader(t, storeArchive(t, id), id), again))
	if d := drift(t, target); len(d) != 1 {
		t.Errorf("after the load: %q", d)
	}
}

// TestTableInUseIsLoaded loads a database while its owner reads from it. Its indexes stay.
func TestTableInUseIsLoaded(t *testing.T) {
	t.Parallel()
	onPostgres(t)
	id := newIdentity(t)
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	target, other := tenantdbtest.Open(t, c), tenantdbtest.Open(t, c)
	_, err := target.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, other.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		var n int
		if err := tx.Get(t.Context(), &n, `SELECT count(*) FROM orders`); err != nil {
			return err
		}
		return Load(t.Context(), target, reader(t, storeArchive(t, id), id), again)
	}))
	if d := drift(t, target); d != nil {
		t.Errorf("after the load: %q", d)
	}
}

// TestDanglingReferenceIsNamed loads an archive that lacks a row to which another one leads.
func TestDanglingReferenceIsNamed(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	file := without(t, storeArchive(t, id), id, "orders", 7)
	for _, engine := range tenantdbtest.Engines() {
		target := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
		wantMessage(t, Load(t.Context(), target, reader(t, file, id), LoadOptions{}), stoa.ArchiveRefused, "order_items", "id = 018f2b6c-7d1e-7c3a-9f00-000000000007", "refuses")
	}
}

// TestDanglingLinkIsNamed loads an archive whose row references one of its own table that is not
// there.
func TestDanglingLinkIsNamed(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	source := migrated(t, credential.SQLite)
	fillStore(t, source)
	exec(t, source, `UPDATE categories SET parent_id = NULL WHERE slug = 'c49'`)
	file, _, _ := archived(t, source, id, WriteOptions{})
	file = without(t, file, id, "categories", 50) // the parent of the first one
	for _, engine := range tenantdbtest.Engines() {
		target := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
		err := Load(t.Context(), target, reader(t, file, id), LoadOptions{})
		wantMessage(t, err, stoa.ArchiveRefused, "categories", "id = 018f2b6c-7d1e-7c3a-9f00-0000000003e8", "refuses")
	}
}

// without returns an archive without one row of a table.
func without(t *testing.T, file []byte, id *age.X25519Identity, table string, row int) []byte {
	t.Helper()
	r := reader(t, file, id)
	var b bytes.Buffer
	w, err := NewWriter(&b, r.Head, id.Recipient())
	testkit.Must(t, err)
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			_, err = w.Close()
			testkit.Must(t, err)
			return b.Bytes()
		}
		testkit.Must(t, err)
		for i, values := range p.Rows {
			if p.Table.Name != table || i != row {
				testkit.Must(t, w.Row(values))
			}
		}
		for _, values := range p.Links {
			testkit.Must(t, w.Link(values))
		}
		if p.End != nil {
			_, err := w.EndTable()
			testkit.Must(t, err)
		}
	}
}
