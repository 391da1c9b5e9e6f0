package app_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
)

// onPlatformHosts configures platform hosts under the base domain and outside it.
func onPlatformHosts(cfg *config.Config) {
	cfg.BaseDomain, cfg.BaseURL = "shops.example.com", "https://App.shops.example.com"
	cfg.PlatformHosts = []string{"hub.shops.example.com", "a.deep.shops.example.com", "panel.example.com"}
}

// TestPlatformHostsWin checks that a host of the platform never serves an existing
// store with the same hostname, on any path.
func TestPlatformHostsWin(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		s.URL = "http://" + s.address(t)
		owner, id, _ := connected(t, s, "owner@example.com")
		other, second, _ := connected(t, s, "other@example.com")
		s.moveTo(t, id, "hub", "hub.shops.example.com")
		s.moveTo(t, second, "panel", "panel.example.com")
		for _, host := range []string{"hub.shops.example.com", "HUB.shops.example.com.:3000", "panel.example.com",
			"app.shops.example.com", "shops.example.com", "localhost"} {
			page := client{t: t, url: s.URL}.call("GET", "/", nil, "Host", host).want(http.StatusOK)
			if !strings.Contains(page.raw, "/api/docs") || strings.Contains(page.raw, "Store of") {
				t.Errorf("%s does not show the platform's page: %.300s", host, page.raw)
			}
			owner.call("GET", "/api/storefront/store", nil, "Host", host).problem(http.StatusNotFound, "store_not_found")
			owner.call("GET", "/api/storefront/products", nil, "Host", host).problem(http.StatusNotFound, "store_not_found")
			owner.call("GET", "/api/auth/me", nil, "Host", host).want(http.StatusOK)
		}
		other.call("GET", "/api/stores/"+second, nil).want(http.StatusOK).is("panel", "slug")
	}, onPlatformHosts)
}

// moveTo gives a store a slug and a hostname that the API would refuse.
func (s *server) moveTo(t *testing.T, store, slug, hostname string) {
	t.Helper()
	id, err := stoa.ParseID[stoa.StoreID](store)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(t.Context(), `UPDATE stores SET slug = $2 WHERE id = $1`, id, slug); err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), `UPDATE store_hostnames SET hostname = $2 WHERE store_id = $1`, id, hostname); err != nil {
			return err
		}
		return tx.Notify(hostnames.ChangeTopic, id.String())
	})
	if err != nil {
		t.Fatal(err)
	}
}
