package tenantdb_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// These networks are the special networks, repeated independently of the code:
// the registries of IANA and the wire server of Azure.
var (
	special4 = []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
	}
	special6 = []string{"::/3", "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "4000::/2", "8000::/1"}
)

// TestIsPublicAtEdges checks that the first and the last address of each
// special network are refused, and that the neighbouring addresses on both
// sides are not, unless they are special as well.
func TestIsPublicAtEdges(t *testing.T) {
	t.Parallel()
	var networks []netip.Prefix
	for _, s := range append(special4, special6...) {
		networks = append(networks, netip.MustParsePrefix(s))
	}
	special := func(a netip.Addr) bool {
		for _, p := range networks {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	neighbours := 0
	for _, p := range networks {
		first, last := p.Addr(), lastOf(p)
		for _, a := range []netip.Addr{first, last} {
			if dial.IsPublic(a) {
				t.Errorf("%v of %v counts as public", a, p)
			}
		}
		for _, a := range []netip.Addr{first.Prev(), last.Next()} {
			if !a.IsValid() || special(a) {
				continue
			}
			neighbours++
			if !dial.IsPublic(a) {
				t.Errorf("%v beside %v counts as special", a, p)
			}
		}
	}
	if neighbours < 35 {
		t.Errorf("only %d neighbours tried", neighbours)
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestDialerCheck(t *testing.T) {
	t.Parallel()
	private := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("fe80::/10")}
	strict, loopback := &dial.Dialer{}, &dial.Dialer{Allow: dial.Loopback}
	office, lax := &dial.Dialer{Allow: private}, &dial.Dialer{PublicPlaintext: true}
	tests := []struct {
		name      string
		dialer    *dial.Dialer
		network   string
		address   string
		plaintext bool
		want      error
	}{
		{"public", strict, "tcp4", "8.8.8.8:5432", false, nil},
		{"public IPv6", strict, "tcp6", "[2606:4700::1111]:5432", false, nil},
		{"public, mapped", strict, "tcp6", "[::ffff:8.8.8.8]:5432", false, nil},
		{"public in plaintext", strict, "tcp4", "8.8.8.8:5432", true, dial.ErrPlaintextForbidden},
		{"public IPv6 in plaintext", strict, "tcp6", "[2606:4700::1111]:5432", true, dial.ErrPlaintextForbidden},
		{"public, mapped, in plaintext", strict, "tcp6", "[::ffff:8.8.8.8]:5432", true, dial.ErrPlaintextForbidden},
		{"public in plaintext, permitted", lax, "tcp4", "8.8.8.8:5432", true, nil},
		{"plaintext opens no special address", lax, "tcp4", "10.1.2.3:5432", true, dial.ErrHostForbidden},

		{"unix socket", loopback, "unix", "/var/run/postgresql/.s.PGSQL.5432", false, dial.ErrHostForbidden},
		{"udp", strict, "udp4", "8.8.8.8:53", false, dial.ErrHostForbidden},
		{"raw IP", strict, "ip4:icmp", "8.8.8.8", false, dial.ErrHostForbidden},
		{"tcp of either kind", strict, "tcp", "8.8.8.8:5432", false, dial.ErrHostForbidden},
		{"a name", strict, "tcp4", "db.example.com:5432", false, dial.ErrHostForbidden},
		{"nothing", strict, "tcp4", "", false, dial.ErrHostForbidden},

		{"loopback", strict, "tcp4", "127.0.0.1:5432", true, dial.ErrHostForbidden},
		{"other loopback", strict, "tcp4", "127.9.9.9:5432", true, dial.ErrHostForbidden},
		{"loopback IPv6", strict, "tcp6", "[::1]:5432", false, dial.ErrHostForbidden},
		{"loopback, mapped", strict, "tcp6", "[::ffff:127.0.0.1]:5432", false, dial.ErrHostForbidden},
		{"loopback, IPv4-compatible", strict, "tcp6", "[::127.0.0.1]:5432", false, dial.ErrHostForbidden},
		{"loopback through NAT64", strict, "tcp6", "[64:ff9b::7f00:1]:5432", false, dial.ErrHostForbidden},
		{"loopback through local NAT64", strict, "tcp6", "[64:ff9b:1::7f00:1]:5432", false, dial.ErrHostForbidden},
		{"loopback through 6to4", strict, "tcp6", "[2002:7f00:1::]:5432", false, dial.ErrHostForbidden},
		{"Teredo", strict, "tcp6", "[2001:0:1::]:5432", false, dial.ErrHostForbidden},
		{"this host", strict, "tcp4", "0.0.0.0:5432", false, dial.ErrHostForbidden},
		{"unspecified", strict, "tcp6", "[::]:5432", false, dial.ErrHostForbidden},
		{"link-local with zone", strict, "tcp6", "[fe80::1%eth0]:5432", false, dial.ErrHostForbidden},
		{"unique local", strict, "tcp6", "[fd00::1]:5432", false, dial.ErrHostForbidden},
		{"site-local", strict, "tcp6", "[fec0::1]:5432", false, dial.ErrHostForbidden},
		{"multicast", strict, "tcp6", "[ff02::1]:5432", false, dial.ErrHostForbidden},
		{"discard", strict, "tcp6", "[100::1]:5432", false, dial.ErrHostForbidden},
		{"segment routing", strict, "tcp6", "[5f00::1]:5432", false, dial.ErrHostForbidden},
		{"broadcast", strict, "tcp4", "255.255.255.255:5432", false, dial.ErrHostForbidden},

		{"metadata of AWS, Google, Azure", loopback, "tcp4", "169.254.169.254:80", false, dial.ErrHostForbidden},
		{"metadata of AWS containers", loopback, "tcp4", "169.254.170.2:80", false, dial.ErrHostForbidden},
		{"metadata, mapped", loopback, "tcp6", "[::ffff:169.254.169.254]:80", false, dial.ErrHostForbidden},
		{"metadata of AWS over IPv6", loopback, "tcp6", "[fd00:ec2::254]:80", false, dial.ErrHostForbidden},
		{"wire server of Azure", loopback, "tcp4", "168.63.129.16:80", false, dial.ErrHostForbidden},
		{"metadata of Alibaba", loopback, "tcp4", "100.100.100.200:80", false, dial.ErrHostForbidden},
		{"metadata of Oracle", loopback, "tcp4", "192.0.0.192:80", false, dial.ErrHostForbidden},

		{"loopback allowed", loopback, "tcp4", "127.0.0.1:5432", true, nil},
		{"loopback IPv6 allowed", loopback, "tcp6", "[::1]:5432", true, nil},
		{"loopback allowed, mapped", loopback, "tcp6", "[::ffff:127.0.0.1]:5432", true, nil},
		{"private allowed", office, "tcp4", "10.1.255.255:5432", true, nil},
		{"private allowed, mapped", office, "tcp6", "[::ffff:10.1.0.0]:5432", true, nil},
		{"private beside the allowed", office, "tcp4", "10.2.0.0:5432", true, dial.ErrHostForbidden},
		{"unique local allowed", office, "tcp6", "[fd00:1::5]:5432", true, nil},
		{"link-local allowed, with zone", office, "tcp6", "[fe80::1%eth0]:5432", true, nil},
		{"loopback is not the office", office, "tcp4", "127.0.0.1:5432", true, dial.ErrHostForbidden},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := tt.dialer.Check(tt.network, tt.address, tt.plaintext); !errors.Is(err, tt.want) {
				t.Errorf("Check(%s, %s) = %v, want %v", tt.network, tt.address, err, tt.want)
			}
		})
	}
}

// listen accepts connections on a loopback port and reports each one.
func listen(t *testing.T) (port string, accepted <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(conns)
				return
			}
			conns <- c
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		for c := range conns {
			_ = c.Close()
		}
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, conns
}

// TestDialerLooksAtResolvedAddress checks that the resolved address decides,
// not the spelling of the name.
func TestDialerLooksAtResolvedAddress(t *testing.T) {
	t.Parallel()
	for _, host := range []string{
		"localhost", "LOCALHOST", "127.0.0.1", "::ffff:127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "0",
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			port, accepted := listen(t)
			d := &dial.Dialer{Timeout: 2 * time.Second}
			conn, err := d.For(dial.Target{Plaintext: true})(t.Context(), "tcp", net.JoinHostPort(host, port))
			if err == nil {
				_ = conn.Close()
				t.Fatal("connected")
			}
			// The other spellings are names that some resolvers know.
			if _, notAddress := netip.ParseAddr(host); notAddress == nil || strings.EqualFold(host, "localhost") {
				if !errors.Is(err, dial.ErrHostForbidden) {
					t.Errorf("got %v, want ErrHostForbidden", err)
				}
			}
			select {
			case c := <-accepted:
				t.Errorf("%v arrived", c.RemoteAddr())
			default:
			}
		})
	}
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		port, accepted := listen(t)
		d := &dial.Dialer{Allow: dial.Loopback}
		conn, err := d.For(dial.Target{Plaintext: true})(t.Context(), "tcp", net.JoinHostPort("localhost", port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = (<-accepted).Close()
	})
}

// TestDialerRefusesOtherNetworks checks that the dialer refuses a socket path
// as address and networks other than TCP, even if a driver requests them.
func TestDialerRefusesOtherNetworks(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := &dial.Dialer{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	for network, address := range map[string]string{"unix": path, "udp": "127.0.0.1:53", "unixgram": path} {
		conn, err := d.For(dial.Target{})(t.Context(), network, address)
		if err == nil {
			_ = conn.Close()
		}
		if !errors.Is(err, dial.ErrHostForbidden) {
			t.Errorf("%s: got %v, want ErrHostForbidden", network, err)
		}
	}
}

// silentPort returns the port of a socket that answers no connection attempt, because
// its queue is full.
func silentPort(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	for range 64 {
		c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)).String(), 100*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue never fills")
	return 0
}

func TestDialerTimeout(t *testing.T) {
	t.Parallel()
	for _, engine := range []credential.EngineName{credential.PostgreSQL, credential.MySQL} {
		for name, timeout := range map[string][2]time.Duration{
			"dialer's":  {100 * time.Millisecond, time.Minute},
			"context's": {time.Minute, 100 * time.Millisecond},
		} {
			t.Run(string(engine)+" "+name, func(t *testing.T) {
				t.Parallel()
				m := tenantdb.NewManager(nil, nil, tenantdb.Options{Dialer: dial.Dialer{Allow: dial.Loopback, Timeout: timeout[0]}})
				defer m.Close(t.Context()) //nolint:errcheck // nothing is open
				db, err := m.OpenUnleased(credential.Credentials{
					Engine: engine, Host: "127.0.0.1", Port: silentPort(t), Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
				})
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close() //nolint:errcheck // nothing is open
				ctx, cancel := context.WithTimeout(t.Context(), timeout[1])
				defer cancel()
				begin := time.Now()
				err = db.Ping(ctx)
				if stoa.CodeOf(err) != stoa.DatabaseUnreachable {
					t.Errorf("got %v, want database_unreachable", err)
				}
				// This allows one second for a busy machine. Without the
				// timeout, it takes minutes.
				if took := time.Since(begin); took > time.Second {
					t.Errorf("took %v", took)
				}
			})
		}
	}
}
