package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb"
)

const (
	// pageBytes is how many bytes of rows are read with one query. It is well below the
	// longest answer that is accepted from a server.
	pageBytes = 3 << 20
	pageRows  = 2000 // the most rows of one query
)

// rowsWhere calls fn with each encoded row of a table that satisfies a condition, in the order
// of its key. The order is the engine's own.
func (s source) rowsWhere(ctx context.Context, t Table, where string, args []any, fn func(row []byte) error) error {
	p := pager{source: s, table: t, columns: t.Columns, key: t.keyColumns(), where: where, args: args}
	return p.pages(ctx, encodeTo(t.Columns, fn))
}

// rowBytes returns how many bytes a row takes in a server's answer. bounded is false if that
// is without its columns of unlimited length.
func rowBytes(columns []Column) (n int, bounded bool) {
	bounded = true
	for _, c := range columns {
		switch {
		case c.unlimited():
			n, bounded = n+8, false
		case c.Type == tenantdb.TypeText:
			n += 4*c.maxChars + 8
		default:
			n += 80
		}
	}
	return n, bounded
}

// pager reads a table in pages, each with one query.
type pager struct {
	source
	table   Table
	columns []Column
	key     []int  // indexes of the key among columns
	where   string // a condition; "" for all rows
	args    []any  // of the condition
	limit   int    // rows of a page
	after   []any  // key of the last row; nil before the first
}

// pages calls fn with each row, in pages.
func (p *pager) pages(ctx context.Context, fn func([]any) error) error {
	fixed, bounded := rowBytes(p.columns)
	if !bounded {
		return p.bySize(ctx, fixed, fn)
	}
	p.limit = max(1, min(pageRows, pageBytes/fixed))
	return p.all(ctx, fn)
}

// all reads all pages of limit rows.
func (p *pager) all(ctx context.Context, fn func([]any) error) error {
	for {
		n, err := p.page(ctx, p.limit, fn)
		if err != nil || n < p.limit {
			return err
		}
	}
}

// bySize reads pages of as many rows as fit in pageBytes. It asks for the sizes of the rows
// first, because a server could not return a page that is too long.
func (p *pager) bySize(ctx context.Context, fixed int, fn func([]any) error) error {
	for {
		sizes, err := p.sizes(ctx, fixed)
		if err != nil {
			return err
		}
		for at := 0; at < len(sizes); {
			n, sum := 1, sizes[at]
			for at+n < len(sizes) && sum+sizes[at+n] <= pageBytes {
				sum += sizes[at+n]
				n++
			}
			if _, err := p.page(ctx, n, fn); err != nil {
				return err
			}
			at += n
		}
		if len(sizes) < pageRows {
			return nil
		}
	}
}

// sizes returns the size of each of the next rows, in bytes.
func (p *pager) sizes(ctx context.Context, fixed int) (sizes []int64, err error) {
	_, err = p.query(ctx, strings.Join(p.names(p.key), ", ")+", "+p.size(), pageRows, func(values []any) error {
		n, err := canonicalInteger(values[len(p.key)])
		if err != nil {
			return err
		}
		if sizes = append(sizes, n+int64(fixed)); n > maxRow {
			return p.tooLong(values)
		}
		return nil
	})
	return sizes, err
}

// size returns the expression of the bytes of a row's columns without a limit, or "" if it has
// none.
func (p *pager) size() string {
	sql := p.ArchiveSQL()
	var parts []string
	for _, c := range p.columns {
		if !c.unlimited() {
			continue
		}
		expression := c.Name
		if c.Type == tenantdb.TypeJSON {
			expression = fmt.Sprintf(sql.JSONText, c.Name)
		}
		parts = append(parts, "coalesce("+fmt.Sprintf(sql.Bytes, expression)+", 0)")
	}
	return strings.Join(parts, " + ")
}

// tooLong returns the fault of the row with that key.
func (p *pager) tooLong(key []any) error {
	values := make([]any, len(p.columns))
	for i, at := range p.key {
		values[at] = key[i]
	}
	longest := p.columns[slices.IndexFunc(p.columns, Column.unlimited)].Name
	return p.rowFault(values, &valueError{longest, fmt.Sprintf("and the others have more than %d MiB in this row", maxRow>>20)})
}

func (p *pager) names(indexes []int) []string {
	names := make([]string, len(indexes))
	for i, at := range indexes {
		names[i] = p.columns[at].Name
	}
	return names
}

// page reads the rows after the last key.
func (p *pager) page(ctx context.Context, limit int, fn func([]any) error) (n int, err error) {
	var names []string
	for _, c := range p.columns {
		names = append(names, c.Name)
	}
	last := make([]any, len(p.key))
	n, err = p.query(ctx, strings.Join(names, ", "), limit, func(values []any) error {
		for i, at := range p.key {
			if last[i] = values[at]; p.columns[at].Type != tenantdb.TypeBytes {
				if s, ok := asText(last[i]); ok { // MySQL's bytes would be compared as bytes
					last[i] = s
				}
			}
		}
		if err := fn(values); err != nil {
			return p.rowFault(values, err)
		}
		return nil
	})
	if n > 0 {
		p.after = last
	}
	return n, err
}

func (p *pager) rowFault(values []any, err error) error {
	var value *valueError
	if !errors.As(err, &value) {
		return err
	}
	full := Table{Name: p.table.Name, Columns: p.columns, Key: p.table.Key}
	return &rowError{keyText(full, values), err}
}

// query runs a query for the rows after the last key.
func (p *pager) query(ctx context.Context, list string, limit int, fn func([]any) error) (n int, err error) {
	var conditions []string
	var args []any
	if p.where != "" {
		conditions, args = append(conditions, p.where), append(args, p.args...)
	}
	key := p.names(p.key)
	if p.after != nil {
		// MySQL uses no index for a comparison of lists of columns.
		var either []string
		for i := range key {
			var all []string
			for j := range i {
				all, args = append(all, key[j]+" = ?"), append(args, p.after[j])
			}
			all, args = append(all, key[i]+" > ?"), append(args, p.after[i])
			either = append(either, strings.Join(all, " AND "))
		}
		conditions = append(conditions, "("+strings.Join(either, " OR ")+")")
	}
	where := ""
	if conditions != nil {
		where = " WHERE " + strings.Join(conditions, " AND ")
	}
	var failed error // of fn
	err = p.EachRow(ctx, func(values []any) error {
		if n++; n > limit {
			return fmt.Errorf("the server returns more than %d rows", limit)
		}
		failed = fn(values)
		return failed
	}, "SELECT "+list+" FROM "+p.table.Name+where+" ORDER BY "+strings.Join(key, ", ")+" LIMIT ?", append(args, limit)...)
	if err != nil && failed == nil {
		err = &databaseError{err}
	}
	return n, err
}
