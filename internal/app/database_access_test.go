package app_test

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// newManagedWorld starts a server that manages databases on the server at raw, with a
// store. It returns the flags with which commands reach both.
func newManagedWorld(t *testing.T, raw string) (w *storeWorld, flags []string) {
	t.Helper()
	cfg := testConfig(t, masterdb.SQLite)
	raw, _, _ = strings.Cut(raw, "?")
	cfg.ManagedDatabaseURL = secretOf(raw + "?sslmode=disable")
	w = newStoreWorld(t, cfg)
	store := w.storeID(t)
	t.Cleanup(func() {
		info, err := tenantdb.ReadInfo(context.Background(), w.Master, store)
		testkit.Must(t, err)
		testkit.Must(t, managed.New(w.Master, w.Tenants).Drop(context.Background(), store, *info))
	})
	return w, []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal(), "--managed-database-url=" + cfg.ManagedDatabaseURL.Reveal()}
}

// TestReachManagedDatabase reads and resets the credentials of a managed database over
// the API, in the console and by command, and connects with what each shows.
func TestReachManagedDatabase(t *testing.T) {
	t.Parallel()
	for engine, raw := range map[credential.EngineName]string{
		credential.PostgreSQL: os.Getenv(tenantdbtest.PostgresEnv), credential.MySQL: os.Getenv(tenantdbtest.MySQLEnv),
	} {
		if raw == "" {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			w, flags := newManagedWorld(t, raw)
			store := w.storeID(t)
			path := "/api/stores/" + w.id + "/database/"
			full := w.api.call("GET", path+"credentials", nil).want(http.StatusOK).is("full", "access").is(string(engine), "engine").is("disable", "tls", "mode")
			if got := full.header.Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control: %s", got)
			}
			read := w.api.call("GET", path+"credentials?access=read", nil).want(http.StatusOK).is("read", "access")
			w.api.call("GET", path+"credentials?access=all", nil).want(http.StatusUnprocessableEntity)
			w.signsIn(t, engine, full.text("connectionString"), true)
			w.signsIn(t, engine, read.text("connectionString"), true)
			w.consoleShows(t, full.text("connectionString"), read.text("connectionString"))

			run := func(args ...string) string {
				t.Helper()
				status, stdout, stderr := command(t, append(append([]string{"stores"}, args...), flags...)...)
				if status != 0 {
					t.Fatalf("%v: %d %s", args, status, stderr)
				}
				return stdout
			}
			if got := run("dsn", w.id, "--access=read"); got != read.text("connectionString")+"\n" {
				t.Error("the command prints another string")
			}
			var fields map[string]any
			testkit.Must(t, json.Unmarshal([]byte(run("dsn", w.id, "--json")), &fields))
			if fields["password"] != full.text("password") || fields["connectionString"] != full.text("connectionString") {
				t.Error("the command prints other fields")
			}
			run("reset-password", w.id, "--yes", "--access=read")
			w.signsIn(t, engine, read.text("connectionString"), false)
			w.signsIn(t, engine, strings.TrimSpace(run("dsn", w.id, "--access=read")), true)
			w.api.call("POST", path+"reset-password", nil).want(http.StatusNoContent)
			w.signsIn(t, engine, full.text("connectionString"), false)
			w.signsIn(t, engine, strings.TrimSpace(run("dsn", w.id)), true)

			audited := map[string]int{"database.credentials_shown": 8, "database.password_reset": 2}
			for action, want := range audited {
				var n int
				testkit.Must(t, w.Master.Get(t.Context(), &n, `SELECT count(*) FROM audit_events WHERE store_id = $1 AND action = $2`, store, action))
				if n != want {
					t.Errorf("%d entries %s, want %d", n, action, want)
				}
			}
		})
	}
}

// signsIn connects with a connection string, as Stoa reads it.
func (w *storeWorld) signsIn(t *testing.T, engine credential.EngineName, dsn string, want bool) {
	t.Helper()
	pasted, err := credential.ParsePasted(engine, keyring.NewSecret(dsn), "", credential.SupabaseRules{})
	testkit.Must(t, err)
	pasted.Credentials.Kind = credential.Managed // admits the test server's address
	db, err := w.Tenants.OpenUnleased(pasted.Credentials)
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing is pending
	if err := db.Ping(t.Context()); (err == nil) != want {
		t.Errorf("signs in: %v, want %t", err, want)
	}
}

// consoleShows checks the pages of the owner, and that they need a recent password.
func (w *storeWorld) consoleShows(t *testing.T, full, read string) {
	t.Helper()
	page := w.base + "/database/credentials"
	w.forgetAuthentication(t)
	w.owner.get(page).leadsTo(t, "/reauthenticate?next="+url.QueryEscape(page))
	w.reauthenticate()
	for path, dsn := range map[string]string{page: full, page + "?access=read": read} {
		got := w.owner.get(path)
		if text := html.UnescapeString(got.Body); got.Status != http.StatusOK || strings.Count(text, dsn) < 2 || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d", path, got.Status)
		}
	}
	reset := w.base + "/database/reset-password"
	if got := w.owner.get(reset); got.Status != http.StatusOK {
		t.Errorf("%s: %d", reset, got.Status)
	}
	if got := w.owner.post(reset, url.Values{"confirm": {"another"}}); got.Status != http.StatusUnprocessableEntity {
		t.Errorf("without the store's name: %d", got.Status)
	}
}
