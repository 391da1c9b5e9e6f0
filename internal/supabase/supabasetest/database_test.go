package supabasetest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// withDatabase returns a client and the ref of a healthy project, on real servers.
func withDatabase(t *testing.T) (*session, string) {
	t.Helper()
	s := connect(t, supabasetest.New(t, supabasetest.Options{}))
	p, err := s.AddProject(t.Context(), s.Organization, "Shop")
	testkit.Must(t, err)
	return s, p.Ref
}

func TestQuery(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	s.query(t, ref, `CREATE TABLE things (n bigint); INSERT INTO things VALUES (1), (2)`).want(t, 201)
	for _, tt := range []struct {
		sql        string
		parameters []any
		want       string
	}{
		{`SELECT n FROM things ORDER BY n`, nil, `[{"n":1},{"n":2}]`},
		{`SELECT n FROM things WHERE n = $1`, []any{2}, `[{"n":2}]`},
		{`SELECT $1::text AS a, $2::jsonb AS b, $3::int AS c`, []any{"it's", map[string]any{"x": []int{1}}, nil}, `[{"a":"it's","b":{"x":[1]},"c":null}]`},
		{`SELECT true AS t, 1.5::numeric AS n, ARRAY['a','b'] AS l, '2026-01-02'::date AS d`, nil, `[{"t":true,"n":"1.5","l":["a","b"],"d":"2026-01-02"}]`},
		{`DELETE FROM things WHERE n = 2`, nil, `[]`},
		{`SELECT 1 AS a; SELECT 2 AS b`, nil, `[{"b":2}]`},
		{`SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user`, nil, `[{"rolsuper":false,"rolcreaterole":true}]`},
	} {
		var got, want any
		testkit.Must(t, json.Unmarshal(s.query(t, ref, tt.sql, tt.parameters...).want(t, 201).body, &got))
		testkit.Must(t, json.Unmarshal([]byte(tt.want), &want))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", tt.sql, diff)
		}
	}
	message := s.query(t, ref, `SELECT * FROM nothing`).want(t, 400).object(t)["message"].(string)
	if !strings.HasPrefix(message, `Failed to run sql query: ERROR: 42P01: relation "nothing" does not exist`) {
		t.Errorf("message %q", message)
	}
	s.query(t, ref, `INSERT INTO things VALUES (9); SELECT 1/0`).want(t, 400)
	if r := s.query(t, ref, `SELECT count(*) AS c FROM things`); string(r.body) != `[{"c":1}]` {
		t.Errorf("half a script was carried out: %s", r.body)
	}
	readOnly := map[string]any{"query": `DELETE FROM things`, "read_only": true}
	s.do(t, http.MethodPost, "/v1/projects/"+ref+"/database/query", readOnly).want(t, 400)
	s.SetStatus(ref, "INACTIVE")
	s.query(t, ref, `SELECT 1`).want(t, 400)
}

// TestProjectsAreApart checks that projects have no access to each other, and that what a
// project has created is deleted with it.
func TestProjectsAreApart(t *testing.T) {
	t.Parallel()
	s, one := withDatabase(t)
	two := s.create(t, "Other").want(t, 201).object(t)["ref"].(string)
	s.SetStatus(two, "ACTIVE_HEALTHY")
	role := "stoa_" + one[:12]
	s.query(t, one, `CREATE ROLE `+role+` LOGIN; GRANT `+role+` TO CURRENT_USER; CREATE SCHEMA `+role+` AUTHORIZATION `+role+`; CREATE TABLE t (n int)`).want(t, 201)
	s.query(t, two, `SELECT * FROM t`).want(t, 400)
	admin, err := pgx.Connect(t.Context(), s.DatabaseURL(two))
	testkit.Must(t, err)
	defer admin.Close(t.Context()) //nolint:errcheck // no statement is pending
	testkit.Must(t, s.Remove(t.Context(), one))
	var left int
	testkit.Must(t, admin.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_database WHERE datname = 'supabase_' || $1)
		+ (SELECT count(*) FROM pg_roles WHERE rolname IN ('postgres_' || $1, $2))`, one, role).Scan(&left))
	if left != 0 {
		t.Errorf("%d of a removed project is left", left)
	}
}

// TestAPIRoles checks that the API's roles can access what postgres creates in public, as
// at Supabase, and nothing in a schema without USAGE.
func TestAPIRoles(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	s.query(t, ref, `CREATE TABLE open (n int); CREATE SCHEMA closed; CREATE TABLE closed.t (n int); GRANT SELECT ON closed.t TO anon`).want(t, 201)
	for _, role := range []string{"anon", "authenticated", "service_role"} {
		s.query(t, ref, `SET ROLE `+role+`; SELECT * FROM open`).want(t, 201)
		r := s.query(t, ref, `SET ROLE `+role+`; SELECT * FROM closed.t`).want(t, 400)
		if !strings.Contains(string(r.body), "42501") {
			t.Errorf("%s: %s", role, r.body)
		}
	}
}
