package tenantdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa"
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
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	q := url.Values{
		// SQLite creates the file with the folder's mode. Stoa does not create it,
		// because closing a file releases SQLite's locks on it.
		"modeof":       {filepath.Dir(path)},
		"_txlock":      {"immediate"},
		"_time_format": {"sqlite"},
		"_timezone":    {"UTC"},
		"_pragma":      {"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(NORMAL)"},
	}
	connector, err := sqlite.NewConnector(sqliteURI(path, q))
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(retryingConnector{connector, e.spareFiles}), nil
}

func sqliteURI(path string, q url.Values) string {
	query := strings.ReplaceAll(q.Encode(), "+", "%20") // SQLite does not read a plus as a space
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query}).String()
}

// retryingConnector retries a connection while the file switches to or from WAL
// mode, because SQLite then reports busy at once regardless of busy_timeout.
// That happens when one pool of a store is opened while another closes. It also
// retries while the process can open no more files, after some were closed.
type retryingConnector struct {
	driver.Connector
	spareFiles func()
}

// Connect implements driver.Connector.
func (p retryingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for try := 1; ; try++ {
		conn, err := p.Connector.Connect(ctx)
		switch {
		case hasSQLiteCode(err, sqlite3.SQLITE_BUSY):
		case !hasSQLiteCode(err, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
			return conn, err
		case filesExhausted() && p.spareFiles != nil:
			p.spareFiles()
		case try < fileTries: // a file may have been closed between the attempt and the check
		default:
			return conn, err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// hasSQLiteCode reports whether err is one of SQLite's primary result codes.
func hasSQLiteCode(err error, codes ...int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && slices.Contains(codes, e.Code()&0xff)
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

func (sqliteEngine) sessions(credential.Credentials) bool { return true }

func (e sqliteEngine) migrator(c credential.Credentials, _ *sessionState) migrator {
	return migrator{dialect: goose.DialectSQLite3, folder: "sqlite", turn: func(ctx context.Context) (func(), error) { return e.turn(ctx, c) }}
}

// turn waits for the migration lock, which also excludes other processes.
// SQLite has no lock that outlasts a transaction and admits readers. The lock
// is therefore an exclusive transaction on an empty database in the same
// folder; it ends with the process. All stores in the folder share it, because
// a file per store could not be removed while others wait for it.
func (e sqliteEngine) turn(ctx context.Context, c credential.Credentials) (give func(), err error) {
	path, err := e.path(c)
	if err != nil {
		return nil, err
	}
	connector, err := sqlite.NewConnector(sqliteURI(filepath.Join(filepath.Dir(path), "migration-lock"), url.Values{
		"modeof": {filepath.Dir(path)}, "_txlock": {"exclusive"},
	}))
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		tx, err := db.BeginTx(ctx, nil)
		if err == nil {
			return func() {
				_ = tx.Rollback()
				_ = db.Close()
			}, nil
		}
		var busy *sqlite.Error
		if !errors.As(err, &busy) || busy.Code()&0xff != sqlite3.SQLITE_BUSY {
			_ = db.Close()
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			_ = db.Close()
			return nil, ctx.Err()
		}
	}
}

// Fault implements Engine. A local file has no password and no network; only the disk
// can fail.
func (sqliteEngine) Fault(err error) *stoa.Error {
	var (
		pathErr *fs.PathError // from creating the folder
		liteErr *sqlite.Error
	)
	broken, cause := errors.As(err, &pathErr), err
	if errors.As(err, &liteErr) {
		switch liteErr.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return faultFull.because(err)
		case sqlite3.SQLITE_READONLY:
			return stoa.Errorf(stoa.DatabasePermissionDenied, "The store's embedded database cannot be written to.").WithCause(err)
		case sqlite3.SQLITE_CANTOPEN:
			if broken = true; filesExhausted() {
				cause = markTransient(err)
			}
		case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			broken = true
		case sqlite3.SQLITE_BUSY:
			broken, cause = true, markTransient(err)
		}
	}
	if !broken {
		return nil
	}
	return stoa.Errorf(stoa.DatabaseUnreachable, "The store's embedded database cannot be used at the moment.").WithCause(cause)
}
