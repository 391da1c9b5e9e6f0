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

// Names of databases, columns, stores and people, and the texts of errors, come
// from tenants. Printed as they are they could move the cursor, hide lines or
// forge some. Two layers keep that from a terminal: printf escapes its
// arguments, so that no value adds a line or a column of a table, and
// safeWriter escapes what is left in anything that is written.

// Printf writes format with its arguments, in which control characters and
// invisible ones are escaped. Every command prints by it.
func Printf(w io.Writer, format string, args ...any) {
	safe := make([]any, len(args))
	for i, arg := range args {
		safe[i] = safeArgument(arg)
	}
	fmt.Fprintf(w, format, safe...) // a writer that fails says so at the end: safeWriter.err
}

func safeArgument(arg any) any {
	switch v := arg.(type) {
	case nil:
		return nil
	case error:
		return oneLine(v.Error())
	}
	switch v := reflect.ValueOf(arg); {
	case v.CanInt(), v.CanUint(), v.CanFloat(), v.Kind() == reflect.Bool: // and the String methods of such, as time.Duration's
		return arg
	case v.Kind() == reflect.String && !v.Type().Implements(reflect.TypeFor[fmt.Stringer]()):
		return oneLine(v.String())
	}
	return oneLine(fmt.Sprint(arg))
}

// printError writes why a command failed. An error of several lines has its
// further ones indented, so that none can be taken for output of its own.
func printError(w io.Writer, err error) {
	for i, line := range strings.Split(err.Error(), "\n") {
		Printf(w, "%s%s\n", map[bool]string{true: "stoa: ", false: "  "}[i == 0], line)
	}
}

// oneLine escapes what would not stay in its place on a line of text.
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

// IsInvisible reports whether r does something other than show a character.
func IsInvisible(r rune) bool { return unicode.IsControl(r) || stoa.IsHidden(r) }

// writeEscape writes r as JSON escapes it: what it stands in may be JSON.
func writeEscape(b *strings.Builder, r rune) {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		return
	}
	fmt.Fprintf(b, `\u%04x`, r)
}

// SafeWriter escapes whatever a terminal would obey, but for the ends of lines
// and the columns of tables. JSON stays the same JSON: outside of its strings,
// where an escape means the same character, it holds nothing of the kind.
// It is safe for concurrent use.
type SafeWriter struct {
	mu   sync.Mutex
	W    io.Writer
	rest []byte // the beginning of a character whose end has not been written yet
	err  error  // the first one met
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

// failure returns why something could not be written, or nil.
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
