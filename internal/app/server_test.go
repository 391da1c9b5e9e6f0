package app_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// testConfig returns the development defaults on a free port, with a separate master
// database and data directory, and without quotas, since one user of a test may have
// many stores.
func testConfig(t testing.TB, engine masterdb.Engine) *config.Config {
	t.Helper()
	var c cli.Commands
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"serve", "--port=0", "--data-dir=" + filepath.Join(t.TempDir(), "data")}); err != nil {
		t.Fatal(err)
	}
	c.Quotas = config.Quotas{KeepSlugs: c.KeepSlugs}
	c.JWTExpiresIn = 12 * time.Hour // other tests in parallel may delay a call for long
	c.MasterDBURL = keyring.NewSecret(masterdbtest.URL(t, engine))
	return &c.Config
}

// productionConfig returns testConfig with the settings that production requires.
func productionConfig(t *testing.T) *config.Config {
	t.Helper()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.Env, cfg.EncryptionKey, cfg.JWTSecret = "production", keyring.Generate("e"), keyring.Generate("j")
	port := freePort(t)
	cfg.Port, _ = strconv.Atoi(port)
	cfg.BaseDomain, cfg.BaseURL = "shops.localhost", "http://localhost:"+port
	return cfg
}

// server is a running platform under test.
type server struct {
	*app.Server
	http *http.Client // nil: its answers are checked against the OpenAPI document
}

// launch starts a server. The caller stops it.
func launch(ctx context.Context, cfg *config.Config, log *slog.Logger) (*server, error) {
	s, err := app.Start(ctx, cfg, log)
	return &server{Server: s}, err
}

// serverAt returns a server that runs in another process, at url.
func serverAt(url string) *server { return &server{Server: &app.Server{URL: url}} }

// startServer runs the real server, as 'stoa serve' does, until the test ends.
func startServer(t testing.TB, cfg *config.Config) *server {
	t.Helper()
	s, err := launch(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		// A test keeps its cleanup functions, and its parent keeps it. Hundreds of stopped
		// servers of 9 MB each were scanned by every garbage collection.
		s.Server = &app.Server{URL: s.URL}
	})
	return s
}

// onEachMaster runs test with a server on every available master engine.
func onEachMaster(t *testing.T, test func(t *testing.T, s *server), settings ...func(*config.Config)) {
	t.Helper()
	onMasters(t, masterdbtest.Engines(), test, settings...)
}

// shortOn returns all engines, or in the short form only this one, if it is available: for a
// test whose subject is the API or the pages, and whose statements the domains' tests run on
// each engine.
func shortOn(engine masterdb.Engine) []masterdb.Engine {
	engines := masterdbtest.Engines()
	if testing.Short() && slices.Contains(engines, engine) {
		return []masterdb.Engine{engine}
	}
	return engines
}

func onMasters(t *testing.T, engines []masterdb.Engine, test func(t *testing.T, s *server), settings ...func(*config.Config)) {
	t.Helper()
	for _, engine := range engines {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			for _, set := range settings {
				set(cfg)
			}
			test(t, startServer(t, cfg))
		})
	}
}

// unlimited removes the rate limits, for tests in which many users share one address.
func unlimited(cfg *config.Config) {
	cfg.RateLimitAuth, cfg.RateLimitAddress, cfg.RateLimitUser, cfg.RateLimitDatabase = 0, 0, 0, 0
}

// client calls a server as one user.
type client struct {
	t     *testing.T
	url   string
	token string
	s     *server // the server of a client that register returned
	http  *http.Client
}

// proven verifies the client's e-mail address, as the link in the mail would.
func (c client) proven() client {
	c.t.Helper()
	id := c.call("GET", "/api/auth/me", nil).want(http.StatusOK).text("user", "id")
	if _, err := accounts.ConfirmEmail(c.t.Context(), c.s.Master, authz.Principal{}, id); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// object is a JSON object of an answer.
type object = map[string]any

// answer is a response.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	raw    string
	body   object
}

// call sends a request; header holds pairs of names and values.
func (c client) call(method, path string, body any, header ...string) answer {
	c.t.Helper()
	var payload io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		payload = strings.NewReader(body)
	default:
		b, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		payload = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 90*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, payload)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Prefer", "wait=60") // a busy machine may take longer than the default wait
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	res, err := cmp.Or(c.http, noRedirect).Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	content := io.Reader(res.Body)
	if res.Header.Get("Content-Type") == "text/event-stream" && strings.HasSuffix(path, "/stream") {
		content = io.LimitReader(content, 1) // it does not end
	}
	raw, err := io.ReadAll(content)
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{t: c.t, status: res.StatusCode, header: res.Header, raw: string(raw)}
	if method != http.MethodHead && res.Header.Get("Content-Encoding") == "" && strings.Contains(res.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			c.t.Fatalf("%s %s: answer is not JSON: %s", method, path, raw)
		}
	}
	return a
}

var noRedirect = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// want fails the test unless the answer has this status.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.raw)
	}
	return a
}

// problem fails the test unless the answer is this problem document, with all its
// members.
func (a answer) problem(status int, code string) answer {
	a.t.Helper()
	a.want(status)
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("content type %q, want application/problem+json", got)
	}
	if a.body["code"] != code {
		a.t.Fatalf("code %v, want %s: %s", a.body["code"], code, a.raw)
	}
	for _, member := range []string{"type", "title", "detail", "requestId"} {
		if s, _ := a.body[member].(string); s == "" {
			a.t.Errorf("problem without %s: %s", member, a.raw)
		}
	}
	if a.body["status"] != float64(status) {
		a.t.Errorf("problem says status %v: %s", a.body["status"], a.raw)
	}
	if id := a.header.Get("X-Request-Id"); id != a.body["requestId"] {
		a.t.Errorf("requestId %v differs from the header's %q", a.body["requestId"], id)
	}
	return a
}

// at returns the value at a path of the answer: at("store", "id").
func (a answer) at(path ...string) any {
	a.t.Helper()
	var v any = a.body
	for _, key := range path {
		m, ok := v.(object)
		if !ok {
			a.t.Fatalf("no %v in %s", path, a.raw)
		}
		if v, ok = m[key]; !ok {
			a.t.Fatalf("no %v in %s", path, a.raw)
		}
	}
	return v
}

func (a answer) text(path ...string) string {
	a.t.Helper()
	s, ok := a.at(path...).(string)
	if !ok {
		a.t.Fatalf("%v is no string in %s", path, a.raw)
	}
	return s
}

func (a answer) list(path ...string) []any {
	a.t.Helper()
	l, ok := a.at(path...).([]any)
	if !ok {
		a.t.Fatalf("%v is no list in %s", path, a.raw)
	}
	return l
}

// is fails the test unless the value at path is want.
func (a answer) is(want any, path ...string) answer {
	a.t.Helper()
	if got := a.at(path...); got != want {
		a.t.Errorf("%v is %v, want %v in %s", path, got, want, a.raw)
	}
	return a
}

const testPassword = "SecurePassword123!"

// register creates an account whose address is not verified. It returns its user as a
// signed-in client, and the id of the first store.
func register(t *testing.T, s *server, email string) (client, string) {
	t.Helper()
	c := client{t: t, url: s.URL, s: s, http: s.http}
	a := c.call("POST", "/api/auth/register", object{
		"email": email, "password": testPassword, "firstName": "John", "lastName": "Doe",
		"storeName": "Store of " + strings.NewReplacer("@", " ", ".", " ").Replace(email),
	}).want(http.StatusCreated)
	c.token = a.text("accessToken")
	return c, a.text("store", "id")
}

// connected registers a user with an active store on embedded SQLite.
func connected(t *testing.T, s *server, email string) (c client, storeID, hostname string) {
	t.Helper()
	c, id := register(t, s, email)
	a := c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
	return c, id, a.list("hostnames")[0].(object)["hostname"].(string)
}

// buy pays for credits in the sandbox and waits until they are granted.
func (c client) buy(store string, amount int) {
	c.t.Helper()
	before := c.call("GET", "/api/credits/balance?storeId="+store, nil).want(http.StatusOK).text("balance")
	p := c.call("POST", "/api/credits/purchase", object{"credits": amount}, "X-Store-Id", store).want(http.StatusCreated)
	page := client{t: c.t}
	page.call("POST", p.text("checkoutUrl")+"/pay", nil).want(http.StatusSeeOther)
	testkit.Eventually(c.t, testkit.Timeout, "the credits are granted", func() bool {
		return c.call("GET", "/api/credits/balance?storeId="+store, nil).want(http.StatusOK).text("balance") != before
	})
}

func withURL(t *testing.T, s string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

// closedPort returns an address on which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func secretOf(s string) keyring.Secret { return keyring.NewSecret(s) }
