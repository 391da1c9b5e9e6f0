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

func newProvider(d goose.Dialect, db *sql.DB, folder string, opts ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(Migrations, "migrations/"+folder)
	if err != nil {
		return nil, err
	}
	opts = append(opts, goose.WithTableName(VersionTable), goose.WithDisableGlobalRegistry(true))
	return goose.NewProvider(d, db, files, opts...)
}

// Migrate brings the schema of one tenant database to this binary's version
// and returns that version. Run again after an interruption it continues.
func (db *DB) Migrate(ctx context.Context) (version int64, err error) {
	p, err := db.engine.Migrations(db.sqlx.DB)
	if err != nil {
		return 0, err
	}
	if _, err := p.Up(ctx); err != nil {
		return 0, db.wrap(fmt.Errorf("migrate: %w", err))
	}
	version, err = p.GetDBVersion(ctx)
	return version, db.wrap(err)
}
