package stoa

import (
	"net/url"
	"strconv"
)

// HasValidPort reports whether an address names no port, or one between 1 and
// 65535. url.Parse accepts every number.
func HasValidPort(u *url.URL) bool {
	n, err := strconv.Atoi(u.Port())
	return u.Port() == "" || err == nil && 1 <= n && n <= 65535
}
