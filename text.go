package stoa

import "unicode"

// IsHidden reports whether a character is not seen or changes how those around
// it are shown: format characters such as direction overrides and zero-width
// spaces, line separators, private use. A name that holds one can look like
// another. The two joiners (U+200C, U+200D), which several scripts are written
// with, are not hidden.
func IsHidden(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) && r != '\u200c' && r != '\u200d'
}
