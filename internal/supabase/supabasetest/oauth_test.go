package supabasetest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

func newAPI(t *testing.T) *supabasetest.Server {
	return supabasetest.NewAPI(t, supabasetest.Options{})
}

func TestApproveAndDeny(t *testing.T) {
	t.Parallel()
	s := newAPI(t)
	for _, tt := range []struct {
		name, want string
		press      func(testing.TB, string) string
		change     func(url.Values)
	}{
		{"approved", "code", s.Approve, nil},
		{"denied", "access_denied", s.Deny, nil},
		{"other flow", "unsupported_response_type", s.Approve, func(q url.Values) { q.Set("response_type", "token") }},
		{"plain PKCE", "invalid_request", s.Approve, func(q url.Values) { q.Set("code_challenge_method", "plain") }},
		{"no challenge", "invalid_request", s.Approve, func(q url.Values) { q.Del("code_challenge") }},
		{"short challenge", "invalid_request", s.Approve, func(q url.Values) { q.Set("code_challenge", "x") }},
	} {
		to := tt.press(t, ask(s, tt.change))
		u, err := url.Parse(to)
		testkit.Must(t, err)
		q := u.Query()
		if tt.want == "code" && q.Get("code") == "" || tt.want != "code" && q.Get("error") != tt.want ||
			q.Get("state") != "a state&" || q.Get("x") != "1" || !strings.HasPrefix(to, "http://127.0.0.1:1/api/supabase/callback?") {
			t.Errorf("%s: sent to %s", tt.name, to)
		}
	}
}

// TestStrangersAreNotSentBack checks that the browser is not redirected when the app is
// unknown.
func TestStrangersAreNotSentBack(t *testing.T) {
	t.Parallel()
	s := supabasetest.NewAPI(t, supabasetest.Options{RedirectURIs: []string{redirect}})
	for name, change := range map[string]func(url.Values){
		"client":        func(q url.Values) { q.Set("client_id", "x") },
		"redirect":      func(q url.Values) { q.Set("redirect_uri", redirect+"&y=2") },
		"no redirect":   func(q url.Values) { q.Del("redirect_uri") },
		"endless state": func(q url.Values) { q.Set("state", strings.Repeat("s", 4096)) },
	} {
		req, err := http.NewRequest(http.MethodGet, ask(s, change), nil)
		testkit.Must(t, err)
		if res, err := send(t, req); err != nil || res.status != 400 {
			t.Errorf("%s: %d %s %v", name, res.status, res.body, err)
		}
	}
	s.Approve(t, ask(s, nil))
}

func TestExchange(t *testing.T) {
	t.Parallel()
	s := newAPI(t)
	for name, change := range map[string]func(url.Values){
		"verifier":    func(f url.Values) { f.Set("code_verifier", strings.Repeat("w", 54)) },
		"no verifier": func(f url.Values) { f.Del("code_verifier") },
		"redirect":    func(f url.Values) { f.Set("redirect_uri", redirect+"/") },
		"code":        func(f url.Values) { f.Set("code", "x") },
		"grant type":  func(f url.Values) { f.Set("grant_type", "password") },
		"nothing":     func(f url.Values) { clear(f) },
		"late":        func(url.Values) { s.Pass(supabasetest.CodeLife) },
	} {
		form := exchangeForm(code(t, s))
		change(form)
		if res := token(t, s, form); res.status != 400 {
			t.Errorf("%s: %d %s", name, res.status, res.body)
		}
	}
	once := code(t, s)
	token(t, s, exchangeForm(once)).want(t, 200)
	token(t, s, exchangeForm(once)).want(t, 400)
	if s.Grants() != 1 {
		t.Errorf("%d grants", s.Grants())
	}
	req, err := http.NewRequest(http.MethodPost, s.URL+"/v1/oauth/token", strings.NewReader(exchangeForm(code(t, s)).Encode()))
	testkit.Must(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(supabasetest.ClientID, "wrong")
	if res, err := send(t, req); err != nil || res.status != 401 {
		t.Errorf("wrong secret: %d %v", res.status, err)
	}
}

// TestRotation checks that a refresh invalidates both old tokens at once.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := connect(t, newAPI(t))
	s.get(t, "/v1/organizations").want(t, 200)
	o := refresh(t, s.Server, s.refresh).want(t, 200).object(t)
	s.get(t, "/v1/organizations").want(t, 401)
	refresh(t, s.Server, s.refresh).want(t, 404)
	s.access, s.refresh = o["access_token"].(string), o["refresh_token"].(string)
	s.get(t, "/v1/organizations").want(t, 200)
	s.Pass(supabasetest.AccessLife)
	s.get(t, "/v1/organizations").want(t, 401)
	s.access = refresh(t, s.Server, s.refresh).want(t, 200).object(t)["access_token"].(string)
	s.get(t, "/v1/organizations").want(t, 200)
}

// TestConcurrentRefresh checks that exactly one of several concurrent uses of one refresh
// token succeeds.
func TestConcurrentRefresh(t *testing.T) {
	t.Parallel()
	s := connect(t, newAPI(t))
	statuses := make(chan int, 10)
	for range cap(statuses) {
		go func() {
			res, _ := tryToken(t, s.Server, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.refresh}})
			statuses <- res.status
		}()
	}
	got := map[int]int{}
	for range cap(statuses) {
		got[<-statuses]++
	}
	if got[200] != 1 || got[404] != 9 {
		t.Errorf("answers %v", got)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	s := connect(t, newAPI(t))
	revoke := func(secret string) response {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/oauth/revoke", map[string]any{
			"client_id": supabasetest.ClientID, "client_secret": secret, "refresh_token": s.refresh,
		})
	}
	revoke("wrong").want(t, 401)
	s.get(t, "/v1/organizations").want(t, 200)
	revoke(supabasetest.ClientSecret).want(t, 204)
	s.get(t, "/v1/organizations").want(t, 401)
	refresh(t, s.Server, s.refresh).want(t, 404)

	s = connect(t, s.Server)
	s.RevokeAll()
	s.get(t, "/v1/organizations").want(t, 401)
	refresh(t, s.Server, s.refresh).want(t, 404)
}
