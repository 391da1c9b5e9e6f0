// Package supabasetest is a stand-in for Supabase: an HTTP server with the
// part of the Management API that the platform uses, OAuth included, and the
// two poolers. Behind it stands a real PostgreSQL, where each project is a
// database of its own. It keeps what it is told, counts calls as Supabase
// limits them, and fails in the ways that Supabase and the network may. The
// owner of the account, the people at Supabase and time are methods.
//
// All projects share one server, so roles that a project makes exist in all of
// them, and what Supabase calls the role postgres is postgres_<ref> here.
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
)

// The OAuth app that the stand-in knows.
const (
	ClientID     = "3f1c2a52-7f43-4b8e-9d0a-5a1d5c0c7e11"
	ClientSecret = "sba_standin_secret"
)

// Scopes are all that an app can be given.
var Scopes = []string{
	"organizations:read", "projects:read", "projects:write", "database:read", "database:write", "secrets:read", "secrets:write",
}

// Options change a stand-in. The zero value has the API only: projects have
// no database, and there are no poolers.
type Options struct {
	PostgresURL string // of a server whose user may do everything; projects get their databases there
	// SessionURL and TransactionURL are two PgBouncers before that server,
	// which know its roles and databases: scripts/with-servers starts such.
	SessionURL, TransactionURL string

	Listen       string        // of the API; default 127.0.0.1:0, a free port
	RedirectURIs []string      // that the app has registered; none means any
	StartTime    time.Duration // until a new or restored project is healthy; default 2 min
	Success      int           // 200 or 201: status of every answer to a POST; 0 is as documented
	DirectDomain string        // of projects' own hosts; default supabase.invalid, where nothing answers

	// State is a folder in which refs, passwords, tokens, the poolers' ports and
	// the authority are kept, so that the next run has the same; "" keeps nothing.
	// Projects' databases then stay on the server when the stand-in ends.
	State    string
	Controls bool // serve a page with buttons to pause, resume and remove projects and to revoke connections
}

// Server is a Supabase with one app.
type Server struct {
	URL          string // of the API, without a final slash
	Organization string // slug of the organisation that is there from the start
	Restored     bool   // Options.State held the state of an earlier run

	options Options
	http    *http.Server
	mux     *http.ServeMux
	poolers poolers

	handling sync.RWMutex // read-locked by each call while it is answered
	closed   bool         // under handling

	saved   savedState // of the run before
	saving  sync.Mutex
	saveErr error // under saving

	mu       sync.Mutex
	passed   time.Duration
	window   window
	scopes   []string
	codes    map[string]*code
	grants   []*grant
	orgs     []organization
	projects []*project
	calls    map[string]int // by pattern; every pattern is in it
	faults   []*fault
	lies     map[string]func(map[string]any)
}

// New starts a stand-in that ends with the test. It uses the servers that
// `make test` starts; without them the test is skipped.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	for env, option := range map[string]*string{
		tenantdbtest.PostgresEnv: &o.PostgresURL, tenantdbtest.PgBouncerSessionEnv: &o.SessionURL, tenantdbtest.PgBouncerEnv: &o.TransactionURL,
	} {
		if *option = os.Getenv(env); *option != "" {
			continue
		}
		if os.Getenv("STOA_TEST_REQUIRE_SERVERS") != "" {
			t.Fatalf("%s is not set; run the tests with scripts/with-servers", env)
		}
		t.Skipf("needs the server at %s", env)
	}
	return NewAPI(t, o)
}

// NewAPI starts a stand-in with what o names, which may be the API alone. It
// ends with the test.
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

// Start starts a stand-in. Who starts it closes it.
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
	// A page of another site cannot press the buttons.
	s.http = &http.Server{Handler: http.NewCrossOriginProtection().Handler(s.mux), ReadHeaderTimeout: 10 * time.Second}
	// A client sends a GET again by itself when a connection that it has used
	// before is cut: a fault would pass unseen.
	s.http.SetKeepAlivesEnabled(false)
	s.save()
	go s.http.Serve(listener) //nolint:errcheck // it ends with Close
	return s, nil
}

// Close ends the stand-in and removes the projects' databases, unless its state
// is kept.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := []error{s.http.Close(), s.poolers.close()}
	s.handling.Lock() // a project may just be in the making
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

// Pass lets time pass: codes and tokens expire, projects come up, the rate
// limit's window ends.
func (s *Server) Pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed += d
}

// now is called with the lock held.
func (s *Server) now() time.Time { return time.Now().Add(s.passed) }

// letters makes what Supabase uses for refs and slugs.
func letters(n int) string {
	var b strings.Builder
	for _, c := range []byte(rand.Text() + rand.Text())[:n] {
		if c <= '9' { // base 32 has 2 to 7
			c = 's' + (c - '2')
		}
		b.WriteByte(c | 0x20)
	}
	return b.String()
}
