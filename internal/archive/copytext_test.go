package archive

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stoahq/stoa/internal/testkit"
)

// TestCopyText checks the lines of rows, read in pieces of any size.
func TestCopyText(t *testing.T) {
	t.Parallel()
	columns := make([]Column, 4)
	rows := [][]any{
		{"a\tb\\c\r\n", int64(-7), true, nil},
		{"", []byte{0, 255}, false, time.Date(1, 2, 3, 4, 5, 6, 7000, time.UTC)},
		{`\N`, strings.Repeat("é", 100_000), `\.`, time.Date(9999, 12, 31, 0, 0, 0, 0, time.FixedZone("", 3600))},
	}
	want := `a\tb\\c\r\n` + "\t-7\ttrue\t" + `\N` + "\n" +
		"\t" + `\\x00ff` + "\tfalse\t0001-02-03 04:05:06.000007+00\n" +
		`\\N` + "\t" + strings.Repeat("é", 100_000) + "\t" + `\\.` + "\t9999-12-30 23:00:00+00\n"
	for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader, "half": iotest.HalfReader} {
		got, err := io.ReadAll(wrap(&copyReader{columns: columns, rows: rows}))
		testkit.Must(t, err)
		if string(got) != want {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	if _, err := io.ReadAll(&copyReader{columns: columns[:1], rows: [][]any{{1.5}}}); err == nil {
		t.Error("a value of another type is accepted")
	}
}
