package app_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// badValue is a value that a merchant can write into the store's own database
// and that the platform cannot serve.
type badValue struct {
	name, table, column string
	value               string                             // an SQL expression
	on                  map[credential.EngineName]badWrite // nil: every engine stores value unchanged
}

// badWrite states how to make an engine store the value.
type badWrite struct {
	value string // an SQL expression; empty: badValue.value
	typ   string // the column's new type; empty: unchanged
	null  bool   // the column may be NULL
}

const (
	lite = credential.SQLite
	pg   = credential.PostgreSQL
	my   = credential.MySQL
)

// longText returns a value that needs a column of unlimited text on the servers.
func longText(name, table, column, value string) badValue {
	return badValue{name, table, column, value, map[credential.EngineName]badWrite{lite: {}, pg: {typ: "text"}, my: {typ: "LONGTEXT NOT NULL"}}}
}

func badValues() []badValue {
	quote := func(s string) string { return "'" + s + "'" }
	deep := quote(strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100))
	large := quote(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`)
	year20000 := map[credential.EngineName]badWrite{lite: {}, pg: {}, my: {typ: "VARCHAR(40)"}}
	engines := func(names ...credential.EngineName) map[credential.EngineName]badWrite {
		m := map[credential.EngineName]badWrite{}
		for _, n := range names {
			m[n] = badWrite{}
		}
		return m
	}
	return []badValue{
		{"year 20000", "stores", "created_at", `'20000-01-01 00:00:00'`, year20000},
		{"year 20000 of updated_at", "stores", "updated_at", `'20000-01-01 00:00:00'`, year20000},
		{"year 10000", "stores", "created_at", `'10000-01-01 00:00:00'`, year20000},
		{"before Christ", "stores", "created_at", `'4000-01-01 00:00:00 BC'`, engines(pg)},
		{"infinity", "stores", "created_at", `'infinity'`, engines(lite, pg)},
		{"minus infinity", "stores", "created_at", `'-infinity'`, engines(pg)},
		{"zero date", "stores", "created_at", `'0000-00-00 00:00:00'`, engines(my)},
		{"no date", "stores", "created_at", `'garbage'`, map[credential.EngineName]badWrite{lite: {}, pg: {typ: "text"}, my: {typ: "VARCHAR(40)"}}},
		{"number as date", "stores", "created_at", `1e300`, map[credential.EngineName]badWrite{lite: {}, pg: {typ: "double precision USING 0"}, my: {typ: "DOUBLE"}}},
		{"NULL date", "stores", "created_at", `NULL`, map[credential.EngineName]badWrite{pg: {null: true}, my: {typ: "DATETIME(6) NULL"}}},
		longText("over-long name", "stores", "name", quote(strings.Repeat("é", 121))),
		longText("huge description", "stores", "description", quote(strings.Repeat("x", 3<<20))),
		{"invalid UTF-8", "stores", "city", `CAST(x'61ff62' AS text)`, map[credential.EngineName]badWrite{
			lite: {}, pg: {value: `'\x61ff62'`, typ: "bytea USING ''"}, my: {value: `x'61ff62'`, typ: "VARBINARY(100)"}}},
		{"U+0000", "stores", "city", `char(0)`, engines(my)}, // SQLite's substr ends at it
		{"NULL text", "stores", "city", `NULL`, map[credential.EngineName]badWrite{pg: {null: true}, my: {typ: "VARCHAR(120) NULL"}}},
		{"JSON list", "stores", "theme", `'[1]'`, nil},
		{"JSON text", "stores", "settings", `'"a"'`, nil},
		{"no JSON", "stores", "theme", `'nonsense'`, map[credential.EngineName]badWrite{lite: {}, pg: {typ: "text"}, my: {}}},
		{"JSON cut off", "stores", "theme", `'{"a":"b'`, map[credential.EngineName]badWrite{lite: {}, pg: {typ: "text"}, my: {}}},
		{"deep JSON", "stores", "theme", deep, nil},
		{"huge JSON", "stores", "settings", large, nil},
		{"huge number in JSON", "stores", "settings", `'{"a":[1,{"b":1e400}]}'`, nil},
		{"U+0000 in JSON", "stores", "settings", `'{"a":"\u0000"}'`, map[credential.EngineName]badWrite{
			lite: {}, pg: {typ: "text"}, my: {value: `'{"a":"\\u0000"}'`}}},
		{"invalid UTF-8 in JSON", "stores", "theme", `CAST(x'7b2261223a22ff227d' AS text)`, map[credential.EngineName]badWrite{
			lite: {}, pg: {value: `'\x7b2261223a22ff227d'`, typ: "bytea USING ''"}, my: {value: `x'7b2261223a22ff227d'`, typ: "BLOB"}}},
		{"product in year 20000", "products", "created_at", `'20000-01-01 00:00:00'`, year20000},
		longText("huge product description", "products", "description", quote(strings.Repeat("x", 3<<20))),
		longText("over-long currency", "products", "currency", quote("EURO")),
		{"huge price", "product_variants", "price_minor", `1e30`, map[credential.EngineName]badWrite{
			lite: {}, pg: {typ: "numeric"}, my: {typ: "DECIMAL(40,0)"}}},
		{"price is no number", "product_variants", "price_minor", `'abc'`, map[credential.EngineName]badWrite{
			lite: {}, pg: {typ: "text"}, my: {typ: "VARCHAR(40)"}}},
		{"price is NaN", "product_variants", "price_minor", `'NaN'`, map[credential.EngineName]badWrite{pg: {typ: "double precision"}}},
		{"price is infinite", "product_variants", "price_minor", `9e999`, engines(lite)},
		longText("huge image address", "product_images", "url", quote("https://example.com/"+strings.Repeat("x", 1<<20))),
		{"U+0000 in a category", "categories", "slug", `char(0)`, engines(my)},
	}
}

// badStore is a connected store with a product, whose database the test can
// write to.
type badStore struct {
	client
	s        *server
	store    stoa.StoreID
	id, host string
	engine   credential.EngineName
	db       *tenantdb.DB
}

func newBadStore(t *testing.T, s *server, engine credential.EngineName, email string) badStore {
	t.Helper()
	c, id := register(t, s, email)
	body := object{"type": "managed"}
	if engine != credential.SQLite {
		body = object{"type": string(engine), "connectionString": tenantdbtest.ConnectionString(t, engine)}
	}
	a := c.call("POST", "/api/stores/"+id+"/connect-database", body).want(http.StatusOK)
	store, err := stoa.ParseID[stoa.StoreID](id)
	testkit.Must(t, err)
	credentials, err := s.Tenants.Read(t.Context(), s.Master, store)
	testkit.Must(t, err)
	db, err := s.Tenants.OpenUnleased(credentials.Credentials)
	testkit.Must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	b := badStore{client: c, s: s, store: store, id: id, host: a.list("hostnames")[0].(object)["hostname"].(string), engine: engine, db: db}
	_, err = storedata.AddProduct(t.Context(), db, storedata.NewProduct{Name: "Bread", Slug: "bread", Currency: "EUR", PriceMinor: 250,
		Category: "general", ImageURL: "https://example.com/bread.png"})
	testkit.Must(t, err)
	return b
}

// copyGood copies the tables, for restore.
func (b badStore) copyGood() {
	b.t.Helper()
	for _, table := range []string{"stores", "products", "product_variants", "product_images", "categories"} {
		b.exec("CREATE TABLE good_" + table + " AS SELECT * FROM " + table)
	}
}

// restore restores the table's content, without its constraints.
func (b badStore) restore(table, column string) {
	b.t.Helper()
	if b.engine == credential.SQLite { // on SQLite a copy has other column types, and write changes no column's type
		b.exec("UPDATE " + table + " SET " + column + " = (SELECT g." + column + " FROM good_" + table + " g WHERE g.id = " + table + ".id)")
		return
	}
	before := ""
	if b.engine == credential.MySQL {
		before = mysqlChecksNothing
	}
	b.exec(before, "DROP TABLE "+table+" CASCADE", "CREATE TABLE "+table+" AS SELECT * FROM good_"+table)
}

// exec runs statements on one connection, and makes the next request reopen the
// database, since its prepared statements may not match any more.
func (b badStore) exec(statements ...string) {
	b.t.Helper()
	testkit.Must(b.t, b.db.Tx(b.t.Context(), func(tx *tenantdb.Tx) error {
		for _, statement := range statements {
			if statement == "" {
				continue
			}
			if _, err := tx.Exec(b.t.Context(), statement); err != nil {
				return err
			}
		}
		return nil
	}))
	b.s.Tenants.Forget(b.store)
}

// mysqlChecksNothing disables checks on a connection that only this test uses.
const mysqlChecksNothing = "SET SESSION check_constraint_checks = 0, foreign_key_checks = 0, sql_mode = ''"

// write stores the value despite the schema. It uses one connection, whose settings it
// restores.
func (b badStore) write(v badValue, how badWrite) {
	b.t.Helper()
	value := v.value
	if how.value != "" {
		value = how.value
	}
	before, alter, after := "PRAGMA ignore_check_constraints = 1", "", "PRAGMA ignore_check_constraints = 0"
	switch b.engine {
	case credential.PostgreSQL:
		before, after = `DO $$ DECLARE c record; BEGIN
			FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace LOOP
				EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname);
			END LOOP; END $$`, ""
		if how.null {
			alter = "ALTER TABLE " + v.table + " ALTER COLUMN " + v.column + " DROP NOT NULL"
		} else if how.typ != "" {
			typ, using, _ := strings.Cut(how.typ, " USING ")
			if using == "" {
				using = v.column + "::text::" + typ
			} else {
				using += "::" + typ
			}
			alter = "ALTER TABLE " + v.table + " ALTER COLUMN " + v.column + " TYPE " + typ + " USING " + using
		}
	case credential.MySQL:
		before, after = mysqlChecksNothing, ""
		if how.typ != "" {
			alter = "ALTER TABLE " + v.table + " MODIFY " + v.column + " " + how.typ
		}
	default: // SQLite, whose columns accept values of every type
	}
	b.exec(before, alter, "UPDATE "+v.table+" SET "+v.column+" = "+value, after)
}

func (b badStore) front(path string) answer { return b.call("GET", path, nil, "Host", b.host) }

// TestUnusableValues checks that the content of a merchant's database makes at most
// that merchant's pages unavailable: 503 for shoppers and no profile for the owner, but
// no 500, panic or partial answer.
func TestUnusableValues(t *testing.T) {
	t.Parallel()
	for e, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, masterdb.SQLite)
			unlimited(cfg)
			s := startServer(t, cfg)
			b := newBadStore(t, s, engine, "owner@example.com")
			b.copyGood()
			for i, v := range badValues() {
				how, ok := v.on[engine]
				if v.on != nil && !ok || testing.Short() && len(v.on) != 1 && i%3 != e { // the short form tests a third of the values on each engine
					continue
				}
				t.Run(v.name, func(t *testing.T) {
					b := b
					b.t = t
					b.write(v, how)
					b.checkAnswers(v)
					b.restore(v.table, v.column)
					b.front("/").want(http.StatusOK)
					b.call("GET", "/api/stores/"+b.id, nil).want(http.StatusOK).is("ok", "database", "status")
				})
			}
		})
	}
}

// checkAnswers calls everything that reads the store's database.
func (b badStore) checkAnswers(v badValue) {
	b.t.Helper()
	profileIsBad := v.table == "stores"
	unavailable := func(a answer) {
		b.t.Helper()
		if a.problem(http.StatusServiceUnavailable, "tenant_unavailable").header.Get("Retry-After") == "" {
			b.t.Error("no Retry-After")
		}
	}
	const frontPath, productsPath = "/api/storefront/store", "/api/storefront/products"
	path := "/api/stores/" + b.id
	for range 4 { // a circuit breaker would open after three failures; it must not
		if profileIsBad {
			unavailable(b.front(frontPath))
			b.front(productsPath).want(http.StatusOK)
		} else {
			b.front(frontPath).want(http.StatusOK)
			unavailable(b.front(productsPath))
		}
	}
	page := b.front("/").want(http.StatusServiceUnavailable)
	if !strings.Contains(page.raw, "</html>") || page.header.Get("Retry-After") == "" {
		b.t.Errorf("the page is %s", page.raw)
	}
	b.call("GET", "/api/stores", nil).want(http.StatusOK)
	patch := object{"postalCode": "12345"}
	if !profileIsBad {
		if b.call("GET", path, nil).want(http.StatusOK).is("ok", "database", "status").at("profile") == nil {
			b.t.Error("no profile")
		}
		b.call("PATCH", path, patch).want(http.StatusOK)
		return
	}
	b.call("GET", path, nil).want(http.StatusOK).is(nil, "profile").is("failed", "database", "status").
		is("database_content_invalid", "database", "lastError", "code")
	unavailable(b.call("PATCH", path, object{"name": "Other"}))
	if v.column == "updated_at" && b.engine != credential.MySQL { // a change replaces it; on MySQL the column has another type
		b.call("PATCH", path, patch).want(http.StatusOK)
	} else {
		unavailable(b.call("PATCH", path, patch))
	}
	b.call("GET", path, nil).want(http.StatusOK).is("Store of owner example com", "name") // the master database has not changed
	b.call("POST", path+"/database/test", nil).want(http.StatusOK).is(true, "ok")
}
