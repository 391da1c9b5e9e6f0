package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// TestHosts checks that the platform answers at its own hosts, that a store's hostname
// serves only the storefront, and that other hosts get no content.
func TestHosts(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.BaseDomain, cfg.BaseURL, cfg.PlatformHosts = "shops.example.com", "https://www.example.com", []string{"console.example.com"}
	s := startServer(t, cfg)
	s.URL = "http://" + s.address(t)
	owner, id, host := connected(t, s, "owner@example.com")
	for _, own := range []string{"localhost", "shops.example.com", "SHOPS.example.com:3000", "www.example.com", "console.example.com", "127.0.0.1:3000", "[::1]:3000", "[::1]"} {
		a := owner.call("GET", "/api/stores/"+id, nil, "Host", own).want(http.StatusOK)
		if a.header.Get("Strict-Transport-Security") == "" && own == "www.example.com" {
			t.Error("no Strict-Transport-Security on the platform's own host")
		}
		owner.call("GET", "/", nil, "Host", own).want(http.StatusOK)
	}
	for _, foreign := range []string{host, "unknown.shops.example.com", "evil.example.net", "localhost.evil.example.net", "\"", "a..b"} {
		owner.call("GET", "/api/stores/"+id, nil, "Host", foreign).problem(http.StatusNotFound, "not_found")
		owner.call("POST", "/api/auth/login", object{}, "Host", foreign).problem(http.StatusNotFound, "not_found")
		owner.call("GET", "/api/storefront/../stores/"+id, nil, "Host", foreign).want(http.StatusTemporaryRedirect)
		for _, path := range []string{"/api/docs", "/api/openapi.json", "/dev/mailbox", "/verify", "/sandbox/checkout/x", "/none"} {
			owner.call("GET", path, nil, "Host", foreign).want(http.StatusNotFound)
		}
		owner.call("GET", "/healthz", nil, "Host", foreign).want(http.StatusOK)
		if foreign != host {
			owner.call("GET", "/api/storefront/store", nil, "Host", foreign).problem(http.StatusNotFound, "store_not_found")
			owner.call("GET", "/", nil, "Host", foreign).want(http.StatusNotFound)
		}
	}
	a := owner.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK).is(id, "id")
	if a.header.Get("Strict-Transport-Security") != "" {
		t.Error("a store's hostname is promised TLS, which it may not have")
	}
	owner.call("GET", "/", nil, "Host", host).want(http.StatusOK)
}

// address returns the server's listen address, independent of its public URL.
func (s *server) address(t *testing.T) string {
	t.Helper()
	return s.Listener.Addr().String()
}

// TestProductionAnswersAtNoAddress checks that in production an IP address is not a
// host of the platform.
func TestProductionAnswersAtNoAddress(t *testing.T) {
	t.Parallel()
	s := startServer(t, productionConfig(t))
	c := client{t: t, url: s.URL}
	c.call("GET", "/api/openapi.json", nil, "Host", "127.0.0.1").problem(http.StatusNotFound, "not_found")
	c.call("GET", "/api/openapi.json", nil).want(http.StatusOK)
}

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c := client{t: t, url: s.URL}
	for _, path := range []string{"/", "/api/openapi.json", "/api/auth/me", "/none", "/healthz", "/api/docs"} {
		a := c.call("GET", path, nil)
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s %q", path, name, got)
			}
		}
		if !strings.Contains(a.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || a.header.Get("Referrer-Policy") == "" {
			t.Errorf("%s: %v", path, a.header)
		}
		for name := range a.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s without any origin", path, name)
			}
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.CORSOrigins = []string{"https://app.example.com", "http://localhost:5173"}
	s := startServer(t, cfg)
	c, _ := register(t, s, "owner@example.com")
	preflight := func(origin string) answer {
		return client{t: t, url: s.URL}.call("OPTIONS", "/api/credits/spend", nil,
			"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,idempotency-key")
	}
	a := preflight("https://app.example.com").want(http.StatusNoContent)
	for name, want := range map[string]string{"Access-Control-Allow-Origin": "https://app.example.com", "Vary": "Origin", "Access-Control-Allow-Credentials": ""} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
	for _, want := range []string{"Authorization", "Idempotency-Key", "X-Store-Id"} {
		if !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), want) {
			t.Errorf("%s is not allowed: %s", want, a.header.Get("Access-Control-Allow-Headers"))
		}
	}
	for _, foreign := range []string{"https://app.example.com.evil.net", "http://app.example.com", "https://app.example.com:8443", "null", "https://APP.example.com", ""} {
		if a := preflight(foreign).want(http.StatusNoContent); a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%q may read answers", foreign)
		}
		if a := c.call("GET", "/api/auth/me", nil, "Origin", foreign).want(http.StatusOK); a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Vary") != "Origin" {
			t.Errorf("%q: %v", foreign, a.header)
		}
	}
	// Pages of other origins must be able to read error responses too.
	for path, status := range map[string]int{"/api/auth/me": http.StatusOK, "/api/nothing": http.StatusNotFound} {
		if a := c.call("GET", path, nil, "Origin", "http://localhost:5173").want(status); a.header.Get("Access-Control-Allow-Origin") != "http://localhost:5173" {
			t.Errorf("%s cannot be read", path)
		}
	}
	cfg = testConfig(t, masterdb.SQLite)
	cfg.CORSOrigins, cfg.CORSCredentials = []string{"https://app.example.com"}, true
	s = startServer(t, cfg)
	if a := preflight("https://app.example.com"); a.header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Error("no credentials, though they are allowed")
	}
}

func TestInvalidHostSettings(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{
		"--cors-origins=*":                                     "STOA_CORS_ORIGINS",
		"--cors-origins=app.example.com":                       "STOA_CORS_ORIGINS",
		"--cors-origins=https://app.example.com/":              "STOA_CORS_ORIGINS",
		"--cors-origins=null":                                  "STOA_CORS_ORIGINS",
		"--cors-origins=https://app.example.com:0":             "STOA_CORS_ORIGINS",
		"--base-url=https://example.com:99999":                 "STOA_BASE_URL",
		"--otel-exporter-otlp-endpoint=http://127.0.0.1:65536": "OTEL_EXPORTER_OTLP_ENDPOINT",
		"--cors-credentials":                                   "STOA_CORS_CREDENTIALS needs",
		"--platform-hosts=https://www.example.com":             "STOA_PLATFORM_HOSTS",
		"--master-db-url=mysql://u:p@127.0.0.1/stoa":           "MASTER_DB_URL must be",
		"--master-db-url=sqlite:":                              "MASTER_DB_URL must be",
		"--base-domain=a..b":                                   "STOA_BASE_DOMAIN",
		"--platform-hosts=a..example.com":                      "STOA_PLATFORM_HOSTS",
		"--platform-hosts=*.example.com":                       "STOA_PLATFORM_HOSTS",
		"--platform-hosts=www.example.com:3000":                "STOA_PLATFORM_HOSTS",
	} {
		if status, _, errOut := command(t, "serve", flag, "--data-dir="+t.TempDir()); status != 1 || !strings.Contains(errOut, want) {
			t.Errorf("%s: status %d, %s", flag, status, errOut)
		}
	}
}

// TestRequestsHaveBounds checks the limits of URL, headers and body.
func TestRequestsHaveBounds(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "owner@example.com")
	c.call("GET", "/api/stores?cursor="+strings.Repeat("a", 9<<10), nil).problem(http.StatusRequestURITooLong, "uri_too_long")
	c.call("GET", "/api/stores", nil, "X-Big", strings.Repeat("a", 64<<10)).want(http.StatusRequestHeaderFieldsTooLarge)
	big := `{"name":"` + strings.Repeat("a", 3<<20) + `"}`
	c.call("POST", "/api/stores", big).problem(http.StatusRequestEntityTooLarge, "payload_too_large")
	c.call("PATCH", "/api/stores/"+id, big).problem(http.StatusRequestEntityTooLarge, "payload_too_large")
	c.call("POST", "/api/webhooks/stripe", big).problem(http.StatusRequestEntityTooLarge, "payload_too_large")
	c.call("POST", "/verify", "password="+strings.Repeat("a", 1<<20), "Content-Type", "application/x-www-form-urlencoded").want(http.StatusRequestEntityTooLarge)
}

// TestSlowClients checks that a client that sends a request's header or body byte by
// byte is disconnected, whether or not a handler reads the body. Other clients are
// served meanwhile.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	quick := client{t: t, url: s.URL}
	const patience = 20 * time.Second
	for name, head := range map[string]string{
		"header":       "GET /api/auth/me HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"body":         "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n",
		"form":         "POST /verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9999\r\n\r\n",
		"chunks":       "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
		"unread body":  "POST /api/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n",
		"private body": "POST /api/stores HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.address(t))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			start := time.Now()
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = io.Copy(io.Discard, bufio.NewReader(conn)) // until the server closes the connection
			}()
			drip := time.NewTicker(200 * time.Millisecond)
			defer drip.Stop()
			for {
				select {
				case <-ended:
					quick.call("GET", "/healthz", nil).want(http.StatusOK)
					return
				case <-drip.C:
					fmt.Fprint(conn, "a") // the connection may be closed already
				}
				if time.Since(start) > patience {
					t.Fatalf("after %v it still may send", patience)
				}
			}
		})
	}
}
