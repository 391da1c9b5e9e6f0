package tenantdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/sqlite"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

type sqliteEngine struct {
	dir        string
	spareFiles func() // see Options; nil does nothing
}

// path returns the file of the database. It depends only on the store's id, never on a
// name that a person chose. Two characters of the random part distribute the files over
// many folders.
func (e sqliteEngine) path(c credential.Credentials) (string, error) {
	id, err := stoa.ParseID[stoa.StoreID](c.Database)
	if err != nil {
		return "", fmt.Errorf("embedded database is not named by a store id: %w", err)
	}
	name := id.String()
	return filepath.Join(e.dir, "stores", name[len(name)-2:], name+".db"), nil
}

func (e sqliteEngine) Open(c credential.Credentials, _ dial.Func, _ *sessionState) (*sql.DB, error) {
	path, err := e.path(c)
	if err != nil {
		return nil, err
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	return sqlite.Open(sqlite.Options{
		Path: path,
		// SQLite creates the file with the folder's permissions. Stoa does not create it,
		// because closing a file releases SQLite's locks on it.
		ModeOf:  folder,
		Begin:   "immediate",
		Pragmas: []string{"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(NORMAL)"},
		// Few, because hundreds of files may be open: what shoppers ask for.
		Statements: 8,
		Retry:      e.retry,
	})
}

// retry reports whether to connect again: while the process can open no more files, after
// some were closed.
func (e sqliteEngine) retry(err error, attempt int) bool {
	switch {
	case !sqlite.HasCode(err, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
		return false
	case filesExhausted() && e.spareFiles != nil:
		e.spareFiles()
		return true
	}
	return attempt < fileTries // a file may have been closed between the attempt and the check
}

func (sqliteEngine) Inspect(ctx context.Context, db *DB) (Inspection, error) {
	in := Inspection{Minimum: "SQLite 3", Supported: true, MayCreate: true, Encoding: "UTF-8", Unicode: true}
	if err := db.Get(ctx, &in.Version, `SELECT sqlite_version()`); err != nil {
		return in, err
	}
	err := in.listTables(ctx, db, `SELECT substr(name, 1, 256) AS name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name LIMIT ?`)
	return in, err
}

// Session implements Engine.
func (e sqliteEngine) Session(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error) {
	return e.Open(c, dial, state)
}

// pin implements Engine.
func (sqliteEngine) pin(context.Context, *DB, stoa.StoreID) error {
	return nil // no setting of a server can change it
}

// warnings implements Engine.
func (sqliteEngine) warnings(context.Context, *DB) ([]Warning, error) {
	return nil, nil // a file has no other readers
}

func (sqliteEngine) sessions(credential.Credentials) bool { return true }

func (e sqliteEngine) migrator(c credential.Credentials, _ *sessionState) migrator {
	return migrator{dialect: &sqliteDialect, turn: func(ctx context.Context) (func(), error) { return e.turn(ctx, c) }}
}

// turn waits for the migration lock, which also excludes other processes. All stores in a
// folder share it, because a file per store could not be removed while others wait for it.
func (e sqliteEngine) turn(ctx context.Context, c credential.Credentials) (give func(), err error) {
	path, err := e.path(c)
	if err != nil {
		return nil, err
	}
	folder := filepath.Dir(path)
	return sqlite.Lock(ctx, sqlite.Options{Path: filepath.Join(folder, "migration-lock"), ModeOf: folder})
}

// Fault implements Engine. A local file has no password and no network; only the disk
// can fail.
func (sqliteEngine) Fault(err error) *stoa.Error {
	var pathErr *fs.PathError // from creating the folder
	broken, cause := errors.As(err, &pathErr), err
	switch {
	case sqlite.HasCode(err, sqlite3.SQLITE_FULL):
		return faultFull.because(err)
	case sqlite.HasCode(err, sqlite3.SQLITE_READONLY):
		return stoa.Errorf(stoa.DatabasePermissionDenied, "The store's embedded database cannot be written to.").WithCause(err)
	case sqlite.HasCode(err, sqlite3.SQLITE_CANTOPEN):
		if broken = true; filesExhausted() {
			cause = markTransient(err)
		}
	case sqlite.HasCode(err, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
		broken = true
	case sqlite.HasCode(err, sqlite3.SQLITE_BUSY):
		broken, cause = true, markTransient(err)
	}
	if !broken {
		return nil
	}
	return stoa.Errorf(stoa.DatabaseUnreachable, "The store's embedded database cannot be used at the moment.").WithCause(cause)
}
