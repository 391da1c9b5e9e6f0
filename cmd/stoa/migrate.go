package main

import (
	"encoding/json"
	"fmt"

	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
)

type migrateCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by 'stoa migrate --help'.
func (migrateCmd) Help() string {
	return "'stoa serve' does this on its own when it starts. Run it by hand to migrate before a roll-out; " +
		"several replicas may do so at once, and a second run changes nothing."
}

func (cmd migrateCmd) Run(e *env) error {
	if err := e.cfg.check(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	master, err := masterdb.Open(e.ctx, e.cfg.masterURL())
	if err != nil {
		return err
	}
	defer master.Close()
	schema, err := master.Migrate(e.ctx)
	if err != nil {
		return err
	}
	queue, err := jobs.Migrate(e.ctx, master)
	if err != nil {
		return err
	}
	version, _, err := master.SchemaVersion(e.ctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return json.NewEncoder(e.stdout).Encode(map[string]any{
			"engine": master.Engine, "version": version, "applied": schema, "queueApplied": queue,
		})
	}
	_, err = fmt.Fprintf(e.stdout, "The %s master database is at version %d (%d migrations applied, %d of the job queue).\n",
		master.Engine, version, schema, queue)
	return err
}
