package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/stores"
)

// defaultQuotas returns the quotas of a server without settings for them. Other tests
// run without quotas.
func defaultQuotas(t *testing.T) config.Quotas {
	t.Helper()
	var c cli.Commands
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"serve"}); err != nil {
		t.Fatal(err)
	}
	return c.Quotas
}

// TestQuotasOfAnUnverifiedOwner checks that a new user who creates as many stores as
// possible concurrently gets exactly the default quota, and then a problem document
// with quota, limit and use. The store of the registration counts.
func TestQuotasOfAnUnverifiedOwner(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		owner, first := register(t, s, "owner@example.com")
		var mu sync.Mutex
		ids := []string{first}
		var running sync.WaitGroup
		for i := range 30 {
			running.Go(func() {
				a := owner.call("POST", "/api/stores", object{"name": fmt.Sprintf("Store %d", i)})
				mu.Lock()
				defer mu.Unlock()
				if a.status == http.StatusCreated {
					ids = append(ids, a.text("id"))
					return
				}
				wantQuotaProblem(t, a, quotas.Stores, 3)
			})
		}
		running.Wait()
		if len(ids) != 3 {
			t.Fatalf("%d stores, want 3", len(ids))
		}
		for _, id := range ids[:2] {
			owner.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
		}
		wantQuotaProblem(t, owner.call("POST", "/api/stores/"+ids[2]+"/connect-database", object{"type": "managed"}), quotas.ManagedDatabases, 2)
		owner.call("GET", "/api/stores/"+ids[2], nil).want(http.StatusOK).is("pending_database", "status")

		if status, out, errOut := command(t, append([]string{"users", "quota", "owner@example.com", "--stores=4", "--managed-databases=0"}, s.flags()...)...); status != 0 ||
			!strings.Contains(out, "stores 4, managed databases without limit") {
			t.Fatalf("status %d, %s%s", status, out, errOut)
		}
		owner.call("POST", "/api/stores/"+ids[2]+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
		owner.call("POST", "/api/stores", object{"name": "Fourth"}).want(http.StatusCreated)
		wantQuotaProblem(t, owner.call("POST", "/api/stores", object{"name": "Fifth"}), quotas.Stores, 4)
	}, func(cfg *config.Config) {
		cfg.Quotas = defaultQuotas(t)
		cfg.QuotaManagedUnverified = 2
	})
}

// flags returns the flags that name the server's master database to a command.
func (s *server) flags() []string {
	return []string{"--master-db-url=" + s.Cfg.MasterDBURL.Reveal(), "--data-dir=" + s.Cfg.DataDir}
}

func wantQuotaProblem(t *testing.T, a answer, name string, limit int) {
	t.Helper()
	a.problem(http.StatusForbidden, "quota_exceeded")
	want := fmt.Sprintf(`"quota":{"name":"%s","limit":%d,"used":%d}`, name, limit, limit)
	if !strings.Contains(a.raw, want) || !strings.Contains(a.text("detail"), "ask the operator") {
		t.Errorf("no %s, or no advice, in %s", want, a.raw)
	}
}

func TestQuotaSettings(t *testing.T) {
	t.Parallel()
	defaults := defaultQuotas(t)
	if got, want := defaults.Limits(), (quotas.Limits{
		Stores: quotas.PerUser{Unverified: 3, Verified: 100}, ManagedDatabases: quotas.PerUser{Unverified: 3, Verified: 100},
		StoresPerHour: 30, Hostnames: 20, APIKeys: 100, Invitations: 50, Members: 1000, Webhooks: 10,
	}); got != want {
		t.Errorf("defaults %+v, want %+v", got, want)
	}
	if got := defaults.KeepSlugs; got != stores.DefaultKeepSlugs {
		t.Errorf("slugs are kept for %v", got)
	}
	for flag, want := range map[string]string{
		"--quota-stores-unverified=-1":             "STOA_QUOTA_STORES_UNVERIFIED must be between 0",
		"--quota-stores-unverified=101":            "STOA_QUOTA_STORES_UNVERIFIED must not allow more",
		"--quota-stores-unverified=0":              "STOA_QUOTA_STORES_UNVERIFIED must not allow more",
		"--quota-managed-databases-unverified=101": "STOA_QUOTA_MANAGED_DATABASES_UNVERIFIED must not allow more",
		"--quota-managed-databases=1000001":        "STOA_QUOTA_MANAGED_DATABASES must be",
		"--quota-hostnames=-1":                     "STOA_QUOTA_HOSTNAMES",
		"--quota-api-keys=-1":                      "STOA_QUOTA_API_KEYS",
		"--quota-invitations=-1":                   "STOA_QUOTA_INVITATIONS",
		"--quota-members=-1":                       "STOA_QUOTA_MEMBERS",
		"--quota-stores-per-hour=-1":               "STOA_QUOTA_STORES_PER_HOUR",
		"--keep-slugs=-1s":                         "STOA_KEEP_SLUGS",
	} {
		if status, _, errOut := command(t, "serve", flag, "--data-dir="+t.TempDir()); status != 1 || !strings.Contains(errOut, want) {
			t.Errorf("%s: status %d, %s", flag, status, errOut)
		}
	}
	for _, args := range [][]string{{"--stores=-1"}, {"--managed-databases=1000001"}, {"--stores=x"}} {
		if status, _, _ := command(t, append([]string{"users", "quota", "owner@example.com", "--data-dir=" + t.TempDir()}, args...)...); status == 0 {
			t.Errorf("%v is accepted", args)
		}
	}
}

// TestDoctorNamesPlatformHosts checks that doctor names a store with a hostname of the
// platform, and what to do.
func TestDoctorNamesPlatformHosts(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	onPlatformHosts(cfg)
	s := startServer(t, cfg)
	s.URL = "http://" + s.address(t)
	_, id, _ := connected(t, s, "owner@example.com")
	doctor := func() (status int, found []cli.Finding) {
		t.Helper()
		args := append([]string{"doctor", "--json", "--base-domain=" + cfg.BaseDomain, "--base-url=" + cfg.BaseURL,
			"--platform-hosts=" + strings.Join(cfg.PlatformHosts, ",")}, s.flags()...)
		status, out, errOut := command(t, args...)
		var all []cli.Finding
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatalf("%v: %s%s", err, out, errOut)
		}
		for _, f := range all {
			if f.Check == "platform hosts" {
				found = append(found, f)
			}
		}
		return status, found
	}
	if _, found := doctor(); len(found) != 1 || !found[0].OK {
		t.Fatalf("before: %+v", found)
	}
	s.moveTo(t, id, "hub", "hub.shops.example.com")
	status, found := doctor()
	if status != 1 || len(found) != 1 || found[0].OK || found[0].Store != id || !strings.Contains(found[0].Detail, "hub.shops.example.com") || found[0].Remedy == "" {
		t.Errorf("status %d, %+v", status, found)
	}
}
