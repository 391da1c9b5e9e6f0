package provisioning

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
	"github.com/stoahq/stoa/supabase/supabasetest"
	"github.com/stoahq/stoa/tenantdb"
)

// inSupabase runs test with a replica at work beside a stand-in for Supabase
// with one project, on every master engine.
func inSupabase(t *testing.T, test func(t *testing.T, b bench, p project)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		sb := supabasetest.New(t, supabasetest.Options{})
		b := withRules(t, db, sb.Rules())
		_, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
		must(t, err)
		p := project{sb.Projects()[0], sb, nil}
		p.admin, err = pgx.Connect(t.Context(), sb.DatabaseURL(p.Ref))
		must(t, err)
		t.Cleanup(func() { _ = p.admin.Close(context.Background()) })
		test(t, b.start(t), p)
	})
}

// project is a project of the stand-in's, with a connection as the server's own
// user, who may do everything.
type project struct {
	supabasetest.Project
	sb    *supabasetest.Server
	admin *pgx.Conn
}

// credentials are those that an owner would paste for a role of the project's.
func (p project) credentials(t *testing.T, role, password string, mode tenantdb.Pooler) tenantdb.Credentials {
	t.Helper()
	c, err := p.sb.Rules().Parse(keyring.NewSecret(p.sb.ConnectionString(p.Ref, role, password, mode)))
	must(t, err)
	return c
}

func (p project) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := p.admin.Exec(t.Context(), s)
		must(t, err)
	}
}

func TestDebug(t *testing.T) {
	inSupabase(t, func(t *testing.T, b bench, p project) {
		owner, s := b.store(t)
		run := b.connect(t, owner, s.ID, p.credentials(t, "postgres", p.Password, tenantdb.TransactionPooler))
		t.Log(b.logged.String())
		b.succeeded(t, owner, run)
	})
}
