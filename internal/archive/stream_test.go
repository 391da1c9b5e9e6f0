package archive

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestAlteredTypesAreRead archives tables whose columns have other types than Stoa's, which the
// binary format of PostgreSQL would not tell apart, and loads rows into them.
func TestAlteredTypesAreRead(t *testing.T) {
	t.Parallel()
	db, id := migrated(t, credential.PostgreSQL), newIdentity(t)
	fillStore(t, db)
	file, _, want := archived(t, db, id, WriteOptions{})
	for _, column := range []string{"order_items ALTER COLUMN quantity TYPE bigint", "order_items ALTER COLUMN unit_price_minor TYPE numeric",
		"pages ALTER COLUMN created_at TYPE timestamp", "pages ALTER COLUMN title TYPE char(300)"} {
		exec(t, db, `ALTER TABLE `+column)
	}
	exec(t, db, `ALTER TABLE pages ALTER COLUMN title TYPE text USING rtrim(title)`)
	if _, _, got := archived(t, db, id, WriteOptions{}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	target := migrated(t, credential.PostgreSQL)
	exec(t, target, `ALTER TABLE order_items ALTER COLUMN unit_price_minor TYPE numeric(20, 2)`)
	exec(t, target, `ALTER TABLE order_items ALTER COLUMN quantity TYPE smallint`)
	if err := Load(t.Context(), target, reader(t, file, id), LoadOptions{}); err != nil && stoa.CodeOf(err) != stoa.ArchiveRefused {
		t.Error(err)
	}
	var n int64
	testkit.Must(t, target.Get(t.Context(), &n, `SELECT count(*) FROM order_items WHERE unit_price_minor > 0`))
	if n == 0 {
		t.Error("no row was loaded")
	}
}

// TestNumbersThatDoNotFitAreNamed loads a number that a smaller type of its column cannot hold.
func TestNumbersThatDoNotFitAreNamed(t *testing.T) {
	t.Parallel()
	source, id := migrated(t, credential.SQLite), newIdentity(t)
	fillStore(t, source)
	exec(t, source, `UPDATE order_items SET quantity = 40000 WHERE id = (SELECT max(id) FROM order_items)`)
	var row string
	testkit.Must(t, source.Get(t.Context(), &row, `SELECT max(id) FROM order_items`))
	file, _, _ := archived(t, source, id, WriteOptions{})
	target := migrated(t, credential.PostgreSQL)
	exec(t, target, `ALTER TABLE order_items ALTER COLUMN quantity TYPE smallint`)
	wantMessage(t, Load(t.Context(), target, reader(t, file, id), LoadOptions{}), stoa.ArchiveRefused, "order_items", row)
}

// TestFieldsOfOtherTypesAreRefused checks values in PostgreSQL's binary format that are none of
// their type.
func TestFieldsOfOtherTypesAreRefused(t *testing.T) {
	t.Parallel()
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	good := map[tenantdb.ColumnType][]byte{
		tenantdb.TypeUUID: make([]byte, 16), tenantdb.TypeText: []byte("é"), tenantdb.TypeInteger: {255, 255}, tenantdb.TypeBoolean: {1},
		tenantdb.TypeTimestamp: number(-1), tenantdb.TypeDecimal: []byte("1.50"), tenantdb.TypeJSON: []byte("\x01{\"b\": 1, \"a\": 2}"), tenantdb.TypeBytes: {0},
	}
	values := map[tenantdb.ColumnType]any{
		tenantdb.TypeUUID: "00000000-0000-0000-0000-000000000000", tenantdb.TypeText: "é", tenantdb.TypeInteger: int64(-1), tenantdb.TypeBoolean: true,
		tenantdb.TypeTimestamp: time.Date(1999, 12, 31, 23, 59, 59, 999_999_000, time.UTC), tenantdb.TypeDecimal: "1.50", tenantdb.TypeJSON: `{"a":2,"b":1}`, tenantdb.TypeBytes: []byte{0},
	}
	bad := map[tenantdb.ColumnType][][]byte{
		tenantdb.TypeUUID: {{}, make([]byte, 15), make([]byte, 17)}, tenantdb.TypeText: {{255}}, tenantdb.TypeInteger: {{}, {1}, {1, 2, 3}, make([]byte, 9)},
		tenantdb.TypeBoolean: {{}, {2}, {0, 0}}, tenantdb.TypeDecimal: {{}, []byte("1.555"), []byte("NaN")},
		tenantdb.TypeTimestamp: {{1, 2}, number(math.MaxInt64), number(math.MinInt64), number(maxTime.UnixMicro() - postgresEpoch), number(minTime.UnixMicro() - postgresEpoch - 1)},
		tenantdb.TypeJSON:      {{}, []byte("{}"), []byte("\x02{}"), []byte("\x01{"), []byte("\x01\"\xff\""), []byte("\x01" + strings.Repeat(" ", maxJSON) + "1")},
	}
	for kind, field := range good {
		columns := []Column{{Name: "c", Type: kind, Scale: 2}}
		got, err := appendFields(nil, columns, [][]byte{field})
		testkit.Must(t, err)
		want, err := appendRow(nil, columns, []any{values[kind]})
		testkit.Must(t, err)
		if string(got) != string(want) {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
		for _, field := range append(bad[kind], nil) {
			if got, err := appendFields(nil, columns, [][]byte{field}); err == nil {
				t.Errorf("%s: %.40q becomes %.40q", kind, field, got)
			}
		}
	}
}

// TestStreamsEndAtAnError reads one row of each table and leaves the rest.
func TestStreamsEndAtAnError(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		fillStore(t, db)
		tables, err := Tables(t.Context(), tenantdb.LatestVersion())
		testkit.Must(t, err)
		for _, table := range tables {
			rows := 0
			err := db.Snapshot(t.Context(), func(s *tenantdb.Snapshot) error {
				return NewRows(db, s).All(t.Context(), table, func(Row) error {
					rows++
					return errors.New("enough")
				})
			})
			if rows > 1 || rows == 1 && err == nil {
				t.Errorf("%s: %d rows, %v", table.Name, rows, err)
			}
		}
		var n int
		testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM users`)) // its connections are as before
	})
}
