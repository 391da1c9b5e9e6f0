package masterdb

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migrations holds the migration files, in one folder per engine with the same file names.
//
//go:embed migrations
var Migrations embed.FS

// Migrate applies the migrations that the schema lacks and returns how many it applied.
// Several replicas may call it at once: one migrates, the others wait. It returns
// ErrSchemaTooNew for a newer schema on which this binary must not run. It leaves any other
// newer schema as it is. It returns ErrRestoreIncomplete while a restore is incomplete.
func (db *DB) Migrate(ctx context.Context) (int, error) {
	if err := db.refuseNewer(ctx); err != nil {
		return 0, err
	}
	applied, err := db.migrate(ctx, func(p *goose.Provider) ([]*goose.MigrationResult, error) {
		results, err := p.Up(ctx)
		if err != nil || len(results) == 0 || results[0].Source.Version != 1 {
			return results, err
		}
		return results, db.stateNewMaster(ctx)
	})
	if err != nil {
		return applied, err
	}
	// While this one waited for the lock, a newer release may have migrated, or a restore
	// may have begun.
	return applied, db.refuseNewer(ctx)
}

// newMaster lets a master that this release has made do without what only the release before
// needs, and says that the release before must not run on it.
var newMaster = []string{
	`UPDATE event_stream SET ranges = TRUE WHERE id = 1`,
	`UPDATE schema_compatibility SET oldest_binary = 44`,
}

// stateNewMaster writes what newMaster says. A process that is killed before it leaves a master
// on which earlier releases may run.
func (db *DB) stateNewMaster(ctx context.Context) error {
	return db.Tx(ctx, func(tx *Tx) error {
		for _, statement := range newMaster {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// MigrateTo applies the missing migrations up to a version. It is for a restore, which
// creates the schema of a backup, and checks nothing.
func (db *DB) MigrateTo(ctx context.Context, version int64) error {
	_, err := db.migrate(ctx, func(p *goose.Provider) ([]*goose.MigrationResult, error) { return p.UpTo(ctx, version) })
	return err
}

func (db *DB) migrate(ctx context.Context, up func(*goose.Provider) ([]*goose.MigrationResult, error)) (int, error) {
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
	results, err := up(p)
	if err != nil {
		return len(results), fmt.Errorf("migrate master database: %w", err)
	}
	return len(results), nil
}

// LockMigrations makes migrations of other processes wait until the end of tx, after those
// that run. It is for PostgreSQL; see DB.LockSchema.
func LockMigrations(ctx context.Context, tx pgx.Tx) error {
	return WaitForLock(ctx, func(ctx context.Context) (locked bool, err error) {
		err = tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock($1)`, lock.DefaultLockID).Scan(&locked)
		return locked, err
	})
}

func (db *DB) migrations() (*goose.Provider, func(), error) {
	handle, dialect, folder := db.write, goose.DialectSQLite3, "sqlite"
	closeHandle := func() {}
	var opts []goose.ProviderOption
	if db.pool != nil {
		handle, dialect, folder = stdlib.OpenDBFromPool(db.sessions), goose.DialectPostgres, "postgres"
		closeHandle = func() { _ = handle.Close() }
		opts = append(opts, goose.WithSessionLocker(schemaLock{}))
	}
	p, err := newProvider(dialect, handle, folder, opts...)
	if err != nil {
		closeHandle()
		return nil, nil, err
	}
	return p, closeHandle, nil
}

// schemaLock implements goose's lock.SessionLocker. It takes the same lock as goose's own
// implementation, which earlier releases use, but that one retries only every 5 s.
type schemaLock struct{}

// SessionLock implements lock.SessionLocker.
func (schemaLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	return WaitForLock(ctx, func(ctx context.Context) (locked bool, err error) {
		err = conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, lock.DefaultLockID).Scan(&locked)
		return locked, err
	})
}

// SessionUnlock implements lock.SessionLocker.
func (schemaLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, unlockTimeout)
	defer cancel()
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, lock.DefaultLockID)
	return err
}

const (
	// lockInterval is the time between two attempts to take a migration lock.
	lockInterval = 50 * time.Millisecond
	// lockTimeout is the time limit for waiting for another process's migration.
	lockTimeout = 5 * time.Minute
	// unlockTimeout is the time limit for releasing the lock. The end of the session
	// releases it as well.
	unlockTimeout = 5 * time.Second
)

// WaitForLock calls try until it takes the lock, for 5 min at most. It does not wait inside
// a statement: a statement that waits for an advisory lock keeps a snapshot, and CREATE
// INDEX CONCURRENTLY of the lock's owner would wait for that snapshot.
func WaitForLock(ctx context.Context, try func(context.Context) (locked bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	ticker := time.NewTicker(lockInterval)
	defer ticker.Stop()
	for {
		if locked, err := try(ctx); err != nil || locked {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until another process has migrated the master database: %w", ctx.Err())
		}
	}
}

// LatestVersion returns the number of the last migration in this binary.
func LatestVersion() (int64, error) { return latestMigration() }

var latestMigration = sync.OnceValues(func() (int64, error) {
	names, err := fs.Glob(Migrations, "migrations/postgres/*.sql")
	if err != nil {
		return 0, err
	}
	return goose.NumericComponent(path.Base(names[len(names)-1])) // Glob sorts them
})

func newProvider(d goose.Dialect, h *sql.DB, folder string, opts ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(Migrations, "migrations/"+folder)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(d, h, files, append(opts, goose.WithDisableGlobalRegistry(true))...)
}
