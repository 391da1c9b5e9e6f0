package app_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fieldsOf lists the fields with errors in a problem document.
func fieldsOf(a answer) string {
	var fields []string
	if a.body["errors"] != nil {
		for _, e := range a.list("errors") {
			fields = append(fields, e.(object)["field"].(string))
		}
	}
	return strings.Join(fields, ",")
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "first@example.com")
	person := func(change object) object {
		body := object{"email": "new@example.com", "password": testPassword, "firstName": "A", "lastName": "B"}
		for k, v := range change {
			body[k] = v
		}
		return body
	}
	const supabaseURL = "postgres://postgres:" + testPassword + "@db.abcdefghijklmnopqrst.supabase.co:5432/postgres"
	const auth, storesPath = "/api/auth/register", "/api/stores"
	for _, test := range []struct {
		name, method, path string
		body               any
		status             int
		code, fields       string
	}{
		{"malformed JSON", "POST", auth, `{"email":`, 400, "invalid_request", "body"},
		{"no body", "POST", auth, nil, 400, "invalid_request", ""},
		{"not an object", "POST", auth, `[]`, 422, "invalid_request", "body"},
		{"unknown field", "POST", auth, person(object{"isAdmin": true}), 422, "invalid_request", "isAdmin"},
		{"wrong type", "POST", auth, person(object{"firstName": 7}), 422, "invalid_request", "firstName"},
		{"password of wrong type", "POST", auth, person(object{"password": 7}), 422, "invalid_request", "password"},
		{"missing field", "POST", auth, object{"email": "new@example.com"}, 422, "invalid_request", "firstName,lastName,password"},
		{"bad email", "POST", auth, person(object{"email": "nobody"}), 422, "invalid_request", "email"},
		{"over-long email", "POST", auth, person(object{"email": strings.Repeat("a", 300) + "@example.com"}), 422, "invalid_request", "email"},
		{"over-long name", "POST", auth, person(object{"lastName": strings.Repeat("x", 101)}), 422, "invalid_request", "lastName"},
		{"short password", "POST", auth, person(object{"password": "short"}), 422, "invalid_request", "password"},
		{"common password", "POST", auth, person(object{"password": "password123"}), 422, "invalid_request", "password"},
		{"several faults at once", "POST", auth, person(object{"password": "short", "firstName": " ", "storeName": " "}), 422, "invalid_request", "password,firstName,storeName"},
		{"blank store name", "POST", auth, person(object{"storeName": "  "}), 422, "invalid_request", "storeName"},
		{"taken email", "POST", auth, person(object{"email": "first@example.com"}), 409, "email_taken", ""},
		{"taken email in another case", "POST", auth, person(object{"email": "First@Example.COM"}), 409, "email_taken", ""},
		{"body over the limit", "POST", auth, `{"email":"` + strings.Repeat("a", 1<<20) + `"}`, 413, "payload_too_large", ""},
		{"wrong password", "POST", "/api/auth/login", object{"email": "first@example.com", "password": "WrongPassword123!"}, 401, "invalid_credentials", ""},
		{"unknown email", "POST", "/api/auth/login", object{"email": "nobody@example.com", "password": testPassword}, 401, "invalid_credentials", ""},
		{"invented refresh token", "POST", "/api/auth/refresh", object{"refreshToken": "stoa_rt_x"}, 401, "token_invalid", ""},
		{"bad slug", "POST", storesPath, object{"name": "A", "slug": "-Nope-"}, 422, "invalid_request", "slug"},
		{"reserved slug", "POST", storesPath, object{"name": "A", "slug": "admin"}, 422, "invalid_request", "slug"},
		{"taken slug", "POST", storesPath, object{"name": "A", "slug": "store-of-first-example-com"}, 409, "hostname_taken", "slug"},
		{"no such store", "GET", storesPath + "/01a20751-d31d-77e7-a81d-5c275378c359", nil, 404, "store_not_found", ""},
		{"no id at all", "GET", storesPath + "/x%27%20or%201=1", nil, 404, "store_not_found", ""},
		{"unknown database type", "POST", storesPath + "/" + id + "/connect-database", object{"type": "oracle"}, 422, "invalid_request", "type"},
		{"managed with credentials", "POST", storesPath + "/" + id + "/connect-database", object{"type": "managed", "host": "db.example.com"}, 422, "invalid_request", "type"},
		{"fields and string", "POST", storesPath + "/" + id + "/connect-database", object{"type": "mysql", "host": "h", "connectionString": "mysql://u:p@h/d"}, 422, "invalid_request", "connectionString"},
		{"connection string of another kind", "POST", storesPath + "/" + id + "/connect-database", object{"type": "mysql", "connectionString": "postgres://u:p@h/d"}, 422, "invalid_request", "connectionString"},
		{"dangerous parameter", "POST", storesPath + "/" + id + "/connect-database", object{"type": "mysql", "connectionString": "mysql://u:p@h/d?allowAllFiles=true"}, 422, "invalid_request", "connectionString"},
		{"missing fields", "POST", storesPath + "/" + id + "/connect-database", object{"type": "postgresql", "host": "h"}, 422, "invalid_request", "database,password,user"},
		{"Supabase in fields", "POST", storesPath + "/" + id + "/connect-database", object{"type": "supabase", "host": "h", "database": "d", "user": "u", "password": "p"}, 422, "invalid_request", "connectionString"},
		{"not Supabase's host", "POST", storesPath + "/" + id + "/connect-database", object{"type": "supabase", "connectionString": "postgres://u:p@127.0.0.1:5432/d"}, 422, "invalid_request", "connectionString"},
		{"Supabase by reference", "POST", storesPath + "/" + id + "/connect-database", object{"type": "supabase", "projectRef": "abcdefghijklmnopqrst"}, 503, "supabase_not_configured", ""},
		{"project elsewhere", "POST", storesPath + "/" + id + "/connect-database", object{"type": "supabase", "connectionString": supabaseURL, "projectUrl": "https://example.com", "anonKey": "a b"}, 422, "invalid_request", "anonKey,projectUrl"},
		{"keys of no project", "POST", storesPath + "/" + id + "/connect-database", object{"type": "mysql", "connectionString": "mysql://u:p@h/d", "serviceRoleKey": "k"}, 422, "invalid_request", "type"},
		{"keys of a managed database", "POST", storesPath + "/" + id + "/connect-database", object{"type": "managed", "serviceRoleKey": "k"}, 422, "invalid_request", "type"},
		{"test of a managed database", "POST", storesPath + "/" + id + "/database/test", object{"type": "managed"}, 422, "invalid_request", "type"},
		{"test without fields", "POST", storesPath + "/" + id + "/database/test", object{"type": "postgresql"}, 422, "invalid_request", "database,host,password,user"},
		{"test of no object", "POST", storesPath + "/" + id + "/database/test", `[]`, 422, "invalid_request", "body"},
		{"test of nothing", "POST", storesPath + "/" + id + "/database/test", nil, 409, "store_pending_database", ""},
		{"test with a dangerous parameter", "POST", storesPath + "/" + id + "/database/test", object{"type": "postgresql", "connectionString": "postgres://u:" + testPassword + "@h/d?service=x"}, 422, "invalid_request", "connectionString"},
		{"rotation without a body", "POST", storesPath + "/" + id + "/database/rotate-credentials", nil, 400, "invalid_request", ""},
		{"rotation to a managed database", "POST", storesPath + "/" + id + "/database/rotate-credentials", object{"type": "managed"}, 422, "invalid_request", "type"},
		{"rotation in another form", "POST", storesPath + "/" + id + "/database/rotate-credentials", object{"type": "mysql", "connectionString": "mysql:" + testPassword}, 422, "invalid_request", "connectionString"},
		{"rotation of a pending store", "POST", storesPath + "/" + id + "/database/rotate-credentials", object{"type": "mysql", "connectionString": "mysql://u:p@h/d"}, 409, "store_pending_database", ""},
		{"two amounts", "POST", "/api/credits/spend", object{"amount": "1", "serviceKey": "product_import"}, 422, "invalid_request", "amount"},
		{"negative amount", "POST", "/api/credits/spend", object{"amount": "-1"}, 422, "invalid_request", "amount"},
		{"too precise amount", "POST", "/api/credits/spend", object{"amount": "0.00001"}, 422, "invalid_request", "amount"},
		{"amount in words", "POST", "/api/credits/spend", object{"amount": "one"}, 422, "invalid_request", "amount"},
		{"unknown service", "POST", "/api/credits/spend", object{"serviceKey": "nope"}, 422, "invalid_request", "serviceKey"},
		{"nothing to buy", "POST", "/api/credits/purchase", object{"credits": 0}, 422, "invalid_request", "credits"},
		{"part of a credit", "POST", "/api/credits/purchase", object{"credits": "1.5"}, 422, "invalid_request", "credits"},
		{"recharge of nothing", "PUT", "/api/credits/auto-recharge", object{"enabled": false, "threshold": "-1", "credits": 0, "monthlyCap": 0}, 422, "invalid_request", "threshold,credits"},
		{"recharge beyond the cap", "PUT", "/api/credits/auto-recharge", object{"enabled": false, "threshold": 1, "credits": 5, "monthlyCap": "4.9"}, 422, "invalid_request", "monthlyCap"},
		{"recharge in words", "PUT", "/api/credits/auto-recharge", object{"enabled": false, "threshold": "all", "credits": 5, "monthlyCap": 5}, 422, "invalid_request", "threshold"},
		{"recharge at the sandbox", "PUT", "/api/credits/auto-recharge", object{"enabled": true, "threshold": 1, "credits": 5, "monthlyCap": 5}, 503, "payments_unavailable", ""},
		{"card at the sandbox", "POST", "/api/credits/auto-recharge/card", nil, 503, "payments_unavailable", ""},
		{"no such purchase", "GET", "/api/credits/purchases/01a20751-d31d-77e7-a81d-5c275378c359", nil, 404, "not_found", ""},
		{"no purchase's id", "GET", "/api/credits/purchases/x%27%20or%201=1", nil, 404, "not_found", ""},
		{"invented purchases cursor", "GET", "/api/credits/purchases?cursor=zzz", nil, 422, "invalid_request", "cursor"},
		{"limit out of range", "GET", "/api/credits/transactions?limit=1000", nil, 422, "invalid_request", "limit"},
		{"invented cursor", "GET", "/api/credits/transactions?cursor=zzz", nil, 422, "invalid_request", "cursor"},
		{"unsigned webhook", "POST", "/api/webhooks/stripe", object{"id": "evt_1"}, 422, "invalid_request", ""},
		{"unknown path", "GET", "/api/nothing", nil, 404, "not_found", ""},
		{"unknown method", "DELETE", "/api/auth/login", nil, 405, "method_not_allowed", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := client{t: t, url: c.url, token: c.token}
			a := c.call(test.method, test.path, test.body).problem(test.status, test.code)
			if got := fieldsOf(a); got != test.fields {
				t.Errorf("faults of %q, want %q: %s", got, test.fields, a.raw)
			}
			if strings.Contains(a.raw, testPassword) {
				t.Errorf("the answer repeats the password: %s", a.raw)
			}
		})
	}
}

// TestNothingHalfWritten checks that a refused registration writes nothing, and that
// the same call succeeds after its cause is removed.
func TestNothingHalfWritten(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c := client{t: t, url: s.URL}
		body := object{"email": "a@example.com", "password": testPassword, "firstName": "A", "lastName": "B", "storeName": strings.Repeat(" ", 3)}
		c.call("POST", "/api/auth/register", body).problem(http.StatusUnprocessableEntity, "invalid_request")
		for _, table := range []string{"users", "stores", "sessions", "store_members", "credit_balances"} {
			var n int
			if err := s.Master.Get(t.Context(), &n, "SELECT count(*) FROM "+table); err != nil {
				t.Fatal(err)
			}
			if n != 0 {
				t.Errorf("%d rows in %s after a refused registration", n, table)
			}
		}
		body["storeName"] = "Good"
		c.call("POST", "/api/auth/register", body).want(http.StatusCreated)
	})
}

// TestBadDatabases checks that each fault of a merchant's database has its own code and
// is stored with the run, and that the same call succeeds after the fault is corrected.
func TestBadDatabases(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		if engine == credential.SQLite {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, testConfig(t, masterdb.SQLite))
			c, id := register(t, s, "owner@example.com")
			connect := func(connectionString string) answer {
				return c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": string(engine), "connectionString": connectionString})
			}
			good := tenantdbtest.ConnectionString(t, engine)
			check := func(name string, a answer, code string) {
				t.Helper()
				a.problem(http.StatusUnprocessableEntity, code)
				shown := c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("pending_database", "status")
				if got := shown.text("provisioning", "error", "code"); got != code {
					t.Errorf("%s: the run says %s", name, got)
				}
			}
			check("wrong password", connect(withURL(t, good, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong") })), "database_auth_failed")
			check("no such database", connect(withURL(t, good, func(u *url.URL) { u.Path += "_no" })), noDatabase(engine))
			check("closed port", connect(withURL(t, good, func(u *url.URL) { u.Host = closedPort(t) })), "database_unreachable")
			check("unknown authority", connect(withURL(t, good, func(u *url.URL) { u.RawQuery = "" })), "database_tls_failed")
			check("private network", connect(withURL(t, good, func(u *url.URL) { u.Host = "10.1.2.3:5432" })), "database_host_forbidden")
			check("metadata address", connect(withURL(t, good, func(u *url.URL) { u.Host = "169.254.169.254:80" })), "database_host_forbidden")

			full := tenantdbtest.ConnectionString(t, engine)
			credentials, err := credential.ParseConnectionString(engine, secretOf(full))
			if err != nil {
				t.Fatal(err)
			}
			tenantdbtest.Exec(t, credentials, "CREATE TABLE guests (id integer)", "INSERT INTO guests (id) VALUES (7)")
			check("foreign table", connect(full), "database_not_empty")
			var tables int
			db := tenantdbtest.Open(t, credentials)
			in, err := db.Inspect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if tables = len(in.Tables); tables != 1 {
				t.Errorf("the stranger's database has %v", in.Tables)
			}

			connect(good).want(http.StatusOK).is("active", "status")

			// Another store cannot connect the same database.
			other := c.call("POST", "/api/stores", object{"name": "Other"}).want(http.StatusCreated).text("id")
			c.call("POST", "/api/stores/"+other+"/connect-database", object{"type": string(engine), "connectionString": good}).
				problem(http.StatusUnprocessableEntity, "database_not_empty")
		})
	}
}

// noDatabase returns the code for a missing database. MariaDB answers "access denied"
// to a user without privileges on a missing database, so as not to reveal which
// databases exist.
func noDatabase(engine credential.EngineName) string {
	if engine == credential.MySQL {
		return "database_permission_denied"
	}
	return "database_unreachable"
}

// TestSecondConnect checks that a second connect is refused while one is in progress.
func TestSecondConnect(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		// A server that accepts connections and never replies keeps the first call
		// waiting.
		silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		body := object{"type": "postgresql", "connectionString": fmt.Sprintf("postgres://u:p@%s/d?sslmode=disable", silent.Addr())}
		path := "/api/stores/" + id + "/connect-database"
		a := c.call("POST", path, body, "Prefer", "wait=0").want(http.StatusAccepted)
		if got, want := a.header.Get("Location"), "/api/stores/"+id+"/provisioning"; got != want {
			t.Errorf("Location %q, want %q", got, want)
		}
		c.call("POST", path, body).problem(http.StatusConflict, "provisioning_in_progress")
		testkit.Eventually(t, testkit.Timeout, "the run fails", func() bool {
			return c.call("GET", "/api/stores/"+id+"/provisioning", nil).want(http.StatusOK).text("state") == "failed"
		})
		c.call("POST", path, object{"type": "managed"}).want(http.StatusOK).is("active", "status")
	})
}
