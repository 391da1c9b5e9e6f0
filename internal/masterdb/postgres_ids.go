package masterdb

import (
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5/pgtype"
)

// registerIDs makes a connection send and receive ids as the 16 bytes that they are. As a driver.Valuer
// each would become text, which pgx parses again: 5 % of what a balance costs.
func registerIDs(m *pgtype.Map) {
	element := &pgtype.Type{Name: "uuid", OID: pgtype.UUIDOID, Codec: idCodec{}}
	m.RegisterType(element)
	m.RegisterType(&pgtype.Type{Name: "_uuid", OID: pgtype.UUIDArrayOID, Codec: &pgtype.ArrayCodec{ElementType: element}})
}

// binaryID is an id: see stoa.ID.
type binaryID interface{ UUID() [16]byte }

// idCodec is the codec of columns of the type uuid.
type idCodec struct{ pgtype.UUIDCodec }

// PlanEncode leaves pointers to pgx, which sends NULL for nil and comes back with the id.
func (c idCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(binaryID); ok && format == pgtype.BinaryFormatCode && reflect.TypeOf(value).Kind() != reflect.Pointer {
		return idPlan{}
	}
	return c.UUIDCodec.PlanEncode(m, oid, format, value)
}

// scannedID is a pointer to an id.
type scannedID interface{ SetUUID(id [16]byte) }

// PlanScan reads an id without its text. NULL leaves it as it is, as its Scan does.
func (c idCodec) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if _, ok := target.(scannedID); ok && format == pgtype.BinaryFormatCode {
		return idScanPlan{}
	}
	return c.UUIDCodec.PlanScan(m, oid, format, target)
}

type idScanPlan struct{}

func (idScanPlan) Scan(src []byte, target any) error {
	switch len(src) {
	case 0:
		return nil
	case 16:
		target.(scannedID).SetUUID([16]byte(src)) //nolint:forcetypeassert // the plan was made for such targets
		return nil
	}
	return fmt.Errorf("an id of %d bytes", len(src))
}

type idPlan struct{}

func (idPlan) Encode(value any, buf []byte) ([]byte, error) {
	id := value.(binaryID).UUID() //nolint:forcetypeassert // the plan was made for such values
	return append(buf, id[:]...), nil
}
