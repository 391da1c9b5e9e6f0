package supabasetest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// press sends the request of a button, from a page of origin, or without one as curl
// does.
func press(t *testing.T, s *supabasetest.Server, path, origin string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, nil)
	testkit.Must(t, err)
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	testkit.Must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	testkit.Must(t, err)
	return res.StatusCode, string(body)
}

// TestControls checks that the buttons do what a project's owner can do at Supabase, and
// refuse invalid actions. Pages of other sites cannot use them.
func TestControls(t *testing.T) {
	t.Parallel()
	s := supabasetest.NewAPI(t, supabasetest.Options{Controls: true})
	project, err := s.AddProject(t.Context(), s.Organization, "<Shop>")
	testkit.Must(t, err)
	status := func() string { return s.Projects()[0].Status }
	path := "/dev/projects/" + project.Ref + "/"
	for _, step := range []struct {
		path, origin string
		answer       int
		then         string
	}{
		{path + "resume", "", 409, "ACTIVE_HEALTHY"},
		{path + "pause", "https://example.com", 403, "ACTIVE_HEALTHY"},
		{path + "pause", s.URL, 303, "INACTIVE"},
		{path + "pause", "", 409, "INACTIVE"},
		{path + "resume", "", 303, "RESTORING"},
		{"/dev/projects/abcdefghijklmnopqrst/pause", "", 404, "RESTORING"},
		{path + "explode", "", 404, "RESTORING"},
		{"/dev/revoke", "", 303, "RESTORING"},
	} {
		if answer, text := press(t, s, step.path, step.origin); answer != step.answer || text == "" || status() != step.then {
			t.Errorf("%s: %d %s, and then %s", step.path, answer, text, status())
		}
	}
	res, err := http.Get(s.URL + "/")
	testkit.Must(t, err)
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	testkit.Must(t, err)
	for _, want := range []string{"&lt;Shop&gt;", path + "pause", path + "resume", path + "remove", "/dev/revoke"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %s on the page: %s", want, page)
		}
	}
	if strings.Contains(string(page), project.Password) {
		t.Error("the page shows a password")
	}
	press(t, s, path+"remove", "")
	if len(s.Projects()) > 0 {
		t.Errorf("left: %+v", s.Projects())
	}
	plain := supabasetest.NewAPI(t, supabasetest.Options{})
	if answer, _ := press(t, plain, "/dev/revoke", ""); answer != http.StatusNotFound {
		t.Errorf("without controls: %d", answer)
	}
}

// TestState checks that a stand-in that is started again with the same folder has the
// same projects, with the content of their databases, the same tokens, the same authority
// and the same ports.
func TestState(t *testing.T) {
	t.Parallel()
	supabasetest.New(t, supabasetest.Options{}) // to skip the test without servers
	o := supabasetest.Options{
		State: t.TempDir(), PostgresURL: os.Getenv(tenantdbtest.PostgresEnv),
		SessionURL: os.Getenv(tenantdbtest.PgBouncerSessionEnv), TransactionURL: os.Getenv(tenantdbtest.PgBouncerEnv),
	}
	first, err := supabasetest.Start(t.Context(), o)
	testkit.Must(t, err)
	project, err := first.AddProject(t.Context(), first.Organization, "Shop")
	testkit.Must(t, err)
	client := connect(t, first)
	rules := first.Rules()
	query(t, first, project, `CREATE TABLE kept (n integer)`)
	testkit.Must(t, first.Close())

	second, err := supabasetest.Start(t.Context(), o)
	testkit.Must(t, err)
	if again := second.Projects(); len(again) != 1 || again[0] != project || second.Organization != first.Organization || !second.Restored {
		t.Errorf("known again: %+v, were %+v", again, project)
	}
	if again := second.Rules(); again != rules {
		t.Errorf("rules %+v, were %+v", again, rules)
	}
	query(t, second, project, `DROP TABLE kept`)
	client.Server = second
	client.get(t, "/v1/projects").want(t, http.StatusOK)
	testkit.Must(t, second.Close())

	// On a server that lacks the project's database, it is created again.
	tenantdbtest.Admin(t, credential.PostgreSQL, `DROP DATABASE supabase_`+project.Ref+` WITH (FORCE)`, `DROP ROLE postgres_`+project.Ref)
	third, err := supabasetest.Start(t.Context(), o)
	testkit.Must(t, err)
	t.Cleanup(func() {
		testkit.Must(t, third.Remove(context.Background(), project.Ref))
		testkit.Must(t, third.Close())
	})
	project.Empty = true
	if again := third.Projects(); len(again) != 1 || again[0] != project {
		t.Errorf("on another server: %+v", again)
	}
	query(t, third, project, `CREATE TABLE anew (n integer)`)
	info, err := os.Stat(o.State + "/state.json")
	testkit.Must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("others may read the passwords: %v", info.Mode())
	}
}

// query runs a statement in a project's database through the session pooler, with the
// owner's credentials.
func query(t *testing.T, s *supabasetest.Server, p supabasetest.Project, statement string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(s.ConnectionString(p.Ref, "postgres", p.Password, credential.SessionPooler))
	testkit.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.Rules().Roots))
	cfg.TLSConfig, cfg.Fallbacks = &tls.Config{RootCAs: roots, ServerName: supabasetest.PoolerHost, MinVersion: tls.VersionTLS12}, nil
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	testkit.Must(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // no statement is pending
	_, err = conn.Exec(t.Context(), statement)
	testkit.Must(t, err)
}
