package masterdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/georgysavva/scany/v2/dbscan"

	"github.com/stoahq/stoa/internal/sqlite"
)

// liteScan scans a type with its own Scan method, such as an ID, as one column and not as a
// struct.
var liteScan = func() *dbscan.API {
	api, err := dbscan.NewAPI(dbscan.WithScannableTypes((*sql.Scanner)(nil)))
	if err != nil {
		panic(err) // cannot happen: the options are constants
	}
	return api
}()

// statements is how many prepared statements each connection to a SQLite master keeps.
const statements = 200

// openSQLite opens one connection for writing and a pool for reading. SQLite has one writer
// at a time, and queueing in Go is fairer than busy-waiting.
func openSQLite(ctx context.Context, path string) (*DB, error) {
	if path == "" || path == ":memory:" {
		return nil, errors.New("master database URL sqlite: needs a file path")
	}
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("master database: %w", err)
	}
	write, err := sqlite.Open(sqlite.Options{Path: path, Begin: "immediate", Pragmas: pragmas, Statements: statements})
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	read, err := sqlite.Open(sqlite.Options{Path: path, Begin: "deferred", Pragmas: append(slices.Clone(pragmas), "query_only(1)"), Statements: statements})
	if err != nil {
		_ = write.Close()
		return nil, err
	}
	read.SetMaxOpenConns(max(4, runtime.GOMAXPROCS(0)))
	read.SetMaxIdleConns(max(4, runtime.GOMAXPROCS(0)))
	db := &DB{Engine: SQLite, write: write, read: read, path: path}
	// The write connection is opened first: it creates the file and switches it to WAL.
	for _, h := range []*sql.DB{write, read} {
		if err := h.PingContext(ctx); err != nil {
			db.Close()
			return nil, fmt.Errorf("open master database %s: %w", path, err)
		}
	}
	return db, nil
}

// createPrivate creates the file before SQLite does, so that it is never readable to other
// users. It does not even open an existing file: closing it would drop the locks of this
// process's other handles (sqlite.org/howtocorrupt.html, 2.2).
func createPrivate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the path is configured by the operator
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// LockSchema waits until no other process changes the schema of this SQLite database, and
// makes other processes wait until unlock is called. The migration libraries have no lock
// of their own on SQLite.
func (db *DB) LockSchema(ctx context.Context) (unlock func(), err error) {
	path := db.path + "-schema-lock"
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("lock master database: %w", err)
	}
	unlock, err = sqlite.Lock(ctx, sqlite.Options{Path: path})
	if err != nil {
		return nil, fmt.Errorf("lock master database: %w", err)
	}
	return unlock, nil
}

// pragmas are the settings of each connection.
var pragmas = []string{
	"busy_timeout(10000)", "journal_mode(WAL)", "foreign_keys(1)",
	// synchronous=NORMAL may lose the last commits on power loss, and this file records
	// money.
	"synchronous(FULL)",
	// Without recursive_triggers REPLACE bypasses the delete triggers that keep tables
	// append-only.
	"recursive_triggers(1)",
}
