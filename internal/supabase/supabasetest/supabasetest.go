// Package supabasetest is a stand-in for Supabase: an HTTP server with the part of the
// Management API that the platform uses, OAuth included, and the two poolers. It uses a
// real PostgreSQL server, on which each project is a database of its own. It stores what
// it is sent, enforces Supabase's rate limit, and can fail as Supabase and the network
// can. Methods of Server take the actions of the account's owner and of Supabase's staff,
// and advance the clock.
//
// All projects share one PostgreSQL server. So roles that a project creates exist in all
// projects, and the role that Supabase calls postgres is postgres_<ref> here.
package supabasetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// The OAuth app that is registered at the stand-in.
const (
	ClientID     = "3f1c2a52-7f43-4b8e-9d0a-5a1d5c0c7e11"
	ClientSecret = "sba_standin_secret"
)

// Scopes are all scopes that an app can have.
var Scopes = []string{
	"organizations:read", "projects:read", "projects:write", "database:read", "database:write", "secrets:read", "secrets:write",
}

// Options configure a stand-in. The zero value starts the API only: projects have no
// database, and there are no poolers.
type Options struct {
	PostgresURL string // of a server whose user is a superuser; projects get their databases there
	// SessionURL and TransactionURL are two PgBouncers in front of that server that know
	// its roles and databases. scripts/with-servers starts them.
	SessionURL, TransactionURL string

	Listen       string        // of the API; default 127.0.0.1:0, which selects a free port
	RedirectURIs []string      // the URIs that the app has registered; nil accepts any
	StartTime    time.Duration // until a new or restored project is healthy; default 2 min
	Success      int           // 200 or 201: the status of every answer to a POST; 0 means the documented status
	DirectDomain string        // of the projects' own hosts; default supabase.invalid, where no server answers

	// State is a folder in which refs, passwords, tokens, the poolers' ports and the
	// authority are stored, so that the next run has the same ones. "" stores nothing.
	// With State set, the projects' databases stay on the server when the stand-in ends.
	State    string
	Controls bool // serve a page with buttons to pause, resume and remove projects and to revoke grants
}

// Server is a stand-in for Supabase with one app.
type Server struct {
	URL          string // of the API, without a trailing slash
	Organization string // slug of the initial organisation
	Restored     bool   // Options.State contained the state of an earlier run

	options Options
	http    *http.Server
	mux     *http.ServeMux
	poolers poolers

	handling sync.RWMutex // read-locked by each call while it is answered
	closed   bool         // guarded by handling

	saved   savedState // of the previous run
	saving  sync.Mutex
	saveErr error // guarded by saving

	mu       sync.Mutex
	passed   time.Duration
	window   window
	scopes   []string
	codes    map[string]*code
	grants   []*grant
	orgs     []organization
	projects []*project
	calls    map[string]int // by pattern; contains every pattern
	faults   []*fault
	lies     map[string]func(map[string]any)
}

// New starts a stand-in that is closed when the test ends. It uses the servers that `make
// test` starts. Without them the test is skipped.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	for env, option := range map[string]*string{
		tenantdbtest.PostgresEnv: &o.PostgresURL, tenantdbtest.PgBouncerSessionEnv: &o.SessionURL, tenantdbtest.PgBouncerEnv: &o.TransactionURL,
	} {
		if *option = os.Getenv(env); *option != "" {
			continue
		}
		testkit.Unavailable(t, fmt.Sprintf("%s is not set; run the tests with scripts/with-servers", env))
	}
	return NewAPI(t, o)
}

// NewAPI starts a stand-in with the options o, which may be the API alone. It is closed
// when the test ends.
func NewAPI(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Start starts a stand-in. The caller closes it.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.StartTime == 0 {
		o.StartTime = 2 * time.Minute
	}
	if o.DirectDomain == "" {
		o.DirectDomain = "supabase.invalid"
	}
	if o.PostgresURL != "" && (o.SessionURL == "" || o.TransactionURL == "") {
		return nil, errors.New("the stand-in needs PgBouncer in session and in transaction mode before PostgreSQL; run it under scripts/with-servers, which installs and starts all")
	}
	s := &Server{
		options: o, mux: http.NewServeMux(), scopes: Scopes, codes: map[string]*code{},
		calls: map[string]int{}, lies: map[string]func(map[string]any){}, window: window{limit: 120},
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	if !s.Restored {
		s.Organization = s.AddOrganization("Demo")
	}
	s.oauthRoutes()
	s.projectRoutes()
	if o.Controls {
		s.controlRoutes()
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if err := s.restoreDatabases(ctx); err != nil {
		return nil, errors.Join(err, s.poolers.close())
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, errors.Join(err, s.poolers.close())
	}
	s.URL = "http://" + listener.Addr().String()
	// Requests from pages of other sites are refused, so that they cannot use the
	// buttons.
	s.http = &http.Server{Handler: http.NewCrossOriginProtection().Handler(s.mux), ReadHeaderTimeout: 10 * time.Second}
	// A client repeats a GET by itself when a reused connection is closed. A fault would
	// then go unnoticed.
	s.http.SetKeepAlivesEnabled(false)
	s.save()
	go s.http.Serve(listener) //nolint:errcheck // Serve returns after Close
	return s, nil
}

// Close ends the stand-in and drops the projects' databases, unless its state is stored.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := []error{s.http.Close(), s.poolers.close()}
	s.handling.Lock() // a call may be creating a project
	s.closed = true
	s.handling.Unlock()
	if s.options.State != "" {
		s.save()
		return errors.Join(append(errs, s.saveErr)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.projects {
		if err := s.dropDatabase(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("project %s: %w", p.ref, err))
		}
	}
	s.projects = nil
	return errors.Join(errs...)
}

// Pass advances the clock by d: codes and tokens expire, projects become healthy, the
// rate limit's window ends.
func (s *Server) Pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed += d
}

// now returns the time of the stand-in. The caller holds the lock.
func (s *Server) now() time.Time { return time.Now().Add(s.passed) }

// letters returns n random lower-case letters, the form of Supabase's refs and slugs.
func letters(n int) string {
	var b strings.Builder
	for _, c := range []byte(rand.Text() + rand.Text())[:n] {
		if c <= '9' { // base 32 uses the digits 2 to 7
			c = 's' + (c - '2')
		}
		b.WriteByte(c | 0x20)
	}
	return b.String()
}
