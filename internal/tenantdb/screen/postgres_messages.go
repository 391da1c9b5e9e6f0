package screen

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// rowReader checks a row as it arrives: the row must have the columns that were
// described, and the lengths of its columns must add up to its own length.
type rowReader struct {
	columns int // number of columns in the description
	fields  int // fields that have not begun; -1 before their number has arrived
	field   int // bytes of the current field that have not arrived
	rest    int // bytes of the row that have not arrived

	number [lengthBytes]byte
	have   int // bytes of number that have arrived
}

func (r *rowReader) begin(columns, body int) error {
	*r = rowReader{columns: columns, fields: -1, rest: body}
	if columns < 0 {
		return broken('D', "comes without a description of its columns")
	}
	if least := 2 + columns*lengthBytes; body < least || columns == 0 && body > least {
		return broken('D', "has another length than its columns")
	}
	return nil
}

// take checks the next bytes of the row.
func (r *rowReader) take(p []byte) error {
	for len(p) > 0 {
		if r.field > 0 {
			n := min(len(p), r.field)
			r.field, r.rest, p = r.field-n, r.rest-n, p[n:]
			continue
		}
		width := lengthBytes
		if r.fields < 0 {
			width = 2
		}
		n := copy(r.number[r.have:width], p)
		r.have, r.rest, p = r.have+n, r.rest-n, p[n:]
		if r.have < width {
			return nil
		}
		r.have = 0
		if err := r.next(); err != nil {
			return err
		}
	}
	return nil
}

// next processes the number that has arrived: the number of fields, or the
// length of the next field.
func (r *rowReader) next() error {
	if r.fields < 0 {
		if r.fields = int(binary.BigEndian.Uint16(r.number[:])); r.fields != r.columns {
			return broken('D', "has another number of columns than their description")
		}
		return nil
	}
	r.fields--
	length := int(int32(binary.BigEndian.Uint32(r.number[:]))) //nolint:gosec // -1 is NULL
	if length == -1 {
		length = 0
	}
	if most := r.rest - r.fields*lengthBytes; length < 0 || length > most || r.fields == 0 && length < most {
		return broken('D', "has a field of another length than its own")
	}
	r.field = length
	return nil
}

// asideCount counts the messages that a server sends in addition to its answer
// to a request.
type asideCount struct{ messages, bytes int }

func (c *asideCount) add(body int) error {
	c.messages++
	c.bytes += headerBytes + body
	if c.messages > maxAsides || c.bytes > MaxAsideBytes {
		return &ProtocolError{Rule: "too many notices, notifications or reports for one request"}
	}
	return nil
}

// reportedParameters limits what the driver keeps of ParameterStatus: the last
// value of each name.
type reportedParameters struct {
	seed  maphash.Seed
	names []uint64 // hashes: a server cannot know two names that have the same hash
	sizes []int    // of each name and its last value
	total int
}

// add checks a ParameterStatus, which contains a name and a value.
func (r *reportedParameters) add(body []byte) error {
	name := bytes.IndexByte(body, 0)
	if name < 0 || bytes.Count(body, []byte{0}) != 2 || body[len(body)-1] != 0 {
		return broken('S', "is no name with a value")
	}
	if r.names == nil {
		r.seed = maphash.MakeSeed()
		r.names, r.sizes = make([]uint64, 0, 16), make([]int, 0, 16)
	}
	hash := maphash.Bytes(r.seed, body[:name])
	i := slices.Index(r.names, hash)
	if i < 0 {
		i = len(r.names)
		r.names, r.sizes = append(r.names, hash), append(r.sizes, 0)
	}
	r.total += len(body) - r.sizes[i]
	r.sizes[i] = len(body)
	if len(r.names) > maxReported || r.total > maxReportedBytes {
		return &ProtocolError{Rule: "too many parameters reported"}
	}
	return nil
}

// checkReport checks an ErrorResponse or a NoticeResponse, which contains
// fields of a letter and a text and ends with a zero byte.
func checkReport(kind byte, body []byte) error {
	for len(body) > 0 && body[0] != 0 {
		end := bytes.IndexByte(body[1:], 0)
		if end < 0 {
			return broken(kind, "has a field without an end")
		}
		body = body[1+end+1:]
	}
	if len(body) != 1 {
		return broken(kind, "has no end, or one before its last byte")
	}
	return nil
}

// checkNotification checks a NotificationResponse, which contains a process, a
// channel and a text.
func checkNotification(body []byte) error {
	if bytes.Count(body[4:], []byte{0}) != 2 || body[len(body)-1] != 0 {
		return broken('A', "is no channel with a text")
	}
	return nil
}

func checkCommandTag(body []byte) error {
	if bytes.IndexByte(body, 0) != len(body)-1 {
		return broken('C', "is no text")
	}
	return nil
}

// countColumns checks a RowDescription and returns its number of columns.
func countColumns(body []byte) (int, error) {
	const fixed = 18 // table, attribute, type, its size and modifier, format
	count := int(binary.BigEndian.Uint16(body))
	if count > maxColumns {
		return 0, broken('T', "describes more columns than a row can have")
	}
	body = body[2:]
	for range count {
		end := bytes.IndexByte(body, 0)
		if end < 0 || len(body) < end+1+fixed {
			return 0, broken('T', "describes fewer columns than it counts")
		}
		if format := binary.BigEndian.Uint16(body[end+fixed-1:]); format > 1 {
			return 0, broken('T', "describes a column in an unknown format")
		}
		body = body[end+1+fixed:]
	}
	if len(body) > 0 {
		return 0, broken('T', "describes more columns than it counts")
	}
	return count, nil
}

// These are the formats of COPY.
const textFormat, binaryFormat = 0, 1

// checkCopy checks a CopyInResponse or CopyOutResponse of a COPY in that format.
func checkCopy(kind byte, body []byte, format byte) error {
	if count := int(binary.BigEndian.Uint16(body[1:])); len(body) != 3+2*count || body[0] != format {
		return broken(kind, "has another length than its columns, or another format than Stoa asks for")
	}
	return nil
}
