package archive

import (
	"strings"
	"unicode/utf8"
)

// isCanonicalJSON reports whether s is known to be in canonical form, at a fraction of the
// cost of decoding it. It returns false for some texts that are, such as those with escapes
// in names and with numbers that are no integers.
func isCanonicalJSON(s string) bool {
	rest, ok := cutCanonical(s, maxDepth)
	return ok && rest == "" && utf8.ValidString(s)
}

// cutCanonical removes a value in canonical form, of at most that many levels, from the
// beginning of s.
func cutCanonical(s string, levels int) (rest string, ok bool) {
	if s == "" {
		return "", false
	}
	switch s[0] {
	case '"':
		_, rest, ok = cutString(s)
		return rest, ok
	case '{':
		return cutMembers(s[1:], levels-1)
	case '[':
		return cutItems(s[1:], levels-1)
	}
	for _, word := range []string{"null", "true", "false"} {
		if rest, ok := strings.CutPrefix(s, word); ok {
			return rest, true
		}
	}
	return cutInteger(s)
}

// cutString returns a string without its quotes and what follows it.
func cutString(s string) (content, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[1:i], s[i+1:], true
		case c < ' ':
			return "", "", false
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
		}
	}
	return "", "", false
}

// cutInteger accepts integers of at most 18 digits.
func cutInteger(s string) (rest string, ok bool) {
	digits := strings.TrimPrefix(s, "-")
	rest = strings.TrimLeft(digits, "0123456789")
	n := len(digits) - len(rest)
	switch {
	case n == 0, n > 18, digits[0] == '0' && (n > 1 || len(digits) < len(s)):
		return "", false
	}
	return rest, true
}

func cutItems(s string, levels int) (rest string, ok bool) {
	if rest, ok := strings.CutPrefix(s, "]"); ok {
		return rest, levels >= 0
	}
	for levels >= 0 {
		if s, ok = cutCanonical(s, levels); !ok {
			return "", false
		}
		if rest, ok := strings.CutPrefix(s, "]"); ok {
			return rest, true
		}
		if s, ok = strings.CutPrefix(s, ","); !ok {
			return "", false
		}
	}
	return "", false
}

func cutMembers(s string, levels int) (rest string, ok bool) {
	if rest, ok := strings.CutPrefix(s, "}"); ok {
		return rest, levels >= 0
	}
	for before, first := "", true; levels >= 0; first = false {
		var name string
		if name, s, ok = cutString(s); !ok || !first && name <= before || strings.IndexByte(name, '\\') >= 0 {
			return "", false
		}
		before = name
		if s, ok = strings.CutPrefix(s, ":"); !ok {
			return "", false
		}
		if s, ok = cutCanonical(s, levels); !ok {
			return "", false
		}
		if rest, ok := strings.CutPrefix(s, "}"); ok {
			return rest, true
		}
		if s, ok = strings.CutPrefix(s, ","); !ok {
			return "", false
		}
	}
	return "", false
}
