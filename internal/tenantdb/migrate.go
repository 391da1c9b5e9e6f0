package tenantdb

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
)

// Migrations contains one folder per engine. All folders have the same file
// names.
//
//go:embed migrations
var Migrations embed.FS

// VersionTable records the applied built-in migrations of a tenant database.
// CustomVersionTable records the applied custom migrations of the operator.
const (
	VersionTable       = "stoa_schema_migrations"
	CustomVersionTable = "stoa_own_migrations"
)

// OldestReadable is the oldest version of the tenant schema that this binary
// can serve. A release raises it when its queries need a newer schema, but
// never above the version that the previous release migrates to. Between the
// two releases, old and new binaries serve the same stores.
const OldestReadable = 14

// Schema is the version of a tenant database's schema: the version of the
// built-in migrations and the version of the operator's custom ones. A version
// is 0 if there are no migrations.
type Schema struct {
	Version int64 `json:"version"`
	Own     int64 `json:"own"`
}

// LatestVersion returns the version of the tenant schema that this binary
// migrates to.
func LatestVersion() int64 { return latestVersion() }

var latestVersion = sync.OnceValue(func() int64 {
	files, err := postgresDialect.builtin()
	if err != nil {
		panic(err) // the folder is embedded
	}
	versions, err := versionsIn(files)
	if err != nil {
		panic(err) // a test reads the same files
	}
	return versions[len(versions)-1]
})

// MigrateOptions configure a migration.
type MigrateOptions struct {
	// To is the last built-in migration to apply. 0 means all of them, followed
	// by the custom migrations. Custom migrations may depend on any built-in
	// one, so they are not applied if To is set.
	To int64
	// Before is called on the migration's connection before anything is
	// written. If it returns an error, the migration ends.
	Before func(context.Context, *DB) error
	// LockWait is how long to wait for another migration of the database to
	// end. The default is 2 min. Within that time the other migration ends or
	// is stopped.
	LockWait time.Duration
}

// Migrate applies the built-in migrations of this binary and the operator's
// custom migrations to one tenant database. It returns the built-in version. If
// it is called again after an interruption, it continues.
func (db *DB) Migrate(ctx context.Context) (version int64, err error) {
	schema, err := db.MigrateTo(ctx, MigrateOptions{})
	if err != nil {
		return 0, err
	}
	return schema.Version, nil
}

// MigrateTo does the same as Migrate within the limits of opts. It uses one
// connection of a kind that supports migrations; a database that is not leased
// has no other connection meanwhile. Concurrent callers, including those in
// other processes, end with one complete schema. With an error, it still
// returns the schema version that is known to be reached, or 0 if that is
// unknown.
func (db *DB) MigrateTo(ctx context.Context, opts MigrateOptions) (Schema, error) {
	schema, err := db.migrateTo(ctx, opts)
	if err != nil {
		return schema, db.wrap(fmt.Errorf("migrate: %w", err))
	}
	return schema, nil
}

func (db *DB) migrateTo(ctx context.Context, opts MigrateOptions) (schema Schema, err error) {
	setDefault(&opts.LockWait, 2*time.Minute)
	own, err := db.own.of(db.Engine)
	if err != nil {
		return schema, err
	}
	// It is cheaper to read an embedded database's version than to open a
	// connection and take the lock.
	if db.dialect.embedded && own == nil && opts.To == 0 && opts.Before == nil {
		if version, err := db.SchemaVersion(ctx); err == nil && version == LatestVersion() {
			return Schema{Version: version}, nil
		}
	}
	pool, end, err := db.session()
	if err != nil {
		return schema, err
	}
	defer end()
	s := &session{DB: pool, migrator: db.engine.migrator(db.credentials, db.pinned), lockWait: opts.LockWait}
	inner := &DB{Engine: db.Engine, sqlx: sqlx.NewDb(pool, db.sqlx.DriverName()), engine: db.engine, dialect: db.dialect, credentials: db.credentials, dial: db.dial, own: db.own, pinned: db.pinned, account: db.account, log: db.log}
	if opts.Before != nil {
		if err := opts.Before(ctx, inner); err != nil {
			return schema, err
		}
	}
	ctx, unlock, err := db.lockMigration(ctx, s)
	if err != nil {
		return schema, err
	}
	defer unlock()
	defer func() {
		if err != nil && ctx.Err() != nil { // the lock may have been lost
			err = context.Cause(ctx)
		}
	}()
	// This also runs after an error, because some objects may have been
	// created.
	defer func() {
		if closeErr := inner.CloseToAPI(ctx); err == nil && closeErr != nil {
			err = fmt.Errorf("close to the HTTP API: %w", closeErr)
		}
	}()
	builtin, err := s.dialect.builtin()
	if err != nil {
		return schema, err
	}
	if opts.To == 0 {
		err = s.begin(ctx, builtin)
	}
	if err == nil {
		schema.Version, err = s.up(ctx, builtin, VersionTable, opts.To, nil)
	}
	if err != nil || own == nil || opts.To != 0 {
		return schema, err
	}
	schema.Own, err = s.up(ctx, own, CustomVersionTable, db.own.Latest(), func(p *goose.Provider) error {
		return s.checkOrder(ctx, p, db.own, db.Engine)
	})
	return schema, err
}

// session returns a pool of one connection that keeps its session. It returns
// db's own pool if that pool keeps sessions and is unused, because opening a
// new connection costs more than the work on it.
func (db *DB) session() (pool *sql.DB, end func(), err error) {
	if db.bulkhead == nil && db.engine.sessions(db.credentials) && db.migrating.TryLock() {
		pool, most := db.sqlx.DB, db.sqlx.Stats().MaxOpenConnections
		pool.SetMaxOpenConns(1)
		return pool, func() {
			pool.SetMaxOpenConns(most)
			pool.SetMaxIdleConns(most) // the limit of one has made it one
			db.migrating.Unlock()
		}, nil
	}
	if pool, err = db.engine.Session(db.credentials, db.dial, db.pinned); err != nil {
		return nil, nil, err
	}
	pool.SetMaxOpenConns(1)
	return pool, func() { _ = pool.Close() }, nil
}

// migrator describes how migrations run on an engine.
type migrator struct {
	dialect *dialect
	// take waits for the migration lock of the connection's session and
	// succeeds if the session already has it. give releases the lock. Both are
	// nil on SQLite, which uses turn.
	take, give func(context.Context, *sql.Conn) error
	// hold takes the lock and keeps it on a connection that nothing else uses.
	// It is for servers on which no session lasts. lost is called if the lock
	// ends before release is called.
	hold func(ctx context.Context, conn *sql.Conn, lost func(error)) (release func(), err error)
	turn func(context.Context) (give func(), err error)
	// prepare repairs a version table that an interruption left incomplete.
	prepare func(ctx context.Context, conn *sql.Conn, table string) error
	// isNew reports whether there is no version table yet. It is set only for
	// an engine that accepts many statements at once and can roll all of them
	// back.
	isNew func(ctx context.Context, conn *sql.Conn, table string) (bool, error)
}

// session is a pool of one connection on which migrations run. goose uses the
// same connection, so it also has the locks of that connection's session.
type session struct {
	*sql.DB
	migrator
	lockWait time.Duration
}

// unlockTimeout limits the release of a lock. The lock ends with its session in
// any case.
const unlockTimeout = 5 * time.Second

// lockMigration waits for the migration lock of the database. The returned
// context is cancelled, with the cause, if the lock is lost.
func (db *DB) lockMigration(ctx context.Context, s *session) (locked context.Context, unlock func(), err error) {
	switch {
	case s.turn != nil:
		unlock, err = s.turn(ctx)
		return ctx, unlock, err
	case s.hold != nil:
		return db.holdLock(ctx, s)
	}
	if err := s.on(ctx, s.SessionLock); err != nil {
		return nil, nil, err
	}
	return ctx, func() {
		if s.Stats().OpenConnections == 0 {
			return // the session has ended, and a new session does not have the lock
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
		defer cancel()
		_ = s.on(ctx, s.give)
	}, nil
}

func (db *DB) holdLock(ctx context.Context, s *session) (locked context.Context, unlock func(), err error) {
	pool, err := db.engine.Session(db.credentials, db.dial, db.pinned)
	if err != nil {
		return nil, nil, err
	}
	locked, lost := context.WithCancelCause(ctx)
	var release func()
	err = s.inTurn(ctx, func(limited context.Context) error {
		conn, err := pool.Conn(limited)
		if err == nil {
			release, err = s.hold(limited, conn, lost)
		}
		return err
	})
	if err != nil {
		lost(nil)
		_ = pool.Close()
		return nil, nil, err
	}
	return locked, func() {
		release()
		lost(nil)
		_ = pool.Close()
	}, nil
}

func (s *session) on(ctx context.Context, do func(context.Context, *sql.Conn) error) error {
	conn, err := s.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	return do(ctx, conn)
}

// SessionLock implements goose's lock.SessionLocker. If the connection that had
// the lock is lost between two of goose's steps, the next connection waits for
// the lock again.
func (s *session) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if s.take == nil {
		return nil
	}
	return s.inTurn(ctx, func(limited context.Context) error { return s.take(limited, conn) })
}

// inTurn limits how long take waits for the lock.
func (s *session) inTurn(ctx context.Context, take func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, s.lockWait)
	defer cancel()
	err := take(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return NoProgress(fmt.Errorf("the migration lock was not granted within %s: %w", s.lockWait, err))
	}
	return err
}

// SessionUnlock implements goose's lock.SessionLocker. It does nothing: the
// lock is kept for the migrations that follow.
func (s *session) SessionUnlock(context.Context, *sql.Conn) error { return nil }

// begin applies all files to a database that has none of them, in one text and
// one transaction. This takes the server two thirds of the time of applying
// them one by one. The versions of all files are recorded as usual.
func (s *session) begin(ctx context.Context, files fs.FS) error {
	if s.isNew == nil {
		return nil
	}
	isNew := false
	err := s.on(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		isNew, err = s.isNew(ctx, conn, VersionTable)
		return err
	})
	if err != nil || !isNew {
		return err
	}
	text, last, err := joined(files)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(s.dialect.migrations, s.DB, nil, goose.WithTableName(VersionTable), goose.WithDisableGlobalRegistry(true), goose.WithSessionLocker(s),
		goose.WithGoMigrations(goose.NewGoMigration(last, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, text)
			return err
		}}, nil)))
	if err == nil {
		_, err = p.Up(ctx)
	}
	return err
}

// joined returns the text of all files in order. The text also records the
// versions of all files except the last.
func joined(files fs.FS) (text string, last int64, err error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return "", 0, err
	}
	var b strings.Builder
	for i, name := range names { // Glob sorts them
		if i > 0 {
			fmt.Fprintf(&b, "\nINSERT INTO "+VersionTable+" (version_id, is_applied) VALUES (%d, true);\n", last)
		}
		if last, err = goose.NumericComponent(name); err != nil {
			return "", 0, err
		}
		statements, err := fs.ReadFile(files, name)
		if err != nil {
			return "", 0, err
		}
		b.Write(statements)
	}
	return b.String(), last, nil
}

// up applies the missing migrations up to and including version to, or all of
// them if to is 0. It returns the version reached, also with an error if that
// version is known. If before is not nil and returns an error, up applies
// nothing.
func (s *session) up(ctx context.Context, files fs.FS, table string, to int64, before func(*goose.Provider) error) (int64, error) {
	if s.prepare != nil {
		if err := s.on(ctx, func(ctx context.Context, conn *sql.Conn) error { return s.prepare(ctx, conn, table) }); err != nil {
			return 0, err
		}
	}
	p, err := goose.NewProvider(s.dialect.migrations, s.DB, files, goose.WithTableName(table), goose.WithDisableGlobalRegistry(true), goose.WithSessionLocker(s))
	if err != nil {
		return 0, err
	}
	if before != nil {
		if err := before(p); err != nil {
			return 0, err
		}
	}
	if to == 0 {
		_, err = p.Up(ctx)
	} else {
		_, err = p.UpTo(ctx, to)
	}
	var partial *goose.PartialError
	if errors.As(err, &partial) && len(partial.Applied) > 0 {
		return partial.Applied[len(partial.Applied)-1].Source.Version, err
	}
	if err != nil {
		return 0, err
	}
	version, err := p.GetDBVersion(ctx)
	if sources := p.ListSources(); err == nil && to == 0 {
		to = sources[len(sources)-1].Version
	}
	if err == nil && version < to { // without this error, callers that compare versions would migrate the database again and again
		err = NoProgress(fmt.Errorf("%s is at version %d after a migration to %d", table, version, to))
	}
	return version, err
}

// SchemaVersion reads the schema version of a database that was migrated
// before.
func (db *DB) SchemaVersion(ctx context.Context) (version int64, err error) {
	err = db.Get(ctx, &version, `SELECT coalesce(max(version_id), 0) FROM `+VersionTable)
	return version, err
}

// CustomVersion reads the version of the custom migrations of a database that
// has some.
func (db *DB) CustomVersion(ctx context.Context) (version int64, err error) {
	err = db.Get(ctx, &version, `SELECT coalesce(max(version_id), 0) FROM `+CustomVersionTable)
	return version, err
}
