package archive

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"time"
)

// copyReader reads rows in the text format of PostgreSQL's COPY, one line each. It keeps the
// text of one row at a time. rows are those of decodeRow.
type copyReader struct {
	columns []Column
	rows    [][]any
	line    []byte // of the row that is being read
	read    int    // bytes of it
}

// Read implements io.Reader.
func (r *copyReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.read == len(r.line) {
			if len(r.rows) == 0 {
				break
			}
			if r.line, err = appendLine(r.line[:0], r.columns, r.rows[0]); err != nil {
				return n, err
			}
			r.rows, r.read = r.rows[1:], 0
		}
		copied := copy(p[n:], r.line[r.read:])
		r.read, n = r.read+copied, n+copied
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
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
