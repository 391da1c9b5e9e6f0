package supabasetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// stateFile and rootsFile are files in the folder Options.State.
const (
	stateFile = "state.json"
	rootsFile = "ca.pem"
)

// savedState is the state that a stand-in restores when it starts. Codes, faults and the
// time added by Pass are not saved.
type savedState struct {
	Organization  string // slug of the first organisation
	Organizations []organization
	Projects      []savedProject
	Grants        []savedGrant
	Identity      identity
	SessionPort   int
	TransactPort  int
}

type savedProject struct {
	Ref, Organization, Name, Region, Password, State string
	Created, Since                                   time.Time
	Keys                                             []object
}

type savedGrant struct {
	Organization, Access, Refresh string
	Expires                       time.Time
}

// load reads the state of the last run, if there is a folder and a state in it.
func (s *Server) load() error {
	if s.options.State == "" {
		return nil
	}
	if err := os.MkdirAll(s.options.State, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.options.State, stateFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &s.saved); err != nil {
		return fmt.Errorf("%s cannot be read; remove it to begin anew: %w", path, err)
	}
	s.Restored, s.Organization, s.orgs = true, s.saved.Organization, s.saved.Organizations
	for _, p := range s.saved.Projects {
		s.projects = append(s.projects, &project{
			ref: p.Ref, org: p.Organization, name: p.Name, region: p.Region, password: p.Password,
			created: p.Created, keys: p.Keys, state: p.State, since: p.Since,
		})
	}
	for _, g := range s.saved.Grants {
		s.grants = append(s.grants, &grant{org: g.Organization, access: g.Access, refresh: g.Refresh, expires: g.Expires})
	}
	return nil
}

// restoreDatabases creates the databases that are missing on the PostgreSQL server, such
// as when it is another server than in the last run.
func (s *Server) restoreDatabases(ctx context.Context) error {
	if s.options.PostgresURL == "" {
		return nil
	}
	for _, p := range s.projects {
		if err := s.restoreDatabase(ctx, p); err != nil {
			return fmt.Errorf("project %s: %w", p.ref, err)
		}
	}
	return nil
}

func (s *Server) restoreDatabase(ctx context.Context, p *project) error {
	conn, err := s.connect(ctx, "", "", "", false)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // no statement is pending
	var database, role bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1), EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $2)`,
		p.database(), p.owner()).Scan(&database, &role)
	if err != nil || database && role {
		return err
	}
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + p.database() + " WITH (FORCE)", "DROP ROLE IF EXISTS " + p.owner()} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	p.empty = true
	return s.makeDatabase(ctx, p)
}

// save writes the state, if there is a folder for it. Close returns the error of the last
// write.
func (s *Server) save() {
	if s.options.State == "" {
		return
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	s.saveErr = s.replace(s.snapshot())
}

func (s *Server) snapshot() savedState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := savedState{
		Organization: s.Organization, Organizations: s.orgs, Identity: s.poolers.identity,
		SessionPort: s.poolers.session.port, TransactPort: s.poolers.transaction.port,
	}
	for _, p := range s.projects {
		state.Projects = append(state.Projects, savedProject{
			Ref: p.ref, Organization: p.org, Name: p.name, Region: p.region, Password: p.password, State: p.state,
			Created: p.created, Since: p.since, Keys: p.keys,
		})
	}
	for _, g := range s.grants {
		state.Grants = append(state.Grants, savedGrant{Organization: g.org, Access: g.access, Refresh: g.refresh, Expires: g.expires})
	}
	return state
}

// replace replaces each file atomically.
func (s *Server) replace(state savedState) error {
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{stateFile: text, rootsFile: []byte(state.Identity.Roots)} {
		path := filepath.Join(s.options.State, name)
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// RootsFile returns the path of the authority's certificate, or "" without a folder.
func (s *Server) RootsFile() string {
	if s.options.State == "" {
		return ""
	}
	return filepath.Join(s.options.State, rootsFile)
}
