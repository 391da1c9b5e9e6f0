package app_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// TestHTTPManners checks what clients expect of any HTTP API.
func TestHTTPManners(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	owner, _ := register(t, s, "owner@example.com")
	anybody := client{t: t, url: s.URL}

	// A missing token and a wrong one differ.
	{
		if got := anybody.call("GET", "/api/stores", nil).want(http.StatusUnauthorized).header.Get("WWW-Authenticate"); got != `Bearer realm="stoa"` {
			t.Errorf("without a token: %s", got)
		}
		if got := anybody.call("GET", "/api/stores", nil, "Authorization", "Bearer x").want(http.StatusUnauthorized).header.Get("WWW-Authenticate"); got != `Bearer realm="stoa", error="invalid_token"` {
			t.Errorf("with a wrong token: %s", got)
		}
	}
	// Unknown parameters are refused.
	{
		for _, path := range []string{"/api/stores?q=oil", "/api/auth/me?verbose=1", "/api/credits/prices?limit=3&page=2"} {
			if a := owner.call("GET", path, nil); a.status != http.StatusUnprocessableEntity || a.text("code") != "invalid_request" {
				t.Errorf("%s: %d %s", path, a.status, a.raw)
			}
		}
		anybody.call("GET", "/healthz?from=balancer", nil).want(http.StatusOK)
	}
	// Methods.
	{
		a := anybody.call("OPTIONS", "/api/stores", nil).want(http.StatusNoContent)
		if got := a.header.Get("Allow"); got != "GET, HEAD, POST, OPTIONS" {
			t.Errorf("Allow: %s", got)
		}
		if got := anybody.call("PUT", "/api/stores", nil).want(http.StatusMethodNotAllowed).header.Get("Allow"); got != "GET, HEAD, POST, OPTIONS" {
			t.Errorf("Allow: %s", got)
		}
		anybody.call("OPTIONS", "/api/nothing", nil).want(http.StatusNotFound)
		head, get := owner.call("HEAD", "/api/stores", nil).want(http.StatusOK), owner.call("GET", "/api/stores", nil).want(http.StatusOK)
		if head.raw != "" || head.header.Get("Content-Length") != get.header.Get("Content-Length") {
			t.Errorf("HEAD: %q, %v", head.raw, head.header)
		}
	}
	// A slash too much is redirected.
	{
		for _, method := range []string{"GET", "POST"} {
			if got := owner.call(method, "/api/stores/", nil).want(http.StatusPermanentRedirect).header.Get("Location"); got != "/api/stores" {
				t.Errorf("%s: %s", method, got)
			}
		}
		owner.call("GET", "/api/nothing/", nil).want(http.StatusNotFound)
	}
	// Limits are told before they are reached.
	{
		a := owner.call("GET", "/api/stores", nil).want(http.StatusOK)
		for _, name := range []string{"address", "user"} {
			if !strings.Contains(a.header.Get("RateLimit"), `"`+name+`";r=`) || !strings.Contains(a.header.Get("RateLimit-Policy"), `"`+name+`";q=`) {
				t.Errorf("%s: %v", name, a.header)
			}
		}
	}
	// The document is cached and compressed.
	{
		for _, path := range []string{"/api/openapi.json", "/api/openapi-3.0.json", "/api/openapi.yaml", "/api/openapi-3.0.yaml"} {
			plain := anybody.call("GET", path, nil, "Accept-Encoding", "identity").want(http.StatusOK)
			packed := anybody.call("GET", path, nil, "Accept-Encoding", "gzip").want(http.StatusOK)
			if len(packed.raw)*4 > len(plain.raw) || packed.header.Get("Content-Encoding") != "gzip" || packed.header.Get("Vary") == "" {
				t.Errorf("%s: %d bytes of %d, %v", path, len(packed.raw), len(plain.raw), packed.header)
			}
			etag := plain.header.Get("ETag")
			if etag == "" || !strings.HasPrefix(plain.header.Get("Cache-Control"), "public") {
				t.Errorf("%s: %v", path, plain.header)
			}
			anybody.call("GET", path, nil, "Accept-Encoding", "identity", "If-None-Match", etag).want(http.StatusNotModified)
		}
	}
	// What is made has an address.
	{
		store := owner.call("POST", "/api/stores", object{"name": "Another"}).want(http.StatusCreated)
		if got := store.header.Get("Location"); got != "/api/stores/"+store.text("id") {
			t.Errorf("Location: %q", got)
		}
	}
}
