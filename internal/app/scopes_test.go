package app_test

import (
	"cmp"
	"log/slog"
	"net/http"
	"slices"
	"testing"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/masterdb"
)

// pagePaths are the routes outside the OpenAPI document, each with a path that matches
// it. All of them are public.
var pagePaths = map[string]string{
	"GET /{$}":                         "/",
	"GET /assets/":                     "/assets/none.css",
	"GET /api/docs":                    "/api/docs",
	"GET /api/docs/":                   "/api/docs/",
	"GET /api/openapi.json":            "/api/openapi.json",
	"GET /api/openapi-3.0.json":        "/api/openapi-3.0.json",
	"GET /api/openapi.yaml":            "/api/openapi.yaml",
	"GET /api/openapi-3.0.yaml":        "/api/openapi-3.0.yaml",
	"GET /favicon.ico":                 "/favicon.ico",
	"GET /robots.txt":                  "/robots.txt",
	"GET /.well-known/security.txt":    "/.well-known/security.txt",
	"GET /.well-known/change-password": "/.well-known/change-password",
	" /":                               "/none",
}

// scopeBodies replace entries of bodies that need a second permission besides the
// route's scope.
var scopeBodies = map[string]any{
	// To invite an owner needs authz.ManageOwners too.
	"POST /api/stores/{id}/invitations": object{"email": "{email}", "role": "viewer"},
}

// operatorRefused are routes that refuse an operator of the platform although authz
// allows the role, with the reason.
var operatorRefused = map[string]string{
	"POST /api/stores/{id}/transfer-ownership": "only an owner can hand over their own role",
}

// wrongToken is the operation whose body has a token that does not exist: it answers 401
// to a caller who is allowed.
const wrongToken = "POST /api/invitations/accept"

// TestRoutesCheckTheirScopes calls every route and checks that the scope which its
// registration states is the permission that the domain checks. A route without a
// request fails: an API operation needs an entry in bodies and a line in
// testdata/leaks.txt, any other route one in pagePaths.
func TestRoutesCheckTheirScopes(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	w := newScopeWorld(t, s)
	unseen := map[string]bool{}
	for name := range w.operations {
		unseen[name] = true
	}
	for _, r := range httpapi.Routes(cfg.API(s.URL, slog.New(slog.DiscardHandler), nil, nil, nil)) {
		name := r.Method + " " + r.Path
		delete(unseen, name)
		if r.Console {
			continue // TestConsoleRoutesCheckTheirScopes
		}
		if path, page := pagePaths[name]; page {
			w.checkPage(r, path)
			continue
		}
		_, lined := w.lines[name]
		_, embodied := bodies[name]
		op, documented := w.operations[name]
		if !lined || !documented || !embodied && r.Method != http.MethodGet {
			t.Errorf("%s has no request in bodies and testdata/leaks.txt, or in pagePaths", name)
			continue
		}
		w.check(op, r.Scope)
	}
	for name := range unseen {
		t.Errorf("%s is served and is not in httpapi.Routes", name)
	}
}

// scopeWorld calls routes as callers with different permissions.
type scopeWorld struct {
	*leakWorld
	operations map[string]operation
	lines      map[string][]string
	active     string            // a store for calls that change nothing
	keys       map[string]client // by store and scopes
	acting     client            // an operator who acts as the owner
}

func newScopeWorld(t *testing.T, s *server) *scopeWorld {
	t.Helper()
	w := &scopeWorld{leakWorld: newLeakWorld(t, s), operations: map[string]operation{}, lines: expectations(t), keys: map[string]client{}}
	for _, op := range operations(t, s) {
		w.operations[op.method+" "+op.path] = op
	}
	w.active = w.activeStore()
	w.acting = client{t: t, url: s.URL, token: w.people["operator"].call("POST", "/api/operator/impersonations",
		object{"userId": w.ids["owner"].String(), "reason": "Ticket 17: sees no orders"}).want(http.StatusCreated).text("accessToken")}
	return w
}

// activeStore creates a store with a database and a member of every role.
func (w *scopeWorld) activeStore() string {
	w.t.Helper()
	id := w.store(w.ids["owner"])
	w.people["owner"].call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK).is("active", "status")
	return id
}

// key returns the store's API key with these scopes.
func (w *scopeWorld) key(store string, scopes []authz.Scope) client {
	w.t.Helper()
	id := store
	for _, scope := range scopes {
		id += " " + string(scope)
	}
	if _, known := w.keys[id]; !known {
		w.keys[id] = w.people["owner"].withKey(store, scopes...)
	}
	return w.keys[id]
}

// check compares the answers of an operation with its stated scope.
func (w *scopeWorld) check(op operation, scope string) {
	w.t.Helper()
	switch scope {
	case "public", "optional":
		w.checkPublic(op, scope == "optional")
		return
	case "caller", "person", "operator":
		w.checkAccount(op, scope)
	default:
		w.checkAction(op, authz.Action(scope))
	}
	if a := w.ask(op, w.active, w.people["none"]); a.status != http.StatusUnauthorized {
		w.t.Errorf("%s %s states %s and answers %d without a token", op.method, op.path, scope, a.status)
	}
}

// ask makes the call. Its body passes validation, so that the call reaches the check.
func (w *scopeWorld) ask(op operation, store string, c client) answer {
	w.t.Helper()
	body, path := w.fill(op, store, c)
	if own := scopeBodies[op.method+" "+op.path]; own != nil {
		own := own.(object)
		body = object{"email": w.newThing(op, own["email"].(string), store, c), "role": own["role"]}
	}
	if op.byChoice {
		return c.call(op.method, path, body, "X-Store-Id", store)
	}
	return c.call(op.method, path, body)
}

// compare fails the test unless the answer is 403 forbidden exactly when allowed is
// false.
func (w *scopeWorld) compare(op operation, scope, caller string, a answer, allowed bool) {
	w.t.Helper()
	forbidden := a.status == http.StatusForbidden && a.body["code"] == "forbidden"
	unauthenticated := a.status == http.StatusUnauthorized && op.method+" "+op.path != wrongToken
	if forbidden == allowed || unauthenticated || a.status == http.StatusInternalServerError {
		w.t.Errorf("%s %s states the scope %s. The caller %q should be allowed: %v. The answer is %d %s", op.method, op.path, scope, caller, allowed, a.status, a.raw)
	}
}

// checkAction checks a route of a store: every role, an API key with exactly the scope
// of the action, one with all scopes but that, and an operator who acts as the owner.
// Callers who may change something come last.
func (w *scopeWorld) checkAction(op operation, action authz.Action) {
	w.t.Helper()
	i := slices.IndexFunc(authz.Rules(), func(r authz.Rule) bool { return r.Action == action })
	if i < 0 {
		w.t.Errorf("%s %s states %s, which is neither an action nor a scope", op.method, op.path, action)
		return
	}
	rule, store := authz.Rules()[i], w.active
	if op.ofStore() && op.method != http.MethodGet {
		store = w.activeStore()
	}
	try := func(caller string, c client, allowed bool) {
		w.t.Helper()
		w.compare(op, string(action), caller, w.ask(op, store, c), allowed)
	}
	others := slices.DeleteFunc(authz.Scopes(), func(s authz.Scope) bool { return s == rule.Scope })
	try("key with all other scopes", w.key(store, others), false)
	if rule.Scope != "" {
		try("key with "+string(rule.Scope), w.key(store, []authz.Scope{rule.Scope}), true)
	}
	try("operator acting as owner", w.acting, rule.Impersonated)
	for _, role := range []authz.Role{authz.Viewer, authz.Member, authz.Admin, authz.Operator, authz.Owner} {
		if allowed := role.Can(action) || !op.ofStore(); op.ofStore() || allowed {
			refused := role == authz.Operator && operatorRefused[op.method+" "+op.path] != ""
			try(string(role), w.people[string(role)], allowed && !refused)
		}
	}
}

// checkAccount checks a route of no store: an API key with every scope, a user, and an
// operator of the platform.
func (w *scopeWorld) checkAccount(op operation, scope string) {
	w.t.Helper()
	w.compare(op, scope, "key with every scope", w.ask(op, w.active, w.key(w.active, authz.Scopes())), scope == "caller")
	for _, person := range []string{"owner", "operator"} {
		c := w.people[person]
		if op.method != http.MethodGet && scope == "person" {
			c, _ = w.register(person == "operator") // the call may end the session
		}
		w.compare(op, scope, person, w.ask(op, w.active, c), scope != "operator" || person == "operator")
	}
}

// checkPublic checks that a route needs no token, and that it checks one if and only if
// it states so. The body cannot be parsed, because a route whose body has credentials
// answers 401 to wrong ones.
func (w *scopeWorld) checkPublic(op operation, optional bool) {
	w.t.Helper()
	var body any
	if op.json {
		body = "{"
	}
	for caller, want := range map[string]bool{"none": false, "malformed": optional} {
		a := w.people[caller].call(op.method, placeholder.ReplaceAllString(op.path, "none"), body)
		if (a.status == http.StatusUnauthorized) != want || a.status == http.StatusInternalServerError {
			w.t.Errorf("%s %s is public (token checked: %v) and answers %d to the token %q", op.method, op.path, optional, a.status, caller)
		}
	}
}

// checkPage checks a route outside the OpenAPI document: a token makes no difference to
// its status. A page may answer 401 to a wrong state in the request.
func (w *scopeWorld) checkPage(r httpapi.Route, path string) {
	w.t.Helper()
	if r.Scope != "public" {
		w.t.Errorf("%s %s states %s, and pages are public", r.Method, r.Path, r.Scope)
	}
	method := cmp.Or(r.Method, http.MethodGet)
	without, with := w.people["none"].call(method, path, nil), w.people["owner"].call(method, path, nil)
	if without.status != with.status || without.status == http.StatusInternalServerError {
		w.t.Errorf("%s %s is public and answers %d without a token, %d with one", r.Method, r.Path, without.status, with.status)
	}
}
