package masterdb

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migrations holds one folder per engine with the same file names.
//
//go:embed migrations
var Migrations embed.FS

// Migrate brings the schema to this binary's version. Several replicas may
// call it at once: one works, the others wait. It returns how many
// migrations it applied.
func (db *DB) Migrate(ctx context.Context) (int, error) {
	if db.Engine == SQLite {
		unlock, err := db.LockSchema(ctx)
		if err != nil {
			return 0, err
		}
		defer unlock()
	}
	p, closeProvider, err := db.migrations()
	if err != nil {
		return 0, err
	}
	defer closeProvider()
	results, err := p.Up(ctx)
	if err != nil {
		return len(results), fmt.Errorf("migrate master database: %w", err)
	}
	return len(results), nil
}

// SchemaVersion returns the version in the database and the one this binary
// brings.
func (db *DB) SchemaVersion(ctx context.Context) (current, target int64, err error) {
	p, closeProvider, err := db.migrations()
	if err != nil {
		return 0, 0, err
	}
	defer closeProvider()
	return p.GetVersions(ctx)
}

func (db *DB) migrations() (*goose.Provider, func(), error) {
	handle, dialect, folder := db.write, goose.DialectSQLite3, "sqlite"
	closeHandle := func() {}
	var opts []goose.ProviderOption
	if db.pool != nil {
		handle, dialect, folder = stdlib.OpenDBFromPool(db.pool), goose.DialectPostgres, "postgres"
		closeHandle = func() { _ = handle.Close() }
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, nil, err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	}
	p, err := newProvider(dialect, handle, folder, opts...)
	if err != nil {
		closeHandle()
		return nil, nil, err
	}
	return p, closeHandle, nil
}

func newProvider(d goose.Dialect, h *sql.DB, folder string, opts ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(Migrations, "migrations/"+folder)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(d, h, files, append(opts, goose.WithDisableGlobalRegistry(true))...)
}
