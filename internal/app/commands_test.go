package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// command runs a command as a shell would.
func command(t testing.TB, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = cli.Run(t.Context(), args, &out, &err)
	return status, out.String(), err.String()
}

// syncBuffer is a buffer that is safe for concurrent reads and writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestServeOnEmbeddedDefaults checks the first start: one command creates the
// directory, the keys and the database, prints its URL, and stops cleanly.
func TestServeOnEmbeddedDefaults(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "stoa-data")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, log syncBuffer
	done := make(chan int, 1)
	go func() { done <- cli.Run(ctx, []string{"serve", "--port=0", "--data-dir=" + dir}, &out, &log) }()
	testkit.Eventually(t, testkit.Timeout, "the welcome", func() bool { return strings.Contains(out.String(), "is ready") })
	url := strings.TrimSuffix(strings.Fields(out.String()[strings.Index(out.String(), "API docs"):])[2], "/api/docs")

	c := client{t: t, url: url}
	c.call("GET", "/healthz", nil).want(http.StatusOK).is("ok", "status")
	c.call("GET", "/readyz", nil).want(http.StatusOK).is("ok", "status")
	for path, mode := range map[string]os.FileMode{"": 0o700, "keys.env": 0o600, "master.db": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != mode {
			t.Errorf("%q has mode %04o, want %04o", path, got, mode)
		}
	}
	stop()
	select {
	case status := <-done:
		if status != 0 {
			t.Errorf("exit status %d: %s", status, log.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("serve did not stop")
	}
	if strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), "level=WARN") {
		t.Errorf("log of a quiet run: %s", log.String())
	}
}

// TestStopLetsRequestsFinish checks that a request in progress when the server is told
// to stop gets its answer. The stop does not wait for the work that the request has
// started.
func TestStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	s, err := launch(t.Context(), testConfig(t, masterdb.SQLite), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, id := register(t, s, "owner@example.com")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const body = `{"type":"managed"}`
	fmt.Fprintf(conn, "POST /api/stores/%s/connect-database HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", id, c.token, len(body))
	in := bufio.NewReader(conn)
	// The server requests the body when the handler reads it: the handler is running.
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q %v", line, err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop() }()
	testkit.Eventually(t, testkit.Timeout, "the server takes no new connections", func() bool {
		fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := fresh.Do(req)
		if err == nil {
			res.Body.Close()
		}
		return err != nil
	})
	fmt.Fprint(conn, body)
	if _, err := in.ReadString('\n'); err != nil { // the empty line that ends the interim response
		t.Fatal(err)
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("the request under way was cut off: %v", err)
	}
	defer res.Body.Close()
	if raw, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusAccepted || res.Header.Get("Location") == "" || !res.Close {
		t.Errorf("the request under way got %d: %s %v", res.StatusCode, raw, err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestSurvivesRestart checks that data and keys are still there after a restart.
func TestSurvivesRestart(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	s, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, id, host := connected(t, s, "owner@example.com")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again := startServer(t, cfg)
	c.url = again.URL
	c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("active", "status").is("ok", "database", "status")
	c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK).is(id, "id")
}

func TestKeysGenerate(t *testing.T) {
	t.Parallel()
	status, out, _ := command(t, "keys", "generate", "--id", "mine", "--json")
	var keys map[string]string
	if err := json.Unmarshal([]byte(out), &keys); status != 0 || err != nil {
		t.Fatalf("status %d, %v: %s", status, err, out)
	}
	for name, key := range keys {
		ring, err := keyring.Parse(keyring.NewSecret(key))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if id, _ := ring.Current(); id != "mine" {
			t.Errorf("%s has id %q", name, id)
		}
	}
	if len(keys) != 2 || keys["ENCRYPTION_KEY"] == keys["JWT_SECRET"] {
		t.Errorf("keys: %v", keys)
	}
	if status, _, errOut := command(t, "keys", "generate", "--id", "not an id"); status != 1 || !strings.Contains(errOut, "--id") {
		t.Errorf("a bad id: status %d, %s", status, errOut)
	}
}

// TestProductionAssumesNothing checks that all faults of a production configuration are
// reported together, by the name of the setting, and that no key is generated.
func TestProductionAssumesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	status, _, errOut := command(t, "serve", "--env=production", "--port=99999", "--base-domain=Shops.Example:80", "--data-dir="+dir, "--jwt-secret=c2hvcnQ=", "--allow-networks=everywhere",
		"--supabase-ca="+filepath.Join(dir, "none.pem"))
	if status != 1 {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"MASTER_DB_URL is required in production", "STOA_BASE_URL is required in production", "ENCRYPTION_KEY is required in production", "JWT_SECRET cannot be used", "STOA_ALLOW_NETWORKS", "STOA_SUPABASE_CA", "PORT", "STOA_BASE_DOMAIN"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("no %q in:\n%s", want, errOut)
		}
	}
	if strings.Contains(errOut, "c2hvcnQ") {
		t.Errorf("the error repeats a key:\n%s", errOut)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("a refused start left %v", entries)
	}
}

func TestProductionHasNoSandbox(t *testing.T) {
	t.Parallel()
	s := startServer(t, productionConfig(t))
	c, _ := register(t, s, "owner@example.com")
	c.call("POST", "/api/credits/purchase", object{"credits": 5}).problem(http.StatusServiceUnavailable, "payments_unavailable")
	c.call("GET", "/sandbox/checkout/cs_sandbox_x", nil).problem(http.StatusNotFound, "not_found")
	c.call("POST", "/api/webhooks/stripe", object{"id": "evt_1"}).problem(http.StatusServiceUnavailable, "payments_unavailable")
	// In production the loopback network is not allowed for tenant databases.
	list := c.call("GET", "/api/stores", nil).want(http.StatusOK)
	id := list.list("data")[0].(object)["id"].(string)
	c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "postgresql", "connectionString": "postgres://u:p@127.0.0.1:5432/d"}).
		problem(http.StatusUnprocessableEntity, "database_host_forbidden")
}

func TestMigrateAndDoctor(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	flag := "--data-dir=" + dir
	if status, out, _ := command(t, "doctor", flag); status != 0 || !strings.Contains(out, "not made yet") {
		t.Errorf("doctor before the first start: %d\n%s", status, out)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("doctor made the data directory")
	}
	if status, out, errOut := command(t, "migrate", flag); status != 0 || !strings.Contains(out, "sqlite") {
		t.Fatalf("migrate: %d %s %s", status, out, errOut)
	}
	if status, out, _ := command(t, "migrate", flag, "--json"); status != 0 || !strings.Contains(out, `"applied":0`) {
		t.Errorf("a second migrate: %d %s", status, out)
	}
	status, out, _ := command(t, "doctor", flag, "--json")
	var findings []cli.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil || status != 0 || len(findings) != 15 {
		t.Errorf("doctor: %d, %v: %s", status, err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if status, out, _ := command(t, "doctor", flag); status != 1 || !strings.Contains(out, "chmod 700") {
		t.Errorf("doctor on an open directory: %d\n%s", status, out)
	}
	if status, out, _ := command(t, "doctor", flag, "--master-db-url=postgres://u:hunter2@127.0.0.1:1/x"); status != 1 || strings.Contains(out, "hunter2") {
		t.Errorf("doctor without a master: %d\n%s", status, out)
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	for _, master := range masterdbtest.Engines() {
		t.Run(string(master), func(t *testing.T) {
			t.Parallel()
			url := masterdbtest.URL(t, master)
			args := []string{"demo", "--json", "--data-dir=" + t.TempDir(), "--master-db-url=" + url}
			want := []string{"sqlite", "sqlite", "sqlite"}
			for _, engine := range tenantdbtest.Engines() {
				switch engine {
				case credential.PostgreSQL:
					args, want[1] = append(args, "--postgres="+tenantdbtest.ConnectionString(t, engine)), "postgresql"
				case credential.MySQL:
					args, want[2] = append(args, "--mysql="+tenantdbtest.ConnectionString(t, engine)), "mysql"
				case credential.SQLite, credential.Supabase:
				}
			}
			for range 2 { // the second run changes nothing
				status, out, errOut := command(t, args...)
				if status != 0 {
					t.Fatalf("status %d: %s", status, errOut)
				}
				var result struct {
					Stores []struct{ Name, URL, Engine, Credits string }
				}
				if err := json.Unmarshal([]byte(out), &result); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				for i, s := range result.Stores {
					if s.Engine != want[i] || s.Credits != "250" || !strings.Contains(s.URL, ".localhost:3000") {
						t.Errorf("store %d: %+v, want engine %s", i, s, want[i])
					}
				}
				if len(result.Stores) != 3 {
					t.Errorf("%d stores", len(result.Stores))
				}
			}
		})
	}
	empty := t.TempDir()
	if status, _, errOut := command(t, "demo", "--data-dir="+empty); status != 1 || !strings.Contains(errOut, "'stoa serve' makes it") {
		t.Errorf("demo without a platform: %d %s", status, errOut)
	}
	if entries, _ := os.ReadDir(empty); len(entries) > 0 {
		t.Errorf("demo without a platform has made %v", entries)
	}
	if status, _, errOut := command(t, "demo", "--env=production"); status != 1 || !strings.Contains(errOut, "development only") {
		t.Errorf("demo in production: %d %s", status, errOut)
	}
}

func TestCalledWrongly(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"sevre"}, {"serve", "--prot=1"}, {"serve", "--env=staging"}} {
		if status, _, errOut := command(t, args...); status != 2 || !strings.Contains(errOut, "stoa --help") {
			t.Errorf("stoa %v: status %d, %s", args, status, errOut)
		}
	}
	if status, out, _ := command(t, "--help"); status != 0 || !strings.Contains(out, "serve") {
		t.Errorf("help: %d %s", status, out)
	}
	if status, out, _ := command(t, "version"); status != 0 || !strings.HasPrefix(out, "stoa ") {
		t.Errorf("version: %d %s", status, out)
	}
}

// TestYAML checks that settings are read from stoa.yaml too, and that a misspelt one is
// a fault.
func TestYAML(t *testing.T) {
	t.Parallel()
	resolver, err := config.LoadYAML(strings.NewReader("port: 4000\nallow-networks: [10.0.0.0/8]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var c cli.Commands
	parser, err := kong.New(&c, kong.Resolvers(resolver))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"serve"}); err != nil {
		t.Fatal(err)
	}
	if c.Port != 4000 || len(c.AllowNetworks) != 1 {
		t.Errorf("port %d, networks %v", c.Port, c.AllowNetworks)
	}
	if misspelt, err := config.LoadYAML(strings.NewReader("prot: 4000")); err != nil || misspelt.Validate(parser.Model) == nil {
		t.Error("a misspelt option is accepted")
	}
	if _, err := config.LoadYAML(strings.NewReader("{")); err == nil {
		t.Error("broken YAML is accepted")
	}
}

// TestDocumentsListEverySetting checks that docs/configuration.md and .env.example list
// every setting.
func TestDocumentsListEverySetting(t *testing.T) {
	t.Parallel()
	var c cli.Commands
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docs/configuration.md", ".env.example"} {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range parser.Model.Flags {
			for _, env := range flag.Envs {
				if !strings.Contains(string(text), env) {
					t.Errorf("%s does not mention %s", name, env)
				}
			}
		}
	}
}

// TestOpenAPICommand compares the document that the command prints with the served one.
func TestOpenAPICommand(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	served := client{t: t, url: s.URL}.call("GET", "/api/openapi.json", nil).want(http.StatusOK)
	status, out, errs := command(t, "openapi", "--base-url", s.URL)
	if status != 0 {
		t.Fatalf("openapi: %d %s", status, errs)
	}
	var printed object
	testkit.Must(t, json.Unmarshal([]byte(out), &printed))
	if diff := cmp.Diff(served.body, printed); diff != "" {
		t.Errorf("served and printed differ (-served +printed):\n%s", diff)
	}
	if got := served.at("servers"); !cmp.Equal(got, []any{object{"url": s.URL, "description": "This platform"}}) {
		t.Errorf("servers: %v", got)
	}
}
