package backups

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestRestoreLosesNoOtherRows checks that a restore is refused, before the store is closed, if it
// would lose what no archive has: rows of other tables that refer to Stoa's, and values of columns
// that were added to these. The refusal names them. Without such rows it is done.
func TestRestoreLosesNoOtherRows(t *testing.T) {
	t.Parallel()
	ids := map[credential.EngineName]string{credential.SQLite: "text", credential.PostgreSQL: "uuid", credential.MySQL: "char(36) CHARACTER SET ascii COLLATE ascii_bin"}
	const reviews = `CREATE TABLE reviews (product_id ID, FOREIGN KEY (product_id) REFERENCES products (id)`
	each(t, func(t *testing.T, f fixture, engine credential.EngineName) {
		for name, test := range map[string]struct {
			statements []string
			names      string // what the refusal names; "": it is restored
		}{
			"rows that a deletion takes along": {[]string{reviews + ` ON DELETE CASCADE)`, `INSERT INTO reviews SELECT id FROM products`}, "rows of the table reviews depend on products"},
			"rows that prevent a deletion":     {[]string{reviews + `)`, `INSERT INTO reviews SELECT id FROM products`}, "rows of the table reviews depend on products"},
			"rows without a reference":         {[]string{reviews + `)`, `INSERT INTO reviews VALUES (NULL)`}, ""},
			"a column with values":             {[]string{`ALTER TABLE products ADD COLUMN supplier varchar(9)`, `UPDATE products SET supplier = 'mill'`}, "the column products.supplier has values"},
			"rows of another schema":           {[]string{`CREATE SCHEMA shop`, strings.Replace(reviews, "reviews", "shop.ratings", 1) + `)`, `INSERT INTO shop.ratings SELECT id FROM products`}, "rows of the table shop.ratings depend on products"},
			"inheriting rows":                  {[]string{`CREATE TABLE special (extra text) INHERITS (products)`, `INSERT INTO special SELECT *, 'x' FROM products`}, "rows of the table special depend on products"},
			"an empty column":                  {[]string{`ALTER TABLE products ADD COLUMN supplier varchar(9)`}, ""},
			"a table of its own":               {[]string{`CREATE TABLE visits (n integer)`, `INSERT INTO visits VALUES (1)`}, ""},
		} {
			t.Run(name, func(t *testing.T) {
				if (strings.Contains(test.names, "shop.") || strings.Contains(test.names, "special")) && engine != credential.PostgreSQL {
					t.Skip("only PostgreSQL has schemas and inheritance")
				}
				p, s := f.store(t, engine)
				b := f.made(t, p, s.ID)
				f.addProduct(t, s.ID, "cake")
				f.within(t, s.ID, func(db *tenantdb.DB) error {
					for _, statement := range test.statements {
						if _, err := db.Exec(t.Context(), strings.ReplaceAll(statement, " ID,", " "+ids[engine]+",")); err != nil {
							return err
						}
					}
					return nil
				})
				for _, o := range []RestoreOptions{{}, {Unsaved: true}} {
					r, err := f.Restore(t.Context(), p, s.ID, b.ID, o)
					testkit.Must(t, err)
					r = f.restored(t, r)
					if test.names == "" {
						if r.State != Succeeded {
							t.Errorf("restore %+v: %+v", r, r.Fault)
						}
						continue
					}
					if r.State != Failed || r.Step != stepCheck || r.Fault.Code != stoa.ArchiveRefused || !strings.Contains(r.Fault.Message, test.names) {
						t.Errorf("restore %+v: %+v", r, r.Fault)
					}
					if diff := cmp.Diff([]string{"bread", "cake"}, slices.Compact(f.products(t, s.ID))); diff != "" {
						t.Errorf("products (-want +got):\n%s", diff)
					}
				}
			})
		}
	})
}

// TestStuckRestores checks that restores which keep their store closed until somebody acts are
// found, and no others.
func TestStuckRestores(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		wants := map[stoa.RestoreID]string{}
		for _, o := range []RestoreOptions{{}, {Unsaved: true}} {
			p, s := f.store(t, credential.SQLite)
			b := f.made(t, p, s.ID)
			done, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
			testkit.Must(t, err)
			f.restored(t, done)
			f.within(t, s.ID, func(db *tenantdb.DB) error {
				_, err := db.Exec(t.Context(), `CREATE TRIGGER refuse BEFORE INSERT ON products BEGIN SELECT RAISE(ABORT, 'no product'); END`)
				return err
			})
			r, err := f.Restore(t.Context(), p, s.ID, b.ID, o)
			testkit.Must(t, err)
			wants[r.ID] = stepLoad
			if o.Unsaved {
				f.restored(t, r)
				continue
			}
			wants[r.ID] = stepUndo
			testkit.Eventually(t, testkit.Timeout, "undoing it has failed", func() bool {
				row, err := readRestore(t.Context(), f.db, `id = $1`, r.ID)
				testkit.Must(t, err)
				return row.Step == stepUndo && row.Attempt > 0
			})
			f.exec(t, `UPDATE backup_restores SET attempt = $2 WHERE id = $1`, r.ID, tries) // instead of waiting for the next ones
		}
		stuck, err := f.StuckRestores(t.Context())
		testkit.Must(t, err)
		found := map[stoa.RestoreID]string{}
		for _, r := range stuck {
			found[r.ID] = r.Step
			if r.Fault == nil || !strings.Contains(r.Fault.Message, "no product") {
				t.Errorf("restore %+v: %+v", r, r.Fault)
			}
		}
		if diff := cmp.Diff(wants, found); diff != "" {
			t.Errorf("stuck restores (-want +got):\n%s", diff)
		}
	})
}
