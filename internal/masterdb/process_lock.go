package masterdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/jackc/pgx/v5"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa/internal/sqlite"
)

// Dedicated opens a connection to a PostgreSQL master outside the pools, with a session
// of its own and the same settings as theirs. The caller closes it.
func (db *DB) Dedicated(ctx context.Context, applicationName string) (*pgx.Conn, error) {
	cfg := db.sessions.Config()
	cfg.ConnConfig.RuntimeParams["application_name"] = applicationName
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	if cfg.AfterConnect == nil {
		return conn, nil
	}
	if err := cfg.AfterConnect(ctx, conn); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// LockProcess takes the lock of the process called name on a SQLite master. The lock ends
// with the process or when unlock is called. Like the lock of LockSchema it is an exclusive
// transaction on an empty database beside the master.
func (db *DB) LockProcess(ctx context.Context, name string) (unlock func(), err error) {
	path := db.processFile(name)
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("lock of the process: %w", err)
	}
	release, err := sqlite.TryLock(ctx, sqlite.Options{Path: path, Mode: "rw"})
	if err != nil {
		return nil, fmt.Errorf("lock of the process: %w", err)
	}
	return func() {
		release()
		_ = os.Remove(path)
	}, nil
}

// ProcessLocked reports whether the process called name holds its lock on a
// SQLite master.
func (db *DB) ProcessLocked(ctx context.Context, name string) (bool, error) {
	path := db.processFile(name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	release, err := sqlite.TryLock(ctx, sqlite.Options{Path: path, Mode: "rw"})
	switch {
	case sqlite.HasCode(err, sqlite3.SQLITE_BUSY):
		return true, nil
	case err != nil:
		return false, err
	}
	release()
	return false, nil
}

// RemoveProcess removes the lock file of a process that has ended.
func (db *DB) RemoveProcess(name string) error {
	err := os.Remove(db.processFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (db *DB) processFile(name string) string { return db.path + "-process-" + name }
