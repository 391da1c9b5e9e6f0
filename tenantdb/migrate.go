package tenantdb

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// Migrations holds one folder per engine with the same file names.
//
//go:embed migrations
var Migrations embed.FS

// VersionTable records which migrations a tenant database has.
const VersionTable = "stoa_schema_migrations"

// Migrate brings the schema of one tenant database to this binary's version
// and returns that version. Run again after an interruption it continues.
func (db *DB) Migrate(ctx context.Context) (version int64, err error) {
	if version, err = db.engine.Migrate(ctx, db.credentials, db.dial); err != nil {
		return 0, db.wrap(fmt.Errorf("migrate: %w", err))
	}
	return version, nil
}

// onOwnPool runs run on two connections that end with it.
func onOwnPool(e Engine, c Credentials, dial DialFunc, run func(*sql.DB) (int64, error)) (int64, error) {
	db, err := e.Open(c, dial)
	if err != nil {
		return 0, err
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	db.SetMaxOpenConns(2)
	return run(db)
}

// SchemaVersion reads how far the schema of a database is that was migrated
// before.
func (db *DB) SchemaVersion(ctx context.Context) (version int64, err error) {
	err = db.Get(ctx, &version, `SELECT coalesce(max(version_id), 0) FROM `+VersionTable)
	return version, err
}

// migrate applies what is missing. That nobody else does so at the same time
// is the engine's business.
func migrate(ctx context.Context, d goose.Dialect, db *sql.DB, folder string) (version int64, err error) {
	files, err := fs.Sub(Migrations, "migrations/"+folder)
	if err != nil {
		return 0, err
	}
	p, err := goose.NewProvider(d, db, files, goose.WithTableName(VersionTable), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, err
	}
	if _, err := p.Up(ctx); err != nil {
		return 0, err
	}
	return p.GetDBVersion(ctx)
}
