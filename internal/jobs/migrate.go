package jobs

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/stoahq/stoa/internal/masterdb"
)

// latestMigration is the number of River's last migration. A release that raises it
// has a migration of the master database as well, which states whether older releases
// may run on the new tables (schema_compatibility).
const latestMigration = 8

// Migrate creates or updates River's tables, after masterdb.Migrate. Several replicas
// may call it at once. It returns masterdb.ErrSchemaTooNew if this binary must not
// run.
func Migrate(ctx context.Context, db *masterdb.DB) (int, error) {
	return migrateWith(ctx, db, nil, func() error { return CheckSchema(ctx, db) }, func() error { return addListIndex(ctx, db) })
}

// listIndex is the index of List, which River's tables do not have: they have no order by id
// within a state or kind.
const listIndex = "stoa_job_list"

// addListIndex adds the index unless it exists. The caller holds the lock.
func addListIndex(ctx context.Context, db *masterdb.DB) error {
	there := `SELECT to_regclass('` + listIndex + `') IS NOT NULL`
	if db.Engine == masterdb.SQLite {
		there = `SELECT count(*) > 0 FROM sqlite_master WHERE type = 'index' AND name = '` + listIndex + `'`
	}
	var found bool
	if err := db.Get(ctx, &found, there); err != nil || found {
		return err
	}
	return db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `CREATE INDEX `+listIndex+` ON river_job (state, kind, id)`)
		return err
	})
}

// MigrateTo creates or updates River's tables up to a version. It is for a restore, which
// creates the tables of a backup, and checks nothing.
func MigrateTo(ctx context.Context, db *masterdb.DB, version int) error {
	if current, err := SchemaVersion(ctx, db); err != nil || current == version {
		return err // River takes a version that is there already for a mistake
	}
	_, err := migrateWith(ctx, db, &rivermigrate.MigrateOpts{TargetVersion: version}, func() error { return nil }, func() error { return addListIndex(ctx, db) })
	return err
}

// LatestVersion is the version of River's tables that Migrate creates.
func LatestVersion() int { return latestMigration }

// migrateWith applies the missing migrations. It calls check once it has the lock, and
// finish before it releases it.
func migrateWith(ctx context.Context, db *masterdb.DB, opts *rivermigrate.MigrateOpts, check, finish func() error) (int, error) {
	if db.Engine == masterdb.SQLite {
		unlock, err := db.LockSchema(ctx)
		if err != nil {
			return 0, err
		}
		defer unlock()
		return migrate(ctx, opts, check, finish, func() (*rivermigrate.Migrator[*sql.Tx], error) {
			return rivermigrate.New(riversqlite.New(db.Writer()), nil)
		})
	}
	conn, err := db.Sessions().Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	if err := lockMigration(ctx, conn); err != nil {
		return 0, err
	}
	defer conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, migrationLock) //nolint:errcheck // the end of the session releases the lock too
	return migrate(ctx, opts, check, finish, func() (*rivermigrate.Migrator[pgx.Tx], error) {
		return rivermigrate.New(riverpgxv5.New(db.Sessions()), nil)
	})
}

// migrationLock is the key of an advisory lock that only this package uses.
const migrationLock int64 = 0x73746f61_6a6f6273 // "stoajobs"

func lockMigration(ctx context.Context, conn *pgxpool.Conn) error {
	return masterdb.WaitForLock(ctx, func(ctx context.Context) (locked bool, err error) {
		err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, migrationLock).Scan(&locked)
		return locked, err
	})
}

// CheckSchema returns masterdb.ErrSchemaTooNew when the queue's tables are newer
// than this binary and no newer release has stated, in the schema of the master
// database, that this one may run beside it. It changes nothing.
func CheckSchema(ctx context.Context, db *masterdb.DB) error {
	version, err := SchemaVersion(ctx, db)
	if err != nil || version <= latestMigration {
		return err
	}
	schema, err := db.Schema(ctx)
	if err != nil || schema.Newer() && schema.Check() == nil {
		return err
	}
	return fmt.Errorf("job queue schema: version %d is newer than this binary (%d): %w", version, latestMigration, masterdb.ErrSchemaTooNew)
}

// SchemaVersion returns the version of the queue's tables, 0 before the first migration.
func SchemaVersion(ctx context.Context, db *masterdb.DB) (version int, err error) {
	there := `SELECT to_regclass('river_migration') IS NOT NULL`
	if db.Engine == masterdb.SQLite {
		there = `SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = 'river_migration'`
	}
	var found bool
	if err := db.Get(ctx, &found, there); err != nil || !found {
		return 0, err
	}
	err = db.Get(ctx, &version, `SELECT coalesce(max(version), 0) FROM river_migration`)
	return version, err
}

// migrate applies the missing migrations. The caller holds the lock.
func migrate[T any](ctx context.Context, opts *rivermigrate.MigrateOpts, check, finish func() error, open func() (*rivermigrate.Migrator[T], error)) (int, error) {
	if err := check(); err != nil {
		return 0, err
	}
	m, err := open()
	if err != nil {
		return 0, err
	}
	res, err := m.Migrate(ctx, rivermigrate.DirectionUp, opts)
	if err != nil {
		return 0, fmt.Errorf("migrate job queue: %w", err)
	}
	return len(res.Versions), finish()
}
