package archive

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa/internal/tenantdb"
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
		got, err := io.ReadAll(wrap(newCopyReader(columns, nil, rows)))
		testkit.Must(t, err)
		if string(got) != want {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	if _, err := io.ReadAll(newCopyReader(columns[:1], nil, [][]any{{1.5}})); err == nil {
		t.Error("a value of another type is accepted")
	}
}

// TestCopyBinary checks what a server reads as binary rows, in pieces of any size.
func TestCopyBinary(t *testing.T) {
	t.Parallel()
	columns := []Column{{Name: "id", Type: tenantdb.TypeUUID}, {Name: "data", Type: tenantdb.TypeJSON}, {Name: "n", Type: tenantdb.TypeInteger}, {Name: "at", Type: tenantdb.TypeTimestamp}}
	types := []uint32{pgtype.UUIDOID, pgtype.JSONBOID, pgtype.Int2OID, pgtype.TimestamptzOID}
	rows := [][]any{
		{"00010203-0405-0607-0809-0a0b0c0d0e0f", "[]", int64(-2), time.Date(1999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)},
		{nil, nil, int64(1 << 15), nil}, // too large: the server refuses the length
	}
	want := copyHeader + "\x00\x04" + "\x00\x00\x00\x10\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f" + "\x00\x00\x00\x03\x01[]" +
		"\x00\x00\x00\x02\xff\xfe" + "\x00\x00\x00\x08\xff\xff\xff\xff\xff\xff\xff\xff" +
		"\x00\x04" + "\xff\xff\xff\xff" + "\xff\xff\xff\xff" + "\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x80\x00" + "\xff\xff\xff\xff" + copyTrailer
	for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader, "half": iotest.HalfReader} {
		got, err := io.ReadAll(wrap(newCopyReader(columns, types, rows)))
		testkit.Must(t, err)
		if string(got) != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
