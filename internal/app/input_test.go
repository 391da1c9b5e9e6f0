package app_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// hostileParameters are values that no parameter accepts.
var hostileParameters = map[string]string{
	"NUL": "%00", "a control character": "a%1bb", "invalid UTF-8": "%ff", "C1": "%c2%85", "a broken escape": "%zz", "a semicolon": "a;b=c",
}

// TestParametersAreText checks that each path and query parameter of each operation
// refuses a value that is not valid text, on both masters, and that a parameter may be
// given only once.
func TestParametersAreText(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		get := func(method, target string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader("{}"))
			path, query, _ := strings.Cut(target, "?")
			r.RequestURI, r.URL.RawPath, r.URL.RawQuery, r.Host = target, "", query, "localhost"
			r.URL.Path = unescape(path)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+c.token)
			w := httptest.NewRecorder()
			s.HTTP.Handler.ServeHTTP(w, r)
			return w
		}
		doc := client{t: t, url: s.URL}.call("GET", "/api/openapi.json", nil).want(http.StatusOK).body
		tried := 0
		for path, item := range doc["paths"].(object) {
			for method, op := range item.(object) {
				method = strings.ToUpper(method)
				for _, name := range queryParameters(op.(object)) {
					for what, value := range hostileParameters {
						tried++
						w := get(method, strings.ReplaceAll(path, "{id}", id)+"?"+name+"="+value)
						if w.Code != http.StatusUnprocessableEntity && w.Code != http.StatusNotFound {
							t.Errorf("%s %s with %s in %s: %d %s", method, path, what, name, w.Code, w.Body)
						}
					}
					if w := get(method, strings.ReplaceAll(path, "{id}", id)+"?"+name+"=1&"+name+"=1"); w.Code != http.StatusUnprocessableEntity &&
						(w.Code != http.StatusForbidden || !strings.HasPrefix(path, "/api/events")) { // for operators; a type may be repeated
						t.Errorf("%s %s with %s twice: %d %s", method, path, name, w.Code, w.Body)
					}
				}
				if strings.Contains(path, "{") {
					for what, value := range map[string]string{"NUL": "%00", "invalid UTF-8": "%ff", "a control character": "%1b"} {
						tried++
						if w := get(method, placeholder.ReplaceAllString(path, value)); w.Code != http.StatusNotFound {
							t.Errorf("%s %s with %s: %d %s", method, path, what, w.Code, w.Body)
						}
					}
				}
			}
		}
		if tried < 100 {
			t.Errorf("only %d were tried", tried)
		}
	})
}

func queryParameters(op object) (names []string) {
	parameters, _ := op["parameters"].([]any)
	for _, p := range parameters {
		if p := p.(object); p["in"] == "query" {
			names = append(names, p["name"].(string))
		}
	}
	return names
}

// unescape decodes the percent-encoding of a path, also when the result is not valid
// text.
func unescape(path string) string {
	return strings.NewReplacer("%00", "\x00", "%ff", "\xff", "%1b", "\x1b").Replace(path)
}

// TestBodiesNameMembersOnce checks that a repeated member is refused by name at any
// depth. A member in other letter case and a body that is nested too deeply are refused
// too.
func TestBodiesNameMembersOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "owner@example.com")
	for name, test := range map[string]struct {
		method, path, body string
		status             int
		says               string
	}{
		"twice":            {"POST", "/api/stores", `{"name":"A","name":"B"}`, 400, `"name" twice`},
		"escaped":          {"POST", "/api/stores", `{"name":"A","n\u0061me":"B"}`, 400, `"name" twice`},
		"the empty name":   {"POST", "/api/stores", `{"":1,"name":"A","":2}`, 400, `"" twice`},
		"in an object":     {"PATCH", "/api/stores/" + id, `{"theme":{"a":[{"b":1,"c":{},"b":2}]}}`, 400, `"b" twice`},
		"in a list":        {"PATCH", "/api/stores/" + id, `{"theme":{"a":[[],{},{"b":[],"b":null}]}}`, 400, `"b" twice`},
		"in other letters": {"POST", "/api/stores", `{"name":"A","Name":"B"}`, 422, "Name"},
		"an amount":        {"POST", "/api/credits/spend", `{"amount":"1","amount":"2"}`, 400, `"amount" twice`},
		"too deep":         {"PATCH", "/api/stores/" + id, `{"theme":{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`, 400, "within each other"},
		"far too deep":     {"POST", "/api/stores", strings.Repeat(`{"a":`, 50_000), 400, "within each other"},
		"cut off":          {"POST", "/api/stores", `{"name":"A"`, 400, ""},
		"two values":       {"POST", "/api/stores", `{"name":"A"}{"name":"B"}`, 400, ""},
		"the same deeper":  {"PATCH", "/api/stores/" + id, `{"theme":{"theme":{"theme":1}},"description":"[{"}`, 200, ""},
		"siblings":         {"PATCH", "/api/stores/" + id, `{"theme":{"a":[{"b":1},{"b":2}],"c":{"b":1},"B":1}}`, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(test.path, id) {
				connectOnce(t, c, id)
			}
			a := c.call(test.method, test.path, test.body)
			if a.status != test.status || !strings.Contains(strings.ReplaceAll(a.raw, `\"`, `"`), test.says) {
				t.Errorf("%d %s, want %d and %q", a.status, a.raw, test.status, test.says)
			}
		})
	}
}

// connectOnce gives a store its database, unless it has one.
func connectOnce(t *testing.T, c client, id string) {
	t.Helper()
	if c.call("GET", "/api/stores/"+id, nil).text("status") != "active" {
		c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
	}
}

// TestShoppersAreNotToldOfThePlatform checks that the answers at a store's host or an
// unknown one name neither the platform nor its URL.
func TestShoppersAreNotToldOfThePlatform(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.BaseDomain = "shops.example"
	s := startServer(t, cfg)
	c, id := register(t, s, "owner@example.com")
	connectOnce(t, c, id)
	store := c.call("GET", "/api/stores/"+id, nil).text("slug") + ".shops.example"
	for _, host := range []string{"unknown.shops.example", "unknown.example", store, "x_y"} {
		for _, path := range []string{"/", "/nothing", "/api/nothing", "/api/stores", "/api/storefront/store", "/api/storefront/nothing", "/assets/nothing", "/api/docs", "/login"} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			s.HTTP.Handler.ServeHTTP(w, r)
			if w.Code < http.StatusBadRequest {
				continue
			}
			all := strings.ToLower(w.Body.String())
			for name, values := range w.Header() {
				all += "\n" + strings.ToLower(name+": "+strings.Join(values, " "))
			}
			for _, word := range []string{"stoa", "platform", "/api/docs"} {
				if strings.Contains(all, word) {
					t.Errorf("%s%s: %d names %q: %s", host, path, w.Code, word, all)
				}
			}
		}
	}
}
