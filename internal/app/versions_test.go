package app_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/httpapi/openapitest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// documentOf returns the OpenAPI document that an earlier version was released with.
func documentOf(t *testing.T, version string) *openapitest.Document {
	t.Helper()
	file, err := os.Open("testdata/versions/" + version + ".json.gz")
	testkit.Must(t, err)
	defer file.Close() //nolint:errcheck // it was only read
	z, err := gzip.NewReader(file)
	testkit.Must(t, err)
	raw, err := io.ReadAll(z)
	testkit.Must(t, err)
	d, err := openapitest.NewOpen(raw)
	testkit.Must(t, err)
	return d
}

// TestEarlierVersions checks that answers in each earlier version are as its document says,
// and that the newest one is what a request without a version gets.
func TestEarlierVersions(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id, _ := connected(t, s, "owner@example.com")
	versions := httpapi.Versions()
	newest := versions[len(versions)-1]
	for _, version := range versions[:len(versions)-1] {
		d := documentOf(t, version)
		call := func(method, path string, body any, want int) answer {
			t.Helper()
			a := c.call(method, path, body, "Stoa-Version", version).want(want)
			bare, _, _ := strings.Cut(path, "?")
			if err := d.Check(method, bare, a.status, a.header, []byte(a.raw)); err != nil {
				t.Error(err)
			}
			if got := a.header.Get("Stoa-Version"); got != version {
				t.Errorf("%s %s answers in version %q", method, path, got)
			}
			return a
		}
		path := "/api/stores/" + id
		call("GET", path, nil, http.StatusOK).is(false, "held")
		call("PATCH", path, object{"city": "Wien", "settings": object{"suspendedByOperator": "mine"}}, http.StatusOK).is(false, "held").is("mine", "profile", "settings", "suspendedByOperator")
		call("POST", path+"/suspend", nil, http.StatusOK).is(false, "held")
		call("POST", path+"/resume", nil, http.StatusOK).is(false, "held")
		for list, from := range map[string]string{"/api/stores?limit=5": "data", "/api/auth/me": "stores"} {
			store, _ := call("GET", list, nil, http.StatusOK).list(from)[0].(object)
			if _, renamed := store["suspendedByOperator"]; renamed || store["held"] != false {
				t.Errorf("%s: %v", list, store)
			}
		}
		call("POST", "/api/stores", object{"name": "Second " + version}, http.StatusCreated).is(false, "held")
		call("GET", "/api/credits/balance?storeId="+id, nil, http.StatusOK)
		call("GET", path+"/members", nil, http.StatusOK)
		call("GET", "/api/stores/none", nil, http.StatusNotFound)
	}
	for _, header := range [][]string{nil, {"Stoa-Version", newest}} {
		a := c.call("GET", "/api/stores/"+id, nil, header...).want(http.StatusOK).is(false, "suspendedByOperator")
		if _, old := a.body["held"]; old || a.header.Get("Stoa-Version") != newest {
			t.Errorf("%s, %v", a.raw, a.header)
		}
	}
	for _, version := range []string{"2099-01-01", "2026-11-27", "x"} {
		a := c.call("GET", "/api/stores/"+id, nil, "Stoa-Version", version).problem(http.StatusBadRequest, "api_version_unknown")
		if !strings.Contains(a.text("detail"), strings.Join(versions, ", ")) {
			t.Errorf("%s", a.raw)
		}
	}
}
