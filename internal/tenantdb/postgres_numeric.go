package tenantdb

import (
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5/pgtype"
)

// errBinaryNumeric means that a server sent a numeric in a format that was not
// requested.
var errBinaryNumeric = errors.New("tenantdb: numeric in binary format")

// textNumericCodec reads PostgreSQL's numeric in text format only. To read the
// binary format, the driver multiplies big numbers as often as the digits and
// the scale require: a value of 131 kB takes ten seconds of processor time and
// cannot be interrupted.
type textNumericCodec struct{ pgtype.NumericCodec }

func numericType() *pgtype.Type {
	return &pgtype.Type{Name: "numeric", OID: pgtype.NumericOID, Codec: textNumericCodec{}}
}

// FormatSupported implements pgtype.Codec.
func (textNumericCodec) FormatSupported(format int16) bool { return format == pgtype.TextFormatCode }

// PreferredFormat implements pgtype.Codec.
func (textNumericCodec) PreferredFormat() int16 { return pgtype.TextFormatCode }

// PlanScan implements pgtype.Codec.
func (c textNumericCodec) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if format != pgtype.TextFormatCode {
		return nil
	}
	return c.NumericCodec.PlanScan(m, oid, format, target)
}

// DecodeDatabaseSQLValue implements pgtype.Codec.
func (textNumericCodec) DecodeDatabaseSQLValue(_ *pgtype.Map, _ uint32, format int16, src []byte) (driver.Value, error) {
	switch {
	case src == nil:
		return nil, nil //nolint:nilnil // NULL
	case format != pgtype.TextFormatCode:
		return nil, errBinaryNumeric
	}
	return string(src), nil
}

// DecodeValue implements pgtype.Codec.
func (c textNumericCodec) DecodeValue(m *pgtype.Map, oid uint32, format int16, src []byte) (any, error) {
	return c.DecodeDatabaseSQLValue(m, oid, format, src)
}
