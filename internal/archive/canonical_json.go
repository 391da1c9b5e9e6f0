package archive

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxJSON limits the bytes of a JSON value. Stoa itself reads at most 64 KiB, and decoding
// takes up to twenty times as much memory.
const maxJSON = 1 << 20

// maxDepth limits how deeply a JSON value is nested. MySQL accepts 100 levels.
const maxDepth = 200

// canonicalJSON returns a JSON text in the one form that all texts of the same value have:
// no spaces, members sorted by the bytes of their names, of members with one name only the
// last, numbers without needless digits, and strings with as few escapes as possible.
func canonicalJSON(s string) (string, error) {
	if len(s) > maxJSON {
		return "", errors.New("is JSON of more than 1 MiB")
	}
	if isCanonicalJSON(s) {
		return s, nil
	}
	b, err := appendCanonicalJSON(make([]byte, 0, min(len(s), maxJSON)), s)
	return string(b), err
}

// appendCanonicalJSON appends the canonical form of a text.
func appendCanonicalJSON(b []byte, s string) ([]byte, error) {
	if len(s) > maxJSON {
		return nil, errors.New("is JSON of more than 1 MiB")
	}
	if b, ok := appendSortedJSON(b, s); ok {
		return b, nil
	}
	rewritten, err := rewrittenJSON(s)
	return append(b, rewritten...), err
}

// rewrittenJSON does the same for a text of any form.
func rewrittenJSON(s string) (string, error) {
	if !json.Valid([]byte(s)) {
		return "", errors.New("is not valid JSON")
	}
	if hasLoneSurrogate(s) {
		return "", errors.New("is JSON with half of a surrogate pair, which no other engine can store")
	}
	if depthOf(s) > maxDepth {
		return "", errors.New("is JSON that is nested too deeply")
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", errors.New("is not valid JSON")
	}
	b, err := appendJSON(make([]byte, 0, len(s)), v)
	return string(b), err
}

// depthOf returns how deeply valid JSON is nested. Decoding it would use memory for each level.
func depthOf(s string) int {
	depth, most, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			most = max(most, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return most
}

// hasLoneSurrogate reports whether valid JSON has an escape that is half of a pair. The
// decoder would replace it.
func hasLoneSurrogate(s string) bool {
	for {
		at := strings.IndexByte(s, '\\')
		if at < 0 {
			return false
		}
		if s = s[at:]; s[1] != 'u' {
			s = s[2:]
			continue
		}
		first := escaped(s)
		s = s[6:]
		if !utf16.IsSurrogate(first) {
			continue
		}
		if !strings.HasPrefix(s, `\u`) || utf16.DecodeRune(first, escaped(s)) == utf8.RuneError {
			return true
		}
		s = s[6:]
	}
}

// escaped returns the value of an escape such as \u00e9 at the beginning of s.
func escaped(s string) rune {
	n, _ := strconv.ParseUint(s[2:6], 16, 16)
	return rune(n)
}

func appendJSON(b []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case string:
		return appendString(b, v), nil
	case json.Number:
		n, err := canonicalNumber(v.String())
		return append(b, n...), err
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(b, item); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, name), ':')
			if b, err = appendJSON(b, v[name]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, errors.New("is not valid JSON")
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// maxExponent limits the exponent of a number in JSON.
const maxExponent = 100_000

// canonicalNumber returns the one form of a number: an integer of up to 20 digits as such,
// another number as digits without a zero at their end, then an exponent. So 1.50, 15e-1
// and 1.5 are equal, and no digit is lost.
func canonicalNumber(s string) (string, error) {
	mantissa, exponent := s, 0
	if at := strings.IndexAny(s, "eE"); at >= 0 {
		var err error
		mantissa = s[:at]
		if exponent, err = strconv.Atoi(s[at+1:]); err != nil || exponent > maxExponent || exponent < -maxExponent {
			return "", errors.New("is JSON with a number that is too large or too small")
		}
	}
	sign := ""
	if rest, ok := strings.CutPrefix(mantissa, "-"); ok {
		sign, mantissa = "-", rest
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent -= len(fraction)
	trimmed := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(trimmed)
	const plain = 20
	switch {
	case trimmed == "":
		return "0", nil
	case exponent >= 0 && len(trimmed)+exponent <= plain:
		return sign + trimmed + strings.Repeat("0", exponent), nil
	}
	return sign + trimmed + "e" + strconv.Itoa(exponent), nil
}
