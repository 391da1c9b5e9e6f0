package masterdb

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa"
)

// TestIDsAreSentInBinary checks how ids, pointers to them and lists of them are encoded and read, and
// that an id costs one allocation at most.
func TestIDsAreSentInBinary(t *testing.T) { //nolint:paralleltest // it counts allocations
	m := pgtype.NewMap()
	registerIDs(m)
	id, other := stoa.NewID[stoa.StoreID](), stoa.NewID[stoa.StoreID]()
	var none *stoa.StoreID
	encode := func(oid uint32, value any) []byte {
		out, err := m.Encode(oid, pgtype.BinaryFormatCode, value, nil)
		if err != nil {
			t.Errorf("%T: %v", value, err)
		}
		return out
	}
	for _, value := range []any{id, &id, [16]byte(id)} {
		if got := encode(pgtype.UUIDOID, value); !bytes.Equal(got, id[:]) {
			t.Errorf("%T: %x, want %x", value, got, id[:])
		}
	}
	if got := encode(pgtype.UUIDOID, none); got != nil {
		t.Errorf("nil: %x, want NULL", got)
	}
	if got := encode(pgtype.TextOID, id); string(got) != id.String() {
		t.Errorf("in a column of text: %q", got)
	}
	want := encode(pgtype.UUIDArrayOID, [][16]byte{id, other})
	for _, list := range []any{[]stoa.StoreID{id, other}, []*stoa.StoreID{&id, &other}} {
		if got := encode(pgtype.UUIDArrayOID, list); !bytes.Equal(got, want) {
			t.Errorf("%T: %x, want %x", list, got, want)
		}
	}
	for _, target := range []any{new(stoa.StoreID), new([16]byte), new(string)} {
		if err := m.Scan(pgtype.UUIDOID, pgtype.BinaryFormatCode, id[:], target); err != nil || fmt.Sprint(reflect.ValueOf(target).Elem()) == "" {
			t.Errorf("%T: %v", target, err)
		}
	}
	var got stoa.StoreID
	given := &other
	for _, err := range []error{
		m.Scan(pgtype.UUIDOID, pgtype.BinaryFormatCode, id[:], &got), m.Scan(pgtype.UUIDOID, pgtype.BinaryFormatCode, nil, &got), // NULL leaves it
		m.Scan(pgtype.UUIDOID, pgtype.BinaryFormatCode, nil, &given),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if got != id || given != nil {
		t.Errorf("%s and %v, want %s and nil", got, given, id)
	}
	if err := m.Scan(pgtype.UUIDOID, pgtype.BinaryFormatCode, id[:15], &got); err == nil {
		t.Error("15 bytes are an id")
	}
	if n := testing.AllocsPerRun(100, func() { _ = m.Scan(pgtype.UUIDOID, pgtype.BinaryFormatCode, id[:], &got) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	var value any = id
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Encode(pgtype.UUIDOID, pgtype.BinaryFormatCode, value, buf) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
