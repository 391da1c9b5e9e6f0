package storedata_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

var comment = regexp.MustCompile(`(?m)^--.*\n`)

// TestMigrationFiles checks that the dialects have the same files, and that each of
// MySQL's is one statement that can be repeated. DDL commits at once on MySQL, so an
// interrupted file may be applied in part.
func TestMigrationFiles(t *testing.T) {
	t.Parallel()
	files := map[string][]string{}
	for _, dialect := range []string{"mysql", "postgres", "sqlite"} {
		entries, err := fs.ReadDir(tenantdb.Migrations, "migrations/"+dialect)
		testkit.Must(t, err)
		for _, e := range entries {
			files[dialect] = append(files[dialect], e.Name())
			b, err := fs.ReadFile(tenantdb.Migrations, "migrations/"+dialect+"/"+e.Name())
			testkit.Must(t, err)
			text := string(b)
			if !strings.HasPrefix(text, "-- +goose Up\n") || strings.Contains(text, "+goose Down") {
				t.Errorf("%s/%s is not forward only", dialect, e.Name())
			}
			statements := comment.ReplaceAllString(text, "")
			if dialect == "mysql" && (strings.Count(statements, ";") != 1 || !strings.HasPrefix(statements, "\nCREATE TABLE IF NOT EXISTS")) {
				t.Errorf("mysql/%s is not one statement that can run again", e.Name())
			}
		}
	}
	if diff := cmp.Diff(files["postgres"], files["mysql"]); diff != "" {
		t.Errorf("postgres and mysql: %s", diff)
	}
	if diff := cmp.Diff(files["postgres"], files["sqlite"]); diff != "" {
		t.Errorf("postgres and sqlite: %s", diff)
	}
}

// TestMySQLMigrationsRunAgain checks that a run that was interrupted between the DDL and
// its record can continue. The other engines roll back such a table with its transaction.
func TestMySQLMigrationsRunAgain(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.MySQL) {
		t.Skip(tenantdbtest.MySQLEnv + " is not set")
	}
	db := tenantdbtest.Open(t, tenantdbtest.Create(t, credential.MySQL))
	want, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	setup(t, db)
	_, err = db.Exec(t.Context(), `DELETE FROM `+tenantdb.VersionTable+` WHERE version_id > 0`)
	testkit.Must(t, err)
	got, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	if got != want || count(t, db, "stores") != 1 {
		t.Errorf("version %d with %d stores, want %d with 1", got, count(t, db, "stores"), want)
	}
}

// TestSchemaIsTheSameEverywhere checks that a store's own software finds the same tables
// and columns on every engine.
func TestSchemaIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	columns := func(engine credential.EngineName) map[string][]string {
		db := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
		_, err := db.Migrate(t.Context())
		testkit.Must(t, err)
		query := `SELECT table_name AS table_name, column_name AS column_name FROM information_schema.columns WHERE table_schema = ` +
			map[credential.EngineName]string{credential.PostgreSQL: "current_schema()", credential.MySQL: "database()"}[engine] +
			` ORDER BY table_name, ordinal_position`
		if engine == credential.SQLite { // table_xinfo includes generated columns
			query = `SELECT m.name AS table_name, c.name AS column_name FROM sqlite_schema m, pragma_table_xinfo(m.name) c
				WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY m.name, c.cid`
		}
		var rows []struct {
			Table  string `db:"table_name"`
			Column string `db:"column_name"`
		}
		testkit.Must(t, db.Select(t.Context(), &rows, query))
		out := map[string][]string{}
		for _, r := range rows {
			if r.Table != tenantdb.VersionTable {
				out[r.Table] = append(out[r.Table], r.Column)
			}
		}
		return out
	}
	want := columns(credential.SQLite)
	if len(want) != 15 {
		t.Errorf("%d tables, want 15", len(want))
	}
	for _, engine := range tenantdbtest.Engines()[1:] {
		if diff := cmp.Diff(want, columns(engine)); diff != "" {
			t.Errorf("sqlite and %s: %s", engine, diff)
		}
	}
}

// TestConstraintsJudgeAlike checks that every engine accepts and refuses the same rows,
// which the store's own software may write without this package.
func TestConstraintsJudgeAlike(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		setup(t, db)
		p, err := storedata.AddProduct(t.Context(), db, storedata.NewProduct{Name: "P", Slug: "taken", Currency: "EUR", SKU: "Sku"})
		testkit.Must(t, err)
		product := func(slug, currency, status string) error {
			_, err := db.Exec(t.Context(), `INSERT INTO products (id, name, slug, description, currency, status, created_at, updated_at)
				VALUES (?, 'x', ?, '', ?, ?, ?, ?)`, stoa.NewID[storedata.ProductID](), slug, currency, status, p.CreatedAt, p.CreatedAt)
			return err
		}
		variant := func(product storedata.ProductID, sku any, price int) error {
			_, err := db.Exec(t.Context(), `INSERT INTO product_variants (id, product_id, name, sku, price_minor, created_at, updated_at)
				VALUES (?, ?, 'x', ?, ?, ?, ?)`, stoa.NewID[storedata.VariantID](), product, sku, price, p.CreatedAt, p.CreatedAt)
			return err
		}
		_, second := db.Exec(t.Context(), `
			INSERT INTO stores (id, name, slug, description, contact_email, contact_phone, website, address_line1, address_line2, city,
				region, postal_code, country, currency, timezone, locale, theme, settings, logo_url, created_at, updated_at)
			VALUES (?, 'x', 'second', '', '', '', '', '', '', '', '', '', '', 'EUR', 'UTC', 'en', '{}', '{}', '', ?, ?)`,
			stoa.NewID[stoa.StoreID](), p.CreatedAt, p.CreatedAt)
		if !tenantdb.IsUnique(second) {
			t.Errorf("a second store: got %v", second)
		}
		for name, c := range map[string]struct {
			err error
			ok  bool
		}{
			"slug in use":               {product("taken", "EUR", "draft"), false},
			"slug in use, capitals":     {product("Taken", "EUR", "draft"), false},
			"slug in use, space behind": {product("taken ", "EUR", "draft"), false},
			"empty slug":                {product("", "EUR", "draft"), false},
			"free slug":                 {product("free", "EUR", "draft"), true},
			"long currency":             {product("b", "EURO", "draft"), false},
			"unknown status":            {product("c", "EUR", "sold"), false},
			"status in capitals":        {product("d", "EUR", "DRAFT"), false},
			"sku in use":                {variant(p.ID, "Sku", 1), false},
			"sku in other case":         {variant(p.ID, "sku", 1), true},
			"sku with an accent":        {variant(p.ID, "Skú", 1), true},
			"sku with a space behind":   {variant(p.ID, "Sku ", 1), false},
			"no sku":                    {variant(p.ID, nil, 1), true},
			"no sku, twice":             {variant(p.ID, nil, 1), true},
			"negative price":            {variant(p.ID, nil, -1), false},
			"variant of no product":     {variant(stoa.NewID[storedata.ProductID](), nil, 1), false},
		} {
			if (c.err == nil) != c.ok {
				t.Errorf("%s: got %v, want accepted: %v", name, c.err, c.ok)
			}
		}
		// A lookup with letters that no slug contains finds nothing and returns no error.
		for _, slug := range []string{"größe", "TAKEN", "🧁", "tåken"} {
			var n int
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM products WHERE slug = ?`, slug))
			if n != 0 {
				t.Errorf("%q found %d products", slug, n)
			}
		}
		_, err = db.Exec(t.Context(), `DELETE FROM products WHERE id = ?`, p.ID)
		testkit.Must(t, err)
		if n := count(t, db, "product_variants"); n != 0 {
			t.Errorf("%d variants outlived their product", n)
		}
	})
}
