package hostnames

import (
	"errors"
	"net"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

var errNotHostname = errors.New("not a hostname")

// Normalize returns a Host header in the form in which hostnames are stored: no
// port, no trailing dot, lower case, IDNA's ASCII form.
func Normalize(host string) (string, error) {
	if strings.IndexByte(host, ':') >= 0 { // without a colon, SplitHostPort would allocate an error
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 || !utf8.ValidString(host) {
		return "", errNotHostname
	}
	if !isNormal(host) {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", err
		}
	}
	// A remaining dot at the start or the end, or after another one, is an empty label:
	// IDNA maps other characters to dots.
	if host == "" || len(host) > 253 || host[0] == '.' || host[len(host)-1] == '.' || strings.Contains(host, "..") {
		return "", errNotHostname
	}
	return host, nil
}

// isNormal reports whether host is in stored form already. This is the common
// case, and it avoids the cost of IDNA.
func isNormal(host string) bool {
	for i := range len(host) {
		c := host[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return !strings.Contains(host, "xn--")
}
