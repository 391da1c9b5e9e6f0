package app_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// supabaseConfig returns testConfig with a Supabase stub.
func supabaseConfig(t *testing.T, engine masterdb.Engine, sb *supabasetest.Server) *config.Config {
	t.Helper()
	cfg := testConfig(t, engine)
	rules := sb.Rules()
	cfg.SupabaseURL, cfg.SupabaseClientID, cfg.SupabaseClientSecret = sb.URL, supabasetest.ClientID, secretOf(supabasetest.ClientSecret)
	cfg.SupabasePooler = fmt.Sprintf("%s:%d,%d", rules.PoolerDomain, rules.SessionPort, rules.TransactionPort)
	cfg.SupabaseCA = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cfg.SupabaseCA, []byte(rules.Roots), 0o600); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// onEachSupabase runs test with a server and a Supabase stub, on every master engine.
func onEachSupabase(t *testing.T, test func(t *testing.T, s *server, sb *supabasetest.Server)) {
	t.Helper()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			sb := supabasetest.New(t, supabasetest.Options{})
			test(t, startServer(t, supabaseConfig(t, engine, sb)), sb)
		})
	}
}

// browser is a client that keeps cookies.
type browser struct {
	client
	cookies map[string]string
}

func (b *browser) get(path string) answer {
	b.t.Helper()
	var header []string
	var jar []string
	for k, v := range b.cookies {
		jar = append(jar, k+"="+v)
	}
	if len(jar) > 0 {
		header = append(header, "Cookie", strings.Join(jar, "; "))
	}
	a := b.call("GET", path, nil, header...)
	res := http.Response{Header: a.header}
	for _, c := range res.Cookies() {
		b.cookies[c.Name] = c.Value
	}
	return a
}

func newBrowser(c client) *browser { return &browser{c, map[string]string{}} }

// back returns the path to which Supabase redirects the browser.
func back(t *testing.T, location string) string {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	return u.RequestURI()
}

// consent connects the store's Supabase account in two clicks.
func consent(t *testing.T, c client, sb *supabasetest.Server, store string) {
	t.Helper()
	b := newBrowser(c)
	asked := b.get("/api/supabase/authorize?storeId=" + store).want(http.StatusOK)
	done := b.get(back(t, sb.Approve(t, asked.text("url")))).want(http.StatusSeeOther)
	if where := done.header.Get("Location"); where != "/supabase/connected" {
		t.Fatalf("sent to %s", where)
	}
}

// TestSupabaseInTwoClicks checks that after the consent and the choice of a project the
// store is active.
func TestSupabaseInTwoClicks(t *testing.T) {
	t.Parallel()
	onEachSupabase(t, func(t *testing.T, s *server, sb *supabasetest.Server) {
		project, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
		if err != nil {
			t.Fatal(err)
		}
		c, id := register(t, s, "owner@example.com")
		c.call("GET", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusOK).is("none", "status")
		c.call("GET", "/api/stores/"+id+"/supabase/projects", nil).problem(http.StatusConflict, "supabase_not_connected")
		c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": project.Ref}).problem(http.StatusConflict, "supabase_not_connected")

		consent(t, c, sb, id)
		c.call("GET", "/supabase/connected", nil).want(http.StatusOK)
		c.call("GET", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusOK).is("connected", "status").is(nil, "projectRef")
		c.call("GET", "/api/stores/"+id+"/supabase/organizations", nil).want(http.StatusOK)
		list := c.call("GET", "/api/stores/"+id+"/supabase/projects", nil).want(http.StatusOK).list("data")
		if len(list) != 1 || list[0].(object)["ref"] != project.Ref || list[0].(object)["status"] != "ACTIVE_HEALTHY" {
			t.Errorf("projects %v", list)
		}
		c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": strings.Repeat("z", 20)}).problem(http.StatusUnprocessableEntity, "invalid_request")
		c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": project.Ref, "host": "x"}).problem(http.StatusUnprocessableEntity, "invalid_request")
		store := c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "supabase", "projectRef": project.Ref}).want(http.StatusOK)
		store.is("active", "status").is("supabase", "database", "type").is("ok", "database", "status").is(float64(sb.Rules().TransactionPort), "database", "port")
		c.call("GET", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusOK).is(project.Ref, "projectRef")
		run := c.call("GET", "/api/stores/"+id+"/provisioning", nil).want(http.StatusOK)
		if first := run.list("steps")[0].(object); first["name"] != "project" || first["state"] != "succeeded" {
			t.Errorf("first step %v", first)
		}
		host := store.list("hostnames")[0].(object)["hostname"].(string)
		c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK).is(id, "id")
		c.call("PATCH", "/api/stores/"+id, object{"description": "Bread"}).want(http.StatusOK)
		anonSeesNothing(t, sb, project.Ref)

		// The project's keys are stored, and a second store uses the same project.
		creds, err := s.Tenants.Load(t.Context(), s.Master, mustID(t, id))
		if err != nil {
			t.Fatal(err)
		}
		keys := sb.Keys(project.Ref)
		if creds.AnonKey.Reveal() != keys["anon"] || creds.ServiceRoleKey.Reveal() != keys["service_role"] {
			t.Error("the project's keys are not kept")
		}
		if _, ref, _ := strings.Cut(creds.User, "."); ref != project.Ref || creds.Pooler != credential.TransactionPooler {
			t.Errorf("connects as %s through %s", creds.User, creds.Pooler)
		}
		var planned string
		if err := s.Master.Get(t.Context(), &planned, `SELECT secrets FROM supabase_projects WHERE store_id = $1`, id); err != nil || planned != "" {
			t.Errorf("what was planned is still there: %q, %v", planned, err)
		}
		second := c.call("POST", "/api/stores", object{"name": "Second"}).want(http.StatusCreated).text("id")
		consent(t, c, sb, second)
		c.call("POST", "/api/stores/"+second+"/connect-database", object{"type": "supabase", "projectRef": project.Ref}).want(http.StatusOK).is("active", "status")
		c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK).is(id, "id")

		c.call("DELETE", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusNoContent)
		c.call("DELETE", "/api/stores/"+id+"/supabase/connection", nil).want(http.StatusNoContent)
		c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("ok", "database", "status")
		if n := sb.Grants(); n != 1 {
			t.Errorf("%d consents are in force at Supabase", n)
		}
	})
}

// anonSeesNothing checks that the roles of the project's own API have no access to any
// store's schema, whatever the project grants to everyone.
func anonSeesNothing(t *testing.T, sb *supabasetest.Server, ref string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), sb.DatabaseURL(ref))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // no query is running
	rows, _ := conn.Query(t.Context(), `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'stoa\_%'`)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 10 {
		t.Fatalf("the store's tables are %v, %v", tables, err)
	}
	rows, _ = conn.Query(t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`)
	if others, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(others) > 0 {
		t.Errorf("in the schema that the project's API shows: %v, %v", others, err)
	}
	for _, role := range []string{"anon", "authenticated", "service_role"} {
		if _, err := conn.Exec(t.Context(), "SET ROLE "+role); err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			if _, err := conn.Exec(t.Context(), "SELECT * FROM "+table); err == nil || !strings.Contains(err.Error(), "42501") {
				t.Errorf("%s reads %s: %v", role, table, err)
			}
		}
		if _, err := conn.Exec(t.Context(), "RESET ROLE"); err != nil {
			t.Fatal(err)
		}
	}
}

func mustID(t *testing.T, id string) stoa.StoreID {
	t.Helper()
	store, err := stoa.ParseID[stoa.StoreID](id)
	if err != nil {
		t.Fatal(err)
	}
	return store
}
