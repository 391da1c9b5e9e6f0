package app_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// TestOpenAPI checks that the document is complete: every reference resolves, every
// operation has a description, and every error is a problem document.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	doc := client{t: t, url: s.URL}.call("GET", "/api/openapi.json", nil).want(http.StatusOK).is("3.1.0", "openapi")
	schemas := doc.at("components", "schemas").(object)
	for _, ref := range regexp.MustCompile(`"#/components/schemas/([^"]+)"`).FindAllStringSubmatch(doc.raw, -1) {
		if schemas[ref[1]] == nil {
			t.Errorf("no schema %s", ref[1])
		}
	}
	ids := map[any]bool{}
	for path, methods := range doc.at("paths").(object) {
		for method, spec := range methods.(object) {
			spec := spec.(object)
			name := strings.ToUpper(method) + " " + path
			if spec["summary"] == nil || spec["tags"] == nil {
				t.Errorf("%s has no summary or tag", name)
			}
			if id := spec["operationId"]; id == nil || ids[id] {
				t.Errorf("%s has no operationId of its own: %v", name, id)
			} else {
				ids[id] = true
			}
			for status, response := range spec["responses"].(object) {
				content, _ := response.(object)["content"].(object)
				if (status == "default" || status[0] >= '4') && content["application/problem+json"] == nil {
					t.Errorf("%s: %s is no problem document", name, status)
				}
			}
		}
	}
	if !strings.Contains(doc.raw, `"/api/stores/{id}/connect-database"`) || len(ids) < 20 {
		t.Errorf("only %d operations", len(ids))
	}
	if regexp.MustCompile(`"(\$schema|base64)"`).MatchString(doc.raw) {
		t.Error("the document shows how values are kept, not what they mean")
	}
}

// TestDocsAreServedByTheBinary checks that the server itself serves the documentation
// page and everything that the page loads.
func TestDocsAreServedByTheBinary(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c := client{t: t, url: s.URL}
	loaded := 0
	for _, page := range []string{"/api/docs", "/"} {
		html := c.call("GET", page, nil).want(http.StatusOK)
		if html.header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s has no content security policy", page)
		}
		for _, asset := range regexp.MustCompile(`(?:src|href)="([^"#]+\.(?:js|css|svg|png))"`).FindAllStringSubmatch(html.raw, -1) {
			if !strings.HasPrefix(asset[1], "/") || strings.HasPrefix(asset[1], "//") {
				t.Errorf("%s loads %s from elsewhere", page, asset[1])
				continue
			}
			c.call("GET", asset[1], nil).want(http.StatusOK)
			loaded++
		}
	}
	if loaded < 4 {
		t.Errorf("only %d assets found", loaded)
	}
}
