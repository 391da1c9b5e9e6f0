package archive

import (
	"encoding/binary"
	"errors"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// postgresEpoch is the time from which PostgreSQL counts, in microseconds since 1970.
const postgresEpoch = 946_684_800_000_000

// appendFields appends the encoded row of values in PostgreSQL's binary format, as
// tenantdb.StreamRow has them.
func appendFields(b []byte, columns []Column, fields [][]byte) ([]byte, error) {
	return appendColumns(b, columns, func(b []byte, i int) ([]byte, error) { return appendField(b, columns[i], fields[i]) })
}

func appendField(b []byte, c Column, f []byte) ([]byte, error) {
	if f == nil {
		return appendNull(b, c)
	}
	switch b = append(b, tagValue); c.Type {
	case tenantdb.TypeUUID:
		if len(f) != 16 {
			return nil, errBinary
		}
		return append(b, f...), nil
	case tenantdb.TypeInteger:
		n, ok := binaryInteger(f)
		if !ok {
			return nil, errBinary
		}
		return binary.AppendVarint(b, n), nil
	case tenantdb.TypeBoolean:
		if len(f) != 1 || f[0] > 1 {
			return nil, errBinary
		}
		return append(b, f[0]), nil
	case tenantdb.TypeTimestamp:
		n, ok := binaryInteger(f)
		if !ok || len(f) != 8 || n < minTime.UnixMicro()-postgresEpoch || n >= maxTime.UnixMicro()-postgresEpoch { // or it is infinite
			return nil, errTime
		}
		return binary.AppendVarint(b, n+postgresEpoch), nil
	case tenantdb.TypeJSON:
		if len(f) == 0 || f[0] != 1 { // the version of jsonb
			return nil, errBinary
		}
		return appendText(b, c, f[1:])
	default:
		return appendText(b, c, f)
	}
}

var errBinary = errors.New("holds a value of another type")

// binaryInteger reads a smallint, integer or bigint.
func binaryInteger(f []byte) (n int64, ok bool) {
	switch len(f) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(f))), true //nolint:gosec // the bits of a signed number
	case 4:
		return int64(int32(binary.BigEndian.Uint32(f))), true //nolint:gosec // the bits of a signed number
	case 8:
		return int64(binary.BigEndian.Uint64(f)), true //nolint:gosec // the bits of a signed number
	}
	return 0, false
}
