package httpapi

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/authz"
)

// allRoutes returns a configuration that registers every route.
func allRoutes() Config {
	return Config{BaseURL: "http://localhost:3000", BaseDomain: "localhost", Development: true, Sandbox: true, Log: slog.New(slog.DiscardHandler)}
}

// TestRoutesStateTheirOptions lists all routes, and fails for one that does not
// state a timeout, a rate class, a scope and a body limit at its registration.
func TestRoutesStateTheirOptions(t *testing.T) {
	t.Parallel()
	rates := []rateClass{rateHealth, rateAddress, rateAuth, rateCaller, rateDatabase, rateDatabaseWait, rateStorefront}
	scopes := []scope{scopePublic, scopeOptional, scopeCaller, scopePerson, scopeOperator}
	for _, rule := range authz.Rules() {
		scopes = append(scopes, scope(rule.Action))
	}
	list := Routes(allRoutes())
	if len(list) < 80 {
		t.Errorf("%d routes are registered", len(list))
	}
	for _, r := range list {
		name := r.Method + " " + r.Path
		if r.Timeout <= 0 {
			t.Errorf("%s states no timeout", name)
		}
		if !slices.Contains(rates, rateClass(r.Rate)) {
			t.Errorf("%s states no rate class: %q", name, r.Rate)
		}
		if !slices.Contains(scopes, scope(r.Scope)) {
			t.Errorf("%s states no scope: %q", name, r.Scope)
		}
		if r.MaxBody == 0 || r.MaxBody > maxBody && r.MaxBody != maxArchive { // an archive is not held in memory
			t.Errorf("%s states no body limit: %d", name, r.MaxBody)
		}
		// Requests are counted by caller if and only if the caller is authenticated.
		byCaller := slices.Contains([]rateClass{rateCaller, rateDatabase, rateDatabaseWait}, rateClass(r.Rate))
		if authenticated := scope(r.Scope).needsAuthentication(); byCaller != authenticated && rateClass(r.Rate) != rateAuth {
			t.Errorf("%s has the rate class %s and the scope %s", name, r.Rate, r.Scope)
		}
	}
}

// TestRouteOptionsFitTheOperation checks that a route states a body limit if and only
// if its operation has a request body, and a CSV timeout if and only if it has a CSV
// form.
func TestRouteOptionsFitTheOperation(t *testing.T) {
	t.Parallel()
	a := newAPI(Domains{}, allRoutes())
	seen := 0
	for path, item := range a.huma.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
		} {
			if op == nil {
				continue
			}
			seen++
			o := a.options[method+" "+path]
			if (o.maxBody != noBody) != (op.RequestBody != nil) {
				t.Errorf("%s %s: body limit %d, request body %v", method, path, o.maxBody, op.RequestBody != nil)
			}
			if o.maxBody != noBody && op.MaxBodyBytes != o.maxBody {
				t.Errorf("%s %s: body limit %d, huma's is %d", method, path, o.maxBody, op.MaxBodyBytes)
			}
			if (o.exportTimeout > 0) != (op.Responses["200"] != nil && op.Responses["200"].Content[csvType] != nil) {
				t.Errorf("%s %s: CSV timeout %v", method, path, o.exportTimeout)
			}
		}
	}
	if seen < 70 {
		t.Errorf("%d operations", seen)
	}
}

// TestRouteTimeouts checks the timeouts of routes that wait or stream.
func TestRouteTimeouts(t *testing.T) {
	t.Parallel()
	a := newAPI(Domains{}, allRoutes())
	for _, c := range []struct {
		method, path, accept string
		want                 time.Duration
	}{
		{"GET", "/", "", requestTimeout},
		{"GET", "/api/stores/x", "", requestTimeout},
		{"GET", "/there/is/nothing", "", requestTimeout},
		{"GET", "/api/openapi.json", "", requestTimeout},
		{"GET", "/api/stores/x/provisioning/events", "", streamLifetime + requestTimeout},
		{"GET", "/api/stores/x/moves/y/events", "", streamLifetime + requestTimeout},
		{"GET", "/api/stores/x/backups/restore/events", "", streamLifetime + requestTimeout},
		{"POST", "/api/stores/x/connect-database", "", requestTimeout + MaxWait},
		{"POST", "/api/stores/x/provisioning/retry", "", requestTimeout + MaxWait},
		{"POST", "/api/stores/x/supabase/projects", "", requestTimeout + MaxWait},
		{"GET", "/api/stores/x/supabase/projects", "", requestTimeout + MaxWait},
		{"POST", "/api/stores/x/database/test", "", requestTimeout + MaxWait},
		{"POST", "/api/stores/x/database/rotate-credentials", "", requestTimeout + MaxWait},
		{"GET", "/api/credits/transactions", "", requestTimeout},
		{"GET", "/api/credits/transactions", "text/csv", streamLifetime},
		{"GET", "/api/credits/transactions", "application/json;q=0.1, text/csv", streamLifetime},
		{"GET", "/api/stores/x/audit", "text/csv", streamLifetime},
		{"GET", "/api/operator/audit", "text/csv", streamLifetime},
		{"GET", "/api/stores", "text/csv", requestTimeout},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(""))
		r.Header.Set("Accept", c.accept)
		if got := a.optionsOf(r).timeoutOf(r); got != c.want {
			t.Errorf("%s %s (%s): %v, want %v", c.method, c.path, c.accept, got, c.want)
		}
	}
}

// TestOptionsAreThoseOfTheHandler compares, for each route and for paths that look like it, the
// options of a request with those of the pattern that the mux matches.
func TestOptionsAreThoseOfTheHandler(t *testing.T) {
	t.Parallel()
	a := newAPI(Domains{}, allRoutes())
	for _, pattern := range a.mux.patterns {
		method, path, _ := strings.Cut(pattern, " ")
		if path == "" {
			method, path = http.MethodGet, pattern
		}
		path = strings.NewReplacer("{$}", "", "{", "", "}", "").Replace(path)
		for _, target := range []string{path, path + "/", path + "?a=b", "/" + strings.ReplaceAll(path[1:], "/", "%2F"), strings.ReplaceAll(path, "o", "%6F")} {
			for _, method := range []string{method, http.MethodHead, http.MethodOptions} {
				r := httptest.NewRequest(method, target, nil)
				_, matched := a.mux.Handler(r)
				want, ok := a.options[matched]
				if !ok {
					want = fallbackOptions
				}
				if got := a.optionsOf(r); got != want {
					t.Errorf("%s %s has the options %+v, and not those of %q: %+v", method, target, got, matched, want)
				}
			}
		}
	}
}
