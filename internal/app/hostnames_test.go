package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/hostnames/hostnamestest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// ask sends the question that a proxy asks before it requests a certificate. It returns
// the status.
func ask(t *testing.T, s *server, domain string) int {
	t.Helper()
	return client{t: t, url: s.PrivateURL}.call("GET", "/ask?domain="+url.QueryEscape(domain), nil).status
}

// TestCustomHostname checks a custom hostname from the owner's first call to a
// shopper's request, and what the operator and the proxy see of it.
func TestCustomHostname(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			names := hostnamestest.NewDNS(t)
			cfg := testConfig(t, engine)
			cfg.PrivateListen, cfg.DNSServer = "127.0.0.1:0", names.Address
			s := startServer(t, cfg)
			c, id, host := connected(t, s, "owner@example.com")
			path := "/api/stores/" + id + "/hostnames"

			c.call("POST", path, object{"hostname": "*.example.com"}).problem(http.StatusUnprocessableEntity, "hostname_invalid")
			c.call("POST", path, object{"hostname": host}).problem(http.StatusUnprocessableEntity, "hostname_invalid")
			claim := c.call("POST", path, object{"hostname": "Shop.Example.com"}).want(http.StatusCreated).
				is("shop.example.com", "hostname").is(false, "verified").is(true, "custom").is(host, "pointTo").
				is("TXT", "verification", "record", "type").is("_stoa.shop.example.com", "verification", "record", "name")
			record := claim.text("verification", "record", "value")
			c.call("POST", path, object{"hostname": "shop.example.com"}).want(http.StatusOK).is(record, "verification", "record", "value")
			c.call("PATCH", path+"/shop.example.com", object{"primary": true}).problem(http.StatusUnprocessableEntity, "hostname_invalid")
			c.call("PATCH", path+"/shop.example.com", object{"primary": false}).problem(http.StatusUnprocessableEntity, "invalid_request")
			c.call("POST", path+"/shop.example.com/verify", nil).want(http.StatusOK).is(false, "verified").
				is("record_not_found", "verification", "lastError", "code")
			if a := c.call("POST", path+"/shop.example.com/verify", nil); a.status != http.StatusOK { // on a slow machine the minimum interval has passed
				a.problem(http.StatusTooManyRequests, "rate_limited")
			}
			front := func() int {
				return c.call("GET", "/api/storefront/store", nil, "Host", "shop.example.com:443").status
			}
			if front() != http.StatusNotFound || ask(t, s, "shop.example.com") != http.StatusNotFound {
				t.Error("a claim is served")
			}

			names.Put("_stoa.shop.example.com", record)
			testkit.Eventually(t, testkit.Timeout, "the hostname is verified", func() bool {
				a := c.call("POST", path+"/shop.example.com/verify", nil)
				return a.status == http.StatusOK && a.at("verified") == true
			})
			if front() != http.StatusOK || ask(t, s, "shop.example.com") != http.StatusOK {
				t.Error("a verified hostname is not served")
			}
			c.call("PATCH", path+"/shop.example.com", object{"primary": true}).want(http.StatusOK).is(true, "primary")
			list := c.call("GET", path, nil).want(http.StatusOK).list("data")
			if len(list) != 2 || list[0].(object)["hostname"] != "shop.example.com" || list[1].(object)["verification"] != nil {
				t.Errorf("the list: %v", list)
			}
			shown := c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).list("hostnames")
			if len(shown) != 2 || shown[0].(object)["primary"] != true || shown[0].(object)["verified"] != true {
				t.Errorf("the store: %v", shown)
			}
			testHostnamesCommand(t, cfg, id, record)
			testDailyCheck(t, cfg, s, names)
			c.url = s.URL

			c.call("DELETE", path+"/shop.example.com", nil).want(http.StatusNoContent)
			c.call("DELETE", path+"/shop.example.com", nil).problem(http.StatusNotFound, "not_found")
			c.call("DELETE", path+"/"+host, nil).problem(http.StatusUnprocessableEntity, "hostname_invalid")
			if front() != http.StatusNotFound || ask(t, s, "shop.example.com") != http.StatusNotFound {
				t.Error("a hostname that was given up is served")
			}
		})
	}
}

func testHostnamesCommand(t *testing.T, cfg *config.Config, id, record string) {
	t.Helper()
	args := []string{"stores", "hostnames", id, "--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}
	status, out, errOut := command(t, args...)
	if status != 0 || !strings.Contains(out, record) || !strings.Contains(out, "primary") || strings.Count(out, "\n") != 3 {
		t.Errorf("status %d, %s%s", status, out, errOut)
	}
	status, out, errOut = command(t, append(args, "--json")...)
	var list []cli.StoreHostnameProof
	if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 || len(list) != 2 || list[0].RecordValue != record || !list[0].Verified {
		t.Errorf("status %d, %v, %s%s", status, err, out, errOut)
	}
}

// testDailyCheck checks that a server looks for a due check when it starts.
func testDailyCheck(t *testing.T, cfg *config.Config, s *server, names *hostnamestest.DNS) {
	t.Helper()
	names.Remove("_stoa.shop.example.com")
	err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE hostname_claims SET check_after = $1`, tx.Now.Add(-time.Hour))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again, err := launch(t.Context(), cfg, s.Log)
	if err != nil {
		t.Fatal(err)
	}
	*s = *again
	testkit.Eventually(t, testkit.Timeout, "the daily check is made", func() bool {
		var misses int
		if err := s.Master.Get(t.Context(), &misses, `SELECT misses FROM hostname_claims`); err != nil {
			t.Fatal(err)
		}
		return misses == 1
	})
}

// TestAsk checks that certificates are allowed for stores' hostnames only, and that a
// flood of made-up names does not prevent requests for real ones.
func TestAsk(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			cfg.PrivateListen = "127.0.0.1:0"
			s := startServer(t, cfg)
			_, id, host := connected(t, s, "owner@example.com")
			if got := ask(t, s, host); got != http.StatusOK {
				t.Errorf("a store's hostname: %d", got)
			}
			for _, domain := range []string{"", "localhost", "nobody.localhost", "127.0.0.1", "[::1]", "*", "*.localhost", host + ".evil.example",
				"x\x00", strings.Repeat("a", 5000), "' OR 1=1", "https://" + host} {
				if got := ask(t, s, domain); got != http.StatusNotFound {
					t.Errorf("%.50q: %d", domain, got)
				}
			}
			client{t: t, url: s.PrivateURL}.call("GET", "/ask", nil).want(http.StatusNotFound)
			client{t: t, url: s.URL}.call("GET", "/ask?domain="+host, nil).problem(http.StatusNotFound, "not_found")

			var flood sync.WaitGroup
			for i := range 16 {
				flood.Go(func() {
					for j := range 20 {
						if got := ask(t, s, fmt.Sprintf("x%d-%d.example", i, j)); got != http.StatusNotFound && got != http.StatusServiceUnavailable {
							t.Errorf("an invented name: %d", got)
						}
					}
				})
			}
			for range 20 {
				if got := ask(t, s, host); got != http.StatusOK {
					t.Errorf("a store's hostname during the flood: %d", got)
				}
			}
			flood.Wait()
			setStatus(t, s, id, "suspended")
			if got := ask(t, s, host); got != http.StatusOK {
				t.Errorf("a suspended store, which will be back: %d", got)
			}
			setStatus(t, s, id, "deleted")
			if got := ask(t, s, host); got != http.StatusNotFound {
				t.Errorf("a deleted store: %d", got)
			}
		})
	}
}

func setStatus(t *testing.T, s *server, id, status string) {
	t.Helper()
	store, err := stoa.ParseID[stoa.StoreID](id)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(t.Context(), `UPDATE stores SET status = $2 WHERE id = $1`, store, status); err != nil {
			return err
		}
		return tx.Notify("stoa_stores", id)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDNSServerSetting(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"127.0.0.1", ":53", "dns.example", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:99999", "udp://127.0.0.1:53"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // if the server starts, it stops immediately
		var out, errOut syncBuffer
		if status := cli.Run(ctx, []string{"serve", "--port=0", "--dns-server=" + bad, "--data-dir=" + t.TempDir()}, &out, &errOut); status != 1 ||
			!strings.Contains(errOut.String(), "STOA_DNS_SERVER") {
			t.Errorf("%s: status %d, %s", bad, status, errOut.String())
		}
	}
}
