package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stoahq/stoa/internal/ratelimit"
)

// untracedAllocations is how many allocations the middleware made for this request before
// there was tracing.
const untracedAllocations = 33

// TestTracingOffAllocatesNothing checks that the middleware makes no allocation more than
// before there was tracing, while it is off.
func TestTracingOffAllocatesNothing(t *testing.T) {
	a := newTestAPI(ratelimit.NewByteBudget(1<<20, 1<<20))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/me", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") })
	handler := a.middleware(mux)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/me", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	serve := func() { handler.ServeHTTP(httptest.NewRecorder(), r) }
	fewest := testing.AllocsPerRun(1, serve)
	for range 100 { // the race detector empties pools at random
		fewest = min(fewest, testing.AllocsPerRun(1, serve))
	}
	if fewest > untracedAllocations {
		t.Errorf("%v allocations, want at most %d", fewest, untracedAllocations)
	}
}

// TestAccessLogNamesCallersTrace checks that a request's line has the trace id of its caller
// while tracing is off.
func TestAccessLogNamesCallersTrace(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, c := range map[string]struct {
		parents []string
		want    any
	}{
		"valid":     {parents: []string{parent}, want: "0af7651916cd43dd8448eb211c80319c"},
		"none":      {},
		"two":       {parents: []string{parent, parent}},
		"malformed": {parents: []string{"hidden"}},
	} {
		var out bytes.Buffer
		a := newTestAPI(ratelimit.NewByteBudget(1<<20, 1<<20))
		a.Log = slog.New(slog.NewJSONHandler(&out, nil))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/me", nil)
		r.Header["Traceparent"] = c.parents
		a.middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out.String())
		}
		if id, has := line["trace_id"]; id != c.want || has != (c.want != nil) {
			t.Errorf("%s: trace_id is %v, want %v", name, id, c.want)
		}
	}
}
