package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHealth checks where the command asks and what it makes of the answers.
func TestHealth(t *testing.T) {
	t.Parallel()
	status, asked := http.StatusOK, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Host + r.URL.Path
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"status":503,"code":"platform_unavailable","detail":"The master database cannot serve at the moment."}`))
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	port := strings.TrimPrefix(address, "127.0.0.1:")

	for _, flags := range [][]string{{"--private-listen", address}, {"--private-listen", "0.0.0.0:" + port, "--port", "1"}, {"--port", port}, {"--listen", "0.0.0.0", "--port", port}} {
		if exit, out, errs := run(t, append([]string{"health"}, flags...)...); exit != 0 || errs != "" || !strings.Contains(out, ": ok") || asked != address+"/readyz" {
			t.Errorf("%v: %d %q %q, asked %s", flags, exit, out, errs, asked)
		}
	}
	if exit, _, _ := run(t, "health", "--live", "--port", port); exit != 0 || asked != address+"/healthz" {
		t.Errorf("--live: %d, asked %s", exit, asked)
	}

	status = http.StatusServiceUnavailable
	exit, out, errs := run(t, "health", "--json", "--port", port)
	var record struct {
		OK         bool
		HTTPStatus int
		Code       string
	}
	if err := json.Unmarshal([]byte(out), &record); err != nil || exit != 1 || record.OK || record.HTTPStatus != status || record.Code != "platform_unavailable" {
		t.Errorf("not ready: %d %q %v", exit, out, err)
	}
	if !strings.Contains(errs, "master database") {
		t.Errorf("the reason is missing: %s", errs)
	}

	server.Close()
	if exit, out, errs := run(t, "health", "--port", port); exit != 1 || out != "" || !strings.Contains(errs, "is 'stoa serve' running") {
		t.Errorf("no server: %d %q %q", exit, out, errs)
	}
	for _, flags := range [][]string{{"--port", "0"}, {"--private-listen", "stoa"}} {
		if exit, _, errs := run(t, append([]string{"health"}, flags...)...); exit != 1 || !strings.Contains(errs, "port") {
			t.Errorf("%v: %d %q", flags, exit, errs)
		}
	}
}
