package supabasetest

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// The lifetimes of codes and access tokens.
const (
	CodeLife   = 5 * time.Minute
	AccessLife = time.Hour
)

// code is an approval that has not been exchanged. ask contains the parameters of its
// authorization request.
type code struct {
	ask     url.Values
	org     string
	expires time.Time
}

// grant is the access that the owner of an organisation has given the app.
type grant struct {
	org             string
	access, refresh string
	expires         time.Time
}

func (s *Server) oauthRoutes() {
	s.route("GET /v1/oauth/authorize", s.authorize)
	s.route("POST /v1/oauth/authorize", s.decide)
	s.route("POST /v1/oauth/token", s.token)
	s.route("POST /v1/oauth/revoke", s.revoke)
}

var page = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><meta charset="utf-8">
<title>Authorize Stoa | stand-in for Supabase</title>
<h1>Authorize API access for Stoa</h1>
<p>This is a stand-in: nothing here is at Supabase.</p>
<form method="post" action="/v1/oauth/authorize">
{{range $name, $values := .Ask}}{{range $values}}<input type="hidden" name="{{$name}}" value="{{.}}">{{end}}{{end}}
<label>Organization <select name="organization">
{{range .Organizations}}<option value="{{.Slug}}"{{if eq .Slug $.Chosen}} selected{{end}}>{{.Name}}</option>{{end}}
</select></label>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny">Deny</button>
</form></html>`))

// authorize returns the page on which the owner approves or denies the request.
func (s *Server) authorize(r *http.Request) *answer {
	ask := r.URL.Query()
	if fault := s.checkAsk(ask); fault != nil {
		return fault
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	if err := page.Execute(&b, object{"Ask": ask, "Organizations": s.orgs, "Chosen": ask.Get("organization_slug")}); err != nil {
		panic(err) // the template and its plain values cannot fail
	}
	return reply(b.String())
}

// checkAsk checks an authorization request. It returns an error page when the client or
// the redirect URI is unknown, and a redirect with an error for other faults.
func (s *Server) checkAsk(ask url.Values) *answer {
	u, err := url.Parse(ask.Get("redirect_uri"))
	registered := s.options.RedirectURIs
	switch {
	case ask.Get("client_id") != ClientID:
		return problem(http.StatusBadRequest, "Unrecognized client_id")
	case err != nil || !u.IsAbs() || u.Host == "" || registered != nil && !slices.Contains(registered, ask.Get("redirect_uri")):
		return problem(http.StatusBadRequest, "Invalid redirect_uri")
	case len(ask.Get("state"))+len(ask.Get("redirect_uri")) > 4096:
		return problem(http.StatusBadRequest, "state is too long")
	case ask.Get("response_type") != "code":
		return back(ask, "error", "unsupported_response_type")
	case ask.Get("code_challenge") != "" && ask.Get("code_challenge_method") != "S256",
		ask.Get("code_challenge") == "" && ask.Get("code_challenge_method") != "",
		ask.Get("code_challenge") != "" && len(ask.Get("code_challenge")) != 43:
		return back(ask, "error", "invalid_request")
	}
	return nil
}

// back redirects the browser to the app.
func back(ask url.Values, name, value string) *answer {
	u, err := url.Parse(ask.Get("redirect_uri"))
	if err != nil {
		panic(err) // checkAsk has parsed it
	}
	q := u.Query()
	q.Set(name, value)
	if ask.Has("state") {
		q.Set("state", ask.Get("state"))
	}
	u.RawQuery = q.Encode()
	return &answer{status: http.StatusSeeOther, header: http.Header{"Location": {u.String()}}}
}

func (s *Server) decide(r *http.Request) *answer {
	if err := r.ParseForm(); err != nil {
		return problem(http.StatusBadRequest, "Bad form")
	}
	ask := r.PostForm
	if fault := s.checkAsk(ask); fault != nil {
		return fault
	}
	if ask.Get("decision") != "approve" {
		return back(ask, "error", "access_denied")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	org := ask.Get("organization")
	if !slices.ContainsFunc(s.orgs, func(o organization) bool { return o.Slug == org }) {
		return problem(http.StatusBadRequest, "No such organization")
	}
	id := rand.Text()
	s.codes[id] = &code{ask: ask, org: org, expires: s.now().Add(CodeLife)}
	return back(ask, "code", id)
}

// token exchanges a code or a refresh token for an access token and a refresh token.
func (s *Server) token(r *http.Request) *answer {
	id, secret, ok := r.BasicAuth()
	if !ok || !isApp(id, secret) {
		return problem(http.StatusUnauthorized, "Invalid client credentials")
	}
	if err := r.ParseForm(); err != nil || r.PostForm.Get("grant_type") == "" {
		return problem(http.StatusBadRequest, "grant_type: Required, form-encoded")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		return s.exchange(r.PostForm)
	case "refresh_token":
		g := s.grantWith(func(g *grant) bool { return g.refresh == r.PostForm.Get("refresh_token") })
		if g == nil {
			return problem(http.StatusNotFound, "Refresh token not found")
		}
		return s.rotate(g)
	}
	return problem(http.StatusBadRequest, "grant_type: Invalid enum value")
}

func isApp(id, secret string) bool {
	return id == ClientID && subtle.ConstantTimeCompare([]byte(secret), []byte(ClientSecret)) == 1
}

func (s *Server) exchange(form url.Values) *answer {
	c := s.codes[form.Get("code")]
	delete(s.codes, form.Get("code")) // a wrong verifier invalidates the code too
	switch {
	case c == nil || !s.now().Before(c.expires):
		return problem(http.StatusBadRequest, "Invalid authorization code")
	case form.Get("redirect_uri") != c.ask.Get("redirect_uri"):
		return problem(http.StatusBadRequest, "redirect_uri does not match")
	case !verifies(form.Get("code_verifier"), c.ask.Get("code_challenge")):
		return problem(http.StatusBadRequest, "Invalid code verifier")
	}
	g := &grant{org: c.org}
	s.grants = append(s.grants, g)
	return s.rotate(g)
}

// verifies reports whether verifier matches an S256 challenge (RFC 7636, section 4.6) and
// has the required length.
func verifies(verifier, challenge string) bool {
	if challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return len(verifier) >= 43 && len(verifier) <= 128 && base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

// rotate invalidates both tokens of a grant and issues new ones.
func (s *Server) rotate(g *grant) *answer {
	g.access, g.refresh, g.expires = "sbp_oauth_"+strings.ToLower(rand.Text()), rand.Text(), s.now().Add(AccessLife)
	return reply(object{
		"access_token": g.access, "refresh_token": g.refresh, "token_type": "Bearer", "expires_in": int(AccessLife.Seconds()),
	})
}

func (s *Server) grantWith(is func(*grant) bool) *grant {
	if i := slices.IndexFunc(s.grants, is); i >= 0 {
		return s.grants[i]
	}
	return nil
}

func (s *Server) revoke(r *http.Request) *answer {
	var in struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
		RefreshToken string `json:"refresh_token"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return problem(http.StatusBadRequest, "Bad JSON")
	}
	if !isApp(in.ClientID, in.ClientSecret) {
		return problem(http.StatusUnauthorized, "Invalid client credentials")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.grants)
	s.grants = slices.DeleteFunc(s.grants, func(g *grant) bool { return g.refresh == in.RefreshToken })
	if len(s.grants) == before {
		return problem(http.StatusNotFound, "Refresh token not found")
	}
	return &answer{status: http.StatusNoContent}
}

// authorized answers calls with a valid access token, within the app's rate limit and
// scopes.
func (s *Server) authorized(scope string, handle func(*http.Request, *grant) *answer) func(*http.Request) *answer {
	return func(r *http.Request) *answer {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		g := s.grantWith(func(g *grant) bool { return g.access == token && s.now().Before(g.expires) })
		room := g != nil && s.window.take(s.now())
		window, now, allowed := s.window, s.now(), slices.Contains(s.scopes, scope)
		s.mu.Unlock()
		switch {
		case g == nil:
			return problem(http.StatusUnauthorized, "Unauthorized")
		case !room:
			return s.tooMany()
		}
		a := problem(http.StatusForbidden, "Missing required scope: %s", scope)
		if allowed {
			a = handle(r, g)
		}
		window.describe(a.header, now, window.limit-window.used)
		return a
	}
}

// SetScopes sets the scopes that the app has.
func (s *Server) SetScopes(scopes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scopes = scopes
}

// RevokeAll revokes the access that the owners of all organisations have given.
func (s *Server) RevokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants = nil
}

// Grants returns the number of approvals in force.
func (s *Server) Grants() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.grants)
}

// Approve submits the authorization page with "approve" and returns the address that the
// browser is redirected to.
func (s *Server) Approve(t testing.TB, authorizeURL string) string {
	t.Helper()
	return s.press(t, authorizeURL, "approve")
}

// Deny submits the authorization page with "deny".
func (s *Server) Deny(t testing.TB, authorizeURL string) string {
	t.Helper()
	return s.press(t, authorizeURL, "deny")
}

func (s *Server) press(t testing.TB, authorizeURL, decision string) string {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Get(authorizeURL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusSeeOther { // the request is refused without a page
		return res.Header.Get("Location")
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the authorization page answers %s", res.Status)
	}
	form := res.Request.URL.Query()
	form.Set("decision", decision)
	if form.Set("organization", form.Get("organization_slug")); form.Get("organization") == "" {
		form.Set("organization", s.Organization)
	}
	res, err = client.PostForm(s.URL+"/v1/oauth/authorize", form)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSeeOther {
		t.Fatalf("the button answers %s", res.Status)
	}
	return res.Header.Get("Location")
}
