package supabasetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

type organization struct{ Slug, Name string }

// project is a project with its own database. The fields up to keys never change.
type project struct {
	ref, org, name, region string
	password               string // of the role postgres
	created                time.Time
	keys                   []object

	state    string // "": healthy after StartTime; otherwise a fixed status
	since    time.Time
	failures []time.Time // of log-ins at the poolers
	blocked  time.Time   // until this time, after too many failures
	empty    bool        // the database was created again for a project of an earlier run
}

// Project is what a test can read of a project.
type Project struct {
	Ref, Organization, Name, Status, Password string

	Empty bool // true for a project of an earlier run whose database was missing on the server
}

func (s *Server) projectRoutes() {
	route := func(call, scope string, handle func(*http.Request, *grant) *answer) {
		s.route(call, s.authorized(scope, handle))
	}
	route("GET /v1/organizations", "organizations:read", s.listOrganizations)
	route("GET /v1/organizations/{slug}/projects", "projects:read", s.pageProjects)
	route("GET /v1/projects", "projects:read", s.listProjects)
	route("POST /v1/projects", "projects:write", s.createProject)
	route("GET /v1/projects/{ref}", "projects:read", s.withProject(s.showProject))
	route("GET /v1/projects/{ref}/health", "projects:read", s.withProject(s.health))
	route("GET /v1/projects/{ref}/api-keys", "secrets:read", s.withProject(s.apiKeys))
	route("GET /v1/projects/{ref}/config/database/pooler", "database:read", s.withProject(s.poolerConfig))
	route("POST /v1/projects/{ref}/database/query", "database:write", s.withProject(s.query))
}

// AddOrganization adds an organisation of the same owner and returns its slug.
func (s *Server) AddOrganization(name string) (slug string) {
	defer s.save()
	s.mu.Lock()
	defer s.mu.Unlock()
	slug = letters(20)
	s.orgs = append(s.orgs, organization{Slug: slug, Name: name})
	return slug
}

// AddProject adds a healthy project to an organisation.
func (s *Server) AddProject(ctx context.Context, org, name string) (Project, error) {
	p, err := s.makeProject(ctx, org, name, "eu-central-1", rand.Text())
	if err != nil {
		return Project{}, err
	}
	defer s.save()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.state = healthy
	return s.known(p), nil
}

func (s *Server) makeProject(ctx context.Context, org, name, region, password string) (*project, error) {
	p := &project{ref: letters(20), org: org, name: name, region: region, password: password}
	p.keys = makeKeys(p.ref)
	if err := s.makeDatabase(ctx, p); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.created = s.now()
	p.since = p.created
	s.projects = append(s.projects, p)
	return p, nil
}

// Projects lists all projects, oldest first.
func (s *Server) Projects() (out []Project) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.projects {
		out = append(out, s.known(p))
	}
	return out
}

func (s *Server) known(p *project) Project {
	return Project{Ref: p.ref, Organization: p.org, Name: p.name, Status: s.status(p), Password: p.password, Empty: p.empty}
}

// The statuses that the stand-in interprets.
const (
	healthy   = "ACTIVE_HEALTHY"
	paused    = "INACTIVE"
	comingUp  = "COMING_UP"
	restoring = "RESTORING"
)

// status returns the project's status. The caller holds the lock.
func (s *Server) status(p *project) string {
	up := s.now().Sub(p.since) >= s.options.StartTime
	switch {
	case p.state == restoring && up, p.state == "" && up:
		return healthy
	case p.state == "":
		return comingUp
	}
	return p.state
}

// SetStatus gives a project a fixed status, such as "INIT_FAILED" or "INACTIVE", which
// means paused at Supabase. Clients can connect only to a healthy project. For any other
// status the open connections are closed.
func (s *Server) SetStatus(ref, status string) {
	s.mu.Lock()
	s.mustFind(ref).state = status
	s.mu.Unlock()
	s.save()
	if status != healthy {
		s.poolers.cut(ref)
	}
}

// Restore restores a paused project. The project is healthy after StartTime.
func (s *Server) Restore(ref string) {
	defer s.save()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.mustFind(ref)
	p.state, p.since = restoring, s.now()
}

// Remove deletes a project with its database, as its owner can.
func (s *Server) Remove(ctx context.Context, ref string) error {
	s.mu.Lock()
	p := s.mustFind(ref)
	s.projects = slices.DeleteFunc(s.projects, func(q *project) bool { return q == p })
	s.mu.Unlock()
	s.save()
	s.poolers.cut(ref)
	return s.dropDatabase(ctx, p)
}

func (s *Server) find(ref string) *project {
	if i := slices.IndexFunc(s.projects, func(p *project) bool { return p.ref == ref }); i >= 0 {
		return s.projects[i]
	}
	return nil
}

func (s *Server) mustFind(ref string) *project {
	p := s.find(ref)
	if p == nil {
		panic("the stand-in has no project " + ref)
	}
	return p
}

// withProject calls handle with the project. It refuses projects outside the grant's
// organisation.
func (s *Server) withProject(handle func(*http.Request, *project) *answer) func(*http.Request, *grant) *answer {
	return func(r *http.Request, g *grant) *answer {
		s.mu.Lock()
		p := s.find(r.PathValue("ref"))
		s.mu.Unlock()
		switch {
		case p == nil:
			return problem(http.StatusNotFound, "Project not found")
		case p.org != g.org:
			return problem(http.StatusForbidden, "Your account does not have the necessary privileges to access this endpoint")
		}
		return handle(r, p)
	}
}

func (s *Server) listOrganizations(_ *http.Request, g *grant) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []object{}
	for _, o := range s.orgs {
		if o.Slug == g.org {
			out = append(out, object{"id": o.Slug, "slug": o.Slug, "name": o.Name})
		}
	}
	return reply(out)
}

// describe returns the project as the API shows it in a list. The caller holds the lock.
func (s *Server) describe(p *project) object {
	return object{
		"id": p.ref, "ref": p.ref, "organization_id": p.org, "organization_slug": p.org, "name": p.name,
		"region": p.region, "created_at": p.created.UTC().Format(time.RFC3339Nano), "status": s.status(p),
	}
}

func (s *Server) describeWhole(p *project) object {
	o := s.describe(p)
	o["database"] = object{
		"host": s.directHost(p), "version": "15.8.1.040", "postgres_engine": "15", "release_channel": "ga",
	}
	return o
}

func (s *Server) directHost(p *project) string { return "db." + p.ref + "." + s.options.DirectDomain }

// of returns the projects of an organisation whose names contain search.
func (s *Server) of(org, search string) []object {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []object{}
	for _, p := range s.projects {
		if p.org == org && strings.Contains(strings.ToLower(p.name), strings.ToLower(search)) {
			out = append(out, s.describeWhole(p))
		}
	}
	return out
}

func (s *Server) listProjects(_ *http.Request, g *grant) *answer { return reply(s.of(g.org, "")) }

func (s *Server) pageProjects(r *http.Request, g *grant) *answer {
	if r.PathValue("slug") != g.org {
		return problem(http.StatusForbidden, "Your account does not have the necessary privileges to access this endpoint")
	}
	number := func(name string, standard, least, most int) (int, bool) {
		if !r.URL.Query().Has(name) {
			return standard, true
		}
		n, err := strconv.Atoi(r.URL.Query().Get(name))
		return n, err == nil && n >= least && n <= most
	}
	offset, ok := number("offset", 0, 0, 1<<30)
	limit, fine := number("limit", 100, 1, 100)
	if !ok || !fine {
		return problem(http.StatusBadRequest, "offset, limit: out of range")
	}
	all := s.of(g.org, r.URL.Query().Get("search"))
	from := min(offset, len(all))
	return reply(object{
		"projects":   all[from:min(from+limit, len(all))],
		"pagination": object{"count": len(all), "limit": limit, "offset": offset},
	})
}

func (s *Server) createProject(r *http.Request, g *grant) *answer {
	var in struct {
		Name             string `json:"name"`
		OrganizationSlug string `json:"organization_slug"`
		Password         string `json:"db_pass"`
		Region           struct {
			Type string `json:"type"`
			Code string `json:"code"`
		} `json:"region_selection"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return problem(http.StatusBadRequest, "Bad JSON")
	}
	switch {
	case in.Name == "" || len(in.Name) > 256:
		return problem(http.StatusBadRequest, "name: must be 1 to 256 characters")
	case in.Password == "":
		return problem(http.StatusBadRequest, "db_pass: Required")
	case in.Region.Type != "specific" && in.Region.Type != "smartGroup", in.Region.Code == "":
		return problem(http.StatusBadRequest, "region_selection: Invalid input")
	case in.OrganizationSlug != g.org:
		return problem(http.StatusForbidden, "Your account does not have the necessary privileges to access this endpoint")
	}
	region := in.Region.Code
	if in.Region.Type == "smartGroup" {
		region = map[string]string{"americas": "us-east-1", "emea": "eu-central-1", "apac": "ap-southeast-1"}[region]
	}
	if region == "" {
		return problem(http.StatusBadRequest, "region_selection: Invalid input")
	}
	// Supabase completes the creation after its client has disconnected.
	p, err := s.makeProject(context.WithoutCancel(r.Context()), g.org, in.Name, region, in.Password)
	if err != nil {
		return problem(http.StatusInternalServerError, "the stand-in cannot make the database: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := reply(s.describe(p))
	a.status = http.StatusCreated
	return a
}

func (s *Server) showProject(_ *http.Request, p *project) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return reply(s.describeWhole(p))
}

// health returns the same health for every requested service: that of the project.
func (s *Server) health(r *http.Request, p *project) *answer {
	services := r.URL.Query()["services"]
	if len(services) == 0 {
		return problem(http.StatusBadRequest, "services: Required")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []object{}
	for _, name := range services {
		o := object{"name": name, "healthy": false}
		switch s.status(p) {
		case healthy:
			o["status"], o["healthy"] = healthy, true
		case comingUp, restoring:
			o["status"] = comingUp
		default:
			o["status"], o["error"] = "UNHEALTHY", "the project is "+s.status(p)
		}
		out = append(out, o)
	}
	return reply(out)
}

func makeKeys(ref string) []object {
	legacy := func(role string) object {
		claims := jwt.MapClaims{"iss": "supabase", "ref": ref, "role": role, "iat": 1767225600, "exp": 2082585600}
		key, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(rand.Text()))
		if err != nil {
			panic(err) // signing plain values cannot fail
		}
		return object{"id": role, "name": role, "type": "legacy", "api_key": key}
	}
	modern := func(kind string) object {
		return object{"id": rand.Text(), "name": "default", "type": kind, "api_key": "sb_" + kind + "_" + rand.Text(), "description": nil}
	}
	return []object{legacy("anon"), legacy("service_role"), modern("publishable"), modern("secret")}
}

// apiKeys returns the API keys. It truncates them unless the request asks to reveal them.
func (s *Server) apiKeys(r *http.Request, p *project) *answer {
	reveal := r.URL.Query().Get("reveal") == "true"
	out := []object{}
	for _, key := range p.keys {
		o := object{}
		for k, v := range key {
			o[k] = v
		}
		if !reveal {
			o["api_key"] = fmt.Sprintf("%.15s······", o["api_key"])
		}
		out = append(out, o)
	}
	return reply(out)
}

// Keys returns a project's API keys. The map key of a legacy key is its id (anon,
// service_role), that of a new one its type (publishable, secret).
func (s *Server) Keys(ref string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for _, o := range s.mustFind(ref).keys {
		name := o["type"].(string)
		if name == "legacy" {
			name = o["id"].(string)
		}
		out[name] = o["api_key"].(string)
	}
	return out
}

// poolerConfig describes the transaction pooler only, as Supabase does. The session
// pooler is at the same host.
func (s *Server) poolerConfig(_ *http.Request, p *project) *answer {
	user := "postgres." + p.ref
	where := fmt.Sprintf("postgresql://%s:[YOUR-PASSWORD]@%s:%d/postgres", user, PoolerHost, s.poolers.transaction.port)
	return reply([]object{{
		"identifier": p.ref, "database_type": "PRIMARY", "is_using_scram_auth": true,
		"db_user": user, "db_host": PoolerHost, "db_port": s.poolers.transaction.port, "db_name": "postgres",
		"connection_string": where, "connectionString": where,
		"pool_mode": "transaction", "default_pool_size": nil, "max_client_conn": nil,
	}})
}
