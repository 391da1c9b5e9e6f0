package app_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// browserClient calls a server as a browser does: with cookies and the headers of the
// same origin, without following redirects.
type browserClient struct {
	t    *testing.T
	url  string
	http *http.Client
}

// pageAnswer is what a page answered.
type pageAnswer struct {
	Status   int
	Location string // of a redirect
	Header   http.Header
	Body     string
}

const browserPassword = "correct horse battery"

// newBrowserClient returns a browser without a session.
func newBrowserClient(t *testing.T, s *server) *browserClient {
	t.Helper()
	jar, err := cookiejar.New(nil)
	testkit.Must(t, err)
	return &browserClient{t: t, url: s.URL, http: &http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// signUpInBrowser returns a browser in which a new user is signed in.
func signUpInBrowser(t *testing.T, s *server, email string) *browserClient {
	t.Helper()
	b := newBrowserClient(t, s)
	got := b.post("/signup", url.Values{"email": {email}, "password": {browserPassword}, "firstName": {"Ada"}, "lastName": {"Lovelace"}})
	if got.Status != http.StatusSeeOther {
		t.Fatalf("sign up: %d\n%s", got.Status, got.Body)
	}
	return b
}

// signIn returns a browser in which an existing user is signed in.
func signIn(t *testing.T, s *server, email, password string) *browserClient {
	t.Helper()
	b := newBrowserClient(t, s)
	got := b.post("/signin", url.Values{"email": {email}, "password": {password}})
	if got.Status != http.StatusSeeOther {
		t.Fatalf("sign in: %d\n%s", got.Status, got.Body)
	}
	return b
}

func (b *browserClient) get(path string) pageAnswer {
	b.t.Helper()
	return b.send(http.MethodGet, path, nil, nil)
}

func (b *browserClient) post(path string, form url.Values) pageAnswer {
	b.t.Helper()
	return b.send(http.MethodPost, path, form, http.Header{"Origin": {b.url}, "Sec-Fetch-Site": {"same-origin"}})
}

func (b *browserClient) send(method, path string, form url.Values, header http.Header) pageAnswer {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	r, err := http.NewRequestWithContext(ctx, method, b.url+path, body)
	testkit.Must(b.t, err)
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Set("Accept", "text/html")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := b.http.Do(r)
	testkit.Must(b.t, err)
	defer answer.Body.Close()
	live := answer.Header.Get("Content-Type") == "text/event-stream"
	if live {
		// A stream whose subject has not ended goes on for minutes.
		defer time.AfterFunc(500*time.Millisecond, leave).Stop()
	}
	text, err := io.ReadAll(answer.Body)
	if !live {
		testkit.Must(b.t, err)
	}
	return pageAnswer{Status: answer.StatusCode, Location: answer.Header.Get("Location"), Header: answer.Header, Body: string(text)}
}

// newStore creates a store in the browser and returns its path, /stores/{slug}.
func (b *browserClient) newStore(name string) string {
	b.t.Helper()
	got := b.post("/stores/new", url.Values{"name": {name}, "key": {b.t.Name() + name}, "database": {"managed"}})
	if got.Status != http.StatusSeeOther {
		b.t.Fatalf("new store: %d\n%s", got.Status, got.Body)
	}
	return strings.TrimSuffix(got.Location, "/provisioning")
}

// TestSignUpInABrowser walks from nothing to a store's first page, with a form that is
// sent twice and a store's page that another user asks for.
func TestSignUpInABrowser(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)

	b := newBrowserClient(t, s)
	if got := b.get("/stores"); got.Status != http.StatusSeeOther || got.Location != "/signin?next=%2Fstores" {
		t.Errorf("signed out: %d to %q, want the sign-in", got.Status, got.Location)
	}
	refused := b.post("/signup", url.Values{"email": {"ada@example.com"}, "password": {"short"}, "firstName": {`Ada "<b>`}, "lastName": {"L"}})
	if refused.Status != http.StatusUnprocessableEntity || !strings.Contains(refused.Body, "Ada &#34;&lt;b&gt;") || strings.Contains(refused.Body, "short\"") {
		t.Errorf("a refused form: %d, want 422 with the name kept and the password left out\n%s", refused.Status, refused.Body)
	}
	b = signUpInBrowser(t, s, "ada@example.com")
	if got := b.get("/signin/done?next=%2Fstores%2Fnew"); got.Location != "/stores/new" {
		t.Errorf("after the sign-up: %d to %q", got.Status, got.Location)
	}
	form := url.Values{"name": {"Ada’s Shop"}, "key": {"one"}, "database": {"managed"}}
	first, second := b.post("/stores/new", form), b.post("/stores/new", form)
	if first.Location != "/stores/adas-shop/provisioning" || second.Location != first.Location {
		t.Fatalf("sent twice: %d to %q, %d to %q, want one store", first.Status, first.Location, second.Status, second.Location)
	}
	if got := b.get("/stores/adas-shop"); got.Status != http.StatusOK || !strings.Contains(got.Body, "Ada’s Shop") {
		t.Errorf("the store's page: %d\n%s", got.Status, got.Body)
	}
	if got := signUpInBrowser(t, s, "eve@example.com").get("/stores/adas-shop"); got.Status != http.StatusNotFound {
		t.Errorf("the page for another user: %d, want 404", got.Status)
	}
	if got := b.post("/signout", nil); got.Location != "/signin" {
		t.Errorf("sign out: %d to %q", got.Status, got.Location)
	}
	if got := b.get("/stores"); got.Status != http.StatusSeeOther {
		t.Errorf("after the sign-out: %d, want the sign-in", got.Status)
	}
}

// TestFormWithoutSession checks that a form whose session has ended is kept through the
// sign-in, but for its secrets.
func TestFormWithoutSession(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	signUpInBrowser(t, s, "ada@example.com")

	b := newBrowserClient(t, s)
	got := b.post("/stores/new", url.Values{"name": {"Kept & <sound>"}, "password": {"hidden away"}})
	if got.Status != http.StatusUnauthorized || !strings.Contains(got.Body, "Kept &amp; &lt;sound&gt;") || strings.Contains(got.Body, "hidden away") {
		t.Fatalf("without a session: %d, want the sign-in with the values kept\n%s", got.Status, got.Body)
	}
	got = b.post("/signin", url.Values{"email": {"ada@example.com"}, "password": {browserPassword},
		"resume-action": {"/stores/new"}, "resume.name": {"Kept & <sound>"}})
	if got.Status != http.StatusOK || !strings.Contains(got.Body, `action="/stores/new"`) || !strings.Contains(got.Body, `value="Kept &amp; &lt;sound&gt;"`) {
		t.Errorf("after the sign-in: %d, want the form again\n%s", got.Status, got.Body)
	}
	if got := b.get("/stores"); got.Status != http.StatusOK {
		t.Errorf("signed in again: %d", got.Status)
	}
	if got := b.post("/signin", url.Values{"email": {"ada@example.com"}, "password": {browserPassword}, "next": {"//evil.example/"}}); got.Location != "/signin/done?next=%2Fstores" {
		t.Errorf("a foreign next: to %q, want this host", got.Location)
	}
}

// TestReauthentication checks that a browser's session needs a recent password for what
// cannot be undone, and that an access token of the API does not.
func TestReauthentication(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	b := signUpInBrowser(t, s, "ada@example.com")
	if got := b.post("/reauthenticate", url.Values{"password": {"wrong password"}, "next": {"/stores"}}); got.Status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong password: %d, want 422", got.Status)
	}
	if got := b.post("/reauthenticate", url.Values{"password": {browserPassword}, "next": {"/stores"}}); got.Location != "/stores" {
		t.Errorf("the password: %d to %q, want /stores", got.Status, got.Location)
	}
}
