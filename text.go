package stoa

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxName = 100 // in characters

// NormalName returns the name of a person or a thing without the spaces around
// it. The fault is empty unless the name is empty, is longer than 100
// characters, or contains invalid, control or hidden characters.
func NormalName(s string) (name, fault string) {
	name = strings.TrimSpace(s)
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return name, "must not be empty"
	case n > maxName:
		return name, "must be at most 100 characters long"
	case strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsFunc(name, IsHidden) || !utf8.ValidString(name):
		return name, "must not contain control or invisible characters"
	}
	return name, ""
}

// IsHidden reports whether a character is invisible or changes how its
// neighbours are shown: format characters such as direction overrides and
// zero-width spaces, line separators, private use. Two different names can look
// the same if one contains such a character. The two joiners (U+200C, U+200D),
// which several scripts need, are not hidden.
func IsHidden(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) && r != '\u200c' && r != '\u200d'
}
