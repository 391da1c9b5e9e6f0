package supabasetest_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

const newProject = "POST /v1/projects"

func TestProjects(t *testing.T) {
	t.Parallel()
	s := connect(t, newAPI(t))
	other, err := s.AddProject(t.Context(), s.AddOrganization("Other"), "Foreign")
	testkit.Must(t, err)
	if o := s.get(t, "/v1/organizations").want(t, 200).list(t); len(o) != 1 || o[0]["slug"] != s.Organization || o[0]["x_new"] == nil {
		t.Errorf("organizations: %v", o)
	}
	var refs []string
	for i := range 3 {
		o := s.create(t, fmt.Sprint("Shop ", i)).want(t, 201).object(t)
		refs = append(refs, o["ref"].(string))
		if !regexp.MustCompile(`^[a-z]{20}$`).MatchString(refs[i]) || o["status"] != "COMING_UP" || o["database"] != nil || o["region"] != "eu-central-1" {
			t.Errorf("created %v", o)
		}
	}
	if all := s.get(t, "/v1/projects").want(t, 200).list(t); len(all) != 3 || all[0]["database"].(map[string]any)["host"] != "db."+refs[0]+".supabase.invalid" {
		t.Errorf("projects: %v", all)
	}
	of := "/v1/organizations/" + s.Organization + "/projects"
	page := s.get(t, of+"?offset=1&limit=1&search=SHOP").want(t, 200).object(t)
	list := page["projects"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["ref"] != refs[1] || page["pagination"].(map[string]any)["count"] != 3.0 {
		t.Errorf("page: %v", page)
	}
	s.get(t, of+"?limit=101").want(t, 400)
	s.get(t, "/v1/organizations/"+other.Organization+"/projects").want(t, 403)
	s.get(t, "/v1/projects/"+other.Ref+"/api-keys").want(t, 403)
	s.get(t, "/v1/projects/"+strings.Repeat("x", 20)).want(t, 404)
	if keys := s.get(t, "/v1/projects/"+refs[0]+"/api-keys").list(t); len(keys) != 4 || keys[3]["api_key"] == s.Keys(refs[0])["secret"] {
		t.Errorf("hidden keys: %v", keys)
	}
	keys := s.get(t, "/v1/projects/"+refs[0]+"/api-keys?reveal=true").list(t)
	if keys[0]["id"] != "anon" || keys[0]["api_key"] != s.Keys(refs[0])["anon"] || keys[3]["api_key"] != s.Keys(refs[0])["secret"] {
		t.Errorf("keys: %v", keys)
	}
}

func TestProjectComesUp(t *testing.T) {
	t.Parallel()
	s := connect(t, supabasetest.NewAPI(t, supabasetest.Options{StartTime: time.Minute}))
	path := "/v1/projects/" + s.create(t, "Shop").want(t, 201).object(t)["ref"].(string)
	ref := s.Projects()[0].Ref
	check := func(status, health string) {
		t.Helper()
		h := s.get(t, path+"/health?services=db&services=pooler").want(t, 200).list(t)
		if got := s.get(t, path).object(t)["status"]; got != status || len(h) != 2 || h[1]["name"] != "pooler" || h[1]["status"] != health {
			t.Errorf("got %v, %v, want %s, %s", got, h, status, health)
		}
	}
	check("COMING_UP", "COMING_UP")
	s.Pass(time.Minute)
	check("ACTIVE_HEALTHY", "ACTIVE_HEALTHY")
	s.SetStatus(ref, "INACTIVE")
	check("INACTIVE", "UNHEALTHY")
	s.Restore(ref)
	check("RESTORING", "COMING_UP")
	s.Pass(time.Minute)
	check("ACTIVE_HEALTHY", "ACTIVE_HEALTHY")
	testkit.Must(t, s.Remove(t.Context(), ref))
	s.get(t, path).want(t, 404)
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	server := newAPI(t)
	one, two := connect(t, server), connect(t, server)
	server.SetRateLimit(3)
	remaining := func(r response) int {
		n, err := strconv.Atoi(r.header.Get("X-RateLimit-Remaining"))
		testkit.Must(t, err)
		return n
	}
	for i, s := range []*session{one, two, one} { // the limit is the app's, not the user's
		if r := s.get(t, "/v1/organizations").want(t, 200); remaining(r) != 2-i || r.header.Get("X-RateLimit-Limit") != "3" {
			t.Errorf("call %d: %v", i, r.header)
		}
	}
	r := two.get(t, "/v1/organizations").want(t, 429)
	if reset, err := strconv.Atoi(r.header.Get("X-RateLimit-Reset")); err != nil || reset < 30 || reset > 61 || remaining(r) != 0 {
		t.Errorf("refused with %v", r.header)
	}
	server.Pass(time.Minute)
	two.get(t, "/v1/organizations").want(t, 200)
}

func TestScopes(t *testing.T) {
	t.Parallel()
	s := connect(t, newAPI(t))
	s.SetScopes("organizations:read")
	s.get(t, "/v1/organizations").want(t, 200)
	s.get(t, "/v1/projects").want(t, 403)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s := connect(t, supabasetest.NewAPI(t, supabasetest.Options{Success: 200}))
	s.Break(newProject, supabasetest.Broken, supabasetest.BrokenAfter, supabasetest.Cut, supabasetest.CutAfter, supabasetest.Busy)
	body := map[string]any{
		"name": "Shop", "organization_slug": s.Organization, "db_pass": "p", "region_selection": map[string]any{"type": "specific", "code": "x"},
	}
	for i, want := range []struct{ status, projects int }{{500, 0}, {500, 1}, {0, 1}, {0, 2}, {429, 2}, {200, 3}} {
		res, err := s.try(t, "POST", "/v1/projects", body)
		if res.status != want.status || (err != nil) != (want.status == 0) || len(s.Projects()) != want.projects {
			t.Errorf("call %d: %d %v, %d projects", i, res.status, err, len(s.Projects()))
		}
	}
	if s.Count(newProject) != 6 {
		t.Errorf("%d calls", s.Count(newProject))
	}
	s.Break("GET /v1/projects", supabasetest.Cut)
	if res, err := s.try(t, "GET", "/v1/projects", nil); err == nil {
		t.Errorf("a cut GET was answered: %d", res.status)
	}
	s.Alter("GET /v1/projects", func(o map[string]any) { o["name"] = "Lie" })
	if all := s.get(t, "/v1/projects").list(t); all[1]["name"] != "Lie" {
		t.Errorf("unaltered: %v", all)
	}
}

// TestDelay checks that a delayed answer contains the state at the time of the call.
func TestDelay(t *testing.T) {
	t.Parallel()
	s := connect(t, newAPI(t))
	asked, release := s.Delay("GET /v1/projects")
	got := make(chan response, 1)
	go func() {
		res, _ := s.try(t, "GET", "/v1/projects", nil)
		got <- res
	}()
	<-asked
	s.create(t, "Shop").want(t, 201)
	release()
	if res := <-got; string(res.body) != "[]" {
		t.Errorf("got %s", res.body)
	}
}

// TestHang checks that a call that hangs ends when its client disconnects, and that the
// stand-in ends when its calls have ended.
func TestHang(t *testing.T) {
	t.Parallel()
	s := connect(t, newAPI(t))
	s.Break("GET /v1/projects", supabasetest.Hang)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/v1/projects", nil)
	testkit.Must(t, err)
	req.Header.Set("Authorization", "Bearer "+s.access)
	res, err := http.DefaultClient.Do(req)
	if err == nil {
		res.Body.Close()
		t.Errorf("answered %s", res.Status)
	}
	s.get(t, "/v1/projects").want(t, 200)
}

func TestStartNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := supabasetest.Start(t.Context(), supabasetest.Options{PostgresURL: "postgres://u:p@127.0.0.1:1/d"})
	if err == nil || !strings.Contains(err.Error(), "PgBouncer") || !strings.Contains(err.Error(), "with-servers") {
		t.Errorf("got %v", err)
	}
}
