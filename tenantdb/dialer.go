package tenantdb

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

// ErrHostForbidden means that a name resolved to an address that the
// operator has not allowed.
var ErrHostForbidden = errors.New("tenantdb: address is not allowed")

// errUnknownHost means that a name leads to no server that may be reached. It
// covers names that do not exist and those that lead to forbidden addresses:
// the difference would tell a stranger which names an internal network has.
var errUnknownHost = errors.New("tenantdb: the name leads to no address that may be reached")

// ErrPlaintextForbidden means that an unencrypted connection would have left
// the operator's own networks.
var ErrPlaintextForbidden = errors.New("tenantdb: plaintext to a public address is not allowed")

// Dialer is the one door through which every connection to a tenant's
// database server leaves. Its checks look at the address actually dialled,
// after name resolution, so that a name cannot promise one address and
// deliver another.
type Dialer struct {
	// Allow lists special networks (private, loopback, …) that may be
	// reached. Public addresses always may.
	Allow []netip.Prefix
	// PublicPlaintext permits unencrypted connections to public addresses.
	PublicPlaintext bool
	// Timeout bounds name resolution and connecting. Default 5 s.
	Timeout time.Duration
}

// DialFunc is the shape that drivers take.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// everywhere are the special networks where a managed database may be: its
// server is the operator's own.
var everywhere = prefixes("0.0.0.0/0", "::/0")

// For returns the dial function for one database.
func (d *Dialer) For(c Credentials) DialFunc {
	if c.Kind == Managed { // which no merchant can claim: Validate and the domain refuse it
		trusting := *d
		trusting.Allow = everywhere
		d = &trusting
	}
	timeout := d.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	dialer := &net.Dialer{Timeout: timeout, Control: func(network, address string, _ syscall.RawConn) error {
		return d.check(network, address, c.TLS == TLSDisable)
	}}
	if _, err := netip.ParseAddr(c.Host); err == nil {
		return dialer.DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		var dns *net.DNSError
		if errors.Is(err, ErrHostForbidden) || errors.As(err, &dns) {
			return nil, fmt.Errorf("%w: %w", errUnknownHost, err)
		}
		return conn, err
	}
}

func (d *Dialer) check(network, address string, plaintext bool) error {
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

// Loopback is what development allows by default.
var Loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// Addresses that are not somebody's public server: the IANA special-purpose
// registries for IPv4 and IPv6, and the metadata address of Azure.
var (
	special4 = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
		"192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"168.63.129.16/32")
	global6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

// IsPublic reports whether an address may be anybody's server: it is none of the
// special-purpose ones.
func IsPublic(a netip.Addr) bool {
	contains := func(p netip.Prefix) bool { return p.Contains(a) }
	if a.Is4() {
		return !slices.ContainsFunc(special4, contains)
	}
	return global6.Contains(a) && !slices.ContainsFunc(special6, contains)
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
