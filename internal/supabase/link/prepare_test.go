package link

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

const (
	createCall = "POST /v1/projects"
	queryCall  = "POST /v1/projects/{ref}/database/query"
	poolerCall = "GET /v1/projects/{ref}/config/database/pooler"
	healthCall = "GET /v1/projects/{ref}/health"
	listCall   = "GET /v1/organizations/{slug}/projects"
	keysCall   = "GET /v1/projects/{ref}/api-keys"
)

// plan records a choice for the store.
func (b fixture) plan(t *testing.T, store stoa.StoreID, c Choice) {
	t.Helper()
	testkit.Must(t, b.Check(t.Context(), store, c))
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.Plan(t.Context(), tx, store, c) }))
}

func (b fixture) fresh() Choice {
	return Choice{Organization: b.sb.Organization, Region: "emea", Name: "bakery"}
}

// reporter is a function that implements WaitReporter.
type reporter func(cause error) error

func (r reporter) ReportWait(_ context.Context, cause error) error { return r(cause) }

// prepare executes the store's plan.
func (b fixture) prepare(t *testing.T, store stoa.StoreID) (credential.Credentials, error) {
	t.Helper()
	return b.Prepare(t.Context(), store, reporter(func(error) error { return nil }))
}

// project adds an existing project to the account.
func (b fixture) project(t *testing.T) supabasetest.Project {
	t.Helper()
	p, err := b.sb.AddProject(t.Context(), b.sb.Organization, "Shop")
	testkit.Must(t, err)
	return p
}

// opens checks that the credentials open the store's own, empty schema.
func (b fixture) opens(t *testing.T, store stoa.StoreID, c credential.Credentials) {
	t.Helper()
	db, err := b.tenants.OpenUnleased(c)
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // no statement is pending
	var schema string
	testkit.Must(t, db.Get(t.Context(), &schema, `SELECT current_setting('search_path')`))
	in, err := db.Inspect(t.Context())
	testkit.Must(t, err)
	if schema != tenantdb.SupabaseRole(store) || !in.MayCreate || len(in.Tables) > 0 {
		t.Errorf("in schema %s: %+v", schema, in)
	}
}

// TestPrepareNew checks that a project is created with the store's marker, and that
// Prepare waits until it is ready.
func TestPrepareNew(t *testing.T) {
	t.Parallel()
	eachWhole(t, func(t *testing.T, b fixture) {
		_, store := b.connected(t)
		b.plan(t, store, b.fresh())
		var waited []stoa.Code
		c, err := b.Prepare(t.Context(), store, reporter(func(why error) error {
			waited = append(waited, stoa.CodeOf(why))
			b.sb.Pass(time.Hour / 2)
			return nil
		}))
		testkit.Must(t, err)
		b.opens(t, store, c)
		made := b.sb.Projects()
		if len(made) != 1 || made[0].Name != "bakery"+marker(store) || len(made[0].Password) < 40 {
			t.Errorf("made %+v", made)
		}
		if len(waited) != 1 || waited[0] != stoa.SupabaseProjectStarting {
			t.Errorf("waited for %v", waited)
		}
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return CompletePlan(t.Context(), tx, store) }))
		if _, err := b.prepare(t, store); stoa.CodeOf(err) != stoa.NotFound {
			t.Errorf("a plan that is carried out: %v", err)
		}
		for _, secret := range []string{c.Password.Reveal(), made[0].Password, c.AnonKey.Reveal()} {
			if strings.Contains(b.logged.String(), secret) {
				t.Error("a secret is in the log")
			}
		}
	})
}

// TestPrepareLostAnswer checks that exactly one project exists in the end, whether or not
// the project was created before the answer was lost.
func TestPrepareLostAnswer(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		b.opts.ReadyTimeout = 3 * time.Second
		for _, f := range []supabasetest.Fault{
			supabasetest.CutAfter, supabasetest.BrokenAfter, supabasetest.Cut, supabasetest.Broken,
		} {
			_, store := b.connected(t)
			b.plan(t, store, b.fresh())
			b.sb.Break(createCall, f)
			b.sb.Break(listCall, supabasetest.Cut, supabasetest.Broken)
			plan, err := b.readPlan(t.Context(), store)
			testkit.Must(t, err)
			w := b.preparation(store, plan)
			testkit.Must(t, w.makeProject(t.Context()))
			b.wantOne(t, store, *w.plan.Ref)
		}
	})
}

func (b fixture) preparation(store stoa.StoreID, p plan) *preparation {
	return &preparation{
		Service: b.Service, store: store, plan: p, reporter: reporter(func(error) error { return nil }),
		until: time.Now().Add(b.opts.ReadyTimeout), pause: b.opts.Poll,
	}
}

// wantOne requires that exactly one project has the store's marker, and that it is
// recorded.
func (b fixture) wantOne(t *testing.T, store stoa.StoreID, ref string) {
	t.Helper()
	found := 0
	for _, p := range b.sb.Projects() {
		if strings.HasSuffix(p.Name, marker(store)) {
			found++
			if p.Ref != ref {
				t.Errorf("%s is on record, %s was made", ref, p.Ref)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d projects were made", found)
	}
	plan, err := b.readPlan(t.Context(), store)
	testkit.Must(t, err)
	if plan.Ref == nil || *plan.Ref != ref || plan.RequestedAt != nil {
		t.Errorf("on record: %+v", plan)
	}
}

// TestPrepareKilled ends the process between any two of its calls. The next process finds
// what exists and completes it.
func TestPrepareKilled(t *testing.T) {
	t.Parallel()
	eachWhole(t, func(t *testing.T, b fixture) {
		_, store := b.connected(t)
		b.plan(t, store, b.fresh())
		for _, call := range []string{createCall, healthCall, poolerCall, queryCall, keysCall} {
			asked, release := b.sb.Delay(call)
			ctx, kill := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := b.Prepare(ctx, store, reporter(func(error) error { return nil }))
				done <- err
			}()
			select {
			case <-asked: // done at Supabase, and not recorded here
			case err := <-done:
				t.Fatalf("%s: %v", call, err)
			}
			kill()
			release()
			// The keys are optional, and the answer to the query may arrive before the
			// end is noticed.
			if err := <-done; call != keysCall && call != queryCall && err == nil {
				t.Errorf("killed at %s: %v", call, err)
			}
			b.sb.Pass(time.Minute)
		}
		c, err := b.prepare(t, store)
		testkit.Must(t, err)
		b.opens(t, store, c)
		b.wantOne(t, store, b.tenants.ProjectRef(c))
		again, err := b.prepare(t, store) // before CompletePlan
		testkit.Must(t, err)
		if again.Password != c.Password {
			t.Error("another password")
		}
		b.opens(t, store, again)
	})
}

// TestPrepareBusy checks that Prepare waits when the rate limit is exhausted, and makes
// no call meanwhile.
func TestPrepareBusy(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.connected(t)
		project := b.project(t)
		b.sb.SetRateLimit(1)
		b.plan(t, store, Choice{Ref: project.Ref})
		_, err := b.prepare(t, store) // the limit lasts for a minute, longer than this test waits
		wantCode(t, err, stoa.RateLimited)
		var known *stoa.Error
		if !errors.As(err, &known) || known.RetryAfter < 30*time.Second || known.RetryAfter > 2*time.Minute {
			t.Errorf("try again after %v", known.RetryAfter)
		}
		before := b.sb.Count(healthCall) + b.sb.Count("GET /v1/organizations")
		_, err = b.Organizations(t.Context(), p, store)
		wantCode(t, err, stoa.RateLimited)
		if n := b.sb.Count(healthCall) + b.sb.Count("GET /v1/organizations"); n != before {
			t.Errorf("%d calls in vain", n-before)
		}
		_, err = b.Projects(t.Context(), p, store, "") // from the cache
		testkit.Must(t, err)
	})
}

// TestPrepareDoomed checks that the wait ends at once for a project that cannot become
// ready.
func TestPrepareDoomed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		for status, want := range map[string]stoa.Code{
			"INIT_FAILED": stoa.SupabaseProjectFailed, "RESTORE_FAILED": stoa.SupabaseProjectFailed, "INACTIVE": stoa.SupabaseProjectPaused,
			"PAUSING": stoa.SupabaseProjectPaused, "GOING_DOWN": stoa.SupabaseProjectRemoved, "REMOVED": stoa.SupabaseProjectRemoved,
		} {
			_, store := b.connected(t)
			b.plan(t, store, b.fresh())
			plan, err := b.readPlan(t.Context(), store)
			testkit.Must(t, err)
			w := b.preparation(store, plan)
			testkit.Must(t, w.makeProject(t.Context()))
			b.sb.SetStatus(*w.plan.Ref, status)
			_, err = b.prepare(t, store)
			wantCode(t, err, want)
		}
		// The creation is refused, and no request is recorded as in progress.
		_, store := b.connected(t)
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			return b.Plan(t.Context(), tx, store, Choice{Organization: "somebody-elses", Region: "emea", Name: "x"})
		}))
		if _, err := b.prepare(t, store); stoa.CodeOf(err) != stoa.SupabaseRefused || !strings.Contains(err.Error(), b.sb.Organization) {
			t.Errorf("somebody else's organisation: %v", err)
		}
	})
}

// TestPrepareForeignPooler checks that nothing is sent to a server that is not Supabase's
// or not the project's, whatever the answer contains.
func TestPrepareForeignPooler(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		project := b.project(t)
		for name, alter := range map[string]func(map[string]any){
			"host":    func(o map[string]any) { o["db_host"] = "pooler.supabase.com.example.com" },
			"address": func(o map[string]any) { o["db_host"] = "169.254.169.254" },
			"nothing": func(o map[string]any) { o["db_host"] = "" },
			"suffix":  func(o map[string]any) { o["db_user"] = "postgres." + strings.Repeat("z", 20) },
			"longer":  func(o map[string]any) { o["db_user"] = "postgres.a" + project.Ref },
			"replica": func(o map[string]any) { o["database_type"] = "READ_REPLICA" },
		} {
			_, store := b.connected(t)
			b.plan(t, store, Choice{Ref: project.Ref})
			b.sb.Alter(poolerCall, alter)
			_, err := b.prepare(t, store)
			if code := stoa.CodeOf(err); code != stoa.DatabaseHostForbidden && (name != "replica" || code != stoa.SupabaseProjectFailed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := b.sb.Count(queryCall); n != 0 {
			t.Errorf("%d roles were made", n)
		}
	})
}

// TestRoleIsAlone checks that no other role has access to the store's schema, and that
// the store's role has access to no other schema, even if the project's default
// privileges grant everything to everybody.
func TestRoleIsAlone(t *testing.T) {
	t.Parallel()
	eachWhole(t, func(t *testing.T, b fixture) {
		project := b.project(t)
		admin, err := pgx.Connect(t.Context(), b.sb.DatabaseURL(project.Ref))
		testkit.Must(t, err)
		defer admin.Close(context.Background()) //nolint:errcheck // no statement is pending
		owner := "postgres_" + project.Ref
		for _, statement := range []string{
			`CREATE TABLE public.secrets (word text)`, `CREATE SCHEMA private`, `CREATE TABLE private.secrets (word text)`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE ` + owner + ` GRANT ALL ON SCHEMAS TO anon, PUBLIC`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE ` + owner + ` GRANT ALL ON TABLES TO anon, PUBLIC`,
		} {
			_, err := admin.Exec(t.Context(), statement)
			testkit.Must(t, err)
		}
		_, store := b.connected(t)
		role := tenantdb.SupabaseRole(store)
		b.plan(t, store, Choice{Ref: project.Ref})
		// The schema existed before and is open to all roles.
		plan, err := b.readPlan(t.Context(), store)
		testkit.Must(t, err)
		w := b.preparation(store, plan)
		testkit.Must(t, w.makeRole(t.Context(), project.Ref, role, keyring.NewSecret(rand.Text())))
		_, err = admin.Exec(t.Context(), `GRANT ALL ON SCHEMA `+role+` TO anon, authenticated, PUBLIC`)
		testkit.Must(t, err)
		c, err := b.prepare(t, store)
		testkit.Must(t, err)

		db, err := b.tenants.OpenUnleased(c)
		testkit.Must(t, err)
		defer db.Close() //nolint:errcheck // no statement is pending
		_, err = db.MigrateTo(t.Context(), tenantdb.MigrateOptions{})
		testkit.Must(t, err)
		for _, who := range []string{"anon", "authenticated", "service_role"} {
			for _, statement := range []string{`SELECT * FROM ` + role + `.users`, `SELECT * FROM ` + role + `.goose_db_version`, `CREATE TABLE ` + role + `.mine (x text)`} {
				err := asRole(t, admin, who, statement)
				if err == nil || !strings.Contains(err.Error(), "42501") && !strings.Contains(err.Error(), "42P01") {
					t.Errorf("%s: %s: %v", who, statement, err)
				}
			}
		}
		for _, statement := range []string{
			`SELECT * FROM public.secrets`, `SELECT * FROM private.secrets`, `CREATE ROLE stoa_more`, `CREATE DATABASE stoa_more`,
			`CREATE SCHEMA stoa_more`, `SET ROLE ` + owner, `ALTER ROLE ` + owner + ` PASSWORD 'x'`,
		} {
			if _, err := db.Exec(t.Context(), statement); err == nil {
				t.Errorf("the store may %s", statement)
			}
		}
	})
}

func asRole(t *testing.T, conn *pgx.Conn, role, statement string) error {
	t.Helper()
	_, err := conn.Exec(t.Context(), "SET ROLE "+role)
	testkit.Must(t, err)
	_, failed := conn.Exec(t.Context(), statement)
	_, err = conn.Exec(t.Context(), "RESET ROLE")
	testkit.Must(t, err)
	return failed
}

// TestProjectFault checks that the state of the project explains why a database is down.
func TestProjectFault(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		_, store := b.connected(t)
		project := b.project(t)
		ctx, unreachable := t.Context(), stoa.Errorf(stoa.DatabaseUnreachable, "It does not answer.")
		testkit.Must(t, b.ProjectFault(ctx, store, nil)) // the store is in no project
		testkit.Must(t, b.db.Tx(ctx, func(tx *masterdb.Tx) error { return RecordProject(ctx, tx, store, project.Ref) }))
		for _, c := range []struct {
			status string
			want   stoa.Code
		}{
			{"ACTIVE_HEALTHY", ""}, {"INACTIVE", stoa.SupabaseProjectPaused}, {"RESTORING", stoa.SupabaseProjectStarting},
			{"SOMETHING_NEW", ""}, {"INIT_FAILED", stoa.SupabaseProjectFailed},
		} {
			b.sb.SetStatus(project.Ref, c.status)
			b.forget(store)
			before := b.sb.Count("GET /v1/projects")
			for range 3 {
				if got := stoa.CodeOf(b.ProjectFault(ctx, store, nil)); got != c.want {
					t.Errorf("%s: %q, want %q", c.status, got, c.want)
				}
			}
			if n := b.sb.Count("GET /v1/projects") - before; n != 1 {
				t.Errorf("asked %d times", n)
			}
		}
		testkit.Must(t, b.sb.Remove(ctx, project.Ref))
		b.forget(store)
		wantCode(t, b.ProjectFault(ctx, store, nil), stoa.SupabaseProjectRemoved)
		b.forget(store)
		b.sb.Break("GET /v1/projects", supabasetest.Broken)
		testkit.Must(t, b.ProjectFault(ctx, store, unreachable)) // Supabase does not answer
		b.sb.RevokeAll()
		wantCode(t, b.ProjectFault(ctx, store, unreachable), stoa.SupabaseProjectUnknown)
		testkit.Must(t, b.ProjectFault(ctx, store, stoa.Errorf(stoa.DatabaseAuthFailed, "no"))) // the state paused does not explain this fault
		_, never := b.store(t)
		testkit.Must(t, b.db.Tx(ctx, func(tx *masterdb.Tx) error { return RecordProject(ctx, tx, never, project.Ref) }))
		wantCode(t, b.ProjectFault(ctx, never, unreachable), stoa.SupabaseProjectUnknown)
	})
}
