package app_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestLifeOverHTTP checks that an owner can close, reopen, delete and restore a store,
// and finally delete it for good.
func TestLifeOverHTTP(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id, host := connected(t, s, "owner@example.com")
		path := "/api/stores/" + id
		front := func() answer { return c.call("GET", "/api/storefront/store", nil, "Host", host) }
		front().want(http.StatusOK)
		for range 2 {
			c.call("POST", path+"/suspend", nil).want(http.StatusOK).is("suspended", "status").is(nil, "deleteAfter")
			front().problem(http.StatusServiceUnavailable, "store_suspended")
		}
		c.call("POST", path+"/resume", nil).want(http.StatusOK).is("active", "status")
		front().want(http.StatusOK)

		first := c.call("DELETE", path, nil).want(http.StatusOK).is("deleting", "status").is("succeeded", "provisioning", "state")
		at, err := time.Parse(time.RFC3339, first.text("deleteAfter"))
		if days := time.Until(at).Hours() / 24; err != nil || days < 29 || days > 31 {
			t.Errorf("it goes at %v, %v", at, err)
		}
		c.call("DELETE", path, nil).want(http.StatusOK).is(first.text("deleteAfter"), "deleteAfter")
		front().problem(http.StatusServiceUnavailable, "store_suspended")
		c.call("GET", path, nil).want(http.StatusOK).is(first.text("deleteAfter"), "deleteAfter")
		for _, refused := range []string{"/suspend", "/resume"} {
			c.call("POST", path+refused, nil).problem(http.StatusServiceUnavailable, "store_suspended")
		}
		c.call("POST", path+"/restore", nil).want(http.StatusOK).is("active", "status").is(nil, "deleteAfter")
		front().want(http.StatusOK)

		s.Registry.KeepDeleted(0)
		c.call("DELETE", path, nil).want(http.StatusOK).is("deleting", "status")
		testkit.Eventually(t, testkit.Timeout, "the store is gone", func() bool { return c.call("GET", path, nil).status == http.StatusNotFound })
		c.call("POST", path+"/restore", nil).problem(http.StatusNotFound, "store_not_found")
		front().problem(http.StatusNotFound, "store_not_found")
	})
}

// TestLifeCommands checks the operator's commands for the same transitions, beside the
// running server.
func TestLifeCommands(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			s := startServer(t, cfg)
			c, id, host := connected(t, s, "owner@example.com")
			slug, _, _ := strings.Cut(host, ".")
			stoa := func(args ...string) (int, string, string) {
				return command(t, append(args, "--data-dir="+cfg.DataDir, "--master-db-url="+cfg.MasterDBURL.Reveal())...)
			}
			show := func(command string, args ...string) cli.StoreRecord {
				t.Helper()
				var r cli.StoreRecord
				status, out, errOut := stoa(append([]string{"stores", command, slug, "--json"}, args...)...)
				if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 {
					t.Fatalf("%s: status %d, %v: %s%s", command, status, err, out, errOut)
				}
				return r
			}
			if r := show("suspend"); r.Status != "suspended" || !r.Held {
				t.Errorf("suspended: %+v", r)
			}
			c.call("POST", "/api/stores/"+id+"/resume", nil).problem(http.StatusForbidden, "forbidden")
			testkit.Eventually(t, testkit.Timeout, "shoppers are turned away", func() bool {
				return c.call("GET", "/api/storefront/store", nil, "Host", host).status == http.StatusServiceUnavailable
			})
			if r := show("resume"); r.Status != "active" || r.Held {
				t.Errorf("resumed: %+v", r)
			}
			if status, _, errOut := stoa("stores", "dsn", slug); status == 0 || !strings.Contains(errOut, "archive") {
				t.Errorf("dsn of an embedded database: status %d: %s", status, errOut)
			}
			if r := show("delete", "--yes"); r.Status != "deleting" || r.DeleteAfter == nil {
				t.Errorf("deleted: %+v", r)
			}
			if r := show("restore"); r.Status != "active" || r.DeleteAfter != nil {
				t.Errorf("restored: %+v", r)
			}
			for answer, want := range map[string]string{"": "active", "yes\n": "active", slug + "\n": "deleting"} {
				var out, errOut syncBuffer
				err := cli.StoresDeleteCmd{OneStore: cli.OneStore{Store: id}}.Run(&cli.Env{Ctx: t.Context(), Cfg: cfg, Stdin: strings.NewReader(answer), Stdout: &out, Stderr: &errOut})
				if r := show("show"); string(r.Status) != want || (err == nil) != (want == "deleting") {
					t.Errorf("asked and answered %q it is %s, %v", answer, r.Status, err)
				}
				show("restore")
			}
			if status, _, errOut := stoa("stores", "suspend", "nobody"); status != 1 || !strings.Contains(errOut, "No store has") {
				t.Errorf("status %d: %s", status, errOut)
			}
		})
	}
}

// TestDoctorFleet checks that doctor finds and names orphans, and drops only those that
// a flag names.
func TestDoctorFleet(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	startServer(t, cfg)
	doctor := func(args ...string) (int, []cli.Finding) {
		t.Helper()
		status, out, errOut := command(t, append([]string{
			"doctor", "--fleet", "--json", "--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal(),
		}, args...)...)
		var found []cli.Finding
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatalf("status %d, %v: %s%s", status, err, out, errOut)
		}
		return status, found
	}
	if status, found := doctor(); status != 0 || !found[len(found)-1].OK || found[len(found)-1].Check != "fleet" {
		t.Errorf("of a fleet that is well: %d %+v", status, found)
	}
	id := uuid.Must(uuid.NewV7()).String()
	file := filepath.Join(cfg.DataDir, "stores", id[34:], id+".db")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"--repair"}, {"--repair", "--drop=" + uuid.NewString()}} {
		status, found := doctor(args...)
		last := found[len(found)-1]
		if _, err := os.Stat(file); status != 1 || err != nil || last.OK || last.Repaired || !strings.Contains(last.Detail+last.Remedy, "--drop") {
			t.Errorf("%v: %d %+v, %v", args, status, last, err)
		}
	}
	status, found := doctor("--repair", "--drop="+id)
	if last := found[len(found)-1]; status != 1 || !last.Repaired || last.Name != id {
		t.Errorf("dropped: %d %+v", status, last)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is still there")
	}
	if status, _ := doctor(); status != 0 {
		t.Errorf("afterwards: status %d", status)
	}
	for _, args := range [][]string{{"doctor", "--repair"}, {"doctor", "--fleet", "--drop=x"}} {
		if status, _, _ := command(t, args...); status != 2 {
			t.Errorf("%v: status %d", args, status)
		}
	}
}

// TestManagedServer checks the setting for a managed server, from doctor to an active
// store.
func TestManagedServer(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	for engine, raw := range map[credential.EngineName]string{
		credential.PostgreSQL: os.Getenv(tenantdbtest.PostgresEnv), credential.MySQL: os.Getenv(tenantdbtest.MySQLEnv),
	} {
		if raw == "" {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			cfg := *cfg
			raw, _, _ := strings.Cut(raw, "?")
			cfg.ManagedDatabaseURL = secretOf(raw + "?sslmode=disable")
			findings, _ := doctor.Examine(t.Context(), &cfg, nil)
			found := false
			for _, f := range findings {
				found = found || f.Check == "managed server" && f.OK && strings.Contains(f.Detail, string(engine))
			}
			if !found {
				t.Errorf("doctor has %+v", findings)
			}
			s := startServer(t, &cfg)
			c, id, host := connected(t, s, string(engine)+"@example.com")
			a := c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("managed", "database", "type").is(string(engine), "database", "engine")
			if !strings.HasPrefix(a.text("database", "database"), "stoa_") {
				t.Errorf("the database is %v", a.at("database"))
			}
			c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
			s.Registry.KeepDeleted(0)
			c.call("DELETE", "/api/stores/"+id, nil).want(http.StatusOK)
			testkit.Eventually(t, testkit.Timeout, "the database is dropped", func() bool {
				var n int
				err := s.Master.Get(t.Context(), &n, `SELECT count(*) FROM store_databases`)
				return err == nil && n == 0
			})
			if orphans, err := testkit.Collect(managed.New(s.Master, s.Tenants).Orphans(t.Context())); err != nil || len(orphans) > 0 {
				t.Errorf("left: %v, %v", orphans, err)
			}
		})
	}
	bad := *cfg
	bad.ManagedDatabaseURL, bad.ManagedDatabaseCA, bad.DeletionGrace = secretOf("postgres://a:s3cret@"), "/nowhere.pem", -1
	err := bad.Check()
	for _, name := range []string{"STOA_MANAGED_DATABASE_URL", "STOA_MANAGED_DATABASE_CA", "STOA_DELETION_GRACE"} {
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the faults are %v", err)
		}
	}
}
