package tracing

import (
	"net/http"
	"strings"
)

// SentID returns the trace id in a request's traceparent, or "" if it has none, more than one or
// one that is not valid. It is for log lines while tracing is off: it makes no span and
// allocates nothing, and takes what Request takes.
func SentID(r *http.Request) string {
	values := r.Header["Traceparent"]
	if len(values) != 1 || len(values[0]) > maxParent {
		return ""
	}
	version, rest, _ := strings.Cut(values[0], "-")
	id, rest, _ := strings.Cut(rest, "-")
	span, rest, _ := strings.Cut(rest, "-")
	flags, rest, _ := strings.Cut(rest, "-")
	switch {
	case !isHex(version, 2) || !isID(id, 32) || !isID(span, 16) || !isHex(flags, 2):
		return ""
	case version == "ff": // no version, by the specification
		return ""
	case version == "00" && (rest != "" || flags > "03"): // later versions may have more
		return ""
	}
	return id
}

// isID reports whether s is an id of n digits. Zero is none.
func isID(s string, n int) bool { return isHex(s, n) && strings.Trim(s, "0") != "" }

// isHex reports whether s has n digits of lower-case hexadecimal.
func isHex(s string, n int) bool { return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" }
