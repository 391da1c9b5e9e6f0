package masterbackup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"strings"

	"github.com/stoahq/stoa/internal/archive/container"
)

// lineTally counts the rows of COPY's text format, in which a row is a line. It keeps no
// row: one may be very long.
type lineTally struct {
	container.Tally

	row   hash.Hash
	bytes int64 // of the row that has begun
}

func newLineTally() *lineTally { return &lineTally{row: sha256.New()} }

// Write implements io.Writer.
func (l *lineTally) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		line := rest
		if end >= 0 {
			line = rest[:end+1]
		}
		l.row.Write(line)
		l.bytes += int64(len(line))
		if end >= 0 {
			l.AddSum([sha256.Size]byte(l.row.Sum(nil)), l.bytes)
			l.row.Reset()
			l.bytes = 0
		}
		rest = rest[len(line):]
	}
	return len(p), nil
}

// liteTally counts the rows of a table of a SQLite database.
func liteTally(ctx context.Context, db *sql.DB, t Table) (count container.Tally, err error) {
	// The driver converts values by the declared type of a column. An expression has none.
	query := `SELECT +"` + strings.Join(t.Columns, `", +"`) + `" FROM "` + t.Name + `"` //nolint:gosec // Head.check and newReference allow no other names than those of tables and columns
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return count, err
	}
	defer rows.Close() //nolint:errcheck // Err reports it
	values, targets := make([]any, len(t.Columns)), make([]any, len(t.Columns))
	for i := range values {
		targets[i] = &values[i]
	}
	var row []byte
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return count, err
		}
		if row, err = appendValues(row[:0], values); err != nil {
			return count, fmt.Errorf("table %s: %w", t.Name, err)
		}
		count.Add(row)
	}
	return count, rows.Err()
}

// appendValues appends an encoding of a row of a SQLite database that tells its values and
// their types apart.
func appendValues(b []byte, values []any) ([]byte, error) {
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			b = append(b, 'n')
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v)) //nolint:gosec // the bits of it
		case float64:
			b = binary.BigEndian.AppendUint64(append(b, 'f'), math.Float64bits(v))
		case string:
			b = append(binary.AppendUvarint(append(b, 't'), uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(append(b, 'b'), uint64(len(v))), v...)
		default:
			return b, fmt.Errorf("a value of type %T", v)
		}
	}
	return b, nil
}
