// Package sqlite opens SQLite files: the master database, embedded stores, and the empty
// files that are used as locks between processes.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net/url"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Options say how a file is opened. Times are stored in UTC, in a format that SQLite's own
// functions read.
type Options struct {
	Path string

	// Begin is how a transaction begins: deferred, immediate or exclusive.
	Begin string

	// Mode says what a missing file does: "" creates it, "rw" fails.
	Mode string

	// ModeOf is a file or folder whose permissions a new file gets; "" leaves them to the
	// process's umask.
	ModeOf string

	// Pragmas are set on each connection, such as "foreign_keys(1)".
	Pragmas []string

	// Statements is how many prepared statements each connection keeps. One takes about
	// 10 KB. 0 keeps none.
	Statements int

	// Retry reports whether to try again after a failed attempt to connect, counted from
	// 1. It is not asked while the file is busy. Nil means never.
	Retry func(err error, attempt int) bool
}

// Connecting may take so long, and an attempt that failed is repeated after the pause.
const (
	connectTimeout = 10 * time.Second
	connectPause   = 5 * time.Millisecond
)

// Open returns a pool of connections to a file. It connects when the pool is first used.
func Open(o Options) (*sql.DB, error) {
	c, err := o.connector()
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{c, o.Retry, o.Statements}), nil
}

func (o Options) connector() (driver.Connector, error) {
	query := url.Values{"_txlock": {o.Begin}, "_time_format": {"sqlite"}, "_timezone": {"UTC"}, "_pragma": o.Pragmas}
	for name, value := range map[string]string{"mode": o.Mode, "modeof": o.ModeOf} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return sqlite.NewConnector(uri(o.Path, query))
}

func uri(path string, query url.Values) string {
	encoded := strings.ReplaceAll(query.Encode(), "+", "%20") // SQLite does not read a plus as a space
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: encoded}).String()
}

// connector repeats an attempt to connect while the file switches to or from WAL mode:
// SQLite then reports busy at once, regardless of busy_timeout. That happens when
// processes open a new file at the same moment, or when one pool of a file is opened
// while another closes.
type connector struct {
	driver.Connector
	retry      func(error, int) bool
	statements int
}

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		conn, err := c.Connector.Connect(ctx)
		if !HasCode(err, sqlite3.SQLITE_BUSY) && (err == nil || c.retry == nil || !c.retry(err, attempt)) {
			if err != nil || c.statements == 0 {
				return conn, err
			}
			return keepStatements(conn, c.statements)
		}
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// HasCode reports whether err has one of SQLite's result codes. A primary code stands for
// all of its extended codes.
func HasCode(err error, codes ...int) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, code := range codes {
		if e.Code() == code || e.Code()&0xff == code {
			return true
		}
	}
	return false
}

// IsUnique reports whether err says that a UNIQUE or PRIMARY KEY constraint was violated.
func IsUnique(err error) bool {
	return HasCode(err, sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// Locking waits between two attempts from one pause to the other.
const (
	lockPause    = time.Millisecond
	maxLockPause = 50 * time.Millisecond
)

// Lock waits until nobody else holds the lock of that file, in any process. The lock is an
// exclusive transaction on an empty database. It ends with unlock or with the process:
// SQLite has no other lock that outlasts a transaction and admits readers of the data. Of
// the options, Path, Mode and ModeOf are used.
func Lock(ctx context.Context, o Options) (unlock func(), err error) {
	for pause := lockPause; ; pause = min(2*pause, maxLockPause) {
		if unlock, err = TryLock(ctx, o); !HasCode(err, sqlite3.SQLITE_BUSY) {
			return unlock, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// TryLock is Lock that does not wait: it fails with SQLITE_BUSY while somebody else holds
// the lock.
func TryLock(ctx context.Context, o Options) (unlock func(), err error) {
	o.Begin, o.Pragmas = "exclusive", []string{"busy_timeout(0)"}
	c, err := o.connector()
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	tx, err := db.BeginTx(context.WithoutCancel(ctx), nil) // the transaction outlives ctx
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return func() {
		_ = tx.Rollback()
		_ = db.Close()
	}, nil
}
