package supabasetest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

const redirect = "http://127.0.0.1:1/api/supabase/callback?x=1"

var verifier = strings.Repeat("verifier-", 6)

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// object parses the answer, which must be a JSON object.
func (r response) object(t *testing.T) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal(r.body, &out); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	return out
}

func (r response) list(t *testing.T) (out []map[string]any) {
	t.Helper()
	if err := json.Unmarshal(r.body, &out); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	return out
}

func (r response) want(t *testing.T, status int) response {
	t.Helper()
	if r.status != status {
		t.Fatalf("got %d %s, want %d", r.status, r.body, status)
	}
	return r
}

func send(t *testing.T, req *http.Request) (response, error) {
	t.Helper()
	res, err := http.DefaultClient.Do(req.WithContext(t.Context()))
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, body}, err
}

// ask returns the URL to which the browser is sent to authorize.
func ask(s *supabasetest.Server, change func(url.Values)) string {
	q := url.Values{
		"client_id": {supabasetest.ClientID}, "response_type": {"code"}, "redirect_uri": {redirect}, "state": {"a state&"},
		"code_challenge": {challenge()}, "code_challenge_method": {"S256"},
	}
	if change != nil {
		change(q)
	}
	return s.URL + "/v1/oauth/authorize?" + q.Encode()
}

// code approves the request and returns the code.
func code(t *testing.T, s *supabasetest.Server) string {
	t.Helper()
	u, err := url.Parse(s.Approve(t, ask(s, nil)))
	testkit.Must(t, err)
	return u.Query().Get("code")
}

func exchangeForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}}
}

func tryToken(t *testing.T, s *supabasetest.Server, form url.Values) (response, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.URL+"/v1/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(supabasetest.ClientID, supabasetest.ClientSecret)
	return send(t, req)
}

func token(t *testing.T, s *supabasetest.Server, form url.Values) response {
	t.Helper()
	res, err := tryToken(t, s, form)
	testkit.Must(t, err)
	return res
}

func refresh(t *testing.T, s *supabasetest.Server, refreshToken string) response {
	t.Helper()
	return token(t, s, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
}

// session is a client with an access token.
type session struct {
	*supabasetest.Server
	access, refresh string
}

func connect(t *testing.T, s *supabasetest.Server) *session {
	t.Helper()
	o := token(t, s, exchangeForm(code(t, s))).want(t, 200).object(t)
	return &session{s, o["access_token"].(string), o["refresh_token"].(string)}
}

func (s *session) try(t *testing.T, method, path string, body any) (response, error) {
	t.Helper()
	raw, err := json.Marshal(body)
	testkit.Must(t, err)
	req, err := http.NewRequest(method, s.URL+path, bytes.NewReader(raw))
	testkit.Must(t, err)
	req.Header.Set("Authorization", "Bearer "+s.access)
	return send(t, req)
}

func (s *session) do(t *testing.T, method, path string, body any) response {
	t.Helper()
	res, err := s.try(t, method, path, body)
	testkit.Must(t, err)
	return res
}

func (s *session) get(t *testing.T, path string) response {
	t.Helper()
	return s.do(t, http.MethodGet, path, nil)
}

func (s *session) create(t *testing.T, name string) response {
	t.Helper()
	return s.do(t, http.MethodPost, "/v1/projects", map[string]any{
		"name": name, "organization_slug": s.Organization, "db_pass": "it's a password",
		"region_selection": map[string]any{"type": "smartGroup", "code": "emea"},
	})
}

func (s *session) query(t *testing.T, ref, sql string, parameters ...any) response {
	t.Helper()
	return s.do(t, http.MethodPost, "/v1/projects/"+ref+"/database/query", map[string]any{"query": sql, "parameters": parameters})
}
