package httpapi

import (
	"io"
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
