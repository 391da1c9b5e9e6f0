package tenantdb

import (
	"errors"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// maxLifetime is how long a connection is used, more or less: by then names have
// been resolved anew, and a server that was demoted without a word is left. The
// end differs by up to a fifth, so that connections made together do not end
// together.
const maxLifetime = 30 * time.Minute

// life says how long a connection may be used. The zero value has no end.
type life struct {
	state      *sessionState
	generation int64 // of state, from before the connection was begun
	ends       time.Time
}

func newLife(state *sessionState, generation int64) life {
	jitter := rand.N(2 * maxLifetime / 5) //nolint:gosec // not a secret
	return life{state, generation, time.Now().Add(maxLifetime - maxLifetime/5 + jitter)}
}

// isOver reports whether the connection is to be discarded before its next use.
func (l life) isOver() bool {
	return l.state != nil && (l.state.generation.Load() != l.generation || time.Now().After(l.ends))
}

// endAll has every connection that is as old as this one discarded.
func (l life) endAll() {
	if l.state != nil {
		l.state.generation.CompareAndSwap(l.generation, l.generation+1)
	}
}

// isReadOnly: the server, or the transaction, takes no changes. After a failover
// that is the server which was the primary before; a new connection finds the
// one which is it now.
// Source: PostgreSQL manual, appendix A; MySQL server error message reference:
// ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE, ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION.
func isReadOnly(err error) bool {
	return isState(err, "25006") || isMySQL(err, 1290, 1836, 1792)
}

// sessionEnded: the server has ended the session, perhaps before the statement
// and perhaps after it was committed. PostgreSQL's admin_shutdown,
// idle_session_timeout and idle_in_transaction_session_timeout;
// ER_SERVER_SHUTDOWN, MariaDB's ER_CONNECTION_KILLED,
// ER_CLIENT_INTERACTION_TIMEOUT.
// Source: PostgreSQL manual, "Message Flow".
func sessionEnded(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.SeverityUnlocalized == "FATAL" && (pgErr.Code == "57P01" || pgErr.Code == "57P05" || pgErr.Code == "25P03")
	}
	return isMySQL(err, 1053, 1927, 4031)
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

// keptNothing reports whether err says that the server has changed nothing, on a
// connection that is of no use any more: on another one the same may succeed.
// MySQL says that a session was ended by wait_timeout in the place of executing
// the next statement.
func keptNothing(err error) bool {
	var before uncommitted
	return errors.As(err, &before) || isReadOnly(err) || isPooled(err) || isMySQL(err, 4031)
}

// checkOf returns what asks the operating system's socket below conn, or nil.
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

// NetConn returns the connection below.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// NetConn returns the connection below.
func (c *tlsAnswer) NetConn() net.Conn { return c.Conn }

// NetConn returns the connection below any encryption.
func (l *mysqlLink) NetConn() net.Conn { return l.Conn }
