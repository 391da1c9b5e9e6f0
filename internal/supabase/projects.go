package supabase

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/stoahq/stoa/internal/keyring"
)

// Organization is an organisation of the account.
type Organization struct {
	ID   string `json:"id"`
	Slug string `json:"slug"`
	Name string `json:"name"`
}

// Status is the status of a project.
type Status string

// The statuses of a project. There may be others.
const (
	Inactive        Status = "INACTIVE"
	ActiveHealthy   Status = "ACTIVE_HEALTHY"
	ActiveUnhealthy Status = "ACTIVE_UNHEALTHY"
	ComingUp        Status = "COMING_UP"
	GoingDown       Status = "GOING_DOWN"
	InitFailed      Status = "INIT_FAILED"
	Removed         Status = "REMOVED"
	Restoring       Status = "RESTORING"
	Upgrading       Status = "UPGRADING"
	Pausing         Status = "PAUSING"
	RestoreFailed   Status = "RESTORE_FAILED"
	Restarting      Status = "RESTARTING"
	PauseFailed     Status = "PAUSE_FAILED"
	Resizing        Status = "RESIZING"
)

// Project is an entry of a list of projects.
type Project struct {
	Ref          string `json:"ref"`
	Organization string `json:"organization_slug"`
	Name         string `json:"name"`
	Region       string `json:"region"`
	Status       Status `json:"status"`
	CreatedAt    string `json:"created_at"`
}

var refPattern = regexp.MustCompile(`^[a-z]{20}$`)

// IsRef reports whether s has the form of a project's ref.
func IsRef(s string) bool { return refPattern.MatchString(s) }

// Organizations lists the organisations that the token gives access to.
func (c *Client) Organizations(ctx context.Context, token keyring.Secret) (out []Organization, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/organizations", token: token}, &out)
	return out, err
}

// A list is read in pages, at most maxPages.
const (
	pageSize = 100
	maxPages = 20
)

// Projects lists the projects of an organisation whose name contains search.
func (c *Client) Projects(ctx context.Context, token keyring.Secret, organization, search string) ([]Project, error) {
	var all []Project
	for range maxPages {
		var page struct {
			Projects   []Project
			Pagination struct{ Count int }
		}
		query := url.Values{"offset": {strconv.Itoa(len(all))}, "limit": {strconv.Itoa(pageSize)}}
		if search != "" {
			query.Set("search", search)
		}
		path := "/v1/organizations/" + url.PathEscape(organization) + "/projects"
		if err := c.do(ctx, call{method: http.MethodGet, path: path, query: query, token: token}, &page); err != nil {
			return nil, err
		}
		for _, p := range page.Projects {
			p.Organization = cmp.Or(p.Organization, organization)
			all = append(all, p)
		}
		if len(page.Projects) == 0 || len(all) >= page.Pagination.Count {
			break
		}
	}
	return all, nil
}

// AllProjects lists the projects of all organisations that the token gives access to.
func (c *Client) AllProjects(ctx context.Context, token keyring.Secret) (out []Project, err error) {
	err = c.do(ctx, call{method: http.MethodGet, path: "/v1/projects", token: token}, &out)
	return out, err
}

// NewProject describes a project to create.
type NewProject struct {
	Name         string
	Organization string // its slug
	Region       Region
	Password     keyring.Secret // of the database's role postgres
}

// CreateProject creates a project. After an error without an Answer it is unknown
// whether the project exists: look for its name before the next call.
func (c *Client) CreateProject(ctx context.Context, token keyring.Secret, p NewProject) (out Project, err error) {
	type region struct {
		Type string `json:"type"`
		Code string `json:"code"`
	}
	body := struct {
		Name         string `json:"name"`
		Organization string `json:"organization_slug"`
		Password     string `json:"db_pass"`
		Region       region `json:"region_selection"`
	}{
		Name: p.Name, Organization: p.Organization, Password: p.Password.Reveal(),
		Region: region{Type: p.Region.kind(), Code: p.Region.Code},
	}
	if err := c.do(ctx, call{method: http.MethodPost, path: "/v1/projects", token: token, json: body}, &out); err != nil {
		return Project{}, withoutSecret(err, p.Password)
	}
	if !IsRef(out.Ref) {
		return Project{}, unavailable(errors.New("an answer without a project"))
	}
	return out, nil
}

// Health is the health of one service of a project.
type Health struct {
	Name   string `json:"name"`
	Status string `json:"status"` // COMING_UP, ACTIVE_HEALTHY or UNHEALTHY
}

// Health returns the health of a project's database and pooler.
func (c *Client) Health(ctx context.Context, token keyring.Secret, ref string) (out []Health, err error) {
	query := url.Values{"services": {"db", "pooler"}}
	err = c.do(ctx, call{method: http.MethodGet, project: true, path: projectPath(ref, "/health"), query: query, token: token}, &out)
	return out, err
}

// Key is one of a project's API keys.
type Key struct {
	ID     string         `json:"id"`
	Name   string         `json:"name"`
	Type   string         `json:"type"` // legacy, publishable or secret
	Secret keyring.Secret `json:"api_key"`
}

// Keys returns the project's API keys in plain text. The token needs the scope secrets:read.
func (c *Client) Keys(ctx context.Context, token keyring.Secret, ref string) (out []Key, err error) {
	query := url.Values{"reveal": {"true"}}
	err = c.do(ctx, call{method: http.MethodGet, project: true, path: projectPath(ref, "/api-keys"), query: query, token: token, quiet: true}, &out)
	return out, err
}

// Pooler is the address of one database of a project through the poolers.
type Pooler struct {
	Type     string `json:"database_type"` // PRIMARY or READ_REPLICA
	User     string `json:"db_user"`       // <role>.<ref>
	Host     string `json:"db_host"`
	Database string `json:"db_name"`
}

// Poolers returns the project's pooler configuration.
func (c *Client) Poolers(ctx context.Context, token keyring.Secret, ref string) (out []Pooler, err error) {
	err = c.do(ctx, call{method: http.MethodGet, project: true, path: projectPath(ref, "/config/database/pooler"), token: token}, &out)
	return out, err
}

// Query runs one statement in the project's database, as its role postgres. An error
// contains the SQLSTATE at most.
func (c *Client) Query(ctx context.Context, token keyring.Secret, ref, statement string) error {
	body := struct {
		Query string `json:"query"`
	}{Query: statement}
	return c.do(ctx, call{method: http.MethodPost, project: true, path: projectPath(ref, "/database/query"), token: token, json: body, quiet: true}, nil)
}

func projectPath(ref, rest string) string { return "/v1/projects/" + url.PathEscape(ref) + rest }

// statePattern finds the SQLSTATE in the message of a failed query: "Failed to run sql query: ERROR: 42P01: …".
var statePattern = regexp.MustCompile(`^Failed to run sql query: [A-Z]+: +([0-9A-Z]{5}):`)

func sqlState(message string) string {
	if m := statePattern.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return ""
}
