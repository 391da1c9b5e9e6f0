package masterdb

import (
	"bytes"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa"
)

// TestIDsAreSentInBinary checks how ids, pointers to them and lists of them are encoded, and
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
	var value any = id
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Encode(pgtype.UUIDOID, pgtype.BinaryFormatCode, value, buf) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
