package archive

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// rows calls fn with each encoded row of a table, in any order. A row is valid until fn
// returns.
func (s source) rows(ctx context.Context, t Table, fn func(row []byte) error) error {
	return s.stream(ctx, t, t.Columns, t.keyColumns(), "", fn)
}

// links calls fn with the encoded key and references to the table itself of each row that has
// such references.
func (s source) links(ctx context.Context, t Table, fn func(link []byte) error) error {
	links := t.links()
	if links == nil {
		return nil
	}
	var some []string
	for _, c := range t.pick(links[len(t.Key):]) {
		some = append(some, c.Name+" IS NOT NULL")
	}
	key := make([]int, len(t.Key))
	for i := range key {
		key[i] = i
	}
	return s.stream(ctx, t, t.pick(links), key, "("+strings.Join(some, " OR ")+")", fn)
}

// stream calls fn with the encoded columns of each row that satisfies a condition. key has the
// indexes of the table's key among the columns.
func (s source) stream(ctx context.Context, t Table, columns []Column, key []int, where string, fn func(row []byte) error) error {
	p := pager{source: s, table: t, columns: columns, key: key, where: where}
	if s.engine.Embedded() { // nothing else limits the length of a row
		if err := p.refuseLong(ctx); err != nil {
			return err
		}
	}
	var (
		buffer []byte
		failed error // of fn, or a fault of a row
	)
	ok, err := s.Stream(ctx, t.Name, streamColumns(columns), where, func(row tenantdb.StreamRow) error {
		if buffer, failed = appendStreamed(buffer[:0], columns, row); failed != nil {
			failed = p.streamFault(row, failed)
		} else {
			failed = fn(buffer)
		}
		return failed
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return &databaseError{err}
	case !ok:
		return p.pages(ctx, encodeTo(columns, fn))
	}
	return nil
}

func streamColumns(columns []Column) []tenantdb.StreamColumn {
	out := make([]tenantdb.StreamColumn, len(columns))
	for i, c := range columns {
		out[i] = tenantdb.StreamColumn{Name: c.Name, Type: c.Type}
	}
	return out
}

func appendStreamed(b []byte, columns []Column, row tenantdb.StreamRow) ([]byte, error) {
	if row.Fields != nil {
		return appendFields(b, columns, row.Fields)
	}
	return appendRow(b, columns, row.Values)
}

// encodeTo returns a function that calls fn with the encoded row of the values that a driver
// returns.
func encodeTo(columns []Column, fn func(row []byte) error) func([]any) error {
	var buffer []byte
	return func(values []any) (err error) {
		if buffer, err = appendRow(buffer[:0], columns, values); err != nil {
			return err
		}
		return fn(buffer)
	}
}

// streamFault adds the key of a row to its fault.
func (p *pager) streamFault(row tenantdb.StreamRow, err error) error {
	values := row.Values
	if row.Fields != nil {
		values = make([]any, len(p.columns))
		for _, at := range p.key {
			values[at] = "?"
			column := p.columns[at : at+1]
			if b, err := appendFields(nil, column, row.Fields[at:at+1]); err == nil {
				decoded, _, _ := decodeRow(b, column) // it was encoded just now
				values[at] = decoded[0]
			}
		}
	}
	return p.rowFault(values, err)
}

// refuseLong returns an error that names a row that is too long for an archive, if there is
// one.
func (p *pager) refuseLong(ctx context.Context) error {
	size := p.size()
	if size == "" {
		return nil
	}
	long := *p
	long.where, long.args = size+" > ?", []any{maxRow}
	_, err := long.query(ctx, strings.Join(p.names(p.key), ", ")+", "+size, 1, func(values []any) error { return p.tooLong(values) })
	return err
}

// nameLong replaces the error for an answer that is too long by one that names the row of the
// table, if there still is one.
func nameLong(ctx context.Context, db *tenantdb.DB, t Table, err error) error {
	if !errors.Is(err, screen.ErrAnswerTooLong) || ctx.Err() != nil {
		return err
	}
	found := db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		p := pager{source: source{s, db.Engine}, table: t, columns: t.Columns, key: t.keyColumns()}
		return p.refuseLong(ctx)
	})
	var row *rowError
	if errors.As(found, &row) {
		return readFault(ctx, t, row)
	}
	return err
}

// unlimited reports whether the values of a column have no limit in its schema.
func (c Column) unlimited() bool {
	return c.maxChars == 0 && slices.Contains([]tenantdb.ColumnType{tenantdb.TypeText, tenantdb.TypeJSON, tenantdb.TypeBytes}, c.Type)
}
