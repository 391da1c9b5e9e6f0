package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// migrateMaster applies the migrations that are missing. The role needs the right to
// change the schema only if there are some.
func migrateMaster(ctx context.Context, master *masterdb.DB, log *slog.Logger) error {
	applied, queue, err := MigrateAll(ctx, master)
	if masterdb.IsForbidden(err) {
		return fmt.Errorf("the master database has to be migrated, and this role may not: "+
			"as the role that owns it, run 'stoa migrate --grant-to' with the name of this one first (%w)", err)
	}
	if err == nil {
		err = master.CheckGrants(ctx)
	}
	if err != nil {
		return err
	}
	if applied+queue > 0 {
		log.InfoContext(ctx, "master database migrated", "schema", applied, "queue", queue)
	}
	schema, err := master.Schema(ctx)
	if err == nil && schema.Newer() {
		log.InfoContext(ctx, "master database schema is newer than this release, which may run on it",
			"version", schema.Version, "binary", schema.Binary, "oldest_binary", schema.OldestBinary)
	}
	return err
}

// MigrateAll applies the migrations of the schema and of the job queue, and returns
// how many it applied of each.
func MigrateAll(ctx context.Context, master *masterdb.DB) (schema, queue int, err error) {
	if schema, err = master.Migrate(ctx); err != nil {
		return schema, 0, err
	}
	queue, err = jobs.Migrate(ctx, master)
	return schema, queue, err
}
