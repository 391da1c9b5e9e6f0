package app_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/masterdb"
)

// consoleForms are the fields of forms whose handlers look at them before they ask for
// the right. A route that needs none has no entry: it is sent an empty form.
var consoleForms = map[string]url.Values{
	"POST /stores/{slug}/database/rotate":       {"connectionString": {"mysql://u:p@127.0.0.1:1/d"}},
	"POST /stores/{slug}/credits/buy":           {"credits": {"1"}},
	"POST /stores/{slug}/credits/auto-recharge": {"threshold": {"1"}, "credits": {"1"}, "monthlyCap": {"1"}},
}

// pendingRoutes begin the paths of routes that lead elsewhere once the store has a
// database.
var pendingRoutes = []string{"/stores/{slug}/connect"}

// ownStoreRoutes begin the paths of forms that change nothing without their fields, or
// nothing that matters here: they are sent to the store with something to show.
var ownStoreRoutes = []string{"/stores/{slug}/database", "/stores/{slug}/backups"}

// scopeRefused are routes that refuse a person although authz allows the role, with the
// reason: "METHOD path role".
var scopeRefused = map[string]string{}

// consoleRoutes lists the routes of the console.
func consoleRoutes(t *testing.T, s *server) (routes []httpapi.Route) {
	t.Helper()
	for _, r := range httpapi.Routes(s.Cfg.API(s.URL, slog.New(slog.DiscardHandler), nil, nil, nil)) {
		if r.Console {
			routes = append(routes, r)
		}
	}
	if len(routes) < 15 {
		t.Fatalf("only %d routes of the console", len(routes))
	}
	return routes
}

// consoleWorld calls routes of the console as people with different rights.
type consoleWorld struct {
	*pageWorld
}

func newConsoleWorld(t *testing.T, s *server) *consoleWorld {
	t.Helper()
	return &consoleWorld{pageWorld: newPageWorld(t, s)}
}

// pathOf fills the placeholders of a route: with what a page shows, or for a form with a
// new store, because the form may change it. What nothing fills is replaced by an id that
// does not exist.
func (w *consoleWorld) pathOf(r httpapi.Route) string {
	w.t.Helper()
	path := r.Path
	if r.Method == http.MethodPost && strings.HasPrefix(path, "/stores/{slug}") && !hasAnyPrefix(path, ownStoreRoutes) {
		path = w.pathInNewStore(path)
	}
	if hasAnyPrefix(path, pendingRoutes) {
		path = strings.Replace(path, "{slug}", "{pending}", 1)
	}
	for placeholder, value := range w.values {
		path = strings.ReplaceAll(path, placeholder, value)
	}
	return placeholder.ReplaceAllString(path, stoa.NewID[stoa.StoreID]().String())
}

// thingsInPaths are the placeholders of the console's paths and those of the API for the
// same things.
var thingsInPaths = map[string]string{"{hostname}": "{hostname}", "{key}": "{keyId}", "{invitation}": "{invitationId}", "{user}": "{userId}", "{id}": "{id}"}

func (w *consoleWorld) pathInNewStore(path string) string {
	w.t.Helper()
	owner, store := w.people["owner"], w.store(w.ids["owner"])
	slug := owner.call("GET", "/api/stores/"+store, nil).want(http.StatusOK).text("slug")
	return placeholder.ReplaceAllStringFunc(path, func(name string) string {
		op := operation{path: "/api/credits/purchases/{id}"}
		if strings.Contains(path, "/holds/") {
			op.path = "/api/credits/holds/{id}"
		}
		switch {
		case name == "{slug}":
			return slug
		case thingsInPaths[name] != "":
			return w.newThing(op, thingsInPaths[name], store, owner)
		default:
			return name
		}
	})
}

// send calls a route as a browser of the same origin does.
func (w *consoleWorld) send(r httpapi.Route, path, person string) pageAnswer {
	w.t.Helper()
	if r.Method == http.MethodPost {
		return w.browser(person).post(path, w.form(r))
	}
	return w.browser(person).get(path)
}

func (w *consoleWorld) form(r httpapi.Route) url.Values {
	if form := consoleForms[r.Method+" "+r.Path]; form != nil {
		return form
	}
	return url.Values{}
}

// The outcomes of a request for a page.
const (
	signInAsked   = "sign in"
	passwordAsked = "confirm the password"
	forbidden     = "forbidden"
	missing       = "not found"
	failed        = "failed"
	admitted      = "admitted" // everything else, a refused form included
)

// outcome says what an answer means.
func (a pageAnswer) outcome() string {
	switch {
	case strings.HasPrefix(a.Location, "/signin?"), a.Status == http.StatusUnauthorized && strings.Contains(a.Body, "<title>Sign in again"):
		return signInAsked
	case strings.HasPrefix(a.Location, "/reauthenticate?"), a.Status == http.StatusForbidden && strings.Contains(a.Body, "Confirm that it is you"):
		return passwordAsked
	case a.Status == http.StatusForbidden:
		return forbidden
	case a.Status == http.StatusNotFound:
		return missing
	case a.Status >= http.StatusInternalServerError:
		return failed
	default:
		return admitted
	}
}

// TestConsoleRoutesCheckTheirScopes calls every route of the console signed out, as a
// member of every role, as the owner of another store, as a user and as an operator. The
// scope that the route states is what the domain must check.
func TestConsoleRoutesCheckTheirScopes(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newConsoleWorld(t, startServer(t, cfg))
	for _, r := range consoleRoutes(t, w.s) {
		if r.Path == "/signout" {
			continue // it ends the session that the other calls need; TestSignUpInABrowser
		}
		switch r.Scope {
		case "public", "optional":
			w.expect(r, "visitor", w.pathOf(r), admitted, missing)
		case "person":
			w.expect(r, "visitor", w.pathOf(r), signInAsked)
			w.expect(r, "nobody", w.pathOf(r), admitted, passwordAsked, missing) // a user without stores
		case "operator":
			w.expect(r, "visitor", w.pathOf(r), signInAsked)
			for _, person := range []string{"owner", "viewer", "stranger"} {
				w.expect(r, person, w.pathOf(r), forbidden)
			}
			w.expect(r, "operator", w.pathOf(r), admitted, passwordAsked, missing)
		default:
			w.checkStoreRoute(r)
		}
	}
}

// expect fails the test unless the answer to a person has one of the outcomes.
func (w *consoleWorld) expect(r httpapi.Route, person, path string, want ...string) pageAnswer {
	w.t.Helper()
	a := w.send(r, path, person)
	if got := a.outcome(); !slices.Contains(want, got) {
		w.t.Errorf("%s %s states %s. The answer to the %s is %q (%d to %q), want %s: %.300s",
			r.Method, r.Path, r.Scope, person, got, a.Status, a.Location, strings.Join(want, " or "), mainText(a.Body))
	}
	return a
}

// checkStoreRoute checks a route of a store. Those who may change something come last.
func (w *consoleWorld) checkStoreRoute(r httpapi.Route) {
	w.t.Helper()
	action := authz.Action(r.Scope)
	if !slices.ContainsFunc(authz.Rules(), func(rule authz.Rule) bool { return rule.Action == action }) {
		w.t.Errorf("%s %s states %s, which is neither an action nor a scope", r.Method, r.Path, r.Scope)
		return
	}
	path := w.pathOf(r)
	w.expect(r, "visitor", path, signInAsked)
	theirs := w.expect(r, "stranger", path, missing)
	none := w.expect(r, "stranger", storeInPath.ReplaceAllString(path, "/stores/no-such-store"), missing)
	if mainText(theirs.Body) != mainText(none.Body) {
		w.t.Errorf("%s %s answers a stranger differently for a store that exists:\n%s\n%s", r.Method, r.Path, mainText(theirs.Body), mainText(none.Body))
	}
	for _, role := range []authz.Role{authz.Viewer, authz.Member, authz.Admin, authz.Operator, authz.Owner} {
		want := []string{admitted, passwordAsked, missing} // a thing of the store may be missing
		if !role.Can(action) || scopeRefused[r.Method+" "+r.Path+" "+string(role)] != "" {
			want = []string{forbidden}
		}
		w.expect(r, string(role), path, want...)
	}
}

var storeInPath = regexp.MustCompile(`^/stores/[^/?]+`)

// mainText returns the main part of a page without the request's id.
func mainText(page string) string {
	_, text, _ := strings.Cut(page, "<main")
	text, _, _ = strings.Cut(text, "</main>")
	text, _, _ = strings.Cut(text, "Request <span")
	return text
}

// TestConsoleFormsRefuseOtherOrigins sends every form of the console as a page of
// another site would make a signed-in browser send it, and as a store's page on a
// subdomain would. Nothing may change.
func TestConsoleFormsRefuseOtherOrigins(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newConsoleWorld(t, startServer(t, cfg))
	people := []string{"owner", "operator"}
	for _, person := range people {
		w.browser(person) // signs in
	}
	shop := strings.Replace(w.s.URL, "localhost", "shop.localhost", 1)
	origins := []http.Header{
		{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}},
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Origin": {shop}, "Sec-Fetch-Site": {"same-site"}},
		{"Origin": {"https://evil.example"}}, // a browser without Sec-Fetch-Site
		{"Origin": {shop}},
		{"Origin": {"null"}},
	}
	paths := map[string]string{} // made first, because making them changes the database
	for _, r := range consoleRoutes(t, w.s) {
		if r.Method != http.MethodGet {
			paths[r.Path] = w.pathOf(r)
		}
	}
	before, tried := w.settledContent(), 0
	for _, r := range consoleRoutes(t, w.s) {
		if r.Method == http.MethodGet {
			continue
		}
		tried++
		for _, person := range people {
			for _, origin := range origins {
				a := w.browser(person).send(r.Method, paths[r.Path], w.form(r), origin)
				if a.Status != http.StatusForbidden || !strings.Contains(a.Body, "another site") || len(a.Header.Values("Set-Cookie")) > 0 {
					t.Errorf("%s %s as the %s with %v: %d, cookies %v", r.Method, r.Path, person, origin, a.Status, a.Header.Values("Set-Cookie"))
				}
			}
		}
	}
	if diff := cmp.Diff(before, w.content()); diff != "" {
		t.Errorf("the forms changed the master database (-before +after):\n%s", diff)
	}
	if tried < 4 {
		t.Errorf("only %d forms", tried)
	}
}

// idleTables change without any request: events are published, for endpoints too, after the
// request that caused them. A change of an endpoint is in the audit log.
var idleTables = []string{"event", "published_credits", "webhook_endpoints", "river_", "credit_copies", "presence", "lease", "replicas", "rate_limits", "sqlite_"}

// settledContent returns the content once jobs that earlier requests began have ended.
func (w *consoleWorld) settledContent() []string {
	w.t.Helper()
	content := w.content()
	for range 40 {
		<-time.After(500 * time.Millisecond)
		now := w.content()
		if slices.Equal(content, now) {
			return now
		}
		content = now
	}
	w.t.Fatal("the master database does not come to rest")
	return nil
}

// content returns what people have put into the master database. How often something was
// tried changes by itself.
func (w *consoleWorld) content() []string {
	w.t.Helper()
	var list []string
	for _, c := range dump(w.t, w.s.Master) {
		if !hasAnyPrefix(c.Table, idleTables) && c.Column != "attempt" && !strings.HasSuffix(c.Column, "_used_at") && !strings.HasSuffix(c.Column, "_seen_at") {
			list = append(list, c.Table+"."+c.Column+" = "+c.Value)
		}
	}
	slices.Sort(list)
	return list
}
