package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func proxies(header string, networks ...string) Proxies {
	p := Proxies{Header: header}
	for _, n := range networks {
		p.Networks = append(p.Networks, netip.MustParsePrefix(n))
	}
	return p
}

func TestClientIP(t *testing.T) {
	t.Parallel()
	one, two := proxies(forwardedFor, "10.0.0.0/8"), proxies(forwardedFor, "10.0.0.0/8", "198.51.100.7/32", "2001:db8:aa::/48")
	rfc := proxies(forwarded, "10.0.0.0/8")
	for _, c := range []struct {
		name    string
		proxies Proxies
		peer    string
		header  []string // names and values
		want    string
	}{
		{"nobody is trusted", Proxies{}, "10.0.0.1:1", []string{forwardedFor, "203.0.113.9"}, "10.0.0.1"},
		{"a stranger's word", one, "192.0.2.1:1", []string{forwardedFor, "203.0.113.9"}, "192.0.2.1"},
		{"a proxy's word", one, "10.0.0.1:1", []string{forwardedFor, "203.0.113.9"}, "203.0.113.9"},
		{"the client made one up", one, "10.0.0.1:1", []string{forwardedFor, "1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		{"the client made up a proxy", one, "10.0.0.1:1", []string{forwardedFor, "1.1.1.1, 10.9.9.9, 203.0.113.9"}, "203.0.113.9"},
		{"in two lines", one, "10.0.0.1:1", []string{forwardedFor, "1.1.1.1", forwardedFor, "203.0.113.9"}, "203.0.113.9"},
		{"two proxies", two, "10.0.0.1:1", []string{forwardedFor, "203.0.113.9, 198.51.100.7"}, "203.0.113.9"},
		{"a proxy outside", one, "10.0.0.1:1", []string{forwardedFor, "203.0.113.9, 198.51.100.7"}, "198.51.100.7"},
		{"all are proxies", one, "10.0.0.1:1", []string{forwardedFor, "10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"no header", one, "10.0.0.1:1", nil, "10.0.0.1"},
		{"an empty header", one, "10.0.0.1:1", []string{forwardedFor, " , "}, "10.0.0.1"},
		{"nonsense", one, "10.0.0.1:1", []string{forwardedFor, "203.0.113.9, nonsense"}, "10.0.0.1"},
		{"nonsense further out", two, "10.0.0.1:1", []string{forwardedFor, "nonsense, 198.51.100.7"}, "198.51.100.7"},
		{"with a port", one, "10.0.0.1:1", []string{forwardedFor, "203.0.113.9:4711"}, "203.0.113.9"},
		{"IPv6", two, "[2001:db8:aa::1]:1", []string{forwardedFor, "2001:db8::5"}, "2001:db8::5"},
		{"IPv6 with a port", one, "10.0.0.1:1", []string{forwardedFor, "[2001:db8::5]:80"}, "2001:db8::5"},
		{"IPv4 in IPv6", one, "[::ffff:10.0.0.1]:1", []string{forwardedFor, "::ffff:203.0.113.9"}, "203.0.113.9"},
		{"the other header", one, "10.0.0.1:1", []string{forwarded, "for=203.0.113.9"}, "10.0.0.1"},
		{"the client's own other header", rfc, "10.0.0.1:1", []string{forwardedFor, "1.1.1.1", forwarded, "for=203.0.113.9"}, "203.0.113.9"},
		{"RFC 7239", rfc, "10.0.0.1:1", []string{forwarded, `for=1.1.1.1;proto=http, For="[2001:db8::5]:80";by=10.0.0.1`}, "2001:db8::5"},
		{"a comma in quotes", rfc, "10.0.0.1:1", []string{forwarded, `for=203.0.113.9;host="a,for=1.1.1.1"`}, "203.0.113.9"},
		{"quotes left open", rfc, "10.0.0.1:1", []string{forwarded, `for="203.0.113.9`}, "10.0.0.1"},
		{"quotes that swallow the proxy's word", rfc, "10.0.0.1:1", []string{forwarded, `for=1.1.1.1;a=", for=203.0.113.9;host="x"`}, "10.0.0.1"},
		{"hidden", rfc, "10.0.0.1:1", []string{forwarded, "for=1.1.1.1, for=_hidden"}, "10.0.0.1"},
		{"unknown", rfc, "10.0.0.1:1", []string{forwarded, "for=unknown"}, "10.0.0.1"},
		{"no peer", one, "@", []string{forwardedFor, "203.0.113.9"}, "invalid IP"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		for i := 0; i+1 < len(c.header); i += 2 {
			r.Header.Add(c.header[i], c.header[i+1])
		}
		if got := c.proxies.clientIP(r).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// FuzzForwarded checks that the address that the proxy appends counts, whatever the
// client wrote before it, and that no header makes clientIP panic.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "1.1.1.1", "1.1.1.1, 10.0.0.9", "for=1.1.1.1", `for="[::1]:80";by=x`, `for="a,b\"c`, ",,,", "\"", strings.Repeat("10.0.0.9,", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsAny(s, "\r\n") {
			t.Skip("no header has these")
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header.Set(forwardedFor, s+", 203.0.113.9")
		if got := proxies(forwardedFor, "10.0.0.0/8").clientIP(r); got != netip.MustParseAddr("203.0.113.9") {
			t.Errorf("X-Forwarded-For %q: %s", s, got)
		}
		// An element that the proxy appends inside the client's open quotes cannot be
		// parsed: the peer's address counts.
		r.Header.Set(forwarded, s+`, for="203.0.113.9";host="x;,"`)
		peer := netip.MustParseAddr("10.0.0.1")
		if got := proxies(forwarded, "10.0.0.0/8").clientIP(r); got != netip.MustParseAddr("203.0.113.9") && got != peer {
			t.Errorf("Forwarded %q: %s", s, got)
		}
	})
}

// TestClientRequestID checks that a request id is accepted only from a trusted proxy,
// with a limited length and alphabet.
func TestClientRequestID(t *testing.T) {
	t.Parallel()
	trusted := proxies(forwardedFor, "10.0.0.0/8")
	for _, c := range []struct{ peer, given, want string }{
		{"10.0.0.1:1", "abc-DEF_1.2", "abc-DEF_1.2"},
		{"[::ffff:10.0.0.1]:1", "abc", "abc"},
		{"10.0.0.1:1", strings.Repeat("a", maxRequestID), strings.Repeat("a", maxRequestID)},
		{"10.0.0.1:1", strings.Repeat("a", maxRequestID+1), ""},
		{"10.0.0.1:1", "", ""},
		{"10.0.0.1:1", "a b", ""},
		{"10.0.0.1:1", "a\nb", ""},
		{"10.0.0.1:1", "<script>", ""},
		{"10.0.0.1:1", "ä", ""},
		{"10.0.0.1:1", "a\x00", ""},
		{"192.0.2.1:1", "abc", ""}, // not a proxy
		{"nonsense", "abc", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		r.Header.Set("X-Request-Id", c.given)
		if got := trusted.requestID(r); got != c.want {
			t.Errorf("%q from %s: %q, want %q", c.given, c.peer, got, c.want)
		}
	}
}
