package masterdb

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/sqlite"
)

// ErrNotFound means that a query for one row found none.
var ErrNotFound = errors.New("masterdb: no row")

// ErrBusy means that the SQLite write connection did not become free in time.
var ErrBusy = errors.New("masterdb: the write connection is busy; code inside a transaction must use that transaction")

// IsUnique reports whether err says that a UNIQUE or PRIMARY KEY constraint
// was violated.
func IsUnique(err error) bool {
	return hasCode(err, "23505") || sqlite.IsUnique(err)
}

// IsCheck reports whether err says that a CHECK constraint was violated.
func IsCheck(err error) bool {
	return hasCode(err, "23514", sqlite3.SQLITE_CONSTRAINT_CHECK)
}

// IsForbidden reports whether err says that this connection's role lacks a privilege on
// PostgreSQL.
func IsForbidden(err error) bool { return hasCode(err, "42501") }

// IsRefused reports whether err means that a single statement on PostgreSQL was certainly
// not executed: the server refused it, or it was never sent. After other errors, such as a
// lost connection, the outcome is unknown. An error that ends the session (severity FATAL)
// may arrive after the commit. Source: PostgreSQL manual, "Message Flow".
func IsRefused(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.SeverityUnlocalized == "ERROR"
	}
	return pgconn.SafeToRetry(err)
}

// isRetryable reports whether the transaction may succeed if run again: it conflicted with
// another one, or it reached a server that is read-only since a failover.
func isRetryable(err error) bool {
	return errors.Is(err, errUnseen) || hasCode(err, "40001") || hasCode(err, "40P01") || hasCode(err, readOnly)
}

// retryAfter is the Retry-After of platform_unavailable.
const retryAfter = 5 * time.Second

// fullFor is how long Ping reports a full disk after the last write that failed because of
// it, unless a later write succeeds.
const fullFor = 30 * time.Second

// MapError returns err as platform_unavailable when the master database cannot serve any
// request at the moment: it is unreachable, starting, stopping or overloaded, or its disk
// is full. Otherwise it returns err unchanged. The methods of DB call it; callers of
// DB.Pool and DB.Writer must call it themselves.
func (db *DB) MapError(ctx context.Context, err error) error {
	var known *stoa.Error
	if err == nil || ctx.Err() != nil || errors.As(err, &known) {
		return err
	}
	const nothingLost = "Nothing is lost. Try again in a few seconds."
	switch {
	case isFull(err):
		db.full.Store(time.Now().UnixNano())
		known = stoa.Errorf(stoa.PlatformUnavailable, "The platform cannot store anything at the moment. "+nothingLost)
	case isUnreachable(err):
		if db.pool != nil {
			db.breaker().requestProbe()
		}
		known = stoa.Errorf(stoa.PlatformUnavailable, "The platform's own database cannot be reached at the moment. "+nothingLost)
	case errors.Is(err, errSettings):
		known = stoa.Errorf(stoa.PlatformUnavailable, "The platform's own database cannot be used at the moment. "+nothingLost)
	case isRetryable(err), isOverloaded(err):
		known = stoa.Errorf(stoa.PlatformUnavailable, "The platform's own database has too much to do at the moment. "+nothingLost)
	default:
		return err
	}
	known.RetryAfter = retryAfter
	return known.WithCause(err)
}

// isFull reports whether the disk is full.
func isFull(err error) bool { return hasCode(err, "53100", sqlite3.SQLITE_FULL) }

// isUnreachable reports whether the server or the SQLite file could not be reached, or the
// connection was lost. Source: PostgreSQL manual, "PostgreSQL Error Codes".
func isUnreachable(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch pgErr.Code {
		case "57P01", "57P02", "57P03", "57P05", readOnly: // shutdown, crash, startup, idle timeout, or no longer the primary
			return true
		}
		return pgErr.Code[:min(2, len(pgErr.Code))] == "08" || pgErr.Code == "58030" // a connection exception (class 08), or an input/output error
	}
	if sqlite.HasCode(err, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) {
		return true
	}
	var connectErr *pgconn.ConnectError
	var netErr net.Error
	return errors.Is(err, errUnreachable) || errors.As(err, &connectErr) || errors.As(err, &netErr) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}

// isOverloaded reports whether the server has run out of connections or memory, or a time
// limit has passed.
func isOverloaded(err error) bool {
	return errors.Is(err, ErrBusy) || hasCode(err, "53000") || hasCode(err, "53200") || hasCode(err, "53300") || hasCode(err, "53400") || hasCode(err, "57014") ||
		sqlite.HasCode(err, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL)
}

// hasCode reports whether err has the given SQLSTATE on PostgreSQL, or one of the given
// result codes on SQLite.
func hasCode(err error, sqlstate string, lite ...int) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code == sqlstate
	}
	return sqlite.HasCode(err, lite...)
}
