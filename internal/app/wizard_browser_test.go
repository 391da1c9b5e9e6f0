package app_test

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// wizard is an owner's browser that connects databases to new stores.
type wizard struct {
	*chromium
	s   *server
	api client
}

// TestConnectWizardInChromium connects a database of every kind in a browser on each
// master, each as a provider's page hands it out, and mends a wrong password.
func TestConnectWizardInChromium(t *testing.T) {
	for _, engine := range shortOn(masterdb.Postgres) {
		t.Run(string(engine), func(t *testing.T) {
			for _, needed := range []credential.EngineName{credential.PostgreSQL, credential.MySQL} {
				if !slices.Contains(tenantdbtest.Engines(), needed) {
					t.Skipf("needs a %s server for the stores", needed)
				}
			}
			w := startWizard(t, testConfig(t, engine))
			w.connectManaged()
			w.connectPasted()
			w.mendPassword()
			w.connectByFields()
		})
	}
}

// TestSupabaseWizardInChromium connects a project after the consent at Supabase.
func TestSupabaseWizardInChromium(t *testing.T) {
	for _, engine := range shortOn(masterdb.SQLite) {
		t.Run(string(engine), func(t *testing.T) {
			sb := supabasetest.New(t, supabasetest.Options{})
			startWizard(t, supabaseConfig(t, engine, sb)).connectSupabase(sb)
		})
	}
}

func startWizard(t *testing.T, cfg *config.Config) *wizard {
	t.Helper()
	unlimited(cfg)
	w := &wizard{s: startServer(t, cfg)}
	w.api, _ = register(t, w.s, "owner@example.com")
	w.api.proven()
	w.chromium = startChromium(t, w.s)
	w.open("/signin")
	w.fill("email", "owner@example.com")
	w.fill("password", testPassword)
	w.press("Sign in")
	return w
}

// begin creates a store whose data shall live in a database of the given kind.
func (w *wizard) begin(name, kind string) {
	w.t.Helper()
	w.open("/stores/new")
	w.fill("name", name)
	w.choose("database", kind)
	w.press("Create the store")
}

// finish waits until the run has opened the store.
func (w *wizard) finish(slug string) {
	w.t.Helper()
	w.shows("The store is open.") // by itself
	w.press("Go to the overview")
	if at := w.path(); at != "/stores/"+slug {
		w.t.Errorf("the overview of %s is at %s", slug, at)
	}
	w.shows("Active")
	w.noFaults(slug)
	for _, store := range w.api.call("GET", "/api/stores?limit=100", nil).want(http.StatusOK).list("data") {
		if s := store.(object); s["slug"] == slug && s["status"] != "active" {
			w.t.Errorf("%s is %v", slug, s["status"])
		}
	}
}

// hides fails the test when the page, its markup included, contains the password.
func (w *wizard) hides(password string) {
	w.t.Helper()
	if strings.Contains(evaluate[string](w.chromium, `document.documentElement.outerHTML + [...document.querySelectorAll("input, textarea")].map(e => e.value).join(" ")`), password) {
		w.t.Errorf("the password is on the page %s", w.path())
	}
}

func (w *wizard) connectManaged() {
	w.t.Helper()
	w.begin("Managed", "managed")
	w.finish("managed")
}

// pastedForms are what providers' pages hand out for a URL.
var pastedForms = []struct {
	name   string
	engine credential.EngineName
	text   func(u *url.URL) string
}{
	{"URL", credential.PostgreSQL, (*url.URL).String},
	{"Keywords", credential.PostgreSQL, func(u *url.URL) string {
		return "host=" + u.Hostname() + " port=" + u.Port() + " user=" + u.User.Username() + " password=" + passwordOf(u) + " dbname=" + u.Path[1:] + " sslmode=disable"
	}},
	{"psql", credential.PostgreSQL, func(u *url.URL) string { return "psql '" + u.String() + "'" }},
	{"Env", credential.PostgreSQL, func(u *url.URL) string { return "# from the dashboard\nDATABASE_URL=\"" + u.String() + "\"\n" }},
	{"MySQL URL", credential.MySQL, func(u *url.URL) string { return u.String() }},
	{"JDBC", credential.MySQL, func(u *url.URL) string {
		return "jdbc:mysql://" + u.Host + u.Path + "?user=" + u.User.Username() + "&password=" + passwordOf(u) + "&useSSL=false"
	}},
	{"mysql client", credential.MySQL, func(u *url.URL) string {
		return "mysql -h " + u.Hostname() + " -P " + u.Port() + " -u " + u.User.Username() + " -p" + passwordOf(u) + " --ssl-mode=DISABLED " + u.Path[1:]
	}},
}

// connectPasted pastes each form of a connection string: what was understood is shown
// without the password, and nothing is connected before that.
func (w *wizard) connectPasted() {
	w.t.Helper()
	for _, form := range pastedForms {
		u := w.newDatabase(form.engine)
		w.begin("Pasted "+form.name, "own")
		w.fill("connectionString", form.text(u))
		w.press("Check the connection")
		w.understood(u)
		w.press("Connect this database")
		w.finish("pasted-" + strings.ToLower(strings.ReplaceAll(form.name, " ", "-")))
	}
}

// newDatabase returns the address of an empty database on a real server.
func (w *wizard) newDatabase(engine credential.EngineName) *url.URL {
	w.t.Helper()
	u, err := url.Parse(tenantdbtest.ConnectionString(w.t, engine))
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// understood checks the page that says what a connection string means.
func (w *wizard) understood(u *url.URL) {
	w.t.Helper()
	w.shows("What was understood")
	got := evaluate[map[string]string](w.chromium, `Object.fromEntries([...document.querySelectorAll("main .facts > div")].map(
		d => [d.querySelector("dt").innerText.trim(), d.querySelector("dd").innerText.trim()]))`)
	for name, want := range map[string]string{"Server": u.Hostname(), "Port": u.Port(), "Database": u.Path[1:], "User": u.User.Username(),
		"Password": "given", "Connection": "not encrypted"} {
		if got[name] != want {
			w.t.Errorf("%s was understood as %q, want %q, in %v", name, got[name], want, got)
		}
	}
	w.hides(passwordOf(u))
}

// mendPassword checks a connection with a wrong password: the fault and its remedy are
// beside the field for another one, and all else need not be typed again.
func (w *wizard) mendPassword() {
	w.t.Helper()
	u := w.newDatabase(credential.PostgreSQL)
	wrong := *u
	wrong.User = url.UserPassword(u.User.Username(), "mistyped-password")
	w.begin("Mistyped", "own")
	w.fill("connectionString", wrong.String())
	w.press("Check the connection")
	w.understood(&wrong)
	const fault = `document.getElementById("newPassword-fault").innerText`
	if text := evaluate[string](w.chromium, fault); !strings.Contains(text, "refuses this user and password. Correct them") {
		w.t.Errorf("beside the password: %q", text)
	}
	w.fill("newPassword", "mistyped-again")
	w.press("Check again")
	w.understood(&wrong)
	w.hides("mistyped-again")
	w.fill("newPassword", passwordOf(u))
	w.press("Check again")
	w.understood(u)
	w.press("Connect this database")
	w.finish("mistyped")
}

// connectByFields types every part. What was typed is kept when the server cannot be
// reached, but for the password.
func (w *wizard) connectByFields() {
	w.t.Helper()
	u := w.newDatabase(credential.PostgreSQL)
	w.begin("By hand", "own")
	w.click("Type, single fields and certificate")
	w.choose("type", "postgresql")
	for name, value := range map[string]string{"host": u.Hostname(), "port": "1", "database": u.Path[1:], "user": u.User.Username(), "password": passwordOf(u)} {
		w.fill(name, value)
	}
	w.choose("tls", "disable")
	w.press("Check the connection")
	w.shows("What was understood", "The database server does not answer. Check host and port")
	w.hides(passwordOf(u))
	for name, want := range map[string]string{"type": "postgresql", "host": u.Hostname(), "port": "1", "database": u.Path[1:], "user": u.User.Username(), "tls": "disable"} {
		if got := evaluate[string](w.chromium, `document.querySelector("main [name=`+name+`]").value`); got != want {
			w.t.Errorf("the field %s holds %q, want %q", name, got, want)
		}
	}
	w.fill("port", u.Port())
	w.fill("password", passwordOf(u))
	w.press("Check the connection")
	w.understood(u)
	w.press("Connect this database")
	w.finish("by-hand")
}

// connectSupabase gives the consent at Supabase and chooses a project.
func (w *wizard) connectSupabase(sb *supabasetest.Server) {
	w.t.Helper()
	if _, err := sb.AddProject(w.t.Context(), sb.Organization, "Shop"); err != nil {
		w.t.Fatal(err)
	}
	w.begin("With Supabase", "supabase")
	w.click("Go on at Supabase")
	w.await("the consent page", `location.origin === `+strconv.Quote(sb.URL))
	for _, fault := range w.takeFaults() { // the consent's page is not ours
		if !strings.Contains(fault, sb.URL) {
			w.t.Errorf("on the way to Supabase: %s", fault)
		}
	}
	evaluate[bool](w.chromium, `(document.querySelector("button[value=approve], [name=decision][value=approve]").click(), true)`)
	w.shows("Supabase is connected", "Which project?", "Shop")
	w.takeFaults()
	w.press("Use this project")
	w.finish("with-supabase")
}
