package link

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMistypedOrganization checks that an organisation that the account does not have is
// reported by name before a run starts, with a list of those that it has. While Supabase
// does not answer, the run detects it.
func TestMistypedOrganization(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		_, store := b.connected(t)
		choice := b.fresh()
		testkit.Must(t, b.Check(t.Context(), store, choice))
		for _, slug := range []string{choice.Organization + "s", "Demo", strings.ToUpper(choice.Organization)} {
			err := b.Check(t.Context(), store, Choice{Organization: slug, Region: "emea", Name: "bakery"})
			wantCode(t, err, stoa.InvalidRequest)
			var known *stoa.Error
			if !errors.As(err, &known) || len(known.Fields) != 1 || known.Fields[0].Field != "organization" ||
				!strings.Contains(known.Fields[0].Message, choice.Organization) || !strings.Contains(known.Fields[0].Message, "Demo") {
				t.Errorf("%s: %+v", slug, known)
			}
		}
		project := b.project(t)
		b.forget(store)
		err := b.Check(t.Context(), store, Choice{Ref: strings.Repeat("a", 20)})
		wantCode(t, err, stoa.InvalidRequest)
		var known *stoa.Error
		if !errors.As(err, &known) || len(known.Fields) != 1 || !strings.Contains(known.Fields[0].Message, project.Ref) {
			t.Errorf("a mistyped project: %+v", known)
		}
		b.sb.Break("GET /v1/organizations", supabasetest.Busy)
		testkit.Must(t, b.Check(t.Context(), store, Choice{Organization: "nobodys", Region: "emea", Name: "bakery"}))
	})
}

// TestMissingScope checks that a scope that the platform's application lacks is named,
// and is not reported as a deleted project.
func TestMissingScope(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.connected(t)
		project := b.project(t)
		b.plan(t, store, Choice{Ref: project.Ref})
		plan, err := b.readPlan(t.Context(), store)
		testkit.Must(t, err)
		w := b.preparation(store, plan)
		for scope, call := range map[string]func() error{
			"organizations:read": func() error { _, err := b.Organizations(t.Context(), p, store); return err },
			"projects:read":      func() error { _, err := b.Projects(t.Context(), p, store, ""); return err },
			"database:read":      func() error { _, err := w.pooler(t.Context(), project.Ref); return err },
		} {
			b.forget(store)
			b.sb.SetScopes(slices.DeleteFunc(slices.Clone(supabasetest.Scopes), func(s string) bool { return s == scope })...)
			err := call()
			if stoa.CodeOf(err) != stoa.SupabaseRefused || !strings.Contains(err.Error(), scope) {
				t.Errorf("without %s: %v", scope, err)
			}
			b.sb.SetScopes(supabasetest.Scopes...)
		}
		testkit.Must(t, b.sb.Remove(t.Context(), project.Ref))
		_, err = w.pooler(t.Context(), project.Ref)
		wantCode(t, err, stoa.SupabaseProjectRemoved)
	})
}

// TestRoleFault checks the reason for which the statement that creates the store's role
// failed.
func TestRoleFault(t *testing.T) {
	t.Parallel()
	eachWhole(t, func(t *testing.T, b fixture) {
		project := b.project(t)
		work := func() (*preparation, string) {
			_, store := b.connected(t)
			b.plan(t, store, Choice{Ref: project.Ref})
			plan, err := b.readPlan(t.Context(), store)
			testkit.Must(t, err)
			return b.preparation(store, plan), tenantdb.SupabaseRole(store)
		}
		password := credential.NewPassword()
		w, role := work()
		b.sb.SetStatus(project.Ref, "INACTIVE")
		wantCode(t, w.makeRole(t.Context(), project.Ref, role, password), stoa.SupabaseProjectPaused)
		b.sb.SetStatus(project.Ref, "ACTIVE_HEALTHY")
		admin, err := pgx.Connect(t.Context(), b.sb.DatabaseURL(project.Ref))
		testkit.Must(t, err)
		defer admin.Close(context.Background()) //nolint:errcheck // no statement is pending
		for _, c := range []struct {
			before, after string
			want          stoa.Code
		}{
			{`ALTER ROLE @ SET default_transaction_read_only = on`, `ALTER ROLE @ RESET default_transaction_read_only`, stoa.DatabaseUnreachable},
			{`ALTER ROLE @ NOCREATEROLE`, `ALTER ROLE @ CREATEROLE`, stoa.DatabasePermissionDenied},
			{`ALTER ROLE @ SET statement_timeout = 1`, `ALTER ROLE @ RESET statement_timeout`, stoa.DatabaseUnreachable},
		} {
			w, role := work()
			exec := func(statement string) {
				_, err := admin.Exec(t.Context(), strings.ReplaceAll(statement, "@", "postgres_"+project.Ref))
				testkit.Must(t, err)
			}
			if strings.Contains(c.before, "timeout") { // the statement waits for a lock that the test holds
				exec(`SELECT pg_advisory_lock(hashtext('` + role + `'))`)
			}
			exec(c.before)
			err := w.makeRole(t.Context(), project.Ref, role, password)
			if code := stoa.CodeOf(err); code != c.want {
				t.Errorf("%s: %v, want %s", c.before, err, c.want)
			}
			exec(c.after)
			exec(`SELECT pg_advisory_unlock_all()`)
		}
		testkit.Must(t, b.sb.Remove(t.Context(), project.Ref))
		wantCode(t, w.makeRole(t.Context(), project.Ref, role, password), stoa.SupabaseProjectRemoved)
	})
}
