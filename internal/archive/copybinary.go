package archive

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// These begin and end rows in the binary format of PostgreSQL's COPY.
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // without flags and extension
	copyTrailer = "\xff\xff"
)

// appendBinary appends a row in the binary format for columns of these types of PostgreSQL.
func appendBinary(b []byte, columns []Column, types []uint32, values []any) ([]byte, error) {
	b = binary.BigEndian.AppendUint16(b, uint16(len(values))) //nolint:gosec // at most maxColumns
	for i, v := range values {
		if v == nil {
			b = binary.BigEndian.AppendUint32(b, math.MaxUint32)
			continue
		}
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		switch v := v.(type) {
		case string:
			b = appendBinaryText(b, columns[i], v)
		case int64:
			b = appendBinaryInteger(b, types[i], v)
		case bool:
			bit := byte(0)
			if v {
				bit = 1
			}
			b = append(b, bit)
		case time.Time:
			b = binary.BigEndian.AppendUint64(b, uint64(v.UnixMicro()-postgresEpoch)) //nolint:gosec // the bits of a signed number
		case []byte:
			b = append(b, v...)
		default:
			return nil, fmt.Errorf("archive: a value of the type %T in the column %s", v, columns[i].Name)
		}
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4)) //nolint:gosec // at most maxRow
	}
	return b, nil
}

func appendBinaryText(b []byte, c Column, s string) []byte {
	switch c.Type { //nolint:exhaustive // the others are their text
	case tenantdb.TypeUUID:
		id, _ := parseUUID(s) // decodeRow has made it
		return append(b, id[:]...)
	case tenantdb.TypeJSON:
		b = append(b, 1) // the version of jsonb
	}
	return append(b, s...)
}

// appendBinaryInteger appends a number that is too large for its type in full: the server then
// refuses it, and the row can be named.
func appendBinaryInteger(b []byte, oid uint32, n int64) []byte {
	switch {
	case oid == pgtype.Int2OID && n == int64(int16(n)): //nolint:gosec // compared
		return binary.BigEndian.AppendUint16(b, uint16(n)) //nolint:gosec // the bits of a signed number
	case oid == pgtype.Int4OID && n == int64(int32(n)): //nolint:gosec // compared
		return binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // the bits of a signed number
	}
	return binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // the bits of a signed number
}
