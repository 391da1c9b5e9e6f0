package storedata_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// readers call every function of this package that takes a database, by its name. Most
// results are ignored.
var readers = map[string]func(context.Context, *tenantdb.DB, stoa.StoreID){
	"AddCategory": func(ctx context.Context, db *tenantdb.DB, _ stoa.StoreID) {
		_, _ = storedata.AddCategory(ctx, db, storedata.NewCategory{Name: "N", Slug: "n", Parent: "general"})
	},
	"AddProduct": func(ctx context.Context, db *tenantdb.DB, _ stoa.StoreID) {
		_, _ = storedata.AddProduct(ctx, db, storedata.NewProduct{Name: "N", Slug: "n", Currency: "EUR", Category: "general"})
	},
	"CreateStore": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) {
		_ = storedata.CreateStore(ctx, db, storedata.Profile{ID: id, ProfileValues: storedata.ProfileValues{Name: "N", Slug: "n"}})
	},
	"CreateOwner": func(ctx context.Context, db *tenantdb.DB, _ stoa.StoreID) {
		_ = storedata.CreateOwner(ctx, db, storedata.Owner{ID: stoa.NewID[stoa.UserID](), Email: "a@example.com"})
	},
	"BecomeClone": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) {
		_ = storedata.BecomeClone(ctx, db, storedata.Profile{ID: id, ProfileValues: storedata.ProfileValues{Name: "N", Slug: "n"}}, storedata.Without{Customers: true})
	},
	"ProveWritable": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) { _ = storedata.ProveWritable(ctx, db, id) },
	"StoreIDs":      func(ctx context.Context, db *tenantdb.DB, _ stoa.StoreID) { _, _ = storedata.StoreIDs(ctx, db) },
	"ReadProfile":   func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) { _, _ = storedata.ReadProfile(ctx, db, id) },
	"UpdateProfile": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) {
		_, _ = storedata.UpdateProfile(ctx, db, id, storedata.ProfilePatch{City: ptr("C")})
		_, _ = storedata.UpdateProfile(ctx, db, id, storedata.ProfilePatch{})
	},
	"ChangeProfile": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) {
		_, _ = storedata.ChangeProfile(ctx, db, id, func(storedata.Profile) (storedata.ProfilePatch, error) {
			return storedata.ProfilePatch{City: ptr("C")}, nil
		})
	},
	"Products": func(ctx context.Context, db *tenantdb.DB, _ stoa.StoreID) {
		_, _ = storedata.Products(ctx, db, storedata.ListProducts{})
	},
	"Seed": func(ctx context.Context, db *tenantdb.DB, _ stoa.StoreID) { _ = storedata.Seed(ctx, db) },
	"ReadCreditPosition": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) {
		_, _ = storedata.ReadCreditPosition(ctx, db, id)
	},
	"CopyCredits": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) {
		_, _ = storedata.CopyCredits(ctx, db, storedata.CreditPosition{Version: -1}, storedata.CreditPosition{Version: 1}, nil, credits.Balance{StoreID: id})
	},
	"LogSpendings": func(ctx context.Context, db *tenantdb.DB, id stoa.StoreID) {
		_, _ = storedata.LogSpendings(ctx, db, id, storedata.CreditPosition{Version: -1}, storedata.CreditPosition{Version: -1, Seq: 1}, nil)
	},
}

// TestEveryReaderIsListed checks that readers contains every function that takes a
// database, since TestReadersAreBounded measures the functions in readers.
func TestEveryReaderIsListed(t *testing.T) {
	t.Parallel()
	set := token.NewFileSet()
	packages, err := parser.ParseDir(set, ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0) //nolint:staticcheck // one package without build tags
	testkit.Must(t, err)
	found := 0
	for _, file := range packages["storedata"].Files {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() || !takesDatabase(f) {
				continue
			}
			found++
			if readers[f.Name.Name] == nil {
				t.Errorf("%s takes a database and is not in readers: add it there", f.Name.Name)
			}
		}
	}
	if found != len(readers) {
		t.Errorf("%d functions take a database, and %d are in readers", found, len(readers))
	}
}

func takesDatabase(f *ast.FuncDecl) bool {
	return slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
		star, ok := p.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		sel, ok := star.X.(*ast.SelectorExpr)
		return ok && (sel.Sel.Name == "DB" || sel.Sel.Name == "Tx")
	})
}

const (
	hugeText = 2_000_000 // characters that each column contains above its limit
	mostRead = 1 << 20   // bytes that a call may receive: two JSON columns have 256 KiB each
)

// TestReadersAreBounded checks that no call receives a huge text from a database in which
// a merchant has put one into every column: each column is cut in SQL.
func TestReadersAreBounded(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		if engine == credential.SQLite {
			continue // its answers are not sent over a network
		}
		for _, ids := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/ids=%v", engine, ids), func(t *testing.T) {
				t.Parallel()
				c := tenantdbtest.Create(t, engine)
				db := tenantdbtest.Open(t, c)
				_, err := db.Migrate(t.Context())
				testkit.Must(t, err)
				p := setup(t, db)
				testkit.Must(t, storedata.Seed(t.Context(), db))
				_, err = storedata.AddProduct(t.Context(), db, storedata.NewProduct{Name: "Bread", Slug: "bread", Currency: "EUR", Category: "general", ImageURL: "https://example.com/x"})
				testkit.Must(t, err)
				widen(t, db, ids)
				counted, received := countReceived(t, c)
				for name, read := range readers {
					from := received.Load()
					read(t.Context(), counted, p.ID)
					if n := received.Load() - from; n > mostRead {
						t.Errorf("%s receives %d bytes", name, n)
					}
				}
				if !ids {
					if _, err := storedata.Products(t.Context(), counted, storedata.ListProducts{}); stoa.CodeOf(err) != stoa.DatabaseContentInvalid {
						t.Errorf("products with huge texts: %v", err)
					}
				}
				if received.Load() == 0 {
					t.Error("nothing was counted")
				}
			})
		}
	}
}

// widen replaces every table by a view in which the texts, or the ids, are much longer.
// Only the values that the queries look up are unchanged.
func widen(t *testing.T, db *tenantdb.DB, ids bool) {
	t.Helper()
	schema := "current_schema()"
	if db.Engine == credential.MySQL {
		schema = "database()"
	}
	var columns []struct {
		Table  string `db:"t"`
		Column string `db:"c"`
		Type   string `db:"k"`
	}
	testkit.Must(t, db.Select(t.Context(), &columns, `SELECT table_name AS t, column_name AS c, data_type AS k FROM information_schema.columns
		WHERE table_schema = `+schema+` AND table_name NOT LIKE 'stoa%' ORDER BY table_name, ordinal_position`))
	views := map[string][]string{}
	wide := 0
	for _, c := range columns {
		isID, expression := c.Type == "uuid" || c.Type == "char", c.Column
		isText := slices.Contains([]string{"character varying", "varchar", "text", "longtext", "json", "jsonb"}, c.Type)
		if ids && isID || !ids && isText && c.Column != "status" {
			expression = fmt.Sprintf("concat(%s, repeat('x', %d)) AS %s", c.Column, hugeText, c.Column)
			wide++
		}
		views[c.Table] = append(views[c.Table], expression)
	}
	if wide < 20 {
		t.Fatalf("%d columns were widened", wide)
	}
	for table, list := range views {
		for _, statement := range []string{
			"ALTER TABLE " + table + " RENAME TO " + table + "_kept",
			"CREATE VIEW " + table + " AS SELECT " + strings.Join(list, ", ") + " FROM " + table + "_kept",
		} {
			_, err := db.Exec(t.Context(), statement)
			testkit.Must(t, err)
		}
	}
}

// countReceived opens c through a proxy that counts what the server sends.
func countReceived(t *testing.T, c credential.Credentials) (*tenantdb.DB, *atomic.Int64) {
	t.Helper()
	server := net.JoinHostPort(c.Host, fmt.Sprint(c.Port))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	received := new(atomic.Int64)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := (&net.Dialer{}).Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(upstream, client); _ = upstream.Close() }()
			go func() { _, _ = io.Copy(counting{client, received}, upstream); _ = client.Close() }()
		}
	}()
	c.Port = l.Addr().(*net.TCPAddr).Port
	return tenantdbtest.Open(t, c), received
}

type counting struct {
	io.Writer
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// TestOwnFunctionsReplaceNoCut checks that a text above its limit is not served, and hardly
// read, if a merchant has a function and a type of their own before the server's.
func TestOwnFunctionsReplaceNoCut(t *testing.T) {
	t.Parallel()
	d := newDescription(t, `CREATE DOMAIN public.varchar AS text`, `CREATE FUNCTION public.substr(text, integer, integer) RETURNS text LANGUAGE sql AS 'SELECT $1'`,
		`ALTER TABLE stores ALTER COLUMN description TYPE text`)
	for _, n := range []int{2000, 2001, 1 << 20, 60 << 20} {
		if read := d.read(t, n, fmt.Sprintf(`UPDATE stores SET description = repeat('x', %d)`, n)); read > 16<<10 {
			t.Errorf("a description of %d characters: %d bytes are read", n, read)
		}
	}
}

// TestHostileServerIgnoresBounds checks that a text above its limit is not served, even if the
// server does not cut it: a type of the merchant's own has a cast that ignores the length.
func TestHostileServerIgnoresBounds(t *testing.T) {
	t.Parallel()
	const cast = `CREATE OR REPLACE FUNCTION public.own_cast(own_text, integer, boolean) RETURNS varchar LANGUAGE sql AS 'SELECT repeat(''x'', %d)::varchar'`
	d := newDescription(t, `CREATE TYPE public.own_text AS (v integer)`, fmt.Sprintf(cast, 0), `CREATE CAST (own_text AS varchar) WITH FUNCTION public.own_cast(own_text, integer, boolean)`,
		`ALTER TABLE stores ALTER COLUMN description TYPE own_text USING ROW(1)::own_text`)
	ignored := false
	for _, n := range []int{2000, 2001, 1 << 20, 60 << 20} {
		read := d.read(t, n, fmt.Sprintf(cast, n))
		ignored = ignored || n == 1<<20 && read > 1<<20
	}
	if !ignored {
		t.Error("the server has cut the text")
	}
}

// description is a store on PostgreSQL, where merchants can have functions and types, whose
// description they changed.
type description struct {
	db       *tenantdb.DB
	store    stoa.StoreID
	received *atomic.Int64
	exec     func(statements ...string)
}

func newDescription(t *testing.T, statements ...string) description {
	t.Helper()
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	db := tenantdbtest.Open(t, c)
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	d := description{store: setup(t, db).ID, exec: func(statements ...string) { tenantdbtest.Exec(t, c, statements...) }}
	d.exec(fmt.Sprintf(`ALTER ROLE %q SET search_path = public, pg_catalog`, c.User), `ALTER TABLE stores DROP CONSTRAINT IF EXISTS stores_description_check`)
	d.exec(statements...)
	d.db, d.received = countReceived(t, c)
	return d
}

// read runs a statement that gives the description n characters, reads the profile and returns
// how many bytes the server sent for it.
func (d description) read(t *testing.T, n int, statement string) int64 {
	t.Helper()
	d.exec(statement)
	from := d.received.Load()
	got, err := storedata.ReadProfile(t.Context(), d.db, d.store)
	if want := n <= 2000; (err == nil) != want || err != nil && stoa.CodeOf(err) != stoa.DatabaseContentInvalid {
		t.Errorf("a description of %d characters: %d are served, %v", n, len(got.Description), err)
	}
	return d.received.Load() - from
}
