package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestStoresCommands checks that the operator can find every store by each of its
// names, while the server runs.
func TestStoresCommands(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			s := startServer(t, cfg)
			_, id, host := connected(t, s, "one@example.com")
			_, pending := register(t, s, "two@example.com")
			flags := []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}
			stoa := func(args ...string) (int, string, string) { return command(t, append(args, flags...)...) }

			status, out, errOut := stoa("stores", "list", "--json")
			var list []cli.StoreRecord
			if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 || len(list) != 2 {
				t.Fatalf("status %d, %v: %s%s", status, err, out, errOut)
			}
			if list[0].ID.String() != pending || list[0].Database != nil || list[0].Status != "pending_database" {
				t.Errorf("the newer store: %+v", list[0])
			}
			if d := list[1].Database; list[1].ID.String() != id || d == nil || d.Type != credential.Managed || d.Status != "ok" ||
				d.CredentialVersion != 1 || d.SchemaVersion == 0 || d.LastCheckedAt == nil || len(list[1].Hostnames) != 1 {
				t.Errorf("the older store: %+v", list[1])
			}
			if status, out, _ := stoa("stores", "list"); status != 0 || strings.Count(out, "\n") != 3 || !strings.Contains(out, host) {
				t.Errorf("status %d\n%s", status, out)
			}
			if status, out, _ := stoa("stores", "list", "--status=active"); status != 0 || !strings.Contains(out, id) || strings.Contains(out, pending) {
				t.Errorf("status %d\n%s", status, out)
			}

			slug, _, _ := strings.Cut(host, ".")
			for _, name := range []string{id, strings.ToUpper(id), slug, host, strings.ToUpper(host) + ":3000"} {
				var one cli.StoreRecord
				status, out, errOut := stoa("stores", "show", name, "--json")
				if err := json.Unmarshal([]byte(out), &one); err != nil || status != 0 || one.ID.String() != id {
					t.Errorf("%s: status %d, %v: %s%s", name, status, err, out, errOut)
				}
			}
			for _, name := range []string{"nobody", "nobody.localhost", "01a20751-d31d-77e7-a81d-5c275378c359", "%", "' OR 1=1"} {
				if status, out, errOut := stoa("stores", "show", name); status != 1 || out != "" || !strings.Contains(errOut, "No store has") {
					t.Errorf("%s: status %d, %s%s", name, status, out, errOut)
				}
			}
		})
	}
}

// TestStoresShowHealth checks that the command shows why a store is down, and none of
// its secrets.
func TestStoresShowHealth(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	s := startServer(t, cfg)
	c, id := register(t, s, "one@example.com")
	at := closedPort(t)
	c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "mysql", "connectionString": "mysql://someone:hunter2@" + at + "/shop"}).
		problem(http.StatusUnprocessableEntity, "database_unreachable")
	for _, format := range []string{"", "--json"} {
		args := []string{"stores", "show", id, "--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}
		if format != "" {
			args = append(args, format)
		}
		status, out, errOut := command(t, args...)
		if status != 0 {
			t.Fatalf("status %d: %s", status, errOut)
		}
		for _, want := range []string{"mysql", "127.0.0.1", "shop", "failed", "database_unreachable", "does not answer"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		for _, secret := range []string{"hunter2", "someone"} {
			if strings.Contains(out, secret) {
				t.Errorf("%q in\n%s", secret, out)
			}
		}
	}
}

// TestStoresLooksOnly checks that without a master database the commands report it and
// create none, and that their help contains an example.
func TestStoresLooksOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/data"
	if status, _, errOut := command(t, "stores", "list", "--data-dir="+dir); status != 1 || !strings.Contains(errOut, "stoa serve") {
		t.Errorf("status %d: %s", status, errOut)
	}
	if !config.Missing(dir) {
		t.Error("a look made the data directory")
	}
	if status, _, errOut := command(t, "stores", "list", "--master-db-url=sqlite:"+t.TempDir()+"/empty.db"); status != 1 || !strings.Contains(errOut, "stoa migrate") {
		t.Errorf("status %d: %s", status, errOut)
	}
	if status, out, _ := command(t, "stores", "show", "--help"); status != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), "stoa stores show my-first-store") {
		t.Errorf("status %d: %s", status, out)
	}
}
