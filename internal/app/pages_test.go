package app_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/httpapi"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

const (
	maxPageSize   = 100 << 10 // bytes of a page's HTML
	maxScriptSize = 100 << 10 // bytes of all scripts together, compressed
)

// pageCase says how a page is visited. The path has placeholders that pageWorld fills;
// it may be left out when it is the route's pattern.
type pageCase struct {
	path   string
	as     string // whose session it is: "visitor" has none; unless stated, one whom the route's scope admits
	status int    // 200 unless stated
}

// pageCases are the routes that answer a browser with a page and need more than their
// pattern and scope to be visited. A route of the console that needs no more has no entry.
var pageCases = map[string][]pageCase{
	"GET /{$}":                    {{path: "/"}},
	"GET /api/docs":               {{}},
	"GET /checkout/{outcome}":     {{path: "/checkout/done"}, {path: "/checkout/saved"}, {path: "/checkout/cancelled"}},
	"GET /sandbox/checkout/{ref}": {{path: "{checkout}"}, {path: "{paid}"}},
	"GET /supabase/{outcome}":     {{path: "/supabase/connected"}, {path: "/supabase/declined"}},
	"GET /dev/mailbox":            {{}},
	"GET /verify":                 {{path: "/verify?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"}, {path: "/verify?token=x", as: "owner"}},
	"GET /reset":                  {{path: "/reset?token=x"}},
	"GET /account/email/confirm":  {{path: "/account/email/confirm?token=x"}, {path: "/account/email/confirm?token=x&signed-in", as: "owner"}},
	"GET /invitations/accept":     {{path: "/invitations/accept?token=x", status: http.StatusGone}},
	"GET /account/delete":         {{}, {path: "/account/delete?no-stores", as: "nobody"}},
	" /":                          {{path: "/none", status: http.StatusNotFound}, {path: "/none?signed-in", as: "owner", status: http.StatusNotFound}},

	"GET /signin/done":           {{status: http.StatusBadRequest}}, // for browsers without cookies
	"GET /signin":                {{}, {path: "/signin?next=%2Fstores%3Fa%3D%22%3E%3Cscript%3Ealert(1)%3C/script%3E"}},
	"GET /stores/{slug}/connect": {{path: "/stores/{pending}/connect"}, {path: "/stores/{pending}/connect?kind=own"}, {path: "/stores/{pending}/connect?kind=supabase"}},
	"GET /search":                {{}, {path: "/search?q=store"}, {path: "/search?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"}},
	"GET /stores/{slug}/credits": {{}, {path: "/stores/{slug}/credits?type=spend&days=90"}, {path: "/stores/{slug}/credits?viewer", as: "viewer"},
		{path: "/stores/{slug}/credits?type=%22%3E%3Cscript%3E&from=%22%3E%3Cscript%3E", status: http.StatusUnprocessableEntity}},
	"GET /stores/{slug}/credits/holds":          {{}, {path: "/stores/{slug}/credits/holds?state=all"}},
	"GET /stores/{slug}/credits/purchases/{id}": {{path: "/stores/{slug}/credits/purchases/{purchase}"}},
	"GET /stores":        {{}, {path: "/stores?empty", as: "nobody"}},
	"GET /stores/{slug}": {{}, {path: "/stores/{pending}"}, {path: "/stores/{slug}?viewer", as: "viewer"}, {path: "/stores/none", status: http.StatusNotFound}},

	"GET /stores/{slug}/domains": {{}, {path: "/stores/{pending}/domains"}, {path: "/stores/{slug}/domains?viewer", as: "viewer"}},
	"GET /stores/{slug}/people":  {{}, {path: "/stores/{slug}/people?viewer", as: "viewer"}},
	"GET /stores/{slug}/keys":    {{}, {path: "/stores/{pending}/keys"}},
	"GET /stores/{slug}/activity": {{}, {path: "/stores/{pending}/activity"}, {path: "/stores/{slug}/activity?type=backup.cloned"},
		{path: "/stores/{slug}/activity?type=%22%3E%3Cscript%3E", status: http.StatusUnprocessableEntity}, {path: "/stores/{slug}/activity?viewer", as: "viewer", status: http.StatusForbidden}},
	"GET /stores/{slug}/activity/audit":   {{}, {path: "/stores/{slug}/activity/audit?action=store.updated&user={userId}"}, {path: "/stores/{slug}/activity/audit?from=x", status: http.StatusUnprocessableEntity}},
	"GET /stores/{slug}/settings":         {{}, {path: "/stores/{pending}/settings"}, {path: "/stores/{slug}/settings?viewer", as: "viewer"}},
	"GET /stores/{slug}/settings/objects": {{}, {path: "/stores/{pending}/settings/objects"}, {path: "/stores/{slug}/settings/objects?viewer", as: "viewer"}},
	// The store's database is an embedded one, which has no connection string.
	"GET /stores/{slug}/database/credentials":    {{status: http.StatusNotFound}},
	"GET /stores/{slug}/database/reset-password": {{status: http.StatusNotFound}},

	"GET /stores/{slug}/moves":     {{}, {path: "/stores/{pending}/moves"}, {path: "/stores/{slug}/moves?viewer", as: "viewer"}},
	"GET /stores/{slug}/moves/new": {{}, {path: "/stores/{slug}/moves/new?viewer", as: "viewer", status: http.StatusForbidden}},
	"GET /stores/{slug}/moves/{move}": {{}, {path: "/stores/{going}/moves/{running}"}, {path: "/stores/{slug}/moves/{failedMove}"},
		{path: "/stores/{slug}/moves/{move}?viewer", as: "viewer"}, {path: "/stores/{slug}/moves/none", status: http.StatusNotFound}},
	"GET /stores/{slug}/moves/{move}/{end}": {{path: "/stores/{slug}/moves/{move}/finish"}, {path: "/stores/{slug}/moves/{move}/rollback"}, {path: "/stores/{going}/moves/{running}/abort"},
		{path: "/stores/{slug}/moves/{move}/finish?viewer", as: "viewer", status: http.StatusForbidden}, {path: "/stores/{slug}/moves/{move}/none", status: http.StatusNotFound}},

	"GET /stores/{slug}/backups":          {{}, {path: "/stores/{going}/backups"}, {path: "/stores/{pending}/backups"}, {path: "/stores/{slug}/backups?viewer", as: "viewer", status: http.StatusForbidden}},
	"GET /stores/{slug}/backups/{backup}": {{}, {path: "/stores/{slug}/backups/{failed}"}, {path: "/stores/{slug}/backups/none", status: http.StatusNotFound}},

	"GET /stores/{slug}/webhooks": {{}, {path: "/stores/{pending}/webhooks"}, {path: "/stores/{slug}/webhooks?operator", as: "operator"},
		{path: "/stores/{slug}/webhooks?viewer", as: "viewer", status: http.StatusForbidden}},
	"GET /stores/{slug}/webhooks/{endpoint}": {{}, {path: "/stores/{slug}/webhooks/{disabled}"}, {path: "/stores/{slug}/webhooks/{endpoint}?state=failed&type=webhook.test"},
		{path: "/stores/{slug}/webhooks/{endpoint}?state=%22%3E%3Cscript%3E", status: http.StatusUnprocessableEntity},
		{path: "/stores/{slug}/webhooks/{endpoint}?operator", as: "operator"}, {path: "/stores/{slug}/webhooks/none", status: http.StatusNotFound}},
	"GET /stores/{slug}/webhooks/{endpoint}/deliveries/{delivery}": {{}, {path: "/stores/{slug}/webhooks/{endpoint}/deliveries/{waiting}"},
		{path: "/stores/{slug}/webhooks/{endpoint}/deliveries/{old}"}, {path: "/stores/{slug}/webhooks/{endpoint}/deliveries/none", status: http.StatusNotFound}},
	"GET /operator/webhooks/{endpoint}":                       {{path: "/operator/webhooks/{platformEndpoint}"}},
	"GET /operator/webhooks/{endpoint}/rotate":                {{path: "/operator/webhooks/{platformEndpoint}/rotate"}},
	"GET /operator/webhooks/{endpoint}/delete":                {{path: "/operator/webhooks/{platformEndpoint}/delete"}},
	"GET /operator/webhooks/{endpoint}/deliveries/{delivery}": {{path: "/operator/webhooks/{platformEndpoint}/deliveries/{platformDelivery}"}},

	"GET /operator/bulk":       {{status: http.StatusUnprocessableEntity}}, // without a choice of stores
	"GET /operator/users/{id}": {{path: "/operator/users/{userId}"}},
}

// noPages are the routes outside /api/ that answer GET with something else than a page,
// with what it is.
var noPages = map[string]string{
	"GET /assets/":                     "files",
	"GET /api/docs/":                   "files",
	"GET /favicon.ico":                 "a picture",
	"GET /robots.txt":                  "a text",
	"GET /.well-known/security.txt":    "a text",
	"GET /.well-known/change-password": "a redirect",
	"GET /verify-email":                "a redirect",
	"GET /forgot-password":             "a redirect",
	"GET /reset-password":              "a redirect",
	"GET /accept-invitation":           "a redirect",
	"GET /account/export/download":     "a file",
	"GET /account/passkeys/{passkey}":  "only an authenticator can make a passkey to look at",
	"GET /operator/bulk/{id}":          "only a bulk action makes one: TestFleetPages",
	"GET /healthz":                     "JSON",
	"GET /readyz":                      "JSON",
	"GET /signin/code":                 "a redirect without the first step of a sign-in",
}

// pageRoutes lists the routes of pages: all that answer GET outside the API.
func pageRoutes(t *testing.T, s *server) (routes []httpapi.Route) {
	t.Helper()
	for _, r := range httpapi.Routes(s.Cfg.API(s.URL, slog.New(slog.DiscardHandler), nil, nil, nil)) {
		name := r.Method + " " + r.Path
		api := strings.HasPrefix(r.Path, "/api/") && r.Path != "/api/docs"
		file := strings.HasSuffix(r.Path, "/live") || strings.HasSuffix(r.Path, ".csv")
		if noPages[name] == "" && !api && !file && (r.Method == http.MethodGet || r.Method == "") {
			routes = append(routes, r)
		}
	}
	return routes
}

func TestEveryPageHasACase(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	known := map[string]bool{}
	for _, r := range pageRoutes(t, s) {
		name := r.Method + " " + r.Path
		known[name] = true
		if len(pageCases[name]) == 0 && !r.Console {
			t.Errorf("%s is in neither pageCases nor noPages", name)
		}
	}
	for name := range pageCases {
		if !known[name] {
			t.Errorf("pageCases has %s, which is no page", name)
		}
	}
}

// pageVisit is a page to look at.
type pageVisit struct {
	name string // the path, with placeholders
	pageCase
}

// visits lists the pages with paths that lead to the world's things. The test fails for
// a page with a placeholder that nothing fills.
func (w *pageWorld) visits() (list []pageVisit) {
	for _, r := range pageRoutes(w.t, w.s) {
		cases := pageCases[r.Method+" "+r.Path]
		if len(cases) == 0 {
			cases = []pageCase{{}}
		}
		for _, c := range cases {
			c.path, c.as, c.status = cmp.Or(c.path, r.Path), cmp.Or(c.as, visitor(r.Scope)), cmp.Or(c.status, http.StatusOK)
			name := c.path
			for placeholder, value := range w.values {
				c.path = strings.ReplaceAll(c.path, placeholder, value)
			}
			if strings.Contains(c.path, "{") {
				w.t.Errorf("%s: nothing fills a placeholder", c.path)
				continue
			}
			list = append(list, pageVisit{name, c})
		}
	}
	return list
}

// visitor returns a person whom a scope admits.
func visitor(scope string) string {
	switch scope {
	case "public", "optional":
		return "visitor"
	case "operator":
		return "operator"
	default:
		return "owner"
	}
}

// hostileNames are names of stores and people: markup, right to left, emoji, and one as
// long as names may be, without a place to break it.
var hostileNames = []string{
	`"><script>alert(1)</script><img src=x onerror=alert(1)>`,
	"متجر الزاوية 👩🎉",
	strings.Repeat("Unbreakable", 9),
}

// pageWorld is a platform with something to show on every page.
type pageWorld struct {
	*leakWorld
	values   map[string]string         // by placeholder
	emails   map[string]string         // by person
	browsers map[string]*browserClient // by person; see browser
	windows  map[string]*chromium      // by person; see window
}

// window returns a window of a Chromium in which a person is signed in, or nobody.
func (w *pageWorld) window(person string) *chromium {
	w.t.Helper()
	if len(w.windows) == 0 {
		w.windows = map[string]*chromium{"visitor": startChromium(w.t, w.s)}
	}
	if w.windows[person] == nil {
		c := w.windows["visitor"].another(w.t, w.s)
		c.open("/signin")
		c.fill("email", w.emails[person])
		c.fill("password", testPassword)
		c.press("Sign in")
		if at := c.path(); at != "/stores" {
			w.t.Fatalf("after the sign-in as %s: %s", person, c.whereabouts())
		}
		c.open("/reauthenticate")
		c.fill("password", testPassword)
		evaluate[bool](c, `(document.querySelector("main form[action='/reauthenticate']").requestSubmit(), true)`)
		c.await("the password is confirmed", `location.pathname === "/stores"`)
		w.windows[person] = c
	}
	return w.windows[person]
}

// browser returns a browser in which a person is signed in, or nobody.
func (w *pageWorld) browser(person string) *browserClient {
	w.t.Helper()
	if w.browsers[person] == nil {
		if person == "visitor" {
			w.browsers[person] = newBrowserClient(w.t, w.s)
		} else {
			b := signIn(w.t, w.s, w.emails[person], testPassword)
			b.post("/reauthenticate", url.Values{"password": {testPassword}}) // some pages need a recent password
			w.browsers[person] = b
		}
	}
	return w.browsers[person]
}

func newPageWorld(t *testing.T, s *server) *pageWorld {
	t.Helper()
	w := &pageWorld{leakWorld: newLeakWorld(t, s), values: map[string]string{}, emails: map[string]string{}, browsers: map[string]*browserClient{}}
	w.people["nobody"], w.ids["nobody"] = w.register(false) // has no store
	owner := w.people["owner"]
	for person, c := range w.people {
		if a := c.call("GET", "/api/auth/me", nil); a.status == http.StatusOK {
			w.emails[person] = a.text("user", "email")
		}
	}
	for i, person := range []string{"admin", "member", "viewer"} {
		w.tx(func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE users SET first_name = $1, last_name = $1 WHERE id = $2`, hostileNames[i], w.ids[person])
			return err
		})
	}
	active := w.busyStore()
	w.values["{slug}"] = active.text("slug")
	w.values["{user}"] = w.ids["viewer"].String()
	w.values["{hostname}"] = "shop.example.com"
	w.values["{key}"] = owner.call("POST", "/api/stores/"+active.text("id")+"/api-keys", object{"name": "K", "scopes": []string{"store:read"}}).want(http.StatusCreated).text("id")
	w.values["{userId}"], w.values["{user}"], w.values["{hostname}"] = w.ids["viewer"].String(), w.ids["viewer"].String(), "shop.example.com"
	w.values["{key}"] = owner.call("GET", "/api/stores/"+active.text("id")+"/api-keys", nil).list("data")[0].(object)["id"].(string)
	for i, name := range hostileNames { // their runs fail, so that there is something to look at
		id := w.store(w.ids["owner"])
		w.tx(func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE stores SET name = $1 WHERE id = $2`, name, id)
			return err
		})
		slug := owner.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).text("slug")
		switch i {
		case 0:
			w.values["{pending}"] = slug
		case 1:
			w.values["{going}"] = slug
			w.addBackups(active.text("id"), id)
			w.addMoves(active.text("id"), id)
			w.addWebhooks(active.text("id"))
		}
	}
	return w
}

// busyStore makes an active store with members, invitations, keys, hostnames, credits,
// holds and purchases. It returns the answer that created it.
func (w *pageWorld) busyStore() answer {
	w.t.Helper()
	owner := w.people["owner"]
	a := owner.call("POST", "/api/stores", object{"name": hostileNames[0]}).want(http.StatusCreated)
	text := a.text("id")
	store, err := stoa.ParseID[stoa.StoreID](text)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tx(func(tx *masterdb.Tx) error {
		for role, person := range map[authz.Role]string{authz.Admin: "admin", authz.Member: "member", authz.Viewer: "viewer"} {
			if err := authz.Grant(w.t.Context(), tx, store, w.ids[person], role); err != nil {
				return err
			}
		}
		_, err := w.s.Ledger.Grant(w.t.Context(), tx, store, credits.Grant{Type: credits.TypeBonus, Amount: 1000 * credits.Credit, IdempotencyKey: "pages"})
		return err
	})
	base := "/api/stores/" + text
	owner.call("POST", base+"/connect-database", object{"type": "managed"}).want(http.StatusOK).is("active", "status")
	owner.call("PATCH", base, object{"description": hostileNames[0] + hostileNames[1], "contactEmail": "shop@example.com", "theme": object{"primaryColor": "#c2410c"}}).want(http.StatusOK)
	for i, name := range hostileNames {
		owner.call("POST", base+"/api-keys", object{"name": name, "scopes": []string{"store:read", "credits:spend"}}).want(http.StatusCreated)
		owner.call("POST", base+"/invitations", object{"email": strings.Repeat("guest", i+1) + "@example.com", "role": "viewer"}).want(http.StatusCreated)
		owner.call("POST", "/api/credits/spend", object{"amount": "1.5", "description": name}, "X-Store-Id", text).want(http.StatusOK)
		owner.call("POST", "/api/credits/holds", object{"amount": "2"}, "X-Store-Id", text).want(http.StatusCreated)
	}
	owner.call("POST", base+"/hostnames", object{"hostname": "shop.example.com"}).want(http.StatusCreated)
	owner.call("POST", base+"/hostnames", object{"hostname": strings.Repeat("long", 15) + ".example.com"}).want(http.StatusCreated)
	owner.buy(text, 25)
	for placeholder, amount := range map[string]int{"{checkout}": 7, "{paid}": 8} {
		p := owner.call("POST", "/api/credits/purchase", object{"credits": amount}, "X-Store-Id", text).want(http.StatusCreated)
		w.values[placeholder] = strings.TrimPrefix(p.text("checkoutUrl"), w.s.URL)
		w.values["{purchase}"] = p.text("id")
		purchase := owner.call("POST", "/api/credits/purchase", object{"credits": amount}, "X-Store-Id", text).want(http.StatusCreated)
		w.values[placeholder] = strings.TrimPrefix(purchase.text("checkoutUrl"), w.s.URL)
		w.values["purchases/{id}"] = "purchases/" + purchase.text("id")
	}
	w.people["none"].call("POST", w.values["{paid}"]+"/pay", nil).want(http.StatusSeeOther)
	return a
}

// touchingTime finds a word or sign that stands beside a time without a space: templates drop the
// line break before and after a component.
var touchingTime = regexp.MustCompile(`[\pL\pN·]<time|</time>[\pL\pN·]`)

var scriptSource = regexp.MustCompile(`<script[^>]* src="([^"]+)"`)

// TestPagesAreSmall reads every page and its scripts.
func TestPagesAreSmall(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newPageWorld(t, startServer(t, cfg))
	scripts := map[string]int{}
	for _, v := range w.visits() {
		if v.path == "/api/docs" {
			continue // Swagger UI is far larger
		}
		a := w.visit(v)
		if len(a.Body) > maxPageSize {
			t.Errorf("%s: %d bytes", v.name, len(a.Body))
		}
		w.checkMarkup(v.name, a)
		for _, found := range scriptSource.FindAllStringSubmatch(a.Body, -1) {
			if _, known := scripts[found[1]]; !known {
				scripts[found[1]] = len(compressed(t, w.people["none"].call("GET", found[1], nil).want(http.StatusOK).raw))
			}
		}
	}
	total := 0
	for _, size := range scripts {
		total += size
	}
	if total > maxScriptSize {
		t.Errorf("the scripts have %d bytes: %v", total, scripts)
	}
}

// TestConnectWithoutSupabase checks that a platform without access to Supabase does not offer
// it, also at the address of a page that another platform has.
func TestConnectWithoutSupabase(t *testing.T) {
	t.Parallel()
	w := newPageWorld(t, startServer(t, testConfig(t, masterdb.SQLite)))
	visits := w.visits()
	i := slices.IndexFunc(visits, func(v pageVisit) bool { return strings.HasSuffix(v.path, "/connect?kind=supabase") })
	if a := w.visit(visits[i]); strings.Contains(a.Body, "Supabase account") || !strings.Contains(a.Body, "Create the database") {
		t.Errorf("the page offers Supabase: %s", a.Body)
	}
}

// visit requests a page as a browser does.
func (w *pageWorld) visit(v pageVisit) pageAnswer {
	w.t.Helper()
	a := w.browser(v.as).get(v.path)
	if a.Status != v.status || a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		w.t.Errorf("%s: %d %s to %q", v.name, a.Status, a.Header.Get("Content-Type"), a.Location)
	}
	return a
}

func compressed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkMarkup fails the test for a page with anything inline that its policy refuses, for
// headers that are missing, for hostile text that is markup, and for what scrolls without
// being reached by keyboard.
func (w *pageWorld) checkMarkup(name string, a pageAnswer) {
	w.t.Helper()
	for header, want := range map[string]string{"Cross-Origin-Opener-Policy": "same-origin", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff"} {
		if got := a.Header.Get(header); got != want {
			w.t.Errorf("%s: %s is %q, want %q", name, header, got, want)
		}
	}
	policy := a.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) || strings.Contains(policy, "unsafe") {
			w.t.Errorf("%s: the policy is %q", name, policy)
		}
	}
	if found := touchingTime.FindString(a.Body); found != "" {
		w.t.Errorf("%s: a word and a time have no space between them: %q", name, found)
	}
	doc, err := html.Parse(strings.NewReader(a.Body))
	testkit.Must(w.t, err)
	regions := map[string]bool{}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		scrolls := slices.Contains(strings.Fields(attribute(n, "class")), "scroll")
		if label := attribute(n, "aria-label"); scrolls {
			if label == "" || regions[label] || attribute(n, "role") != "region" || attribute(n, "tabindex") != "0" {
				w.t.Errorf("%s has a scrolling part without a name of its own that the keyboard reaches: %q", name, label)
			}
			regions[label] = true
		}
		if n.Data == "table" && !slices.Contains(strings.Fields(attribute(n.Parent, "class")), "scroll") {
			w.t.Errorf("%s has a table outside ui.Table", name)
		}
		inline := n.FirstChild != nil && (n.Data == "script" || n.Data == "style")
		if inline || slices.Contains([]string{"iframe", "object", "embed", "base"}, n.Data) {
			w.t.Errorf("%s has a <%s>", name, n.Data)
		}
		for _, attr := range n.Attr {
			address := strings.ToLower(strings.TrimSpace(attr.Val))
			if attr.Key == "style" || strings.HasPrefix(attr.Key, "on") || strings.HasPrefix(attr.Key, "hx-on") || strings.HasPrefix(address, "javascript:") {
				w.t.Errorf("%s: <%s> has %s=%q", name, n.Data, attr.Key, attr.Val)
			}
		}
	}
}

// TestPagesInChromium opens every page in a browser: no error in its console, nothing
// that its policy refuses, and nothing that axe finds, on a desktop, a phone and in the
// dark.
func TestPagesInChromium(t *testing.T) {
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newPageWorld(t, startServer(t, cfg))
	faults := faultList{}
	for _, v := range w.visits() {
		if v.path == "/api/docs" {
			continue // Swagger UI is not ours; TestDocsInABrowser opens it
		}
		c := w.window(v.as)
		if status := c.open(v.path); status != v.status {
			t.Errorf("%s: status %d, want %d", v.name, status, v.status)
			continue
		}
		for fault, on := range c.inspect() {
			faults.add(fault, v.name+" ("+strings.Join(on, ", ")+")")
		}
		for _, fault := range c.takeFaults() {
			if v.status >= 400 && strings.Contains(fault, "Failed to load resource") && strings.Contains(fault, "("+c.origin+v.path+")") {
				continue // what the console says of the page itself
			}
			faults.add(fault, v.name)
		}
	}
	faults.report(t)
}

// screenshotsEnv names the environment variable with the folder that TestScreenshots
// writes to.
const screenshotsEnv = "STOA_SCREENSHOTS"

// TestScreenshots takes a picture of every page with every device. It is run by make
// screenshots.
func TestScreenshots(t *testing.T) {
	folder := os.Getenv(screenshotsEnv)
	if folder == "" {
		t.Skipf("set %s to a folder", screenshotsEnv)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newPageWorld(t, startServer(t, cfg))
	for _, v := range w.visits() {
		c := w.window(v.as)
		c.open(v.path)
		for _, d := range devices {
			c.emulate(d)
			if err := os.WriteFile(filepath.Join(folder, fileName(v)+"-"+d.name+".png"), c.picture(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c.emulate(desktop)
	}
}

// fileName derives a file's name from a page: /stores/{slug}/domains →
// owner-stores-slug-domains.
func fileName(v pageVisit) string {
	words := strings.FieldsFunc(v.name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
	name := cmp.Or(strings.Join(words, "-"), "home")
	return v.as + "-" + name[:min(len(name), 60)]
}

// TestPagesOfASuspendedUser visits every page with a session that was made before its
// user was suspended, an operator among them: it is worth no more than none.
func TestPagesOfASuspendedUser(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newPageWorld(t, startServer(t, cfg))
	var visits []pageVisit
	for _, v := range w.visits() {
		if v.as != "visitor" {
			w.browser(v.as) // signed in before the suspension
			visits = append(visits, v)
		}
	}
	people := []string{"owner", "viewer", "nobody", "operator"}
	w.people["chief"], w.ids["chief"] = w.register(true) // nobody suspends themselves
	chief := signIn(t, w.s, w.people["chief"].call("GET", "/api/auth/me", nil).text("user", "email"), testPassword)
	change := func(what string) {
		for _, person := range people {
			got := chief.post("/operator/users/"+w.ids[person].String()+"/"+what, url.Values{"reason": {"suspended by the test of pages"}})
			if got.Status != http.StatusSeeOther {
				t.Fatalf("%s %s: %d\n%s", what, person, got.Status, got.Body)
			}
		}
	}
	w.setOperator("role", "user") // an operator cannot be suspended, but a suspended user can become one
	change("suspend")
	w.setOperator("role", "admin")
	byPerson := map[string]int{}
	for _, v := range visits {
		byPerson[v.as]++
		got := w.browser(v.as).get(v.path)
		toSignIn := got.Status == http.StatusSeeOther && strings.HasPrefix(got.Location, "/signin")
		if asVisitor := newBrowserClient(t, w.s).get(v.path); !toSignIn && (v.as == "operator" || got.Status != asVisitor.Status) {
			t.Errorf("%s: %d to %q, want the sign-in or what a visitor sees (%d)", v.name, got.Status, got.Location, asVisitor.Status)
		}
		if strings.Contains(got.Body, w.emails[v.as]) {
			t.Errorf("%s names the suspended user", v.name)
		}
	}
	if byPerson["operator"] < 15 || byPerson["owner"] < 40 {
		t.Errorf("pages that need a session: %v", byPerson)
	}
	w.checkSuspendedOperator()
	w.setOperator("role", "user")
	change("resume")
	for _, person := range people { // the suspension has ended their sessions for good
		if got := w.browser(person).get("/stores"); !strings.HasPrefix(got.Location, "/signin") {
			t.Errorf("the session of the %s lives again: %d to %q", person, got.Status, got.Location)
		}
		if got := w.people[person].call("GET", "/api/auth/me", nil); got.status != http.StatusUnauthorized {
			t.Errorf("the token of the %s lives again: %d", person, got.status)
		}
	}
	// A session that outlives the suspension is refused too.
	w.setOperator("role", "admin")
	delete(w.browsers, "operator")
	if got := w.browser("operator").get("/operator"); got.Status != http.StatusOK {
		t.Fatalf("after the new sign-in: %d to %q", got.Status, got.Location)
	}
	w.setOperator("suspended_at", time.Now().UTC())
	w.checkSuspendedOperator()
}

// setOperator sets a column of the operator's row.
func (w *pageWorld) setOperator(column string, value any) {
	w.t.Helper()
	w.tx(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.t.Context(), `UPDATE users SET `+column+` = $1 WHERE id = $2`, value, w.ids["operator"])
		return err
	})
}

// checkSuspendedOperator requests everything of operators, forms and files included, in the
// console and in the API, as an operator who was suspended.
func (w *pageWorld) checkSuspendedOperator() {
	w.t.Helper()
	routes := 0
	for _, r := range httpapi.Routes(w.s.Cfg.API(w.s.URL, slog.New(slog.DiscardHandler), nil, nil, nil)) {
		if r.Scope != "operator" {
			continue
		}
		routes++
		path := regexp.MustCompile(`\{[a-zA-Z]+\}`).ReplaceAllString(r.Path, w.ids["viewer"].String())
		if !r.Console {
			if got := w.people["operator"].call(r.Method, path, object{}); got.status != http.StatusUnauthorized && got.text("code") != string(stoa.AccountSuspended) {
				w.t.Errorf("%s %s as a suspended operator: %d", r.Method, path, got.status)
			}
			continue
		}
		browser, visitor := w.browser("operator"), newBrowserClient(w.t, w.s)
		got, asVisitor := pageAnswer{}, pageAnswer{}
		if r.Method == http.MethodPost {
			values := url.Values{"reason": {"an operator who was suspended"}}
			got, asVisitor = browser.post(path, values), visitor.post(path, values)
		} else {
			got, asVisitor = browser.get(path), visitor.get(path)
		}
		toSignIn := got.Status == http.StatusSeeOther && strings.HasPrefix(got.Location, "/signin")
		if !toSignIn && got.Status != http.StatusUnauthorized || got.Status != asVisitor.Status {
			w.t.Errorf("%s %s as a suspended operator: %d to %q, as a visitor %d", r.Method, path, got.Status, got.Location, asVisitor.Status)
		}
	}
	if routes < 35 {
		w.t.Errorf("only %d routes of operators", routes)
	}
}

// longValues are what people and programs send in a field of text.
var longValues = map[string]string{
	"long":      strings.Repeat("x", 5000),
	"RTL":       "متجر الزاوية \u202eנטל 🛍️👩‍👩‍👧",
	"combining": "Z" + strings.Repeat("\u0301\u0323", 60),
}

// typedValues are what is typed into fields of other types than text. The password that
// exists is right, so that no account is locked; a new one is too short.
var typedValues = map[string]string{"number": "12 apples", "date": "31 of June", "datetime-local": "31 of June", "new-password": "Zq9", "current-password": testPassword}

// TestFormsTakeAnyText sends every form of every page with long, right-to-left and
// combining text in each field: it is accepted or refused with a fault, and never fails. A
// form that is refused keeps what was typed, passwords excepted, which no page shows.
func TestFormsTakeAnyText(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newPageWorld(t, startServer(t, cfg))
	sent, refused, kinds := 0, 0, map[string]int{}
	for _, v := range w.visits() {
		if v.path == "/api/docs" {
			continue
		}
		for _, form := range textForms(t, w.browser(v.as).get(v.path).Body) {
			for name, text := range longValues {
				values := form.fill(text)
				sent++
				got := pageAnswer{}
				if form.method == http.MethodPost {
					got = w.browser(v.as).post(form.action, values)
				} else {
					got = w.browser(v.as).get(strings.Split(form.action, "?")[0] + "?" + values.Encode())
				}
				if got.Status >= 500 || len(got.Body)-len(values.Encode()) > maxPageSize { // beside what was typed
					t.Errorf("%s %s on %s with %s text: %d, %d bytes", form.method, form.action, v.name, name, got.Status, len(got.Body))
				}
				if got.Status != http.StatusUnprocessableEntity { // more than a form may have at all is refused before it is read
					continue
				}
				refused++
				for field := range form.fields {
					kinds[form.fields[field]]++
				}
				if !strings.Contains(got.Body, `class="fault"`) && !strings.Contains(got.Body, "notice danger") &&
					!strings.Contains(got.Body, "This did not work") {
					t.Errorf("%s %s on %s with %s text says no fault:\n%.3000s", form.method, form.action, v.name, name, got.Body)
				}
				for _, fault := range form.lost(t, got.Body, values) {
					t.Errorf("%s %s on %s with %s text, %d: %s", form.method, form.action, v.name, name, got.Status, fault)
				}
			}
		}
	}
	if sent < 60 || refused < 40 {
		t.Errorf("only %d forms were sent, %d refused", sent, refused)
	}
	for _, kind := range []string{"text", "email", "textarea", "date", "new-password", "current-password"} {
		if kinds[kind] == 0 {
			t.Errorf("no form with a field of the type %s was refused: %v", kind, kinds)
		}
	}
}

// textForm is a form with a field that people type into.
type textForm struct {
	method, action string
	fields         map[string]string // the type of each field that people type into, by name
	values         url.Values        // of the others
	shown          url.Values        // what the fields to type into have when the page is opened
}

// textForms returns the forms of a page that have a field to type into.
func textForms(t *testing.T, body string) (forms []textForm) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	testkit.Must(t, err)
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" {
			continue
		}
		form := textForm{method: strings.ToUpper(attribute(n, "method")), action: attribute(n, "action"), fields: map[string]string{}, values: url.Values{}, shown: url.Values{}}
		for field := range n.Descendants() {
			if name := attribute(field, "name"); name == "" || field.Data != "input" && field.Data != "textarea" {
				continue
			} else if kind := typed(field); kind != "" {
				form.fields[name] = kind
				form.shown.Set(name, content(field))
			} else {
				form.values.Set(name, attribute(field, "value"))
			}
		}
		if len(form.fields) > 0 && strings.HasPrefix(form.action, "/") {
			forms = append(forms, form)
		}
	}
	return forms
}

// typed returns the type of a field that people type into, or "".
func typed(field *html.Node) string {
	kind := cmp.Or(attribute(field, "type"), "text")
	switch {
	case field.Data == "textarea":
		return "textarea"
	case kind == "password" && attribute(field, "autocomplete") != "new-password":
		return "current-password"
	case kind == "password":
		return "new-password"
	case typedValues[kind] != "", slices.Contains([]string{"text", "search", "email", "url"}, kind):
		return kind
	}
	return ""
}

// content returns what a field has when its page is opened.
func content(field *html.Node) string {
	if field.Data == "textarea" && field.FirstChild != nil {
		return field.FirstChild.Data
	}
	return attribute(field, "value")
}

// farTooLong is a text that no field accepts and that a form has room for.
var farTooLong = strings.Repeat("x", 100_000)

// faultElsewhere are the fields whose form says first, or only, what is wrong beside them,
// by the last part of the action and the name.
var faultElsewhere = map[string]string{
	"signin email":        "The e-mail address or the password is not correct.",
	"check caCertificate": "Must be &#34;postgresql&#34;, &#34;mysql&#34; or &#34;supabase&#34;.",
	"download recipient":  "Give either a passphrase or a recipient.",
	"grant reason":        "There is no store with this short name.",
}

// TestFormsTakeFarTooMuchText sends every form once for each field of text, with 100,000
// characters in it: the form comes back with the fault and what was typed. With more than a
// form may have, a page says what to do; in the short form this is sent once for each form.
func TestFormsTakeFarTooMuchText(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	w := newPageWorld(t, startServer(t, cfg))
	sent := 0
	for _, v := range w.visits() {
		if v.path == "/api/docs" {
			continue
		}
		for _, form := range textForms(t, w.browser(v.as).get(v.path).Body) {
			if form.method != http.MethodPost {
				continue
			}
			tooLarge := false
			for name, kind := range form.fields {
				if typedValues[kind] != "" {
					continue // not a text, or a password that must be right
				}
				sent++
				values := form.fillOne(name, farTooLong)
				got := w.browser(v.as).post(form.action, values)
				where := fmt.Sprintf("%s on %s with a long %s", form.action, v.name, name)
				if got.Status != http.StatusUnprocessableEntity {
					t.Errorf("%s: %d to %q\n%.300s", where, got.Status, got.Location, got.Body)
					continue
				}
				other := faultElsewhere[path.Base(form.action)+" "+name]
				if !faulty(t, got.Body, name) && (other == "" || !strings.Contains(got.Body, other)) {
					t.Errorf("%s: the field has no fault", where)
				}
				for _, fault := range form.lost(t, got.Body, values) {
					t.Errorf("%s: %s", where, fault)
				}
				if tooLarge && testing.Short() {
					continue
				}
				tooLarge = true
				w.browser(v.as).post(form.action, form.fillOne(name, strings.Repeat(farTooLong, 15))).
					shows(t, http.StatusRequestEntityTooLarge, "The form is too large", "Back button")
			}
		}
	}
	if sent < 40 {
		t.Errorf("only %d fields were sent", sent)
	}
}

// faulty reports whether a field of a page is marked as faulty.
func faulty(t *testing.T, body, field string) bool {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	testkit.Must(t, err)
	for n := range doc.Descendants() {
		if attribute(n, "name") == field && attribute(n, "aria-invalid") == "true" {
			return true
		}
	}
	return false
}

// fillOne returns the form's values as its page shows them, with a text in one field. Other
// fields of text that are empty have "1", which is a number too.
func (f textForm) fillOne(field, text string) url.Values {
	values := url.Values{}
	for name := range f.values {
		values.Set(name, f.values.Get(name))
	}
	for name, kind := range f.fields {
		values.Set(name, f.shown.Get(name))
		if strings.HasSuffix(kind, "-password") {
			values.Set(name, typedValues[kind])
		} else if kind == "text" && f.shown.Get(name) == "" {
			values.Set(name, "1")
		}
	}
	values.Set(field, text)
	return values
}

// fill returns the form's values with a text in each field that takes it.
func (f textForm) fill(text string) url.Values {
	values := url.Values{}
	for name := range f.values {
		values.Set(name, f.values.Get(name))
	}
	for name, kind := range f.fields {
		values.Set(name, cmp.Or(typedValues[kind], text))
	}
	return values
}

// lost says what the answer to a form that was refused has lost of what was typed, and
// which passwords it shows.
func (f textForm) lost(t *testing.T, body string, values url.Values) (faults []string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	testkit.Must(t, err)
	kept := map[string][]string{}
	for n := range doc.Descendants() {
		name := attribute(n, "name")
		switch n.Data {
		case "input":
			kept[name] = append(kept[name], attribute(n, "value"))
		case "textarea":
			kept[name] = append(kept[name], content(n))
		}
	}
	for name, kind := range f.fields {
		password := strings.HasSuffix(kind, "-password") || name == "connectionString" // which has one
		if found := slices.Contains(kept[name], values.Get(name)); found == password && (!password || values.Get(name) != "") {
			faults = append(faults, fmt.Sprintf("%s, of the type %s: %.40q", name, kind, kept[name]))
		}
	}
	if strings.Contains(body, testPassword) {
		faults = append(faults, "a password is shown")
	}
	return faults
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}
