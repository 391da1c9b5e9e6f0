package archive

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"time"
)

// copyReader reads rows in a format of PostgreSQL's COPY. It keeps the bytes of one row at a
// time. rows are those of decodeRow.
type copyReader struct {
	columns []Column
	types   []uint32 // of the columns in binary format; nil for text
	rows    [][]any
	ended   bool   // line is the trailer
	line    []byte // the header, the row that is being read, or the trailer
	read    int    // bytes of it
}

// newCopyReader returns a reader of rows in binary format if there are types, or as text.
func newCopyReader(columns []Column, types []uint32, rows [][]any) *copyReader {
	if types == nil {
		return &copyReader{columns: columns, rows: rows, ended: true}
	}
	return &copyReader{columns: columns, types: types, rows: rows, line: []byte(copyHeader)}
}

// Read implements io.Reader.
func (r *copyReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.read == len(r.line) {
			if err := r.next(); err != nil {
				return n, err
			}
		}
		copied := copy(p[n:], r.line[r.read:])
		r.read, n = r.read+copied, n+copied
	}
	return n, nil
}

// next begins the next line. It returns io.EOF after the last one.
func (r *copyReader) next() (err error) {
	switch r.read = 0; {
	case len(r.rows) == 0 && r.ended:
		r.line = r.line[:0]
		return io.EOF
	case len(r.rows) == 0:
		r.line, r.ended = append(r.line[:0], copyTrailer...), true
		return nil
	case r.types == nil:
		r.line, err = appendLine(r.line[:0], r.columns, r.rows[0])
	default:
		r.line, err = appendBinary(r.line[:0], r.columns, r.types, r.rows[0])
	}
	r.rows = r.rows[1:]
	return err
}

// appendLine appends a row as a line. \N is NULL.
func appendLine(b []byte, columns []Column, values []any) ([]byte, error) {
	for i := range columns {
		if i > 0 {
			b = append(b, '\t')
		}
		switch v := values[i].(type) {
		case nil:
			b = append(b, `\N`...)
		case string:
			b = appendEscaped(b, v)
		case int64:
			b = strconv.AppendInt(b, v, 10)
		case bool:
			b = strconv.AppendBool(b, v)
		case time.Time:
			b = v.UTC().AppendFormat(b, "2006-01-02 15:04:05.999999+00")
		case []byte:
			b = hex.AppendEncode(append(b, `\\x`...), v)
		default:
			return nil, fmt.Errorf("archive: a value of the type %T in the column %s", v, columns[i].Name)
		}
	}
	return append(b, '\n'), nil
}

// appendEscaped appends a text. A backslash, a tab and the ends of lines are escaped.
func appendEscaped(b []byte, s string) []byte {
	from := 0
	for i := range len(s) {
		var escape byte
		switch s[i] {
		case '\\':
			escape = '\\'
		case '\t':
			escape = 't'
		case '\n':
			escape = 'n'
		case '\r':
			escape = 'r'
		default:
			continue
		}
		b = append(append(b, s[from:i]...), '\\', escape)
		from = i + 1
	}
	return append(b, s[from:]...)
}
