package stoa

import (
	"net/url"
	"strconv"
)

// IsPort reports whether s is the number of a port, from 1 to 65535.
func IsPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && 1 <= n && n <= 65535
}

// HasValidPort reports whether an address names no port, or a valid one. url.Parse accepts
// every number.
func HasValidPort(u *url.URL) bool { return u.Port() == "" || IsPort(u.Port()) }
