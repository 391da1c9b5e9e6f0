package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// samplesDDL creates the table of everyType.
var samplesDDL = map[credential.EngineName]string{
	credential.SQLite: `CREATE TABLE samples (id text NOT NULL PRIMARY KEY, parent_id text REFERENCES samples (id), words text, number integer, yes boolean,
		at timestamp, amount text, data text, raw blob, twice integer GENERATED ALWAYS AS (length(words)) STORED)`,
	credential.PostgreSQL: `CREATE TABLE samples (id uuid PRIMARY KEY, parent_id uuid REFERENCES samples (id), words text, number bigint, yes boolean,
		at timestamptz, amount numeric(20, 4), data jsonb, raw bytea, twice integer GENERATED ALWAYS AS (length(words)) STORED)`,
	credential.MySQL: `CREATE TABLE samples (id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, parent_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin,
		words LONGTEXT, number BIGINT, yes BOOLEAN, at DATETIME(6), amount DECIMAL(20, 4), data JSON, raw LONGBLOB, twice INTEGER GENERATED ALWAYS AS (char_length(words)) STORED,
		FOREIGN KEY (parent_id) REFERENCES samples (id)) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci`,
}

// migrated returns a new database with Stoa's schema.
func migrated(t *testing.T, engine credential.EngineName) *tenantdb.DB {
	t.Helper()
	db := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	return db
}

func exec(t *testing.T, db *tenantdb.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%.80s: %v", query, err)
	}
}

// text generates texts that every engine can store.
var text = rapid.OneOf(
	rapid.SampledFrom([]string{"", " ", "  trailing  ", "NULL", "é", "e\u0301", "😀𝔘", "İıßẞ", "\u0001\u007f\u2028\ufeff", "'; DROP TABLE samples --", `\`, "%_?$1", "a\r\nb\tc", strings.Repeat("ä", 5000)}),
	rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != 0 })),
)

// jsonText generates JSON that every engine can store exactly.
var jsonText = rapid.OneOf(
	rapid.SampledFrom([]string{`null`, `""`, `{}`, `[]`, `0`, `-0.0`, `1.50`, `1e2`, `9223372036854775807`, `-9223372036854775808`, `18446744073709551615`, `1.7976931348623157e308`, `2.5e-10`,
		`{ "b" : [1, 2.0, "x"], "a" : {"z": null, "é": "😀", "": ""} }`, `"\u00e9\/\n<&>"`, `{"long key with spaces":true,"k":false}`}),
	rapid.Map(rapid.Float64(), func(f float64) string {
		return fmt.Sprintf(`{"n":%s}`, strings.ReplaceAll(fmt.Sprintf("%g", f), "+", ""))
	}),
	rapid.Map(rapid.Int64(), func(n int64) string { return fmt.Sprintf(`[%d,"%[1]d"]`, n) }),
)

// optional generates NULL in one of five cases.
func optional[T any](g *rapid.Generator[T]) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
			return nil
		}
		return any(g.Draw(t, "value"))
	})
}

var sampleValues = rapid.Custom(func(t *rapid.T) []any {
	decimals := rapid.Custom(func(t *rapid.T) string {
		n := rapid.Int64Range(-999_999_999_999_999, 999_999_999_999_999).Draw(t, "whole")
		return fmt.Sprintf("%d.%04d", n, rapid.IntRange(0, 9999).Draw(t, "fraction"))
	})
	times := rapid.Map(rapid.Int64Range(time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), maxTime.UnixMicro()-1), func(n int64) time.Time { return time.UnixMicro(n).UTC() })
	return []any{
		optional(text).Draw(t, "words"),
		optional(rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, math.MinInt64, math.MaxInt64}))).Draw(t, "number"),
		optional(rapid.Bool()).Draw(t, "yes"), optional(times).Draw(t, "at"), optional(decimals).Draw(t, "amount"),
		optional(jsonText).Draw(t, "data"), optional(rapid.SliceOf(rapid.Byte())).Draw(t, "raw"),
	}
})

// generated returns an archive of generated rows in the table samples.
func generated(t *testing.T, id *age.X25519Identity, seed, rows int) ([]byte, Summary) {
	t.Helper()
	head := sampleHead()
	head.Tables = []Table{everyType}
	var b bytes.Buffer
	w, err := NewWriter(&b, head, id.Recipient())
	testkit.Must(t, err)
	ids := make([]string, rows)
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	var links [][]any
	for i := range ids {
		var parent any
		if i%3 == 0 {
			parent = ids[(i*7)%rows]
			links = append(links, []any{ids[i], parent})
		}
		testkit.Must(t, w.Row(append([]any{ids[i], parent}, sampleValues.Example(seed+i)...)))
	}
	for _, l := range links {
		testkit.Must(t, w.Link(l))
	}
	_, err = w.EndTable()
	testkit.Must(t, err)
	sum, err := w.Close()
	testkit.Must(t, err)
	return b.Bytes(), sum
}

// load loads an archive of samples into a new database.
func load(t *testing.T, engine credential.EngineName, file []byte, id *age.X25519Identity) *tenantdb.DB {
	t.Helper()
	db := migrated(t, engine)
	exec(t, db, samplesDDL[db.Engine])
	r, err := NewReader(bytes.NewReader(file), ReadOptions{}, id)
	testkit.Must(t, err)
	defer r.Close()
	if err := Load(t.Context(), db, r, LoadOptions{tables: []Table{everyType}}); err != nil {
		t.Fatalf("load into %s: %v", engine, err)
	}
	return db
}

// sum returns the summary of a table.
func sum(t *testing.T, db *tenantdb.DB, table Table) (sum Summary) {
	t.Helper()
	testkit.Must(t, db.Snapshot(t.Context(), func(s *tenantdb.Snapshot) (err error) {
		sum, err = source{s, db.Engine}.sum(t.Context(), table, Summary{Rows: math.MaxInt64, Bytes: math.MaxInt64})
		return err
	}))
	return sum
}

// TestRoundTripBetweenEngines loads generated rows of every type into each engine, archives
// them there and loads that archive into each engine. The checksums are always the same.
func TestRoundTripBetweenEngines(t *testing.T) {
	t.Parallel()
	for i, from := range tenantdbtest.All() {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			id := newIdentity(t)
			file, want := generated(t, id, 1000*i, 300)
			source := load(t, from, file, id)
			var b bytes.Buffer
			_, got, err := Write(t.Context(), source, stoa.NewID[stoa.StoreID](), &b, WriteOptions{tables: []Table{everyType}}, id.Recipient())
			testkit.Must(t, err)
			if got != want {
				t.Fatalf("%s has %+v, want %+v", from, got, want)
			}
			for _, to := range tenantdbtest.Engines() {
				target := load(t, to, b.Bytes(), id)
				want.Table = everyType.Name
				if diff := cmp.Diff(want, sum(t, target, everyType)); diff != "" {
					t.Errorf("%s to %s (-want +got):\n%s", from, to, diff)
				}
				want.Table = ""
			}
		})
	}
}

// TestRoundTripOnNewerServers runs the pairs again with PostgreSQL 18 and MySQL 9.
func TestRoundTripOnNewerServers(t *testing.T) {
	t.Parallel()
	tenantdbtest.OnNewerServers(t, "TestRoundTripBetweenEngines", "TestStoreMovesBetweenEngines")
}

// fillStore gives a migrated database the content of a store.
func fillStore(t *testing.T, db *tenantdb.DB) {
	t.Helper()
	testkit.Must(t, storedata.Seed(t.Context(), db))
	now := time.Date(2026, 2, 3, 4, 5, 6, 789_012_000, time.UTC)
	id := func(n int) string { return fmt.Sprintf("018f2b6c-7d1e-7c3a-9f00-%012x", n) }
	exec(t, db, `INSERT INTO stores (id, name, slug, description, contact_email, contact_phone, website, address_line1, address_line2, city, region, postal_code, country,
		currency, timezone, locale, theme, settings, logo_url, created_at, updated_at)
		VALUES (?, 'Shöp', 'shop', '', '', '', '', '', '', '', '', '', 'FR', 'EUR', 'UTC', 'fr', '{"b":1.50,"a":[]}', '{}', '', ?, ?)`, id(1), now, now)
	for i := range 50 {
		var parent any
		if i > 0 {
			parent = id(1000 + (i*13+7)%i) // often created later than its child
		}
		// The first ids are larger, so that rows come before their parents.
		exec(t, db, `INSERT INTO categories (id, parent_id, name, slug, description, created_at, updated_at) VALUES (?, ?, 'A', ?, '', ?, ?)`, id(1000+i), parent, fmt.Sprint("c", i), now, now)
		exec(t, db, `INSERT INTO users (id, email, first_name, last_name, role, created_at, updated_at) VALUES (?, ?, '', 'L', 'customer', ?, ?)`, id(i), fmt.Sprintf("User%d@Example.com", i), now, now)
		exec(t, db, `INSERT INTO customers (id, user_id, email, first_name, last_name, created_at, updated_at) VALUES (?, ?, ?, '😀', '', ?, ?)`, id(i), id(i), fmt.Sprintf("c%d@example.com", i), now, now)
		exec(t, db, `INSERT INTO products (id, category_id, name, slug, description, currency, status, created_at, updated_at) VALUES (?, ?, 'P', ?, '  ', 'EUR', 'draft', ?, ?)`,
			id(i), id(1000+i), fmt.Sprint("p", i), now, now)
		exec(t, db, `INSERT INTO product_variants (id, product_id, name, price_minor, stock, created_at, updated_at) VALUES (?, ?, '', ?, NULL, ?, ?)`, id(i), id(i), 1<<40+i, now, now)
		exec(t, db, `INSERT INTO orders (id, order_number, customer_id, email, status, payment_status, shipping_status, currency, subtotal_minor, total_minor, billing_address, shipping_address,
			placed_at, created_at, updated_at) VALUES (?, ?, ?, '', 'pending', 'unpaid', 'unshipped', 'EUR', 1, 1, '{"line":"x"}', '{}', ?, ?, ?)`, id(i), fmt.Sprint(i), id(i), now, now, now)
		exec(t, db, `INSERT INTO order_items (id, order_id, variant_id, product_name, variant_name, quantity, unit_price_minor, total_minor) VALUES (?, ?, ?, 'P', '', 1, 1, 1)`, id(i), id(i), id(i))
	}
	exec(t, db, `UPDATE categories SET parent_id = ? WHERE id = ?`, id(1049), id(1000))
	exec(t, db, `INSERT INTO credit_spending_log (id, store_id, seq, entry_type, amount, balance_after, created_at) VALUES (?, ?, 1, 'spend', -5, ?, ?)`, id(1), id(1), int64(math.MaxInt64), now)
}

// archived returns an archive of db.
func archived(t *testing.T, db *tenantdb.DB, id *age.X25519Identity, opts WriteOptions) ([]byte, Head, Summary) {
	t.Helper()
	var b bytes.Buffer
	head, sum, err := Write(t.Context(), db, stoa.NewID[stoa.StoreID](), &b, opts, id.Recipient())
	testkit.Must(t, err)
	return b.Bytes(), head, sum
}

func reader(t *testing.T, file []byte, id age.Identity) *Reader {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file), ReadOptions{}, id)
	testkit.Must(t, err)
	t.Cleanup(r.Close)
	return r
}

// TestStoreMovesBetweenEngines archives a store with rows in its tables on each engine and
// loads the archive into each.
func TestStoreMovesBetweenEngines(t *testing.T) {
	t.Parallel()
	for _, from := range tenantdbtest.All() {
		t.Run(string(from), func(t *testing.T) {
			t.Parallel()
			id := newIdentity(t)
			source := migrated(t, from)
			fillStore(t, source)
			file, head, want := archived(t, source, id, WriteOptions{})
			if want.Rows < 350 || len(head.NotIncluded) > 0 || head.SchemaVersion != tenantdb.LatestVersion() || head.EngineVersion == "" {
				t.Fatalf("%+v, %+v", head, want)
			}
			for _, to := range tenantdbtest.Engines() {
				target := tenantdbtest.Open(t, tenantdbtest.Create(t, to))
				if err := Load(t.Context(), target, reader(t, file, id), LoadOptions{}); err != nil {
					t.Errorf("%s to %s: %v", from, to, err)
					continue
				}
				var n int
				testkit.Must(t, target.Get(t.Context(), &n, `SELECT count(*) FROM users WHERE email_key = 'user7@example.com'`))
				if n != 1 {
					t.Errorf("the generated column of the user is missing")
				}
				_, _, got := archived(t, target, id, WriteOptions{})
				if got != want {
					t.Errorf("%s to %s: %+v, want %+v", from, to, got, want)
				}
			}
		})
	}
}

// TestCompareNamesTheTable checks that a change of one value is found.
func TestCompareNamesTheTable(t *testing.T) {
	t.Parallel()
	db := migrated(t, credential.SQLite)
	fillStore(t, db)
	var sums []Summary
	_, head, _ := archived(t, db, newIdentity(t), WriteOptions{OnTable: func(s Summary) { sums = append(sums, s) }})
	testkit.Must(t, Compare(t.Context(), db, head.Tables, sums))
	exec(t, db, `UPDATE orders SET note = ' ' WHERE order_number = '7'`)
	wantMessage(t, Compare(t.Context(), db, head.Tables, sums), stoa.ArchiveRefused, "orders")
	exec(t, db, `DELETE FROM orders WHERE order_number = '7'`)
	wantMessage(t, Compare(t.Context(), db, head.Tables, sums), stoa.ArchiveRefused, "49")
}

// wantMessage checks an error's code and what its message contains.
func wantMessage(t *testing.T, err error, code stoa.Code, words ...string) {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("the error is %v, want %s", err, code)
		return
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			t.Errorf("the message %q does not contain %q", e.Message, word)
		}
	}
}

// TestClashesAreNamed loads rows that SQLite stores and another engine does not.
func TestClashesAreNamed(t *testing.T) {
	t.Parallel()
	const first, second = "018f2b6c-7d1e-7c3a-9f00-000000000001", "018f2b6c-7d1e-7c3a-9f00-000000000002"
	insertUser := `INSERT INTO users (id, email, first_name, last_name, role, created_at, updated_at) VALUES (?, ?, '', '', 'customer', ?, ?)`
	insertPage := `INSERT INTO pages (id, slug, title, body, published, created_at, updated_at) VALUES (?, 'a', 't', ?, true, ?, ?)`
	now := time.Now().UTC().Truncate(time.Microsecond)
	id := newIdentity(t)
	clashing, nul := migrated(t, credential.SQLite), migrated(t, credential.SQLite)
	exec(t, clashing, insertUser, first, "Ä@example.com", now, now)
	exec(t, clashing, insertUser, second, "ä@example.com", now, now)
	exec(t, nul, insertPage, first, "a\x00b", now, now)
	clashingFile, _, _ := archived(t, clashing, id, WriteOptions{})
	nulFile, _, _ := archived(t, nul, id, WriteOptions{})
	for _, engine := range tenantdbtest.Engines() {
		target := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
		err := Load(t.Context(), target, reader(t, clashingFile, id), LoadOptions{})
		if engine == credential.SQLite {
			testkit.Must(t, err)
		} else {
			wantMessage(t, err, stoa.ArchiveRefused, "users", "id = "+second, "clashes")
		}
		target = tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
		err = Load(t.Context(), target, reader(t, nulFile, id), LoadOptions{})
		if engine == credential.PostgreSQL {
			wantMessage(t, err, stoa.ArchiveRefused, "pages", "id = "+first)
		} else if err != nil {
			t.Errorf("%s: %v", engine, err)
		}
	}
}

// TestSnapshotIsConsistent changes the database while it is archived.
func TestSnapshotIsConsistent(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		fillStore(t, db)
		id := newIdentity(t)
		_, _, before := archived(t, db, id, WriteOptions{})
		changed := 0
		_, _, during := archived(t, db, id, WriteOptions{OnTable: func(Summary) {
			if changed++; changed == 1 {
				exec(t, db, `UPDATE order_items SET quantity = 2`)
				exec(t, db, `DELETE FROM pages`)
				exec(t, db, `UPDATE stores SET name = 'Other'`)
			}
		}})
		_, _, after := archived(t, db, id, WriteOptions{})
		if during != before || after == before || changed == 0 {
			t.Errorf("before %+v, during %+v, after %+v", before, during, after)
		}
	})
}

// TestOtherTablesAreListed checks what a manifest says about tables and columns that Stoa
// did not create.
func TestOtherTablesAreListed(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		exec(t, db, `CREATE TABLE their_orders (n integer)`)
		exec(t, db, `ALTER TABLE pages ADD COLUMN their_column integer`)
		_, head, _ := archived(t, db, newIdentity(t), WriteOptions{})
		if diff := cmp.Diff([]string{"pages.their_column", "their_orders"}, head.NotIncluded); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestAlteredSchema archives databases that are not as Stoa's migrations made them.
func TestAlteredSchema(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		statement string
		code      stoa.Code
		words     string
	}{
		"table gone":   {`DROP TABLE order_items`, stoa.ArchiveRefused, "order_items"},
		"column gone":  {`ALTER TABLE pages DROP COLUMN body`, stoa.ArchiveRefused, "body"},
		"newer schema": {fmt.Sprintf(`INSERT INTO %s (version_id, is_applied) VALUES (%d, true)`, tenantdb.VersionTable, tenantdb.LatestVersion()+1), stoa.ArchiveTooNew, "Upgrade"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
				exec(t, db, c.statement)
				_, _, err := Write(t.Context(), db, stoa.NewID[stoa.StoreID](), &bytes.Buffer{}, WriteOptions{}, newIdentity(t).Recipient())
				wantMessage(t, err, c.code, c.words)
			})
		})
	}
}

// TestUnusableRowsAreNamed archives rows with values that no archive can contain.
func TestUnusableRowsAreNamed(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	id := "018f2b6c-7d1e-7c3a-9f00-00000000000a"
	insert := `INSERT INTO pages (id, slug, title, body, published, created_at, updated_at) VALUES (?, 'a', 't', ?, true, ?, ?)`
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		if db.Engine == credential.MySQL {
			return // its packets are shorter than the limit
		}
		exec(t, db, insert, id, strings.Repeat("a", maxRow+1), now, now)
		_, _, err := Write(t.Context(), db, stoa.NewID[stoa.StoreID](), &bytes.Buffer{}, WriteOptions{}, newIdentity(t).Recipient())
		wantMessage(t, err, stoa.ArchiveRefused, "pages", id, "body")
	})
	db := migrated(t, credential.SQLite)
	exec(t, db, insert, strings.ToUpper(id), "", now, now)
	_, _, err := Write(t.Context(), db, stoa.NewID[stoa.StoreID](), &bytes.Buffer{}, WriteOptions{}, newIdentity(t).Recipient())
	wantMessage(t, err, stoa.ArchiveRefused, "pages", strings.ToUpper(id), "id")
}

// TestLoadResumes interrupts a load after each table and goes on.
func TestLoadResumes(t *testing.T) {
	t.Parallel()
	source := migrated(t, credential.SQLite)
	fillStore(t, source)
	id := newIdentity(t)
	file, _, want := archived(t, source, id, WriteOptions{})
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			target := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
			done := map[string]bool{}
			stop := errors.New("stop")
			for runs := 1; ; runs++ {
				opts := LoadOptions{OnTable: func(s Summary) error {
					if len(done) == runs {
						return stop // the table is loaded, and not recorded
					}
					done[s.Table] = true
					return nil
				}}
				if runs > 1 {
					opts.Done = func(table string) bool { return done[table] }
				}
				err := Load(t.Context(), target, reader(t, file, id), opts)
				if err == nil {
					break
				}
				if !errors.Is(err, stop) || runs > 30 {
					t.Fatal(err)
				}
				wantMessage(t, Load(t.Context(), target, reader(t, file, id), LoadOptions{}), stoa.DatabaseNotEmpty)
			}
			if _, _, got := archived(t, target, id, WriteOptions{}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// TestLoadRefusesOtherSchemas loads archives whose tables are not those of their version.
func TestLoadRefusesOtherSchemas(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	tables, err := tenantdb.Tables(t.Context(), tenantdb.LatestVersion())
	testkit.Must(t, err)
	for name, change := range map[string]func(h *Head){
		"newer schema":   func(h *Head) { h.SchemaVersion++ },
		"missing table":  func(h *Head) { h.Tables = h.Tables[:len(h.Tables)-1] },
		"another table":  func(h *Head) { h.Tables = append(h.Tables, everyType) },
		"another column": func(h *Head) { h.Tables[0].Columns = h.Tables[0].Columns[1:]; h.Tables[0].Key = []string{"slug"} },
		"another type":   func(h *Head) { h.Tables[0].Columns[1].Type = tenantdb.TypeText },
		"another order":  func(h *Head) { h.Tables[0], h.Tables[1] = h.Tables[1], h.Tables[0] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			head := sampleHead()
			head.Tables = nil
			for _, table := range tables {
				head.Tables = append(head.Tables, fromTable(table))
			}
			change(&head)
			var b bytes.Buffer
			w, err := NewWriter(&b, head, id.Recipient())
			testkit.Must(t, err)
			for range head.Tables {
				_, err := w.EndTable()
				testkit.Must(t, err)
			}
			_, err = w.Close()
			testkit.Must(t, err)
			err = Load(t.Context(), tenantdbtest.Open(t, tenantdbtest.Create(t, credential.SQLite)), reader(t, b.Bytes(), id), LoadOptions{})
			if code := stoa.CodeOf(err); code != stoa.ArchiveDamaged && code != stoa.ArchiveTooNew {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestWriteStopsWithItsContext(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		fillStore(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := Write(ctx, db, stoa.NewID[stoa.StoreID](), &bytes.Buffer{}, WriteOptions{OnTable: func(Summary) { cancel() }}, newIdentity(t).Recipient())
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
		testkit.Must(t, db.Ping(t.Context()))
	})
}
