package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestDatabaseLife checks that a merchant can test, lose and rotate the credentials of
// the store's database. Shoppers get only 503 in between, and no restart is needed.
func TestDatabaseLife(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines()[1:] {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, testConfig(t, masterdb.SQLite))
			c, id := register(t, s, "owner@example.com")
			path := "/api/stores/" + id
			raw := tenantdbtest.ConnectionString(t, engine)
			body := func(raw string) object { return object{"type": string(engine), "connectionString": raw} }
			test := func(body any) answer { return c.call("POST", path+"/database/test", body).want(http.StatusOK) }

			c.call("POST", path+"/database/test", nil).problem(http.StatusConflict, "store_pending_database")
			test(body(raw)).is(true, "ok").is(nil, "error").is(nil, "schemaVersion")
			c.call("GET", path, nil).want(http.StatusOK).is("pending_database", "status").is(nil, "database")
			connected := c.call("POST", path+"/connect-database", body(raw)).want(http.StatusOK).is(nil, "database", "lastError")
			schema := connected.at("database", "schemaVersion")
			host := connected.list("hostnames")[0].(object)["hostname"].(string)
			front := func() answer { return c.call("GET", "/api/storefront/store", nil, "Host", host) }
			front().want(http.StatusOK)
			found := test(nil).is(true, "ok").is(schema, "schemaVersion")
			if ms, _ := found.at("latencyMs").(float64); ms <= 0 || found.text("serverVersion") == "" {
				t.Errorf("found %s", found.raw)
			}

			wrong := withURL(t, raw, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong") })
			test(body(wrong)).is(false, "ok").is("database_auth_failed", "error", "code").is(nil, "latencyMs")
			c.call("GET", path, nil).want(http.StatusOK).is("ok", "database", "status")
			c.call("POST", path+"/database/rotate-credentials", body(wrong)).problem(http.StatusUnprocessableEntity, "database_auth_failed")
			front().want(http.StatusOK)

			old, err := credential.ParseConnectionString(engine, secretOf(raw))
			if err != nil {
				t.Fatal(err)
			}
			password := tenantdbtest.Revoke(t, old).Password.Reveal()
			testkit.Eventually(t, testkit.Timeout, "shoppers are turned away", func() bool { return front().status == http.StatusServiceUnavailable })
			if a := front().problem(http.StatusServiceUnavailable, "tenant_unavailable"); a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			test(nil).is(false, "ok").is("database_auth_failed", "error", "code")
			down := c.call("GET", path, nil).want(http.StatusOK).is(nil, "profile").is("failed", "database", "status").
				is("database_auth_failed", "database", "lastError", "code")
			if !strings.Contains(down.text("database", "lastError", "message"), "rotate") {
				t.Errorf("the owner is told %s", down.raw)
			}
			list := c.call("GET", "/api/stores", nil).want(http.StatusOK)
			if d := list.list("data")[0].(object)["database"].(object); d["status"] != "failed" || d["lastError"] == nil {
				t.Errorf("the list has %v", d)
			}

			renewed := withURL(t, raw, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), password) })
			rotated := c.call("POST", path+"/database/rotate-credentials", body(renewed)).want(http.StatusOK).
				is("ok", "database", "status").is(nil, "database", "lastError").is(schema, "database", "schemaVersion")
			if rotated.at("profile") == nil || strings.Contains(rotated.raw, password) {
				t.Errorf("the answer is %s", rotated.raw)
			}
			front().want(http.StatusOK)
			c.call("POST", path+"/database/rotate-credentials", body(renewed)).want(http.StatusOK)
		})
	}
}
