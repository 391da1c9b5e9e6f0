package app_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// browserAccept is the Accept header of a browser that opens a page.
const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

func TestWellKnownFiles(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.SecurityContact = "mailto:security@example.com"
	s := startServer(t, cfg)
	c := client{t: t, url: s.URL}

	robots := c.call("GET", "/robots.txt", nil).want(http.StatusOK)
	for _, want := range []string{"User-agent: *\n", "Disallow: /stores\n", "Disallow: /operator\n", "Disallow: /account\n", "Disallow: /api/\n", "Allow: /api/docs\n"} {
		if !strings.Contains(robots.raw, want) {
			t.Errorf("robots.txt lacks %q:\n%s", want, robots.raw)
		}
	}

	security := c.call("GET", "/.well-known/security.txt", nil).want(http.StatusOK)
	if got := security.header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("security.txt is %s", got)
	}
	fields := map[string]string{}
	for line := range strings.Lines(security.raw) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		fields[name] = value
	}
	if fields["Contact"] != "mailto:security@example.com" || fields["Canonical"] != s.URL+"/.well-known/security.txt" {
		t.Errorf("security.txt:\n%s", security.raw)
	}
	if at, err := time.Parse(time.RFC3339, fields["Expires"]); err != nil || time.Until(at) < 30*24*time.Hour || time.Until(at) > 365*24*time.Hour {
		t.Errorf("security.txt expires at %q", fields["Expires"])
	}

	if to := c.call("GET", "/.well-known/change-password", nil).want(http.StatusFound).header.Get("Location"); to != "/account/password" {
		t.Errorf("a password is changed at %q", to)
	}
	// Browsers trust the redirect only if a resource that cannot exist is not found.
	c.call("GET", "/.well-known/resource-that-should-not-exist-whose-status-code-should-not-be-200", nil).want(http.StatusNotFound)

	icon := c.call("GET", "/favicon.ico", nil).want(http.StatusOK)
	if !strings.HasPrefix(icon.raw, "\x00\x00\x01\x00") || icon.header.Get("Content-Type") != "image/vnd.microsoft.icon" {
		t.Errorf("favicon.ico: %s, %.8q", icon.header.Get("Content-Type"), icon.raw)
	}
	if shop := c.call("GET", "/favicon.ico", nil, "Host", "shop.example.com").want(http.StatusOK); bytes.Equal([]byte(shop.raw), []byte(icon.raw)) {
		t.Error("a store has the platform's icon")
	}
}

func TestNoSecurityContact(t *testing.T) {
	t.Parallel()
	s := startServer(t, productionConfig(t))
	client{t: t, url: s.URL}.call("GET", "/.well-known/security.txt", nil).want(http.StatusNotFound)
}

// TestRobotsStayOffPrivatePages checks that robots.txt disallows every page that needs a
// sign-in.
func TestRobotsStayOffPrivatePages(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	s := startServer(t, cfg)
	var disallowed []string
	for line := range strings.Lines(client{t: t, url: s.URL}.call("GET", "/robots.txt", nil).raw) {
		if prefix, ok := strings.CutPrefix(strings.TrimSpace(line), "Disallow: "); ok {
			disallowed = append(disallowed, prefix)
		}
	}
	for _, r := range httpapi.Routes(cfg.API(s.URL, slog.New(slog.DiscardHandler), nil, nil, nil)) {
		if r.Scope == "public" || r.Method != "GET" {
			continue
		}
		if !hasAnyPrefix(r.Path, disallowed) {
			t.Errorf("search engines may go to %s", r.Path)
		}
	}
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// TestErrorsInTheFormatThatIsAskedFor requests what does not exist, as browsers and as
// programs do.
func TestErrorsInTheFormatThatIsAskedFor(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c := client{t: t, url: s.URL}
	const html, problem = "text/html; charset=utf-8", "application/problem+json"
	for _, test := range []struct {
		method, path, accept string
		status               int
		want                 string
	}{
		{"GET", "/none", browserAccept, http.StatusNotFound, html},
		{"HEAD", "/none", browserAccept, http.StatusNotFound, html},
		{"GET", "/none", "text/html", http.StatusNotFound, html},
		{"GET", "/none", "text/html;q=0.5, application/json;q=0.5", http.StatusNotFound, html},
		{"GET", "/none", "text/html;q=0.4, application/json;q=0.5", http.StatusNotFound, problem},
		{"GET", "/none", "text/html;q=0, */*", http.StatusNotFound, problem},
		{"GET", "/none", "text/html;q=x", http.StatusNotFound, problem},
		{"GET", "/none", "application/json", http.StatusNotFound, problem},
		{"GET", "/none", "*/*", http.StatusNotFound, problem},
		{"GET", "/none", "", http.StatusNotFound, problem},
		{"GET", "/api/none", browserAccept, http.StatusNotFound, problem},
		{"DELETE", "/verify-email", browserAccept, http.StatusMethodNotAllowed, html},
		{"DELETE", "/verify-email", "", http.StatusMethodNotAllowed, problem},
		{"DELETE", "/api/auth/login", browserAccept, http.StatusMethodNotAllowed, problem},
		{"GET", "/checkout/none", browserAccept, http.StatusNotFound, html},
		{"GET", "/checkout/none", "", http.StatusNotFound, html},
		{"GET", "/checkout/none", "application/json", http.StatusNotFound, problem},
		{"GET", "/" + strings.Repeat("a", 9000), browserAccept, http.StatusRequestURITooLong, html},
		{"GET", "/" + strings.Repeat("a", 9000), "", http.StatusRequestURITooLong, problem},
	} {
		a := c.call(test.method, test.path, nil, "Accept", test.accept)
		if a.status != test.status || a.header.Get("Content-Type") != test.want {
			t.Errorf("%s %.40s with %q: %d %s, want %d %s", test.method, test.path, test.accept, a.status, a.header.Get("Content-Type"), test.status, test.want)
		}
		if test.status == http.StatusMethodNotAllowed && a.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", test.method, test.path)
		}
	}
}

// TestStoreErrorsShowNothingOfThePlatform reads error pages at hostnames of stores.
func TestStoreErrorsShowNothingOfThePlatform(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	owner, id, hostname := connected(t, s, "owner@example.com")
	c := client{t: t, url: s.URL}
	read := func(path, host string, status int) string {
		t.Helper()
		a := c.call("GET", path, nil, "Host", host, "Accept", browserAccept).want(status)
		if a.header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s%s: %s", host, path, a.header.Get("Content-Type"))
		}
		text := strings.ToLower(a.raw)
		for _, word := range []string{"stoa", "platform", "request", "api", "console", "sign in", "database", a.header.Get("X-Request-Id"), s.URL} {
			if strings.Contains(text, word) {
				t.Errorf("%s%s says %q:\n%s", host, path, word, a.raw)
			}
		}
		return a.raw
	}
	for _, path := range []string{"/none", "/stores", "/signin", "/operator/stores", "/.well-known/security.txt", "/.well-known/change-password"} {
		if page := read(path, hostname, http.StatusNotFound); !strings.Contains(page, `href="/"`) {
			t.Errorf("%s leads nowhere:\n%s", path, page)
		}
	}
	read("/"+strings.Repeat("a", 9000), hostname, http.StatusRequestURITooLong)
	read("/", "none.localhost", http.StatusNotFound)
	read("/", "shop.example.com", http.StatusNotFound)
	read("/", hostname, http.StatusOK)
	if robots := c.call("GET", "/robots.txt", nil, "Host", hostname).want(http.StatusOK); robots.raw != "User-agent: *\nAllow: /\n" {
		t.Errorf("robots.txt of a store:\n%s", robots.raw)
	}
	owner.call("POST", "/api/stores/"+id+"/suspend", object{"reason": "holiday"}).want(http.StatusOK)
	testkit.Eventually(t, testkit.Timeout, "the store is closed", func() bool {
		return c.call("GET", "/", nil, "Host", hostname).status == http.StatusServiceUnavailable
	})
	read("/", hostname, http.StatusServiceUnavailable)
}

// TestPagesWithASlashTooMuch checks that a page's address may end in a slash, and that
// no such redirect leads to another server.
func TestPagesWithASlashTooMuch(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c := client{t: t, url: s.URL}
	for _, test := range []struct {
		method, path string
		status       int
		location     string
	}{
		{"GET", "/verify-email/", http.StatusPermanentRedirect, "/verify-email"},
		{"GET", "/verify-email/?token=a%2Fb", http.StatusPermanentRedirect, "/verify-email?token=a%2Fb"},
		{"HEAD", "/verify-email/", http.StatusPermanentRedirect, "/verify-email"},
		{"POST", "/verify-email/", http.StatusNotFound, ""},
		{"GET", "/none/", http.StatusNotFound, ""},
		{"GET", "/api/auth/me/", http.StatusPermanentRedirect, "/api/auth/me"},
		{"GET", "/checkout/%5Cevil.example/", http.StatusPermanentRedirect, "/checkout/%5Cevil.example"},
	} {
		a := c.call(test.method, test.path, nil)
		if a.status != test.status || a.header.Get("Location") != test.location {
			t.Errorf("%s %s: %d to %q, want %d to %q", test.method, test.path, a.status, a.header.Get("Location"), test.status, test.location)
		}
	}
	for _, path := range []string{"//evil.example/", "//evil.example/verify-email/", "/%2F/evil.example/", "//evil.example/%2e%2e/verify-email/"} {
		if to := c.call("GET", path, nil).header.Get("Location"); strings.HasPrefix(to, "//") || strings.Contains(to, "://") {
			t.Errorf("%s leads to %q", path, to)
		}
	}
}
