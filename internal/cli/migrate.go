package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/masterdb"
)

type migrateCmd struct {
	GrantTo *string `name:"grant-to" help:"On PostgreSQL: then give this role what 'stoa serve' needs, and no more." placeholder:"ROLE"`
	JSON    bool    `help:"Print JSON."`
}

// Help is shown by 'stoa migrate --help'.
func (migrateCmd) Help() string {
	return "'stoa serve' does this on its own when it starts. Run it by hand to migrate before a roll-out; " +
		"several replicas may do so at once, and a second run changes nothing. " +
		"A schema that a newer release has migrated is left as it is, and refused where it needs a newer release than this one.\n\n" +
		"On PostgreSQL the servers need not own the tables. Make a role (CREATE ROLE stoa_serve LOGIN PASSWORD '…'), run this as the owner with " +
		"--grant-to stoa_serve, and start 'stoa serve' with a MASTER_DB_URL of that role. It can then add and read the rows of the ledger, of billing and " +
		"of the audit trail, and not change or delete one, whatever happens to a server; only audit entries that have expired it deletes. Do so again with each release: serve says when it has to be."
}

func (cmd migrateCmd) Run(e *Env) error {
	if err := e.Cfg.Check(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	master, err := e.Cfg.OpenMasterDB(e.Ctx)
	if err != nil {
		return err
	}
	defer master.Close()
	if cmd.GrantTo != nil && master.Engine != masterdb.Postgres {
		return errors.New("--grant-to is for PostgreSQL: SQLite has no roles, whoever can write the file can do everything")
	}
	schema, queue, err := app.MigrateAll(e.Ctx, master)
	if err != nil {
		return err
	}
	if err := app.SetAuditRetention(e.Ctx, e.Cfg, master, e.by, e.Cfg.Logger(e.Stderr)); err != nil {
		return err
	}
	if cmd.GrantTo != nil {
		if err := master.GrantTo(e.Ctx, *cmd.GrantTo); err != nil {
			return fmt.Errorf("--grant-to: %w", err)
		}
		if err := e.record(master, audit.RoleGranted, map[string]string{"role": *cmd.GrantTo}); err != nil {
			return err
		}
	}
	found, err := master.Schema(e.Ctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(map[string]any{
			"engine": master.Engine, "version": found.Version, "applied": schema, "queueApplied": queue, "grantedTo": cmd.GrantTo,
		})
	}
	granted := ""
	if cmd.GrantTo != nil {
		granted = fmt.Sprintf(" The role %s may serve it.", *cmd.GrantTo)
	}
	Printf(e.Stdout, "The %s master database is at version %d (%d migrations applied, %d of the job queue).%s\n",
		master.Engine, found.Version, schema, queue, granted)
	return nil
}
