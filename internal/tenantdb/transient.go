package tenantdb

import (
	"errors"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// transient marks the cause of a fault that may disappear without a change: a
// network failure, or a server that starts, stops or has no free connection. An
// engine decides this by the driver's error code.
type transient struct{ error }

func (p transient) Unwrap() error { return p.error }

// IsTransient reports whether err is a database fault that may not occur again
// on a later retry. A fault that only the owner can correct, such as a wrong
// password, a wrong name or a missing right, is never transient.
func IsTransient(err error) bool {
	var p transient
	return errors.As(err, &p)
}

// IsConnectFailure reports whether err says that no connection to the server could be made, so
// that no statement was sent.
func IsConnectFailure(err error) bool {
	var postgres *pgconn.ConnectError
	var mySQL *mysqlConnectError
	return errors.As(err, &postgres) || errors.As(err, &mySQL)
}

// markTransient marks cause as transient, unless it says that a host name does not
// exist, which is a definite answer of the resolver.
func markTransient(cause error) error {
	var dns *net.DNSError
	if cause == nil || errors.As(cause, &dns) && dns.IsNotFound {
		return cause
	}
	return transient{cause}
}
