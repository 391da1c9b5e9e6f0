package app_test

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSupabaseConsent checks that a page shows the result of a consent, and that the
// code does not stay in the address bar.
func TestSupabaseConsent(t *testing.T) {
	t.Parallel()
	onEachSupabase(t, func(t *testing.T, s *server, sb *supabasetest.Server) {
		c, id := register(t, s, "owner@example.com")
		status := func(want string) {
			t.Helper()
			c.call("GET", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusOK).is(want, "status")
		}
		b := newBrowser(c)
		authorize := func() string {
			return b.get("/api/supabase/authorize").want(http.StatusOK).text("url") // without a store id: for the user's only store
		}
		declined := back(t, sb.Deny(t, authorize()))
		if where := b.get(declined).want(http.StatusSeeOther).header.Get("Location"); where != "/supabase/declined" {
			t.Errorf("sent to %s", where)
		}
		if page := c.call("GET", "/supabase/declined", nil).want(http.StatusOK); !strings.Contains(page.raw, "You have declined") {
			t.Errorf("the page says %s", page.raw)
		}
		b.get(declined).want(http.StatusUnauthorized)
		c.call("GET", "/supabase/else", nil).want(http.StatusNotFound)
		for _, query := range []string{"", "?code=x", "?state=x&code=y", "?state=" + strings.Repeat("a", 8000) + "&code=x"} {
			page := b.get("/api/supabase/callback" + query).want(http.StatusUnauthorized)
			if !strings.Contains(page.raw, "Connect Supabase again") {
				t.Errorf("%.50s: the page says %s", query, page.raw)
			}
		}
		status("none")

		// Another browser must confirm first. Only its owner's click connects the
		// store.
		location := back(t, sb.Approve(t, authorize()))
		asked := c.call("GET", location, nil).want(http.StatusOK)
		if !strings.Contains(asked.raw, "Store of owner example com") || !strings.Contains(asked.raw, "for owner@example.com") {
			t.Errorf("the page says %s", asked.raw)
		}
		status("none")
		u, err := url.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{}
		for _, field := range []string{"state", "code"} {
			if !strings.Contains(asked.raw, `name="`+field+`" value="`+html.EscapeString(u.Query().Get(field))+`"`) {
				t.Errorf("the form does not carry the %s:\n%s", field, asked.raw)
			}
			form.Set(field, u.Query().Get(field))
		}
		c.call("POST", "/api/supabase/callback", form.Encode(), "Content-Type", "application/x-www-form-urlencoded").want(http.StatusSeeOther)
		status("connected")
		c.call("POST", "/api/supabase/callback", form.Encode(), "Content-Type", "application/x-www-form-urlencoded").want(http.StatusUnauthorized)

		// Another user cannot connect the store, and a store's host does not serve the
		// callback.
		mallory, _ := register(t, s, "mallory@example.com")
		mallory.call("GET", "/api/supabase/authorize?storeId="+id, nil).problem(http.StatusNotFound, "store_not_found")
		c.call("GET", location, nil, "Host", "somebody.localhost").want(http.StatusNotFound)
	})
}

// TestSupabaseNewProject checks that a store gets its project although the response to
// the project's creation is lost, and that the run reports what it waits for.
func TestSupabaseNewProject(t *testing.T) {
	t.Parallel()
	onEachSupabase(t, func(t *testing.T, s *server, sb *supabasetest.Server) {
		c, id := register(t, s, "owner@example.com")
		consent(t, c, sb, id)
		path := "/api/stores/" + id + "/supabase/projects"
		c.call("POST", path, object{"organization": sb.Organization, "region": "mars-1"}).problem(http.StatusUnprocessableEntity, "invalid_request")
		c.call("POST", path, object{"organization": "", "region": "emea"}).problem(http.StatusUnprocessableEntity, "invalid_request")
		if a := c.call("POST", path, object{"organization": "mistyped", "region": "emea"}); !strings.Contains(a.raw, sb.Organization) {
			t.Errorf("a mistyped organisation: %s", a.raw)
		} else {
			a.problem(http.StatusUnprocessableEntity, "invalid_request")
		}
		if regions := c.call("GET", "/api/stores/"+id+"/supabase/regions", nil).want(http.StatusOK).list("data"); len(regions) < 10 {
			t.Errorf("regions %v", regions)
		}
		sb.Break("POST /v1/projects", supabasetest.CutAfter)
		body := object{"organization": sb.Organization, "region": "eu-central-1"}
		run := c.call("POST", path, body, "Prefer", "wait=0").want(http.StatusAccepted)
		if where := run.header.Get("Location"); where != "/api/stores/"+id+"/provisioning" {
			t.Errorf("follow %s", where)
		}
		c.call("POST", path, body).problem(http.StatusConflict, "provisioning_in_progress")
		first := func() object {
			return c.call("GET", "/api/stores/"+id+"/provisioning", nil).want(http.StatusOK).list("steps")[0].(object)
		}
		testkit.Eventually(t, testkit.Timeout, "the run says what it waits for", func() bool {
			why, _ := first()["error"].(object)
			return first()["state"] == "running" && why != nil && why["code"] == "supabase_project_starting"
		})
		sb.Pass(time.Hour / 2)
		testkit.Eventually(t, testkit.Timeout, "the store is open", func() bool {
			return c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).text("status") == "active"
		})
		if made := sb.Projects(); len(made) != 1 || !strings.Contains(made[0].Name, "-stoa-") {
			t.Errorf("made %+v", made)
		}
		if step := first(); step["state"] != "succeeded" || step["error"] != nil {
			t.Errorf("in the end: %v", step)
		}
	})
}

// TestSupabaseProjectFails checks that each fault of a project ends the run with its
// own code, and that a retry continues after the fault is corrected.
func TestSupabaseProjectFails(t *testing.T) {
	t.Parallel()
	onEachSupabase(t, func(t *testing.T, s *server, sb *supabasetest.Server) {
		project, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
		if err != nil {
			t.Fatal(err)
		}
		c, id := register(t, s, "owner@example.com")
		consent(t, c, sb, id)
		connect := func() answer {
			return c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": project.Ref})
		}
		sb.SetStatus(project.Ref, "INACTIVE")
		connect().problem(http.StatusUnprocessableEntity, "supabase_project_paused")

		other, err := sb.AddProject(t.Context(), sb.Organization, "Other")
		if err != nil {
			t.Fatal(err)
		}
		project = other
		sb.SetStatus(project.Ref, "ACTIVE_HEALTHY")
		c.call("DELETE", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusNoContent)
		consent(t, c, sb, id) // clears the cached list of projects
		sb.Alter("GET /v1/projects/{ref}/config/database/pooler", func(o map[string]any) { o["db_host"] = "pooler.example.com" })
		connect().problem(http.StatusUnprocessableEntity, "database_host_forbidden")
		c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("pending_database", "status").is(nil, "database")
		sb.Alter("GET /v1/projects/{ref}/config/database/pooler", nil)
		sb.Break("POST /v1/projects/{ref}/database/query", supabasetest.BrokenAfter) // the role exists
		c.call("POST", "/api/stores/"+id+"/provisioning/retry", nil).want(http.StatusOK).is("active", "status")
	})
}

// TestSupabaseHealth checks that the state of the project explains why the store is
// down. Shoppers' requests cause no call to Supabase, and the store works without the
// connection.
func TestSupabaseHealth(t *testing.T) {
	t.Parallel()
	onEachSupabase(t, func(t *testing.T, s *server, sb *supabasetest.Server) {
		project, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
		if err != nil {
			t.Fatal(err)
		}
		c, id := register(t, s, "owner@example.com")
		consent(t, c, sb, id)
		store := c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": project.Ref}).want(http.StatusOK)
		host := store.list("hostnames")[0].(object)["hostname"].(string)

		sb.SetStatus(project.Ref, "INACTIVE")
		consent(t, c, sb, id) // clears the cached list of projects
		before := sb.Count("GET /v1/projects")
		for range 5 {
			c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusServiceUnavailable)
		}
		if n := sb.Count("GET /v1/projects") - before; n != 0 {
			t.Errorf("shoppers have cost %d calls", n)
		}
		for range 3 {
			c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("failed", "database", "status").is("supabase_project_paused", "database", "lastError", "code")
		}
		tested := c.call("POST", "/api/stores/"+id+"/database/test", nil).want(http.StatusOK).is(false, "ok")
		tested.is("supabase_project_paused", "error", "code")
		if n := sb.Count("GET /v1/projects") - before; n != 1 {
			t.Errorf("its owner has cost %d calls", n)
		}

		sb.SetStatus(project.Ref, "ACTIVE_HEALTHY")
		sb.RevokeAll()
		testkit.Eventually(t, testkit.Timeout, "the store is back", func() bool {
			return c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).text("database", "status") == "ok"
		})
		testkit.Eventually(t, testkit.Timeout, "the connection has ended", func() bool { // the next use detects it
			c.call("GET", "/api/stores/"+id+"/supabase/organizations", nil)
			return c.call("GET", "/api/stores/"+id+"/supabase/connection", nil).text("status") == "reconnect"
		})
		c.call("GET", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusOK).is("refused", "reason").is(project.Ref, "projectRef")
		c.call("GET", "/api/stores/"+id+"/supabase/organizations", nil).problem(http.StatusConflict, "supabase_reconnect")
		c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)

		// The project is paused and Stoa cannot read its state: the owner is told the
		// likely cause and where to look.
		sb.SetStatus(project.Ref, "INACTIVE")
		testkit.Eventually(t, testkit.Timeout, "the store is down", func() bool {
			return c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).text("database", "status") == "failed"
		})
		a := c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("supabase_project_unknown", "database", "lastError", "code")
		if !strings.Contains(a.text("database", "lastError", "message"), "may be paused") {
			t.Errorf("told: %s", a.raw)
		}
		tested = c.call("POST", "/api/stores/"+id+"/database/test", nil).want(http.StatusOK).is(false, "ok")
		tested.is("supabase_project_unknown", "error", "code")
		consent(t, c, sb, id)
		c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("supabase_project_paused", "database", "lastError", "code")
	})
}

// TestSupabaseConnectionString checks all three connection strings of a project's page,
// without a connection to Supabase. The additional parameters are stored and never
// shown.
func TestSupabaseConnectionString(t *testing.T) {
	t.Parallel()
	onEachSupabase(t, func(t *testing.T, s *server, sb *supabasetest.Server) {
		for _, mode := range []credential.Pooler{credential.SessionPooler, credential.TransactionPooler} {
			project, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
			if err != nil {
				t.Fatal(err)
			}
			c, id := register(t, s, string(mode)+"@example.com")
			const anon, role = "sb_publishable_canary_1", "sb_secret_canary_2"
			a := c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase",
				"connectionString": sb.ConnectionString(project.Ref, "postgres", project.Password, mode),
				"anonKey":          anon, "serviceRoleKey": role, "projectUrl": "https://" + project.Ref + ".supabase.co"}).want(http.StatusOK)
			if strings.Contains(a.raw, anon) || strings.Contains(a.raw, role) || strings.Contains(a.raw, project.Password) {
				t.Errorf("shown: %s", a.raw)
			}
			c.call("GET", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusOK).is("none", "status").is(project.Ref, "projectRef")
		}
		c, id := register(t, s, "direct@example.com")
		direct := fmt.Sprintf("postgresql://postgres:password@db.abcdefghijklmnopqrst.supabase.co:%d/postgres", sb.Rules().SessionPort)
		a := c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "connectionString": direct}).want(http.StatusUnprocessableEntity)
		if code := a.text("code"); code != "database_unreachable" || !strings.Contains(a.text("detail"), "session pooler") {
			t.Errorf("advice: %s", a.raw)
		}
		c.call("GET", "/api/supabase/authorize", nil).want(http.StatusOK)
	})
}

// TestSupabaseNotConfigured checks the errors of a server without an OAuth application.
func TestSupabaseNotConfigured(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		for _, path := range []string{"/api/supabase/authorize", "/api/stores/" + id + "/supabase/projects", "/api/stores/" + id + "/supabase/regions"} {
			c.call("GET", path, nil).problem(http.StatusServiceUnavailable, "supabase_not_configured")
		}
		ref := strings.Repeat("a", 20)
		c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": ref}).problem(http.StatusServiceUnavailable, "supabase_not_configured")
		c.call("POST", "/api/stores/"+id+"/database/test", object{"type": "supabase", "projectRef": ref}).problem(http.StatusUnprocessableEntity, "invalid_request")
	})
}

// TestSupabaseKilled kills the server after the role was created and before that was
// recorded. Another server activates the store. Neither server leaves a secret behind.
func TestSupabaseKilled(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			sb := supabasetest.New(t, supabasetest.Options{})
			project, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
			if err != nil {
				t.Fatal(err)
			}
			cfg := supabaseConfig(t, engine, sb)
			cfg.ProvisioningClaim = time.Second
			key := keyring.Generate("e")
			settings := []string{"STOA_LOG_LEVEL=debug", "ENCRYPTION_KEY=" + key.Reveal(), "STOA_SUPABASE_URL=" + sb.URL, "STOA_SUPABASE_CA=" + cfg.SupabaseCA,
				"STOA_SUPABASE_POOLER=" + cfg.SupabasePooler, "SUPABASE_OAUTH_CLIENT_ID=" + supabasetest.ClientID, "SUPABASE_OAUTH_CLIENT_SECRET=" + supabasetest.ClientSecret}
			first := startProcess(t, cfg, settings...)
			c, id := register(t, serverAt(first.url), "owner@example.com")
			consent(t, c, sb, id)

			asked, release := sb.Delay("POST /v1/projects/{ref}/database/query")
			c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": project.Ref}, "Prefer", "wait=0").want(http.StatusAccepted)
			<-asked
			first.kill()
			release()
			secrets := supabaseSecrets(t, cfg, key, id)
			second := startProcess(t, cfg, settings...)
			c.url = second.url
			testkit.Eventually(t, testkit.Timeout, "another server opens the store", func() bool {
				return c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).text("status") == "active"
			})
			anonSeesNothing(t, sb, project.Ref)
			sb.Break("GET /v1/organizations", supabasetest.Broken)
			answers := c.call("GET", "/api/stores/"+id+"/supabase/organizations", nil).raw + c.call("GET", "/api/stores/"+id+"/provisioning", nil).raw +
				c.call("GET", "/api/stores/"+id, nil).raw + c.call("GET", "/api/stores/"+id+"/audit", nil).raw
			for place, text := range map[string]string{
				"the log": first.log.String() + second.end(t), "an answer": answers,
				"the master": string(masterBytes(t, masterdbtest.Open(t, cfg.MasterDBURL.Reveal()))), "the data folder": string(filesBelow(t, cfg.DataDir)),
			} {
				secrets.search(t, place, []byte(text))
			}
		})
	}
}

// supabaseSecrets decrypts the store's secrets.
func supabaseSecrets(t *testing.T, cfg *config.Config, key keyring.Secret, id string) canaries {
	t.Helper()
	ring, err := keyring.Parse(key)
	db := masterdbtest.Open(t, cfg.MasterDBURL.Reveal())
	all := canaries{}
	all.add(t, "SUPABASE_OAUTH_CLIENT_SECRET", supabasetest.ClientSecret)
	for table, column := range map[string]string{"supabase_connections": "tokens", "supabase_projects": "secrets"} {
		var envelope string
		err = errors.Join(err, db.Get(t.Context(), &envelope, `SELECT `+column+` FROM `+table+` WHERE store_id = $1`, id))
		plain, openErr := ring.Open(envelope, table+"/"+id)
		if err = errors.Join(err, openErr); err != nil {
			t.Fatal(err)
		}
		for i, word := range strings.Split(string(plain), `"`) {
			if len(word) > 12 {
				all.add(t, table+" "+strconv.Itoa(i), word)
			}
		}
	}
	if len(all) != 4 { // two tokens and a password
		t.Fatalf("%d secrets", len(all))
	}
	return all
}

// TestSupabaseGoesWithTheStore checks that a deleted store leaves nothing that gives
// access to its owner's Supabase account.
func TestSupabaseGoesWithTheStore(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			sb := supabasetest.NewAPI(t, supabasetest.Options{})
			cfg := testConfig(t, engine)
			cfg.SupabaseURL, cfg.SupabaseClientID, cfg.SupabaseClientSecret = sb.URL, supabasetest.ClientID, secretOf(supabasetest.ClientSecret)
			cfg.DeletionGrace = 0
			s := startServer(t, cfg)
			c, id := register(t, s, "owner@example.com")
			consent(t, c, sb, id)
			c.call("GET", "/api/supabase/authorize?storeId="+id, nil).want(http.StatusOK)
			c.call("DELETE", "/api/stores/"+id, nil)
			testkit.Eventually(t, testkit.Timeout, "the store is gone", func() bool {
				return c.call("GET", "/api/stores/"+id, nil).status == http.StatusNotFound
			})
			for _, table := range []string{"supabase_connections", "supabase_consents", "supabase_projects"} {
				var n int
				if err := s.Master.Get(t.Context(), &n, `SELECT count(*) FROM `+table); err != nil || n > 0 {
					t.Errorf("%s has %d rows, %v", table, n, err)
				}
			}
		})
	}
}

// TestSupabaseSettings checks incomplete pairs of settings, and settings that
// production refuses.
func TestSupabaseSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   string
	}{
		"no id":             {func(c *config.Config) { c.SupabaseClientSecret = secretOf("x") }, "SUPABASE_OAUTH_CLIENT_ID is required"},
		"no secret":         {func(c *config.Config) { c.SupabaseClientID = "x" }, "SUPABASE_OAUTH_CLIENT_SECRET is required"},
		"no address":        {func(c *config.Config) { c.SupabaseURL = "127.0.0.1:1" }, "STOA_SUPABASE_URL must be"},
		"a user":            {func(c *config.Config) { c.SupabaseURL = "https://u:p@example.com" }, "STOA_SUPABASE_URL must be"},
		"plain, in earnest": {func(c *config.Config) { c.SupabaseURL, c.Env = "http://127.0.0.1:1", "production" }, "STOA_SUPABASE_URL lets tokens travel"},
		"no pooler":         {func(c *config.Config) { c.SupabasePooler = "localhost:1" }, "STOA_SUPABASE_POOLER must be"},
		"pooler's port":     {func(c *config.Config) { c.SupabasePooler = "localhost:1,99999" }, "STOA_SUPABASE_POOLER must be"},
		"pooler in earnest": {func(c *config.Config) { c.SupabasePooler, c.Env = "localhost:1,2", "production" }, "STOA_SUPABASE_POOLER is for development"},
	} {
		cfg := testConfig(t, masterdb.SQLite)
		c.change(cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	cfg := testConfig(t, masterdb.SQLite)
	cfg.SupabaseURL = "http://127.0.0.1:1"
	cfg.SupabasePooler = "localhost:1,2"
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
}

// TestDoctorAsksSupabase checks that doctor detects a wrong secret and does not print
// it.
func TestDoctorAsksSupabase(t *testing.T) {
	t.Parallel()
	sb := supabasetest.NewAPI(t, supabasetest.Options{})
	cfg := testConfig(t, masterdb.SQLite)
	cfg.SupabaseURL, cfg.SupabaseClientID, cfg.SupabaseClientSecret = sb.URL, supabasetest.ClientID, secretOf(supabasetest.ClientSecret)
	if detail, err := doctor.CheckSupabase(t.Context(), cfg); err != nil {
		t.Errorf("%s: %v", detail, err)
	}
	cfg.SupabaseClientSecret = secretOf("sba_canary_wrong")
	if _, err := doctor.CheckSupabase(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("with a wrong secret: %v", err)
	}
}
