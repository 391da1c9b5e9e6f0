package provisioning

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// guestsOf returns what a test has put into a database beside the store.
func guestsOf(t *testing.T, c credential.Credentials) (names []string) {
	t.Helper()
	db := tenantdbtest.Open(t, c)
	testkit.Must(t, db.Select(t.Context(), &names, `SELECT name FROM guests ORDER BY name`))
	in, err := db.Inspect(t.Context())
	testkit.Must(t, err)
	return append(names, in.Tables...)
}

// TestAdopt connects a database that holds tables of others: they stay as they are, the
// test says so beforehand and changes nothing, and names that clash are listed.
func TestAdopt(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		c := credentials(t, engine)
		for _, statement := range []string{
			`CREATE TABLE guests (name varchar(20) NOT NULL PRIMARY KEY)`, `INSERT INTO guests VALUES ('Ada'), ('Grace')`,
			`CREATE VIEW visitors AS SELECT name FROM guests`, `CREATE TABLE orders (n integer)`,
		} {
			tenantdbtest.Exec(t, c, statement)
		}
		b.failed(t, p, b.connect(t, p, s.ID, c), "inspect", stoa.DatabaseNotEmpty)
		c.Adopt = true
		before := guestsOf(t, c)
		found, err := b.Test(t.Context(), p, s.ID, &c)
		testkit.Must(t, err)
		if a := found.Adoption; codeOf(found.Fault) != stoa.DatabaseNotEmpty || a == nil || !slices.Equal(a.Clashes, []string{"orders"}) || a.Keeps != 3 ||
			!slices.Contains(a.Makes, "products") || !slices.Contains(a.Makes, tenantdb.MarkerTable) {
			t.Errorf("a clash: %+v, %+v", found.Fault, a)
		}
		b.failed(t, p, b.connect(t, p, s.ID, c), "inspect", stoa.DatabaseNotEmpty)
		if diff := cmp.Diff(before, guestsOf(t, c)); diff != "" {
			t.Errorf("after the refusal (-want +got):\n%s", diff)
		}

		tenantdbtest.Exec(t, c, `ALTER TABLE orders RENAME TO old_orders`)
		before = guestsOf(t, c)
		found, err = b.Test(t.Context(), p, s.ID, &c)
		testkit.Must(t, err)
		if a := found.Adoption; found.Fault != nil || a == nil || len(a.Clashes) > 0 || a.Keeps != 3 {
			t.Errorf("without a clash: %+v, %+v", found.Fault, a)
		}
		if diff := cmp.Diff(before, guestsOf(t, c)); diff != "" {
			t.Errorf("after the test (-want +got):\n%s", diff)
		}
		s = b.succeeded(t, p, b.connect(t, p, s.ID, c))
		after := guestsOf(t, c)
		if gone := slices.DeleteFunc(slices.Clone(before), func(name string) bool { return slices.Contains(after, name) }); len(gone) > 0 {
			t.Errorf("gone: %v", gone)
		}
		for _, name := range found.Adoption.Makes {
			if !slices.Contains(after, name) {
				t.Errorf("%s was not made", name)
			}
		}
		_, err = b.visit(t.Context(), s)
		testkit.Must(t, err)
		version := b.info(t, s.ID).CredentialVersion
		c.Adopt = false
		testkit.Must(t, b.Rotate(t.Context(), p, s.ID, c))
		if got := b.info(t, s.ID).CredentialVersion; got != version {
			t.Error("the same credentials again are a change")
		}

		// Another store is refused, and so is one that says nothing of adoption.
		other, o := b.store(t)
		c.Adopt = true
		b.failed(t, other, b.connect(t, other, o.ID, c), "inspect", stoa.DatabaseNotEmpty)
		if n := b.count(t, `audit_events WHERE store_id = '`+s.ID.String()+`' AND action = 'database.connected' AND CAST(details AS text) LIKE '%adopt%'`); n != 2 {
			t.Errorf("%d entries", n)
		}
	})
}

// TestAdoptWhat checks that only an own database on PostgreSQL or MySQL can be adopted, and
// that an index of another table clashes on PostgreSQL.
func TestAdoptWhat(t *testing.T) {
	t.Parallel()
	for _, c := range []credential.Credentials{{Kind: credential.KindSupabase, Engine: credential.PostgreSQL}, {Kind: credential.Managed}} {
		c.Adopt = true
		wantCode(t, c.Validate(), stoa.InvalidRequest)
	}
	each(t, []credential.EngineName{credential.PostgreSQL}, func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s := b.store(t)
		c := credentials(t, engine)
		c.Adopt = true
		tenantdbtest.Exec(t, c, `CREATE TABLE mine (n integer)`)
		tenantdbtest.Exec(t, c, `CREATE INDEX products_status ON mine (n)`)
		tenantdbtest.Exec(t, c, `CREATE TYPE customers AS ENUM ('a')`)
		found, err := b.Test(t.Context(), p, s.ID, &c)
		testkit.Must(t, err)
		if a := found.Adoption; a == nil || !slices.Equal(a.Clashes, []string{"customers", "products_status"}) {
			t.Errorf("found %+v", a)
		}
	})
}
