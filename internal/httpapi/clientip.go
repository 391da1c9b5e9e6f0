package httpapi

import (
	"net/http"
	"net/netip"
	"strings"
)

// Proxies are the trusted proxies and the one header in which they send the client's
// address: X-Forwarded-For or Forwarded (RFC 7239). They pass the other header on as
// the client wrote it, so it is never read.
type Proxies struct {
	Networks []netip.Prefix
	Header   string
}

const (
	forwardedFor = "X-Forwarded-For"
	forwarded    = "Forwarded"

	// maxHops bounds how many addresses of the header are read.
	maxHops = 16
)

func (p Proxies) trusts(a netip.Addr) bool {
	for _, n := range p.Networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// sent reports whether a trusted proxy sent the request, and not a client itself.
func (p Proxies) sent(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && p.trusts(peer.Addr().Unmap())
}

// isUntrusted reports whether a request comes from a private network, as a proxy's
// requests do, that is not trusted.
func (p Proxies) isUntrusted(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	at := peer.Addr().Unmap()
	return err == nil && (at.IsPrivate() || at.IsLoopback()) && !p.trusts(at)
}

// maxRequestID is the maximum length, in bytes, of a proxy's request id.
const maxRequestID = 64

// requestID returns the request id of a trusted proxy (X-Request-Id). It returns ""
// for other peers and for an id with characters other than letters, digits, '-',
// '_' and '.'.
func (p Proxies) requestID(r *http.Request) string {
	given := r.Header.Get("X-Request-Id")
	if !p.sent(r) || len(given) > maxRequestID {
		return ""
	}
	for _, c := range []byte(given) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return ""
		}
	}
	return given
}

// clientIP returns the client's address: the right-most one in the header that is
// not a trusted proxy's. Each proxy appends the address of its peer, so what the
// client wrote itself is further left and is not reached. An entry that cannot be
// parsed ends the search. The zero address means unknown.
func (p Proxies) clientIP(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	at := peer.Addr().Unmap()
	if !p.trusts(at) {
		return at
	}
	hops := p.hops(r.Header)
	for i := len(hops) - 1; i >= 0 && i >= len(hops)-maxHops; i-- {
		next, ok := parseHop(hops[i])
		if !ok {
			return at
		}
		if at = next; !p.trusts(at) {
			return at
		}
	}
	return at
}

// hops returns the addresses in the header, the one added last at the end. An
// element without an address is "".
func (p Proxies) hops(h http.Header) []string {
	if p.Header == forwarded {
		var out []string
		for _, element := range splitQuoted(strings.Join(h.Values(forwarded), ","), ',') {
			out = append(out, forParameter(element))
		}
		return out
	}
	return strings.Split(strings.Join(h.Values(forwardedFor), ","), ",")
}

// forParameter returns the value of for= in an element of Forwarded.
func forParameter(element string) string {
	for _, pair := range splitQuoted(element, ';') {
		name, value, _ := strings.Cut(pair, "=")
		if strings.EqualFold(strings.TrimSpace(name), "for") {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// splitQuoted splits s at separators outside quotes. It returns nothing when a quote
// is not closed: a client that leaves one open could hide what the proxy appends.
func splitQuoted(s string, sep byte) []string {
	var out []string
	quoted, from := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			out = append(out, s[from:i])
			from = i + 1
		}
	}
	if quoted {
		return nil
	}
	return append(out, s[from:])
}

// parseHop parses an address with or without port, brackets and quotes.
func parseHop(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if withPort, err := netip.ParseAddrPort(s); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	if len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap().WithZone(""), err == nil
}
