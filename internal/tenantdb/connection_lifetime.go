package tenantdb

import (
	"errors"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// maxLifetime is the approximate lifetime of a connection. It limits how long a
// changed DNS entry or an unannounced failover goes unnoticed. It varies by up
// to a fifth, so that connections made together do not end together.
const maxLifetime = 30 * time.Minute

// lifetime determines how long a connection may be used. The zero value has no
// end.
type lifetime struct {
	state      *sessionState
	generation int64 // of state, before the connection was made
	ends       time.Time
}

func newLifetime(state *sessionState, generation int64) lifetime {
	jitter := rand.N(2 * maxLifetime / 5) //nolint:gosec // not a secret
	return lifetime{state: state, generation: generation, ends: time.Now().Add(maxLifetime - maxLifetime/5 + jitter)}
}

// isExpired reports whether the connection must be discarded before its next use.
func (l lifetime) isExpired() bool {
	return l.state != nil && (l.state.generation.Load() != l.generation || time.Now().After(l.ends))
}

// expireAll discards every connection of the same generation before its next use.
func (l lifetime) expireAll() {
	if l.state != nil {
		l.state.generation.CompareAndSwap(l.generation, l.generation+1)
	}
}

// isReadOnly reports whether the server, or the transaction, refuses changes.
// After a failover, the former primary refuses them; a new connection reaches
// the current primary.
// Source: PostgreSQL manual, appendix A; MySQL server error message reference:
// ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE,
// ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION.
func isReadOnly(err error) bool {
	return IsState(err, "25006") || IsMySQL(err, 1290, 1836, 1792)
}

// sessionEnded reports whether the server has ended the session, possibly
// before the statement and possibly after it was committed. The codes are
// PostgreSQL's admin_shutdown, idle_session_timeout and
// idle_in_transaction_session_timeout; ER_SERVER_SHUTDOWN, MariaDB's
// ER_CONNECTION_KILLED, ER_CLIENT_INTERACTION_TIMEOUT.
// Source: PostgreSQL manual, "Message Flow".
func sessionEnded(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.SeverityUnlocalized == "FATAL" && (pgErr.Code == "57P01" || pgErr.Code == "57P05" || pgErr.Code == "25P03")
	}
	return IsMySQL(err, 1053, 1927, 4031)
}

// uncommitted marks an error of a transaction before its COMMIT was sent.
type uncommitted struct{ error }

func (e uncommitted) Unwrap() error { return e.error }

// beforeCommit marks err if the server has ended the session.
func beforeCommit(err error) error {
	if err != nil && sessionEnded(err) {
		return uncommitted{err}
	}
	return err
}

// changedNothing reports whether err means that the server has changed nothing and the
// connection is unusable, so that a retry on another connection may succeed. MySQL
// reports the end of a session by wait_timeout instead of executing the next statement.
// MariaDB reports that a table of a trigger does not exist (ER_NO_SUCH_TABLE) to statements
// that wait while the trigger is created, as at the beginning of a move.
func changedNothing(err error) bool {
	var before uncommitted
	return errors.As(err, &before) || isReadOnly(err) || isPooled(err) || IsMySQL(err, 4031, 1146)
}

// checkOf returns the check of the operating system's socket under conn, or
// nil.
func checkOf(conn net.Conn) *socketCheck {
	for {
		if socket, ok := conn.(syscall.Conn); ok {
			return newSocketCheck(socket)
		}
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = outer.NetConn()
	}
}

// NetConn returns the underlying connection.

// NetConn returns the underlying connection.
func (c *tlsAnswer) NetConn() net.Conn { return c.Conn }

// NetConn returns the underlying connection without any encryption.
func (l *mysqlLink) NetConn() net.Conn { return l.Conn }
