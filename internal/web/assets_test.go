package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/storefront"
	"github.com/stoahq/stoa/internal/web"
)

func get(t *testing.T, h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.URL = &url.URL{Path: path} // unchanged, with its dots
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAssets(t *testing.T) {
	t.Parallel()
	for address, contentType := range map[string]string{
		web.StylesheetURL: "text/css; charset=utf-8",
		web.FaviconURL:    "image/svg+xml",
	} {
		w := get(t, web.Assets(), address)
		if w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Fatalf("%s: status %d, %d bytes", address, w.Code, w.Body.Len())
		}
		for key, want := range map[string]string{
			"Content-Type":           contentType,
			"Cache-Control":          "public, max-age=31536000, immutable",
			"X-Content-Type-Options": "nosniff",
		} {
			if got := w.Header().Get(key); got != want {
				t.Errorf("%s: %s %q, want %q", address, key, got, want)
			}
		}
		if w := get(t, web.Assets(), address, "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusNotModified {
			t.Errorf("%s: status %d for a known ETag, want 304", address, w.Code)
		}
	}
}

func TestAssetsServesNothingElse(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/assets", "/assets/", "/assets/style.css", "/assets/static/", "/assets/static/style.css", "/assets/../go.mod",
		"/assets/./" + strings.TrimPrefix(web.StylesheetURL, "/assets/"), "/assets/..%2fgo.mod", "/assets/\x00",
		"/" + web.StylesheetURL, web.StylesheetURL + "/", "/",
	} {
		if w := get(t, web.Assets(), path); w.Code != http.StatusNotFound {
			t.Errorf("%q: status %d, want 404", path, w.Code)
		}
	}
	w := httptest.NewRecorder()
	web.Assets().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, web.StylesheetURL, nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d, want 405", w.Code)
	}
}

// TestPagesNameServedAssets checks that every page names only assets that are served.
func TestPagesNameServedAssets(t *testing.T) {
	t.Parallel()
	doc, _ := render(t, storefront.ErrorPage(storefront.ErrorView{}))
	links := attributes(doc, "link", "href")
	if !slices.Contains(links, web.StylesheetURL) || !slices.Contains(links, web.StoreFaviconURL) {
		t.Errorf("links %q", links)
	}
}

func TestDocs(t *testing.T) {
	t.Parallel()
	docs := console.Docs("/api/openapi.json", "/api/docs")
	for _, path := range []string{"/api/docs", "/api/docs/"} {
		w := get(t, docs, path)
		if w.Code != http.StatusOK {
			t.Fatalf("%s: status %d", path, w.Code)
		}
		if got := w.Header().Get("Content-Security-Policy"); got != console.DocsContentSecurityPolicy {
			t.Errorf("%s: policy %q", path, got)
		}
		doc, err := html.Parse(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := attributes(doc, "main", "data-openapi"); !slices.Equal(got, []string{"/api/openapi.json"}) {
			t.Errorf("%s: documents %q", path, got)
		}
		scripts, links := attributes(doc, "script", "src"), attributes(doc, "link", "href")
		if len(scripts) != count(doc, "script") || len(scripts) != 2 || len(links) != 3 {
			t.Errorf("%s: scripts %q of %d, links %q", path, scripts, count(doc, "script"), links)
		}
		for _, address := range slices.Concat(scripts, links) {
			if address != web.FaviconURL {
				checkDocsFile(t, docs, address)
			}
		}
	}
	for _, path := range []string{"/api/docs/swagger-ui.js", "/api/docs/oauth2-redirect.html", "/api/docs/index.html", "/api/docs/../x", "/api", "/"} {
		if w := get(t, docs, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
}

func checkDocsFile(t *testing.T, docs http.Handler, address string) {
	t.Helper()
	kind := "text/css; charset=utf-8"
	if strings.HasSuffix(address, ".js") {
		kind = "javascript"
	}
	for _, encoding := range []string{"gzip", "identity"} {
		w := get(t, docs, address, "Accept-Encoding", encoding)
		if w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Errorf("%s as %s: status %d, %d bytes", address, encoding, w.Code, w.Body.Len())
		}
		if got := w.Header().Get("Content-Type"); !strings.Contains(got, kind) {
			t.Errorf("%s: type %q", address, got)
		}
		if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options %q", address, got)
		}
		if !strings.Contains(w.Header().Get("Cache-Control"), "max-age") {
			t.Errorf("%s: Cache-Control %q", address, w.Header().Get("Cache-Control"))
		}
		if encoding == "identity" && w.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: encoded for a client that takes none", address)
		}
	}
}
