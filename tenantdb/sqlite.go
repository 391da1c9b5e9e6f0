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
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa"
)

type sqliteEngine struct{ dir string }

// path derives the file from the store's id alone, never from a name that a
// person chose. Two characters of the random part spread the files over 256
// folders.
func (e sqliteEngine) path(c Credentials) (string, error) {
	id, err := stoa.ParseID[stoa.StoreID](c.Database)
	if err != nil {
		return "", fmt.Errorf("embedded database is not named by a store id: %w", err)
	}
	name := id.String()
	return filepath.Join(e.dir, "stores", name[len(name)-2:], name+".db"), nil
}

func (e sqliteEngine) Open(c Credentials, _ DialFunc) (*sql.DB, error) {
	path, err := e.path(c)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	q := url.Values{
		// The file gets the folder's mode, from its first moment. To create it
		// ourselves is no way: to close a file releases SQLite's locks on it.
		"modeof":       {filepath.Dir(path)},
		"_txlock":      {"immediate"},
		"_time_format": {"sqlite"},
		"_timezone":    {"UTC"},
		"_pragma":      {"busy_timeout(5000)", "journal_mode(WAL)", "foreign_keys(1)", "synchronous(NORMAL)"},
	}
	query := strings.ReplaceAll(q.Encode(), "+", "%20") // a plus is a plus to SQLite
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(patient{connector}), nil
}

// patient tries a connection again while the file is busy becoming WAL, or
// ceasing to be: SQLite then says so at once, whatever busy_timeout is. Two
// pools of one store meet there when one is opened as the other closes.
type patient struct{ driver.Connector }

// Connect implements driver.Connector.
func (p patient) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		conn, err := p.Connector.Connect(ctx)
		var busy *sqlite.Error
		if !errors.As(err, &busy) || busy.Code()&0xff != sqlite3.SQLITE_BUSY {
			return conn, err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (sqliteEngine) Inspect(ctx context.Context, db *DB) (Inspection, error) {
	in := Inspection{Minimum: "SQLite 3", Supported: true, MayCreate: true, Encoding: "UTF-8", Unicode: true}
	if err := db.Get(ctx, &in.Version, `SELECT sqlite_version()`); err != nil {
		return in, err
	}
	err := db.Select(ctx, &in.Tables, `SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name`)
	return in, err
}

// Migrate needs no lock: each migration is one transaction, so that of two
// callers one fails whole. As long as the other gets on meanwhile, it tries
// again and finds that much less to do.
func (e sqliteEngine) Migrate(ctx context.Context, c Credentials, dial DialFunc) (int64, error) {
	return onOwnPool(e, c, dial, func(db *sql.DB) (int64, error) { return e.migrate(ctx, db) })
}

func (sqliteEngine) migrate(ctx context.Context, db *sql.DB) (int64, error) {
	for before := int64(-1); ; {
		version, err := migrate(ctx, goose.DialectSQLite3, db, "sqlite")
		if err == nil {
			return version, nil
		}
		var reached int64
		if db.QueryRowContext(ctx, `SELECT max(version_id) FROM `+VersionTable).Scan(&reached) != nil || reached == before {
			return 0, err
		}
		before = reached
	}
}

// Fault: a file of our own has no password and no network; what can fail is
// the disk below it.
func (sqliteEngine) Fault(err error) *stoa.Error {
	var (
		pathErr *fs.PathError // from making the folder
		liteErr *sqlite.Error
	)
	broken, cause := errors.As(err, &pathErr), err
	if errors.As(err, &liteErr) {
		switch liteErr.Code() & 0xff {
		case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY,
			sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			broken = true
		case sqlite3.SQLITE_BUSY:
			broken, cause = true, mayPass(err)
		}
	}
	if !broken {
		return nil
	}
	return stoa.Errorf(stoa.DatabaseUnreachable, "The store's embedded database cannot be used at the moment.").Because(cause)
}
