package screen

import "encoding/binary"

// columnKind is how a column's value is encoded in a binary row.
type columnKind uint8

const (
	columnUnknown columnKind = iota
	columnNothing            // a NULL without its own bit
	columnFixed
	columnString // preceded by its length
	columnDate   // preceded by its length: 0, 4, 7 or 11
	columnTime   // preceded by its length: 0, 8 or 12
)

// maxMySQLShortText limits the text of a number or a date, in bytes. The driver
// parses this text and repeats it in its error. A zero-filled number may have
// 255 digits.
const maxMySQLShortText = 512

// maxMySQLDays limits the days of a TIME, which has at most 838 hours.
const maxMySQLDays = 34

// mysqlColumn is what the check of a row needs to know about a column.
type mysqlColumn struct {
	kind columnKind
	size uint8 // of a columnFixed, in bytes
	text bool  // in a text row, the value is text of any length
}

// mysqlColumns describes each column type by its number. Source: MySQL
// client/server protocol, "Column Type".
var mysqlColumns = func() (types [256]mysqlColumn) {
	for _, t := range []byte{0x00, 0x0f, 0x10, 0xf2, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff} {
		types[t] = mysqlColumn{kind: columnString, text: true} // DECIMAL, VARCHAR, BIT, VECTOR, JSON, ENUM, SET, BLOB, GEOMETRY, …
	}
	types[0x01] = mysqlColumn{kind: columnFixed, size: 1} // TINY
	types[0x02] = mysqlColumn{kind: columnFixed, size: 2} // SHORT
	types[0x0d] = mysqlColumn{kind: columnFixed, size: 2} // YEAR
	types[0x03] = mysqlColumn{kind: columnFixed, size: 4} // LONG
	types[0x09] = mysqlColumn{kind: columnFixed, size: 4} // INT24
	types[0x04] = mysqlColumn{kind: columnFixed, size: 4} // FLOAT
	types[0x05] = mysqlColumn{kind: columnFixed, size: 8} // DOUBLE
	types[0x08] = mysqlColumn{kind: columnFixed, size: 8} // LONGLONG
	types[0x06] = mysqlColumn{kind: columnNothing}        // NULL
	for _, t := range []byte{0x07, 0x0a, 0x0c, 0x0e} {
		types[t] = mysqlColumn{kind: columnDate} // TIMESTAMP, DATE, DATETIME, NEWDATE
	}
	types[0x0b] = mysqlColumn{kind: columnTime} // TIME
	return types
}()

// parseMySQLColumn checks a column definition.
// Source: MySQL client/server protocol, "Protocol::ColumnDefinition41".
func parseMySQLColumn(p []byte) (column mysqlColumn, ok bool) {
	for range 6 { // catalog, schema, table, original table, name, original name
		if p, ok = mysqlString(p); !ok {
			return column, false
		}
	}
	// The fields are: length of the rest, character set, length, type, flags,
	// decimals, filler.
	const fixed, kind = 1 + 2 + 4 + 1 + 2 + 1 + 2, 1 + 2 + 4
	if len(p) < fixed || p[0] != fixed-1 {
		return column, false
	}
	return mysqlColumns[p[kind]], true
}

// mysqlRows checks the rows of a result as their bytes arrive, without copying
// them.
// Source: MySQL client/server protocol, "Text Resultset Row" and "Binary
// Protocol Resultset Row".
type mysqlRows struct {
	columns []mysqlColumn
	binary  bool
	nulls   []byte // of a binary row: one bit for each column; the first two bits are reserved

	column int // the column whose value is being read
	head   int // bytes before a binary row's values that have not arrived
	left   int // bytes of the value that have not arrived
	prefix [9]byte
	have   int // bytes of prefix that have arrived; prefix is the value's length

	moment [12]byte // the binary date or time that is being read
	length int      // of moment; 0 if none is being read
}

// begin prepares for a new row.
func (r *mysqlRows) begin(columns []mysqlColumn, binary bool) {
	r.columns, r.binary = columns, binary
	r.column, r.head, r.left, r.have, r.length = 0, 0, 0, 0, 0
	r.nulls = r.nulls[:0]
	if binary {
		r.head = 1 + (len(columns)+2+7)/8
	}
}

// feed checks the next bytes of the row.
func (r *mysqlRows) feed(p []byte) error {
	for len(p) > 0 {
		n, err := r.step(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// end checks that the row is complete.
func (r *mysqlRows) end() error {
	if r.column != len(r.columns) || r.head+r.left+r.have != 0 {
		return &ProtocolError{Rule: "row is too short"}
	}
	return nil
}

// step processes one unit at the beginning of p.
func (r *mysqlRows) step(p []byte) (n int, err error) {
	switch {
	case r.head > 0:
		n = min(r.head, len(p))
		r.nulls = append(r.nulls, p[:n]...)
		if r.head -= n; r.head == 0 {
			r.startValue()
		}
		return n, nil
	case r.column == len(r.columns):
		return 0, &ProtocolError{Rule: "row is too long"}
	case r.left > 0:
		return r.value(p)
	}
	r.prefix[r.have] = p[0]
	r.have++
	return 1, r.prefixByte()
}

// value processes bytes of a value.
func (r *mysqlRows) value(p []byte) (n int, err error) {
	n = min(r.left, len(p))
	if r.length > 0 {
		copy(r.moment[r.length-r.left:], p[:n])
	}
	if r.left -= n; r.left > 0 {
		return n, nil
	}
	if r.length > 0 && !isMySQLMoment(r.columns[r.column].kind, r.moment[:r.length]) {
		return n, &ProtocolError{Rule: "impossible date or time"}
	}
	r.length = 0
	r.nextColumn()
	return n, nil
}

// isMySQLMoment checks a binary date or time, because the driver uses its parts
// as indexes.
// Source: MySQL client/server protocol, "Binary Protocol Value".
func isMySQLMoment(kind columnKind, p []byte) bool {
	if kind == columnTime { // sign, days, hours, minutes, seconds
		if p[0] > 1 || binary.LittleEndian.Uint32(p[1:]) > maxMySQLDays {
			return false
		}
		p = p[5:]
	} else { // year, month, day, hours, minutes, seconds
		if binary.LittleEndian.Uint16(p) > 9999 || p[2] > 12 || p[3] > 31 {
			return false
		}
		p = p[4:]
	}
	if len(p) >= 3 && (p[0] > 23 || p[1] > 59 || p[2] > 59) {
		return false
	}
	return len(p) < 7 || binary.LittleEndian.Uint32(p[3:]) <= 999_999
}

// prefixByte checks the length of a value if the length is complete.
func (r *mysqlRows) prefixByte() error {
	column := r.columns[r.column]
	if r.prefix[0] == 0xfb && !r.binary { // NULL
		r.have = 0
		r.nextColumn()
		return nil
	}
	size := mysqlIntegerSize(r.prefix[0])
	if size == 0 {
		return &ProtocolError{Rule: "malformed length of a value"}
	}
	if r.have < size {
		return nil
	}
	length := mysqlIntegerValue(r.prefix[:size])
	if !mysqlIsShortest(length, size) || length > maxMySQLPacket || !r.fits(column, int(length)) {
		return &ProtocolError{Rule: "malformed length of a value"}
	}
	r.have = 0
	if r.left = int(length); r.left == 0 {
		r.nextColumn()
	} else if r.binary && column.kind != columnString {
		r.length = r.left
	}
	return nil
}

// fits reports whether a value of column c may have that length.
func (r *mysqlRows) fits(c mysqlColumn, length int) bool {
	switch {
	case !r.binary:
		return c.text || c.kind == columnUnknown || length <= maxMySQLShortText
	case c.kind == columnDate:
		return length == 0 || length == 4 || length == 7 || length == 11
	case c.kind == columnTime:
		return length == 0 || length == 8 || length == 12
	}
	return true
}

func (r *mysqlRows) nextColumn() {
	r.column++
	r.startValue()
}

// startValue skips the columns of a binary row that have no bytes, and
// determines the size of a value without a length prefix.
func (r *mysqlRows) startValue() {
	if !r.binary {
		return
	}
	for ; r.column < len(r.columns); r.column++ {
		bit := 8 + r.column + 2 // after the first byte; two bits are reserved
		if r.nulls[bit/8]>>(bit%8)&1 == 1 {
			continue
		}
		switch c := r.columns[r.column]; c.kind {
		case columnNothing:
			continue
		case columnFixed:
			r.left = int(c.size)
		default: // the value begins with its length
		}
		return
	}
}
