package masterdb

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrNotFound means that a query for one row found none.
var ErrNotFound = errors.New("masterdb: no row")

// ErrBusy means that the connection that writes to SQLite was not free in time.
var ErrBusy = errors.New("masterdb: the write connection is busy; code inside a transaction must use that transaction")

// IsUnique reports whether err says that a UNIQUE or PRIMARY KEY constraint
// was violated.
func IsUnique(err error) bool {
	return hasCode(err, "23505", sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// IsCheck reports whether err says that a CHECK constraint was violated.
func IsCheck(err error) bool {
	return hasCode(err, "23514", sqlite3.SQLITE_CONSTRAINT_CHECK)
}

// IsForbidden reports whether err says that this connection's role lacks a
// right on PostgreSQL.
func IsForbidden(err error) bool { return hasCode(err, "42501") }

// IsRefused reports whether err means that a single statement on PostgreSQL
// was not carried out: the server has refused it, or it was never sent. Of
// other errors, such as a connection lost meanwhile, nobody knows. An error
// that ends the session may come after the commit (severity FATAL; Message
// Flow in protocol-flow.html).
func IsRefused(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.SeverityUnlocalized == "ERROR"
	}
	return pgconn.SafeToRetry(err)
}

// isRetryable: the transaction lost to another one, or met a server that takes no
// changes since a failover, and may succeed if run again.
func isRetryable(err error) bool {
	return hasCode(err, "40001") || hasCode(err, "40P01") || hasCode(err, readOnly)
}

// hasCode matches PostgreSQL's SQLSTATE or SQLite's extended result code.
func hasCode(err error, sqlstate string, lite ...int) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code == sqlstate
	}
	var liteErr *sqlite.Error
	if errors.As(err, &liteErr) {
		for _, code := range lite {
			if liteErr.Code() == code {
				return true
			}
		}
	}
	return false
}
