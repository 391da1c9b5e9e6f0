package httpapi

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/ratelimit"
)

// TestAccessLogNamesRouteStoreAndCaller checks the members of a request's log line, and that
// it has no text that a client chose but the host.
func TestAccessLogNamesRouteStoreAndCaller(t *testing.T) {
	t.Parallel()
	store, user, key := stoa.NewID[stoa.StoreID](), stoa.NewID[stoa.UserID](), stoa.NewID[stoa.KeyID]()
	other := stoa.NewID[stoa.StoreID]()
	for name, c := range map[string]struct {
		path   string
		caller authz.Principal
		visit  stoa.StoreID
		route  string
		store  string
	}{
		"a store's route":           {path: "/api/stores/" + store.String() + "/holds?secret=hidden", caller: authz.Principal{UserID: user}, route: "/api/stores/{id}/holds", store: store.String()},
		"an API key":                {path: "/api/me", caller: authz.Principal{UserID: user, Key: authz.Key{ID: key, StoreID: other}}, route: "/api/me", store: other.String()},
		"a storefront":              {path: "/api/me", visit: store, route: "/api/me", store: store.String()},
		"a store's id that is none": {path: "/api/stores/hidden/holds", route: "/api/stores/{id}/holds"},
		"no route":                  {path: "/hidden", route: "none"},
	} {
		var out bytes.Buffer
		a := newTestAPI(ratelimit.NewByteBudget(1<<20, 1<<20))
		a.Log = slog.New(slog.NewJSONHandler(&out, nil))
		mux := http.NewServeMux()
		handle := func(w http.ResponseWriter, r *http.Request) {
			if c.caller.UserID != (stoa.UserID{}) {
				identify(r.Context(), c.caller)
			}
			requestIn(r.Context()).store = c.visit
			w.WriteHeader(http.StatusTeapot)
		}
		mux.HandleFunc("GET /api/stores/{id}/holds", handle)
		mux.HandleFunc("GET /api/me", handle)
		mux.HandleFunc("/", handle)
		answer := httptest.NewRecorder()
		a.middleware(mux).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.path, nil))
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out.String())
		}
		want := map[string]any{"route": c.route, "method": "GET", "status": float64(http.StatusTeapot), "request_id": answer.Header().Get("X-Request-Id")}
		if c.store != "" {
			want["store_id"] = c.store
		}
		if !c.caller.UserID.IsZero() {
			want["user_id"] = user.String()
		}
		if c.caller.IsKey() {
			want["key_id"] = key.String()
		}
		for member, value := range want {
			if line[member] != value {
				t.Errorf("%s: %s is %v, want %v", name, member, line[member], value)
			}
		}
		for _, member := range []string{"store_id", "user_id", "key_id"} {
			if _, has := line[member]; has && want[member] == nil {
				t.Errorf("%s: has %s: %v", name, member, line[member])
			}
		}
		if ms, ok := line["duration_ms"].(float64); !ok || ms < 0 || ms > 60_000 {
			t.Errorf("%s: duration_ms is %v", name, line["duration_ms"])
		}
		if strings.Contains(out.String(), "hidden") {
			t.Errorf("%s: the line has what the client wrote: %s", name, out.String())
		}
	}
}
