package app_test

import (
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// scrape reads the metrics as a monitoring system does.
func scrape(t *testing.T, s *server) map[string]*dto.MetricFamily {
	t.Helper()
	a := client{t: t, url: s.PrivateURL}.call("GET", "/metrics", nil).want(http.StatusOK)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(a.raw))
	if err != nil {
		t.Fatalf("%v in\n%s", err, a.raw)
	}
	return families
}

// value returns the value of the series with these labels, given as pairs of names and
// values. For a histogram it is the number of observations. Without a series it is 0.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	want := map[string]string{}
	for i := 0; i < len(labels); i += 2 {
		want[labels[i]] = labels[i+1]
	}
	for _, m := range families[name].GetMetric() {
		got := map[string]string{}
		for _, l := range m.GetLabel() {
			got[l.GetName()] = l.GetValue()
		}
		if maps.Equal(got, want) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return 0
}

// TestMetrics checks that requests of shoppers and owners are counted, without labels
// that name them.
func TestMetrics(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.PrivateListen = "127.0.0.1:0"
	s := startServer(t, cfg)
	c, id, host := connected(t, s, "owner@example.com")
	before := scrape(t, s)
	const visits = 7
	for range visits {
		c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
	}
	c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK)
	c.call("GET", "/api/stores/nothing", nil).want(http.StatusNotFound)
	c.call("GET", "/there/is/nothing", nil).want(http.StatusNotFound)
	c.call("BREW", "/healthz", nil).want(http.StatusMethodNotAllowed)
	after := scrape(t, s)

	grew := func(by float64, name string, labels ...string) {
		t.Helper()
		if got := value(after, name, labels...) - value(before, name, labels...); got != by {
			t.Errorf("%s %v grew by %v, want %v", name, labels, got, by)
		}
	}
	const requests = "stoa_http_request_duration_seconds"
	grew(visits, requests, "route", "/api/storefront/store", "method", "GET", "status", "2xx")
	grew(1, requests, "route", "/api/stores/{id}", "method", "GET", "status", "2xx")
	grew(1, requests, "route", "/api/stores/{id}", "method", "GET", "status", "4xx")
	grew(1, requests, "route", "none", "method", "GET", "status", "4xx")
	grew(1, requests, "route", "none", "method", "other", "status", "4xx")
	grew(visits+1, "stoa_tenant_acquires_total", "outcome", "warm")
	if n := value(after, "stoa_tenant_pools_embedded"); n != 1 {
		t.Errorf("%v embedded databases are open", n)
	}
	if value(after, "go_goroutines") == 0 || value(after, "process_open_fds") == 0 {
		t.Error("nothing about the process")
	}
	slug, _, _ := strings.Cut(host, ".")
	for name, family := range after {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				for _, private := range []string{id, slug, "owner@example.com"} {
					if strings.Contains(l.GetValue(), private) {
						t.Errorf("%s has the label %s=%q", name, l.GetName(), l.GetValue())
					}
				}
			}
		}
	}
}

// TestPrivateListener checks that only the private listener serves the metrics, and
// that it serves nothing else except health.
func TestPrivateListener(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.PrivateListen = "127.0.0.1:0"
	s := startServer(t, cfg)
	public, private := client{t: t, url: s.URL}, client{t: t, url: s.PrivateURL}
	public.call("GET", "/metrics", nil).problem(http.StatusNotFound, "not_found")
	private.call("GET", "/metrics", nil).want(http.StatusOK)
	private.call("GET", "/healthz", nil).want(http.StatusOK).is("ok", "status")
	private.call("GET", "/readyz", nil).want(http.StatusOK).is("ok", "status")
	private.call("GET", "/health", nil).want(http.StatusOK).is("ok", "status")
	for _, path := range []string{"/", "/api/auth/me", "/api/openapi.json", "/metrics/x"} {
		private.call("GET", path, nil).want(http.StatusNotFound)
	}

	taken := testConfig(t, masterdb.SQLite)
	taken.PrivateListen = strings.TrimPrefix(s.PrivateURL, "http://")
	if _, err := launch(t.Context(), taken, s.Log); err == nil || !strings.Contains(err.Error(), "STOA_PRIVATE_LISTEN") {
		t.Errorf("a taken address: %v", err)
	}
	if off := startServer(t, testConfig(t, masterdb.SQLite)); off.Private != nil {
		t.Error("a private listener that nobody asked for")
	}
	for _, bad := range []string{"9090", ":9090", "localhost:9090", "127.0.0.1", "127.0.0.1:99999"} {
		if status, _, errOut := command(t, "serve", "--private-listen="+bad, "--data-dir="+t.TempDir()); status != 1 || !strings.Contains(errOut, "STOA_PRIVATE_LISTEN") {
			t.Errorf("%s: status %d, %s", bad, status, errOut)
		}
	}
}

// TestPrivateDetails checks that the public listener never serves what only the
// operator may see, in production in particular.
func TestPrivateDetails(t *testing.T) {
	t.Parallel()
	cfg := productionConfig(t)
	cfg.PrivateListen = "127.0.0.1:0"
	cfg.RedisURL = secretOf("redis://:hunter2@" + closedPort(t))
	s := startServer(t, cfg)
	public, private := client{t: t, url: s.URL}, client{t: t, url: s.PrivateURL}
	for _, path := range []string{"/metrics", "/health", "/ask?domain=localhost", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/vars"} {
		for _, host := range []string{"localhost", "shop.localhost"} {
			public.call("GET", path, nil, "Host", host).want(http.StatusNotFound)
		}
	}
	if a := public.call("GET", "/healthz", nil).want(http.StatusOK); a.body["version"] != nil {
		t.Errorf("the public port tells the version: %s", a.raw)
	}
	private.call("GET", "/debug/pprof/goroutine?debug=1", nil).want(http.StatusOK)
	private.call("GET", "/debug/pprof/cmdline", nil).want(http.StatusNotFound) // the command line may contain secrets
	a := private.call("GET", "/health", nil).want(http.StatusOK).is("ok", "status")
	checks := map[string]bool{}
	for _, c := range a.list("checks") {
		checks[c.(object)["name"].(string)] = c.(object)["ok"].(bool)
	}
	if want := map[string]bool{"master database": true, "schema": true, "data directory": true, "job queue": true, "rate limits": false}; !maps.Equal(checks, want) {
		t.Errorf("checks %v, want %v", checks, want)
	}
	if strings.Contains(a.raw, "hunter2") {
		t.Errorf("it tells the password: %s", a.raw)
	}
}

// TestHealthWithoutMaster checks that the details name the missing database.
func TestHealthWithoutMaster(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.PrivateListen = "127.0.0.1:0"
	s, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = s.Stop() }) // the stop fails: it cannot write to the master
	s.Master.Close()
	client{t: t, url: s.PrivateURL}.call("GET", "/health", nil).want(http.StatusServiceUnavailable).is("failing", "status")
}
