package tenantdb

import (
	"errors"
	"net"
)

// passing marks the cause of a fault that may be over in a moment: a network
// that fails, a server that starts, ends or has no connection to spare. An
// engine decides it where it knows the driver's code.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// IsPassing reports whether err is a fault of a database that may be gone when
// the same is tried again a little later. What only its owner can mend, such
// as a password, a name or a right, never is.
func IsPassing(err error) bool {
	var p passing
	return errors.As(err, &p)
}

// mayPass marks cause, unless it says that the name does not exist: the
// resolver has an answer then, and it is no.
func mayPass(cause error) error {
	var dns *net.DNSError
	if cause == nil || errors.As(cause, &dns) && dns.IsNotFound {
		return cause
	}
	return passing{cause}
}
