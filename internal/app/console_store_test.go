package app_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/hostnames/hostnamestest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// storeWorld is an active store with a browser for each kind of caller.
type storeWorld struct {
	*server
	api      client
	id, base string // base is /stores/{slug}
	owner    *browserClient
	by       map[string]*browserClient
	ids      map[string]string // user ids
}

// newStoreWorld starts a server with an active store. roles are the members to add.
func newStoreWorld(t *testing.T, cfg *config.Config, roles ...authz.Role) *storeWorld {
	t.Helper()
	unlimited(cfg)
	w := &storeWorld{server: startServer(t, cfg), by: map[string]*browserClient{}, ids: map[string]string{}}
	w.api, w.id, _ = connected(t, w.server, "owner@example.com")
	w.api.proven()
	w.base = "/stores/" + w.api.call("GET", "/api/stores/"+w.id, nil).text("slug")
	w.owner = signIn(t, w.server, "owner@example.com", testPassword)
	store := w.storeID(t)
	for _, role := range append(slices.Clone(roles), "stranger") {
		email := string(role) + "@example.com"
		c, _ := register(t, w.server, email)
		w.ids[string(role)] = c.call("GET", "/api/auth/me", nil).text("user", "id")
		if role != "stranger" {
			user, err := stoa.ParseID[stoa.UserID](w.ids[string(role)])
			testkit.Must(t, err)
			testkit.Must(t, w.Master.Tx(t.Context(), func(tx *masterdb.Tx) error { return authz.Grant(t.Context(), tx, store, user, role) }))
		}
		w.by[string(role)] = signIn(t, w.server, email, testPassword)
	}
	w.by["owner"], w.by["nobody"] = w.owner, newBrowserClient(t, w.server)
	return w
}

func (w *storeWorld) storeID(t *testing.T) stoa.StoreID {
	t.Helper()
	id, err := stoa.ParseID[stoa.StoreID](w.id)
	testkit.Must(t, err)
	return id
}

// reauthenticate gives the owner's browser a recent password.
func (w *storeWorld) reauthenticate() {
	w.owner.t.Helper()
	if got := w.owner.post("/reauthenticate", url.Values{"password": {testPassword}, "next": {"/stores"}}); got.Status != http.StatusSeeOther {
		w.owner.t.Fatalf("reauthenticate: %d", got.Status)
	}
}

// forgetAuthentication makes the sign-in of all browsers too old for what needs a recent
// password.
func (w *storeWorld) forgetAuthentication(t *testing.T) {
	t.Helper()
	testkit.Must(t, w.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE sessions SET authenticated_at = NULL`)
		return err
	}))
}

// shows fails the test unless the page has the status and contains all texts.
func (a pageAnswer) shows(t *testing.T, status int, texts ...string) pageAnswer {
	t.Helper()
	if a.Status != status {
		t.Errorf("status %d, want %d (%s)\n%s", a.Status, status, a.Location, a.Body)
		return a
	}
	for _, text := range texts {
		if !strings.Contains(a.Body, text) {
			t.Errorf("the page lacks %q\n%s", text, a.Body)
		}
	}
	return a
}

// lacks fails the test when the page contains one of the texts.
func (a pageAnswer) lacks(t *testing.T, texts ...string) pageAnswer {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(a.Body, text) {
			t.Errorf("the page contains %q\n%s", text, a.Body)
		}
	}
	return a
}

// leadsTo fails the test unless the answer redirects to the path.
func (a pageAnswer) leadsTo(t *testing.T, path string) {
	t.Helper()
	if a.Status != http.StatusSeeOther || a.Location != path {
		t.Errorf("%d to %q, want 303 to %q\n%s", a.Status, a.Location, path, a.Body)
	}
}

var hiddenValue = regexp.MustCompile(`name="(version|key|sealed)" value="([^"]*)"`)

// hidden returns a hidden field of the page.
func (a pageAnswer) hidden(name string) string {
	for _, m := range hiddenValue.FindAllStringSubmatch(a.Body, -1) {
		if m[1] == name {
			return m[2]
		}
	}
	return ""
}

// TestStorePagesByRole checks for each page of a store who sees it, and that a form
// which a role is not shown is refused all the same.
func TestStorePagesByRole(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite), authz.Admin, authz.Member, authz.Viewer)
	const ok, forbidden, missing, away = http.StatusOK, http.StatusForbidden, http.StatusNotFound, http.StatusSeeOther
	for _, c := range []struct {
		method, path string
		form         url.Values
		want         map[string]int
	}{
		{"GET", "/domains", nil, map[string]int{"owner": ok, "admin": ok, "member": ok, "viewer": ok, "stranger": missing, "nobody": away}},
		{"GET", "/people", nil, map[string]int{"owner": ok, "admin": ok, "member": ok, "viewer": ok, "stranger": missing, "nobody": away}},
		{"GET", "/keys", nil, map[string]int{"owner": ok, "admin": ok, "member": forbidden, "viewer": forbidden, "stranger": missing, "nobody": away}},
		{"GET", "/activity", nil, map[string]int{"owner": ok, "admin": ok, "member": forbidden, "viewer": forbidden, "stranger": missing, "nobody": away}},
		{"GET", "/activity/audit", nil, map[string]int{"owner": ok, "admin": ok, "member": forbidden, "viewer": forbidden, "stranger": missing, "nobody": away}},
		{"GET", "/webhooks", nil, map[string]int{"owner": ok, "admin": ok, "member": forbidden, "viewer": forbidden, "stranger": missing, "nobody": away}},
		{"POST", "/webhooks", url.Values{"url": {"https://hooks.example.com/"}}, map[string]int{"member": forbidden, "viewer": forbidden, "stranger": missing}},
		{"GET", "/activity.csv", nil, map[string]int{"owner": ok, "admin": ok, "member": forbidden, "viewer": forbidden, "stranger": missing, "nobody": away}},
		{"GET", "/settings", nil, map[string]int{"owner": ok, "admin": ok, "member": ok, "viewer": ok, "stranger": missing, "nobody": away}},
		{"GET", "/leave", nil, map[string]int{"owner": ok, "viewer": ok, "stranger": missing, "nobody": away}},
		{"GET", "/transfer", nil, map[string]int{"admin": forbidden, "viewer": forbidden, "stranger": missing, "nobody": away}},
		{"GET", "/settings/objects", nil, map[string]int{"owner": ok, "viewer": ok, "stranger": missing, "nobody": away}},
		{"POST", "/settings/objects", url.Values{"theme": {`{"taken":"over"}`}}, map[string]int{"viewer": forbidden, "stranger": missing}},
		{"GET", "/settings/delete", nil, map[string]int{"admin": forbidden, "viewer": forbidden, "stranger": missing, "nobody": away}},
		{"POST", "/domains", url.Values{"hostname": {"shop.example.com"}}, map[string]int{"member": forbidden, "viewer": forbidden, "stranger": missing}},
		{"POST", "/domains/shop.example.com/check", url.Values{}, map[string]int{"viewer": forbidden, "stranger": missing, "owner": missing}},
		{"POST", "/domains/shop.example.com/primary", url.Values{}, map[string]int{"viewer": forbidden, "stranger": missing}},
		{"POST", "/domains/shop.example.com/remove", url.Values{"confirm": {"shop.example.com"}}, map[string]int{"viewer": forbidden, "stranger": missing}},
		{"POST", "/people/invite", url.Values{"email": {"x@example.com"}, "role": {"viewer"}}, map[string]int{"member": forbidden, "viewer": forbidden, "stranger": missing}},
		{"POST", "/people/" + w.ids["admin"] + "/role", url.Values{"role": {"viewer"}}, map[string]int{"member": forbidden, "viewer": forbidden, "stranger": missing}},
		{"POST", "/people/" + w.ids["admin"] + "/remove", url.Values{"confirm": {"admin@example.com"}}, map[string]int{"member": forbidden, "viewer": forbidden, "stranger": missing}},
		{"POST", "/keys", url.Values{"name": {"x"}, "scopes": {"store:read"}, "key": {"x"}}, map[string]int{"member": forbidden, "viewer": forbidden, "stranger": missing}},
		{"POST", "/settings", url.Values{"name": {"Taken over"}}, map[string]int{"viewer": forbidden, "stranger": missing}},
		{"POST", "/settings/preview", url.Values{"name": {"X"}}, map[string]int{"owner": ok, "member": ok, "viewer": forbidden, "stranger": missing}},
		{"POST", "/settings/suspend", url.Values{}, map[string]int{"member": forbidden, "viewer": forbidden, "stranger": missing}},
		{"POST", "/settings/delete", url.Values{"confirm": {"Store of owner example com"}}, map[string]int{"admin": forbidden, "viewer": forbidden, "stranger": missing}},
		{"POST", "/settings/restore", url.Values{}, map[string]int{"admin": forbidden, "viewer": forbidden, "stranger": missing}},
	} {
		for role, want := range c.want {
			b, got := w.by[role], pageAnswer{}
			b.t = t
			if c.method == "GET" {
				got = b.get(w.base + c.path)
			} else {
				got = b.post(w.base+c.path, c.form)
			}
			if got.Status != want {
				t.Errorf("%s %s as %s: %d, want %d\n%s", c.method, c.path, role, got.Status, want, got.Body)
			}
		}
	}
	viewer := w.by["viewer"]
	viewer.get(w.base+"/domains").lacks(t, "Add a domain", "Check now", "Remove…")
	viewer.get(w.base+"/people").shows(t, http.StatusOK, "owner@example.com", "Leave…").lacks(t, "Invite somebody", "Remove…", "Change")
	viewer.get(w.base+"/settings").shows(t, http.StatusOK, "does not change the profile").lacks(t, "Danger zone", ">Save<")
	w.by["admin"].get(w.base+"/settings").shows(t, http.StatusOK, "Suspend the store", ">Save<").lacks(t, "Delete the store")
	w.by["admin"].get(w.base+"/people").lacks(t, `value="owner"`, "Hand the store over")
}

// TestDomainsPage adds a domain, checks it before and after its record is there, makes it
// the main one and removes it.
func TestDomainsPage(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	names := hostnamestest.NewDNS(t)
	cfg.DNSServer = names.Address
	w := newStoreWorld(t, cfg)
	b, page := w.owner, w.base+"/domains"
	b.get(page).shows(t, http.StatusOK, "Add a domain of your own", "On this platform")
	for _, hostile := range []string{"", "*.example.com", `"><script>alert(1)</script>`, "https://shop.example.com/", strings.Repeat("a", 5000), "متجر 🛍️", "x\x00y"} {
		b.post(page, url.Values{"hostname": {hostile}}).shows(t, http.StatusUnprocessableEntity, `id="hostname-fault"`).lacks(t, "<script>alert")
	}
	b.post(page, url.Values{"hostname": {"Shop.Example.com"}}).leadsTo(t, page)
	got := b.get(page).shows(t, http.StatusOK, "Waiting for DNS", "_stoa.shop.example.com", "stoa-verification=", "CNAME", "shop.example.com was added")
	b.post(page+"/shop.example.com/primary", nil).shows(t, http.StatusUnprocessableEntity, "not verified yet")
	b.post(page+"/shop.example.com/check", nil).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "Needs attention", "There is no such TXT record at _stoa.shop.example.com")

	names.Put("_stoa.shop.example.com", regexp.MustCompile(`stoa-verification=\w+`).FindString(got.Body))
	testkit.Eventually(t, testkit.Timeout, "the domain is verified", func() bool {
		b.post(page+"/shop.example.com/check", nil)
		return !strings.Contains(b.get(page).Body, "Needs attention")
	})
	b.post(page+"/shop.example.com/primary", nil).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "Main domain", "looked for every day")
	b.get(page+"/shop.example.com/remove").shows(t, http.StatusOK, "Type shop.example.com to confirm")
	b.post(page+"/shop.example.com/remove", url.Values{"confirm": {"shop"}}).shows(t, http.StatusUnprocessableEntity, "This is not the name")
	b.post(page+"/shop.example.com/remove", url.Values{"confirm": {"shop.example.com"}}).leadsTo(t, page)
	b.get(page).lacks(t, "_stoa.shop.example.com")
	b.get(page+"/shop.example.com/remove").shows(t, http.StatusNotFound)
}

// TestPeoplePage invites, changes, removes and hands over, and checks what a last owner
// is told.
func TestPeoplePage(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite), authz.Member, authz.Viewer)
	b, page := w.owner, w.base+"/people"
	for _, hostile := range []string{"", "no address", `"><script>alert(1)</script>@x`, strings.Repeat("a", 5000) + "@example.com", "عنوان@x 🛍️"} {
		b.post(page+"/invite", url.Values{"email": {hostile}, "role": {"viewer"}}).shows(t, http.StatusUnprocessableEntity, `id="email-fault"`).lacks(t, "<script>alert")
	}
	b.post(page+"/invite", url.Values{"email": {"guest@example.com"}, "role": {"admin"}}).leadsTo(t, page)
	got := b.get(page).shows(t, http.StatusOK, "An invitation was sent to guest@example.com", "Send again", "Open invitations")
	invitation := regexp.MustCompile(`/people/invitations/[0-9a-f-]+`).FindString(got.Body)
	b.post(w.base+invitation+"/resend", nil).shows(t, http.StatusTooManyRequests, "invited a moment ago")
	b.post(w.base+invitation+"/revoke", nil).leadsTo(t, page)
	b.post(w.base+invitation+"/revoke", nil).shows(t, http.StatusNotFound)
	b.get(page).lacks(t, "Open invitations")

	b.post(page+"/"+w.ids["member"]+"/role", url.Values{"role": {"admin"}}).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "has the role admin now")
	b.post(page+"/"+w.ids["member"]+"/role", url.Values{"role": {"emperor"}}).shows(t, http.StatusUnprocessableEntity)
	b.post(page+"/"+w.ids["stranger"]+"/role", url.Values{"role": {"admin"}}).shows(t, http.StatusNotFound)
	b.get(page+"/"+w.ids["viewer"]+"/remove").shows(t, http.StatusOK, "Type viewer@example.com to confirm")
	b.post(page+"/"+w.ids["viewer"]+"/remove", url.Values{"confirm": {"x"}}).shows(t, http.StatusUnprocessableEntity)
	b.post(page+"/"+w.ids["viewer"]+"/remove", url.Values{"confirm": {"viewer@example.com"}}).leadsTo(t, page)
	w.by["viewer"].get(page).shows(t, http.StatusNotFound)

	name := "Store of owner example com"
	b.post(w.base+"/leave", url.Values{"confirm": {name}}).shows(t, http.StatusForbidden, "A store needs an owner")
	w.forgetAuthentication(t)
	b.get(w.base+"/transfer").leadsTo(t, "/reauthenticate?next="+url.QueryEscape(w.base+"/transfer"))
	b.post(w.base+"/transfer", url.Values{"confirm": {name}, "user": {w.ids["member"]}}).shows(t, http.StatusForbidden, "Confirm that it is you")
	w.reauthenticate()
	b.get(w.base+"/transfer").shows(t, http.StatusOK, "member@example.com")
	b.post(w.base+"/transfer", url.Values{"confirm": {"no"}, "user": {w.ids["member"]}}).shows(t, http.StatusUnprocessableEntity)
	b.post(w.base+"/transfer", url.Values{"confirm": {name}, "user": {"nobody"}}).shows(t, http.StatusNotFound)
	b.post(w.base+"/transfer", url.Values{"confirm": {name}, "user": {w.ids["member"]}}).leadsTo(t, page)
	b.get(w.base+"/transfer").shows(t, http.StatusForbidden)
	b.post(w.base+"/leave", url.Values{"confirm": {name}}).leadsTo(t, "/stores")
	b.get(page).shows(t, http.StatusNotFound)
}

// TestKeysPage makes a key, which is shown once, and revokes it.
func TestKeysPage(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite))
	b, page := w.owner, w.base+"/keys"
	empty := b.get(page).shows(t, http.StatusOK, "No API keys yet", "See the store", "store:read")
	formKey := empty.hidden("key")
	b.post(page, url.Values{"name": {"Warehouse"}, "key": {formKey}}).shows(t, http.StatusUnprocessableEntity, "Choose at least one", `value="Warehouse"`)
	for _, hostile := range []string{"", strings.Repeat("n", 5000), "a\u202eb"} {
		b.post(page, url.Values{"name": {hostile}, "scopes": {"store:read"}, "key": {formKey}}).shows(t, http.StatusUnprocessableEntity, `id="name-fault"`)
	}
	b.post(page, url.Values{"name": {"x"}, "scopes": {"store:read", `"><script>`}, "key": {formKey}}).shows(t, http.StatusUnprocessableEntity).lacks(t, `"><script>`)

	form := url.Values{"name": {`متجر 🛍️ <b>`}, "scopes": {"store:read", "credits:read"}, "key": {formKey}, "expires": {"30"}}
	made := b.post(page, form).shows(t, http.StatusOK, "Copy the key now", "متجر 🛍️ &lt;b&gt;")
	secret := regexp.MustCompile(`stoa_live_[A-Z0-9]{33}`).FindString(made.Body)
	if secret == "" || made.Header.Get("Cache-Control") != "no-store" || strings.Contains(strings.Join(made.Header["Set-Cookie"], ""), secret) {
		t.Fatalf("the key %q, headers %v", secret, made.Header)
	}
	key := client{t: t, url: w.URL, token: secret}
	key.call("GET", "/api/stores/"+w.id, nil).want(http.StatusOK)
	b.post(page, form).shows(t, http.StatusUnprocessableEntity, "has made a key already").lacks(t, secret)
	listed := b.get(page).shows(t, http.StatusOK, "John Doe", "in 30 days", "credits:read").lacks(t, secret)
	revoke := regexp.MustCompile(page + `/[0-9a-f-]+/revoke`).FindString(listed.Body)
	b.get(revoke).shows(t, http.StatusOK, "stops working at once")
	b.post(revoke, url.Values{"confirm": {"x"}}).shows(t, http.StatusUnprocessableEntity)
	b.post(revoke, url.Values{"confirm": {`متجر   🛍️ <b>`}}).leadsTo(t, page)
	key.call("GET", "/api/stores/"+w.id, nil).problem(http.StatusUnauthorized, "token_invalid")
	b.post(revoke, url.Values{"confirm": {"x"}}).shows(t, http.StatusNotFound)
}

// TestAuditLogPage checks the filters, the pages and the file of the audit log.
func TestAuditLogPage(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite), authz.Viewer)
	for i := range 60 {
		w.api.call("PATCH", "/api/stores/"+w.id, object{"city": strings.Repeat("x", i+1)}).want(http.StatusOK)
	}
	b, page, csv := w.owner, w.base+"/activity/audit", w.base+"/activity.csv"
	first := b.get(page).shows(t, http.StatusOK, "Settings changed", "owner@example.com", "Older", "Download as CSV").lacks(t, ">Newer<")
	older := regexp.MustCompile(`href="([^"]*cursor=[^"]*)"`).FindStringSubmatch(first.Body)
	b.get(strings.ReplaceAll(older[1], "&amp;", "&")).shows(t, http.StatusOK, "Newer", "Store created")
	b.get(page+"?action=store.created").shows(t, http.StatusOK, "Store created", `value="store.created" selected`).lacks(t, ">Older<")
	b.get(page+"?user="+w.ids["viewer"]).shows(t, http.StatusOK, "Nothing matches these filters")
	b.get(page+"?from=2001-01-01&to=2001-12-31").shows(t, http.StatusOK, "Nothing matches", `value="2001-01-01"`)
	for query, want := range map[string]string{
		"from=yesterday": "from-fault", "user=me": "There is no such person", "outcome=maybe": "There is no such outcome", "cursor=" + strings.Repeat("x", 5000): "does not exist",
	} {
		b.get(page+"?"+query).shows(t, http.StatusUnprocessableEntity, want)
	}
	b.get(page+"?action="+url.QueryEscape(`"><script>alert(1)</script>`)).shows(t, http.StatusOK).lacks(t, "<script>alert")
	file := b.get(csv+"?action=store.updated").shows(t, http.StatusOK, "id,createdAt,action")
	if lines := strings.Count(file.Body, "\r\n"); lines != 61 || !strings.HasPrefix(file.Header.Get("Content-Type"), "text/csv") {
		t.Errorf("%d lines of %s, want 61", lines, file.Header.Get("Content-Type"))
	}
	b.get(csv+"?from=x").shows(t, http.StatusUnprocessableEntity)
}

// TestSettingsPage saves a profile and checks that a form with faults, and one that was
// opened before somebody else's change, loses nothing.
func TestSettingsPage(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite), authz.Member)
	b, page := w.owner, w.base+"/settings"
	w.api.call("PATCH", "/api/stores/"+w.id, object{"theme": object{"font": "serif"}, "description": "One\nTwo"}).want(http.StatusOK)
	opened := b.get(page).shows(t, http.StatusOK, "Save", "Preview", "Delete the store")
	form := url.Values{"version": {opened.hidden("version")}, "name": {"متجر 🛍️"}, "description": {"One\r\nTwo"}, "city": {"Wien"}, "postalCode": {"1010"}, "color": {"#1f6177"}}
	b.post(page, form).leadsTo(t, page)
	profile := w.api.call("GET", "/api/stores/"+w.id, nil).is("متجر 🛍️", "name").is("Wien", "profile", "city").is("serif", "profile", "theme", "font").
		is("#1f6177", "profile", "theme", "primaryColor").is("One\nTwo", "profile", "description")
	entry := w.api.call("GET", "/api/stores/"+w.id+"/audit?action=store.updated&limit=1", nil).list("data")[0].(object)
	if got := entry["details"].(object)["fields"]; got != "city,name,postalCode,theme" {
		t.Errorf("the audit log names %s, want the changed fields alone", got)
	}

	stale := form
	stale.Set("city", "Graz")
	b.post(page, stale).shows(t, http.StatusConflict, "Somebody has changed the store", `value="Graz"`, "What the store has now", "Wien")
	if got := w.api.call("GET", "/api/stores/"+w.id, nil); got.raw != profile.raw && got.at("profile", "city") != "Wien" {
		t.Errorf("a stale form was saved: %s", got.raw)
	}
	again := b.post(page, stale)
	stale.Set("version", again.hidden("version"))
	b.post(page, stale).leadsTo(t, page)
	w.api.call("GET", "/api/stores/"+w.id, nil).is("Graz", "profile", "city")

	form.Set("version", b.get(page).hidden("version"))
	b.post(page, form).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "Nothing was changed")
	for field, hostile := range map[string]string{
		"name": strings.Repeat("n", 5000), "slug": "A B", "country": "Austria", "color": `red"><script>alert(1)</script>`, "logoUrl": "javascript:alert(1)",
		"contactEmail": `"><script>alert(1)</script>`, "postalCode": strings.Repeat("1", 21),
	} {
		bad := url.Values{"version": form["version"], "city": {"Kept & <sound>"}, field: {hostile}}
		got := b.post(page, bad).shows(t, http.StatusUnprocessableEntity, `id="`+field+`-fault"`, "Kept &amp; &lt;sound&gt;").lacks(t, "<script>alert", `src="javascript`)
		if got.hidden("version") != form.Get("version") {
			t.Errorf("%s: the form lost its version", field)
		}
	}
	w.by["member"].post(page+"/preview", url.Values{"name": {"<i>New</i>"}, "color": {"#abc"}, "logoUrl": {"javascript:x"}, "description": {strings.Repeat("🛍", 5000)}}).
		shows(t, http.StatusOK, "&lt;i&gt;New", `fill="#abc"`).lacks(t, "javascript", "<html")
	b.post(page, url.Values{"version": form["version"], "slug": {"moved-here"}}).leadsTo(t, "/stores/moved-here/settings")
	b.get(page).shows(t, http.StatusNotFound)
}

// TestSettingsObjectsPage changes the theme and the settings of a store as JSON, and
// checks that a wrong, a stale and a large object lose nothing.
func TestSettingsObjectsPage(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite), authz.Member)
	b, page := w.owner, w.base+"/settings/objects"
	w.api.call("PATCH", "/api/stores/"+w.id, object{"theme": object{"font": "<b>serif</b>"}}).want(http.StatusOK)
	opened := b.get(page).shows(t, http.StatusOK, "&#34;font&#34;: &#34;&lt;b&gt;serif").lacks(t, "<b>serif")
	form := url.Values{"version": {opened.hidden("version")}, "theme": {"{\r\n  \"font\": \"<b>serif</b>\"\r\n}"}, "settings": {`{"till": 3.50, "note": "🛍"}`}}
	b.post(page, form).leadsTo(t, page)
	w.api.call("GET", "/api/stores/"+w.id, nil).is("🛍", "profile", "settings", "note").is("<b>serif</b>", "profile", "theme", "font")
	entry := w.api.call("GET", "/api/stores/"+w.id+"/audit?action=store.updated&limit=1", nil).list("data")[0].(object)
	if got := entry["details"].(object)["fields"]; got != "settings" {
		t.Errorf("the audit log names %s, want the changed object alone", got)
	}
	b.post(page, form).shows(t, http.StatusConflict, "Somebody has changed the store", "What the store has now", "3.50")

	form.Set("version", b.get(page).hidden("version"))
	for _, wrong := range []string{"no JSON", "[1]", "null", `{"a":1`, strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), "{\"a\":\"\\u0000\"}"} {
		form.Set("theme", wrong)
		got := b.post(page, form).shows(t, http.StatusUnprocessableEntity, `id="theme-fault"`, html.EscapeString(wrong), "🛍")
		if got.hidden("version") != form.Get("version") {
			t.Errorf("%s: the form lost its version", wrong)
		}
	}
	w.api.call("PATCH", "/api/stores/"+w.id, object{"theme": object{"css": strings.Repeat("x", 20000)}}).want(http.StatusOK)
	large := b.get(page).shows(t, http.StatusOK, "too large for a form").lacks(t, `name="theme"`)
	b.post(page, url.Values{"version": {large.hidden("version")}, "settings": {""}}).leadsTo(t, page)
	if got := w.api.call("GET", "/api/stores/"+w.id, nil); len(got.at("profile", "theme", "css").(string)) != 20000 || len(got.at("profile", "settings").(object)) != 0 {
		t.Errorf("the objects are %.200s", got.raw)
	}
}

// TestLifecyclePage suspends, resumes, deletes and restores a store.
func TestLifecyclePage(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, testConfig(t, masterdb.SQLite))
	b, page := w.owner, w.base+"/settings"
	b.post(page+"/suspend", nil).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "The store is suspended", "Resume the store").lacks(t, ">Save<")
	b.post(page, url.Values{"version": {"x"}, "name": {"Kept name"}}).shows(t, http.StatusUnprocessableEntity, "Resume it")
	b.post(page+"/resume", nil).leadsTo(t, page)
	w.forgetAuthentication(t)
	b.get(page+"/delete").leadsTo(t, "/reauthenticate?next="+url.QueryEscape(page+"/delete"))
	w.reauthenticate()
	b.get(page+"/delete").shows(t, http.StatusOK, "You can restore it until", "Type Store of owner example com to confirm")
	b.post(page+"/delete", url.Values{"confirm": {"no"}}).shows(t, http.StatusUnprocessableEntity)
	b.post(page+"/delete", url.Values{"confirm": {"Store of owner example com"}}).leadsTo(t, page)
	b.get(page).shows(t, http.StatusOK, "you can restore it", "Restore the store").lacks(t, "Suspend the store")
	b.get(w.base+"/domains").shows(t, http.StatusOK).lacks(t, "Add a domain")
	b.post(page+"/restore", nil).leadsTo(t, page)
	w.api.call("GET", "/api/stores/"+w.id, nil).is("active", "status")
	testkit.Must(t, w.Registry.SuspendByOperator(t.Context(), authz.CommandLine("test"), w.storeID(t)))
	b.get(page).shows(t, http.StatusOK, "Suspended by the platform").lacks(t, "Resume the store<")
	b.post(page+"/resume", nil).shows(t, http.StatusForbidden)
}
