// Package dial makes the outbound connections to tenants' database servers, to
// addresses that are allowed.
package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// ErrHostForbidden means that an address is not public and the operator has not
// allowed it.
var ErrHostForbidden = errors.New("dial: address is not allowed")

// ErrUnknownHost means that a name does not exist or resolves to a forbidden address.
// One error covers both, because the difference would reveal the names of an internal
// network.
var ErrUnknownHost = errors.New("dial: the name leads to no address that may be reached")

// ErrPlaintextForbidden means that an unencrypted connection to a public address is
// not allowed.
var ErrPlaintextForbidden = errors.New("dial: plaintext to a public address is not allowed")

// Dialer makes every connection to a tenant's database server. It checks the address
// that is dialled, after name resolution, so that a name cannot resolve to one address
// for the check and to another for the connection.
type Dialer struct {
	// Allow lists special networks (private, loopback, …) that may be reached.
	// Public addresses are always allowed.
	Allow []netip.Prefix
	// PublicPlaintext permits unencrypted connections to public addresses.
	PublicPlaintext bool
	// Timeout limits name resolution and connecting. Default 5 s.
	Timeout time.Duration
}

// Func is the type of dial functions that drivers accept.
type Func func(ctx context.Context, network, address string) (net.Conn, error)

// allNetworks contains all addresses. A managed database may be reached at any
// of them, because its server belongs to the operator.
var allNetworks = prefixes("0.0.0.0/0", "::/0")

// Target is what the dialer must know about a database.
type Target struct {
	Host      string // a name or an IP address
	Trusted   bool   // the operator's own server, at any address
	Plaintext bool   // the connection is not encrypted
}

// For returns the dial function for one database.
func (d *Dialer) For(t Target) Func {
	if t.Trusted {
		trusting := *d
		trusting.Allow = allNetworks
		d = &trusting
	}
	timeout := d.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	dialer := &net.Dialer{Timeout: timeout, Control: func(network, address string, _ syscall.RawConn) error {
		return d.Check(network, address, t.Plaintext)
	}}
	if _, err := netip.ParseAddr(t.Host); err == nil {
		return dialer.DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		var dns *net.DNSError
		if errors.Is(err, ErrHostForbidden) || errors.As(err, &dns) {
			return nil, fmt.Errorf("%w: %w", ErrUnknownHost, err)
		}
		return conn, err
	}
}

// Check fails unless the address may be dialled: with ErrHostForbidden or
// ErrPlaintextForbidden.
func (d *Dialer) Check(network, address string, plaintext bool) error {
	if network != "tcp4" && network != "tcp6" {
		return ErrHostForbidden
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrHostForbidden
	}
	// Prefix.Contains is false for zoned and IPv4-mapped addresses.
	addr := ap.Addr().Unmap().WithZone("")
	if IsPublic(addr) {
		if plaintext && !d.PublicPlaintext {
			return ErrPlaintextForbidden
		}
		return nil
	}
	if slices.ContainsFunc(d.Allow, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return nil
	}
	return ErrHostForbidden
}
