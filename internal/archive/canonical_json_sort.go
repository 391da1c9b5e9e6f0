package archive

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// appendSortedJSON appends the canonical form of JSON that differs from it only in spaces and
// in the order of members, as PostgreSQL writes it, at a fraction of the cost of decoding it.
// It appends nothing and returns false for some other texts too.
func appendSortedJSON(b []byte, s string) (_ []byte, ok bool) {
	out, rest, ok := appendSorted(slices.Grow(b, len(s)), skipSpace(s), maxDepth)
	if !ok || skipSpace(rest) != "" || !utf8.ValidString(s) {
		return b, false
	}
	return out, true
}

func skipSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\n' || s[0] == '\t' || s[0] == '\r') {
		s = s[1:]
	}
	return s
}

// cutByte removes c, and spaces around it, from the beginning of s.
func cutByte(s string, c byte) (rest string, ok bool) {
	if s = skipSpace(s); s == "" || s[0] != c {
		return s, false
	}
	return skipSpace(s[1:]), true
}

// appendSorted appends a value of at most that many levels in canonical form, and removes it
// from the beginning of s.
func appendSorted(b []byte, s string, levels int) (_ []byte, rest string, ok bool) {
	switch {
	case s == "":
		return nil, "", false
	case s[0] == '{' && levels > 0:
		return appendMembers(b, skipSpace(s[1:]), levels-1)
	case s[0] == '[' && levels > 0:
		return appendItems(b, skipSpace(s[1:]), levels-1)
	}
	if rest, ok = cutCanonical(s, 0); !ok {
		return nil, "", false
	}
	return append(b, s[:len(s)-len(rest)]...), rest, true
}

func appendItems(b []byte, s string, levels int) (_ []byte, rest string, ok bool) {
	b = append(b, '[')
	if rest, ok := cutByte(s, ']'); ok {
		return append(b, ']'), rest, true
	}
	for {
		if b, s, ok = appendSorted(b, s, levels); !ok {
			return nil, "", false
		}
		if rest, ok := cutByte(s, ']'); ok {
			return append(b, ']'), rest, true
		}
		if s, ok = cutByte(s, ','); !ok {
			return nil, "", false
		}
		b = append(b, ',')
	}
}

// member is where a member of an object was written.
type member struct {
	name      string
	from, end int
}

func appendMembers(b []byte, s string, levels int) (_ []byte, rest string, ok bool) {
	b = append(b, '{')
	if rest, ok := cutByte(s, '}'); ok {
		return append(b, '}'), rest, true
	}
	var few [16]member
	members := few[:0]
	for {
		m := member{from: len(b)}
		if m.name, rest, ok = cutString(s); !ok || strings.IndexByte(m.name, '\\') >= 0 {
			return nil, "", false
		}
		b = append(append(b, s[:len(s)-len(rest)]...), ':')
		if s, ok = cutByte(rest, ':'); !ok {
			return nil, "", false
		}
		if b, s, ok = appendSorted(b, s, levels); !ok {
			return nil, "", false
		}
		m.end = len(b)
		members = append(members, m)
		if rest, ok = cutByte(s, '}'); ok {
			break
		}
		if s, ok = cutByte(s, ','); !ok {
			return nil, "", false
		}
		b = append(b, ',')
	}
	b, ok = sortMembers(b, members)
	return append(b, '}'), rest, ok
}

// sortMembers sorts the members at the end of b. It returns false if two have the same name.
func sortMembers(b []byte, members []member) (_ []byte, ok bool) {
	byName := func(x, y member) int { return strings.Compare(x.name, y.name) }
	if !slices.IsSortedFunc(members, byName) {
		from := members[0].from
		written := slices.Clone(b[from:])
		slices.SortFunc(members, byName)
		b = b[:from]
		for i, m := range members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, written[m.from-from:m.end-from]...)
		}
	}
	for i := 1; i < len(members); i++ {
		if members[i].name == members[i-1].name {
			return nil, false
		}
	}
	return b, true
}
