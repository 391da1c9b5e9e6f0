package tenantdb

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// StreamColumn is a column that Snapshot.Stream reads.
type StreamColumn struct {
	Name string
	Type ColumnType
}

// StreamRow is one row of a stream. It is valid until the function that receives it returns.
type StreamRow struct {
	Values []any // as the driver returns them; nil on PostgreSQL
	// Fields are the values on PostgreSQL, in its binary format for their type: nil is NULL, a
	// decimal is its text.
	Fields [][]byte
}

// Stream calls fn with each row of a table that satisfies a condition, or of the whole table
// if it is empty, in any order. The names and the condition go into the statement as they are.
// The server sends rows while fn works on the ones before; each of them may have as many
// bytes as a whole answer otherwise, and all of them any number: ctx limits the time. After an
// error the snapshot may be unusable.
//
// ok is false if nothing was read because a column has another type on PostgreSQL than it
// should. EachRow can read it.
func (s *Snapshot) Stream(ctx context.Context, table string, columns []StreamColumn, where string, fn func(StreamRow) error) (ok bool, err error) {
	defer recoverDriver(s.db.log, &err)
	var failed error // of fn, which is returned as it is
	stream := s.streamValues
	if s.db.dialect.native {
		stream = s.streamBinary
	}
	ok, err = stream(ctx, table, columns, where, func(row StreamRow) error {
		failed = fn(row)
		return failed
	})
	if failed != nil {
		return true, failed
	}
	if err != nil {
		return true, s.db.wrap(readError{err})
	}
	return ok, nil
}

func names(columns []StreamColumn) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return names
}

func streamQuery(table string, columns []string, where string) string {
	query := "SELECT " + strings.Join(columns, ", ") + " FROM " + table
	if where != "" {
		query += " WHERE " + where
	}
	return query
}

// streamValues reads rows from the driver. The package database/sql would copy each value.
func (s *Snapshot) streamValues(ctx context.Context, table string, columns []StreamColumn, where string, fn func(StreamRow) error) (bool, error) {
	query := streamQuery(table, names(columns), where)
	if !s.db.dialect.embedded {
		query = screen.StreamMark + query
	}
	return true, s.conn.Raw(func(c any) error {
		rows, err := c.(driver.QueryerContext).QueryContext(ctx, query, nil)
		if err != nil {
			return err
		}
		err = eachDriverRow(ctx, rows, len(columns), fn)
		if server, ok := c.(*recoveringConn); ok && err != nil {
			server.abandon() // or Close would read the rest of the stream
		}
		return errors.Join(err, rows.Close())
	})
}

// eachDriverRow calls fn with each row. The embedded engine's driver does not look at ctx
// while it reads.
func eachDriverRow(ctx context.Context, rows driver.Rows, columns int, fn func(StreamRow) error) error {
	dest, values := make([]driver.Value, columns), make([]any, columns)
	for n := 0; ; n++ {
		switch err := rows.Next(dest); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n%1024 == 0 && ctx.Err() != nil:
			return ctx.Err()
		}
		for i, v := range dest {
			values[i] = v
		}
		if err := fn(StreamRow{Values: values}); err != nil {
			return err
		}
	}
}

// binaryTypes are PostgreSQL's types whose binary format is that of a column type.
var binaryTypes = map[ColumnType][]uint32{
	TypeUUID: {pgtype.UUIDOID}, TypeText: {pgtype.TextOID, pgtype.VarcharOID}, TypeInteger: {pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID},
	TypeBoolean: {pgtype.BoolOID}, TypeTimestamp: {pgtype.TimestamptzOID}, TypeDecimal: {pgtype.NumericOID}, TypeJSON: {pgtype.JSONBOID}, TypeBytes: {pgtype.ByteaOID},
}

// binaryTypesOf asks the server for the types of columns. It returns nil if one of them has
// another binary format than its column should have.
func binaryTypesOf(ctx context.Context, c *pgx.Conn, table string, columns []StreamColumn, where string) ([]uint32, error) {
	described, err := c.PgConn().Prepare(ctx, "", streamQuery(table, names(columns), where), nil)
	if err != nil {
		return nil, err
	}
	if len(described.Fields) != len(columns) {
		return nil, &screen.ProtocolError{Rule: "another number of columns than were selected"}
	}
	types := make([]uint32, len(columns))
	for i, f := range described.Fields {
		if types[i] = f.DataTypeOID; !slices.Contains(binaryTypes[columns[i].Type], types[i]) {
			return nil, nil
		}
	}
	return types, nil
}

// streamBinary reads rows by COPY, in the format that costs the server and this process least.
func (s *Snapshot) streamBinary(ctx context.Context, table string, columns []StreamColumn, where string, fn func(StreamRow) error) (ok bool, err error) {
	selected := names(columns)
	for i, c := range columns {
		if c.Type == TypeDecimal { // its binary format takes long to read: see textNumericCodec
			selected[i] += "::text"
		}
	}
	err = s.conn.Raw(func(c any) error {
		return pgxConn(c, func(c *pgx.Conn) error {
			types, err := binaryTypesOf(ctx, c, table, columns, where)
			if ok = types != nil; err != nil || !ok {
				return err
			}
			rows := &binaryRows{fields: make([][]byte, len(columns)), fn: fn}
			if _, err := c.PgConn().CopyTo(ctx, rows, screen.CopyOut(streamQuery(table, selected, where))); err != nil {
				return err
			}
			return rows.complete()
		})
	})
	return ok, err
}

// binaryRows receives the rows of COPY in binary format and passes them on.
// Source: PostgreSQL manual, "COPY", "Binary Format".
type binaryRows struct {
	fields [][]byte
	fn     func(StreamRow) error
	begun  bool // the header was read
	ended  bool // the trailer was read
}

const binarySignature = "PGCOPY\n\xff\r\n\x00"

var errBinaryRows = &screen.ProtocolError{Rule: "rows that are not in the binary format"}

// Write implements io.Writer. p is one message, which holds whole rows: a server that sent a row
// in very many parts would make this process look at its beginning as often.
// Source: PostgreSQL manual, "Message Formats", CopyData.
func (r *binaryRows) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0 || len(p) == 0; {
		used, err := r.next(rest)
		if err != nil {
			return 0, err
		}
		rest = rest[used:]
	}
	return len(p), nil
}

// next reads the header, a row or the trailer, and returns its length.
func (r *binaryRows) next(p []byte) (used int, err error) {
	switch {
	case r.ended:
		return 0, errBinaryRows
	case !r.begun:
		const head = len(binarySignature) + 8
		switch {
		case len(p) < head, string(p[:len(binarySignature)]) != binarySignature, binary.BigEndian.Uint64(p[len(binarySignature):head]) != 0:
			return 0, errBinaryRows // flags and an extension are 0
		}
		r.begun = true
		return head, nil
	case len(p) < 2:
		return 0, errBinaryRows
	}
	switch int(int16(binary.BigEndian.Uint16(p))) { //nolint:gosec // -1 is the trailer
	case -1:
		r.ended = true
		return 2, nil
	case len(r.fields):
		return r.row(p)
	}
	return 0, errBinaryRows
}

func (r *binaryRows) row(p []byte) (used int, err error) {
	used = 2
	for i := range r.fields {
		if len(p)-used < 4 {
			return 0, errBinaryRows
		}
		length := int(int32(binary.BigEndian.Uint32(p[used:]))) //nolint:gosec // -1 is NULL
		used += 4
		switch {
		case length == -1:
			r.fields[i] = nil
			continue
		case length < 0, len(p)-used < length:
			return 0, errBinaryRows
		}
		r.fields[i] = p[used : used+length : used+length]
		used += length
	}
	return used, r.fn(StreamRow{Fields: r.fields})
}

// complete returns an error if the rows did not end as they must.
func (r *binaryRows) complete() error {
	if !r.ended {
		return errBinaryRows
	}
	return nil
}
