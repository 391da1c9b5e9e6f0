package tenantdb_test

import (
	"database/sql"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestNumericIsReadAsText checks that a sum and an exact number are read
// correctly through both interfaces of the driver.
func TestNumericIsReadAsText(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
	db := tenantdbtest.Open(t, tenantdbtest.Create(t, credential.PostgreSQL))
	type row struct {
		Sum   int64
		Share float64
		Text  string
		None  *float64
	}
	want := row{Sum: 7, Share: 0.125, Text: "12345.6789"}
	const query = `SELECT sum(n) AS sum, 0.125::numeric AS share, ?::numeric AS text, NULL::numeric AS none FROM (VALUES (3::bigint), (4)) AS v (n)`
	var one row
	testkit.Must(t, db.Get(t.Context(), &one, query, "12345.6789"))
	var all []row
	testkit.Must(t, db.Select(t.Context(), &all, query, "12345.6789"))
	if one != want || len(all) != 1 || all[0] != want {
		t.Errorf("read %+v and %+v", one, all)
	}
	var exact float64
	testkit.Must(t, db.Get(t.Context(), &exact, `SELECT ?::numeric / 4`, 0.5)) // a parameter is a numeric too
	if exact != 0.125 {
		t.Errorf("read %v", exact)
	}
}

// TestBinaryNumericIsRefused checks that all readers refuse the binary format,
// in which a value of 131 kB takes seconds.
func TestBinaryNumericIsRefused(t *testing.T) { //nolint:paralleltest // it counts what is allocated
	const digits = 65535
	value := make([]byte, 8+2*digits)
	binary.BigEndian.PutUint16(value, digits)
	binary.BigEndian.PutUint16(value[6:], 32767) // the scale of the value
	for i := range digits {
		binary.BigEndian.PutUint16(value[8+2*i:], 9999)
	}
	m := pgtype.NewMap()
	m.RegisterType(tenantdb.NumericType())
	for _, dst := range []any{
		new(int64), new(int), new(float64), new(string), new(*string), new([]byte), new(any), new(sql.NullString), new(sql.NullFloat64), new(pgtype.Numeric),
	} {
		before := allocations()
		if err := m.Scan(pgtype.NumericOID, pgtype.BinaryFormatCode, value, dst); err == nil {
			t.Errorf("%T was read", dst)
		}
		if allocated := allocations() - before; allocated > 64<<10 {
			t.Errorf("%T: %d kB were allocated", dst, allocated>>10)
		}
	}
}
