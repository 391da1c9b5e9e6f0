// Command supabase-dev runs the stand-in for Supabase for a platform in development.
// `make supabase-dev` starts the servers that it needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

type cli struct {
	Listen    string        `default:"127.0.0.1:54321" help:"Address of the stand-in's API." placeholder:"HOST:PORT"`
	State     string        `help:"Folder in which refs, passwords, tokens, ports and the authority are kept for the next run; the projects' databases then stay on the server. Unless told, everything is new each time." placeholder:"DIR" type:"path"`
	StartTime time.Duration `default:"15s" help:"How long a new project takes until it is healthy." placeholder:"TIME"`

	Postgres    string `env:"STOA_TEST_POSTGRES_URL" required:"" help:"PostgreSQL whose user may do everything. Projects get their databases there, which go when the stand-in ends." placeholder:"URL"`
	Session     string `env:"STOA_TEST_PGBOUNCER_SESSION_URL" required:"" help:"PgBouncer in session mode before it." placeholder:"URL"`
	Transaction string `env:"STOA_TEST_PGBOUNCER_URL" required:"" help:"PgBouncer in transaction mode before it." placeholder:"URL"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	kctx := kong.Parse(&c, kong.Name("supabase-dev"),
		kong.Description("A Supabase on this machine, to try connections with. 'make supabase-dev' starts the servers it needs."))
	kctx.FatalIfErrorf(c.run(ctx, os.Stdout))
}

// run serves until ctx ends.
func (c *cli) run(ctx context.Context, out io.Writer) (err error) {
	s, err := supabasetest.Start(ctx, supabasetest.Options{
		PostgresURL: c.Postgres, SessionURL: c.Session, TransactionURL: c.Transaction,
		Listen: c.Listen, StartTime: c.StartTime, State: c.State, Controls: true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	roots := s.RootsFile()
	if roots == "" {
		dir, mkErr := os.MkdirTemp("", "supabase-dev-")
		if mkErr != nil {
			return mkErr
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		roots = filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(roots, []byte(s.Rules().Roots), 0o600); err != nil {
			return err
		}
	}
	if !s.Restored {
		if err := furnish(ctx, s); err != nil {
			return err
		}
	}
	fmt.Fprint(out, instructions(s, roots))
	<-ctx.Done()
	return nil
}

// furnish adds example projects to the account.
func furnish(ctx context.Context, s *supabasetest.Server) error {
	if _, err := s.AddProject(ctx, s.Organization, "Shop"); err != nil {
		return err
	}
	attic, err := s.AddProject(ctx, s.Organization, "Attic")
	if err != nil {
		return err
	}
	s.SetStatus(attic.Ref, "INACTIVE")
	return nil
}

func instructions(s *supabasetest.Server, roots string) string {
	rules := s.Rules()
	text := fmt.Sprintf("A stand-in for Supabase answers at %s until you press Ctrl-C.\n"+
		"Its account has the organisation Demo, which has projects:\n\n", s.URL)
	for _, p := range s.Projects() {
		text += fmt.Sprintf("  %s  %s, %s\n    password of postgres: %s\n    session pooler:       %s\n", p.Ref, p.Name, p.Status, p.Password,
			s.ConnectionString(p.Ref, "postgres", p.Password, credential.SessionPooler))
		if p.Empty {
			text += "    its database is empty: this PostgreSQL server did not have it any more\n"
		}
	}
	text += fmt.Sprintf("\nIts buttons pause, resume and remove projects and revoke connections: %s/\n"+
		"By hand: curl -X POST %[1]s/dev/projects/REF/pause (resume, remove) or %[1]s/dev/revoke\n", s.URL)
	return text + fmt.Sprintf("\nStart the platform beside it:\n\n"+
		"  STOA_SUPABASE_URL=%s \\\n  STOA_SUPABASE_CA=%s \\\n  STOA_SUPABASE_POOLER=%s:%d,%d \\\n"+
		"  SUPABASE_OAUTH_CLIENT_ID=%s \\\n  SUPABASE_OAUTH_CLIENT_SECRET=%s \\\n  go run ./cmd/stoa serve\n",
		s.URL, roots, rules.PoolerDomain, rules.SessionPort, rules.TransactionPort, supabasetest.ClientID, supabasetest.ClientSecret)
}
