package cli

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/stoahq/stoa"
)

// Names of databases, columns, stores and people, and the texts of errors, come from
// tenants. Printed unescaped they could move the cursor, hide lines or forge lines. Two
// layers protect the terminal: Printf escapes its arguments, so that no value adds a line
// or a column of a table, and SafeWriter escapes the control characters that remain in any
// other output.

// Printf writes format with its arguments, in which it escapes control characters and
// invisible characters. Every command prints with it.
func Printf(w io.Writer, format string, args ...any) {
	safe := make([]any, len(args))
	for i, arg := range args {
		safe[i] = safeArgument(arg)
	}
	fmt.Fprintf(w, format, safe...) // SafeWriter keeps a write error, and the command reports it at the end
}

func safeArgument(arg any) any {
	switch v := arg.(type) {
	case nil:
		return nil
	case error:
		return oneLine(v.Error())
	}
	switch v := reflect.ValueOf(arg); {
	case v.CanInt(), v.CanUint(), v.CanFloat(), v.Kind() == reflect.Bool: // also types with a String method, such as time.Duration
		return arg
	case v.Kind() == reflect.String && !v.Type().Implements(reflect.TypeFor[fmt.Stringer]()):
		return oneLine(v.String())
	}
	return oneLine(fmt.Sprint(arg))
}

// printError writes why a command failed. It indents all lines but the first, so that none
// of them looks like separate output.
func printError(w io.Writer, err error) {
	for i, line := range strings.Split(err.Error(), "\n") {
		Printf(w, "%s%s\n", map[bool]string{true: "stoa: ", false: "  "}[i == 0], line)
	}
}

// oneLine escapes the characters that would break or reorder a line of text.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, breaksLine) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case breaksLine(r):
			writeEscape(&b, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func breaksLine(r rune) bool { return r == '\n' || r == '\t' || IsInvisible(r) }

// IsInvisible reports whether r is a control character or a hidden character.
func IsInvisible(r rune) bool { return unicode.IsControl(r) || stoa.IsHidden(r) }

// writeEscape writes r as a JSON escape, because the surrounding text may be JSON.
func writeEscape(b *strings.Builder, r rune) {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		return
	}
	fmt.Fprintf(b, `\u%04x`, r)
}

// SafeWriter escapes every character that a terminal would interpret, except line feeds and
// the tabs of tables. JSON keeps its meaning: such characters occur only inside its
// strings, where the escape stands for the same character. SafeWriter is safe for
// concurrent use.
type SafeWriter struct {
	mu   sync.Mutex
	W    io.Writer
	rest []byte // the beginning of a character that is not complete yet
	err  error  // the first error of the underlying writer
}

// Write implements io.Writer.
func (s *SafeWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := p
	if len(s.rest) > 0 || !isPlain(p) {
		out = s.escape(p)
	}
	if _, err := s.W.Write(out); err != nil {
		s.err = cmp.Or(s.err, err)
		return 0, err
	}
	return len(p), nil
}

func (s *SafeWriter) escape(p []byte) []byte {
	text := append(s.rest, p...)
	s.rest = nil
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1 && !utf8.FullRune(text):
			s.rest = append(s.rest, text...)
			size = len(text)
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case r != '\n' && r != '\t' && IsInvisible(r):
			writeEscape(&b, r)
		default:
			b.Write(text[:size])
		}
		text = text[size:]
	}
	return []byte(b.String())
}

// failure returns the first write error, or nil.
func (s *SafeWriter) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func isPlain(p []byte) bool {
	for _, c := range p {
		if c >= 0x7f || c < ' ' && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}
