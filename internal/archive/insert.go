package archive

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// insertRows inserts a block of rows.
func (l *loader) insertRows(ctx context.Context, tx *tenantdb.Tx, t Table, rows [][]any) error {
	if l.db.Engine == credential.PostgreSQL {
		for part := range slices.Chunk(rows, rowsOfArrays) {
			if err := insertArrays(ctx, tx, t, part); err != nil {
				return err
			}
		}
		return nil
	}
	for len(rows) > 0 {
		n := rowsOfStatement(len(rows), len(t.Columns))
		equal := len(rows) / n * n // rows that the same statement inserts
		if err := insertRepeatedly(ctx, tx, t, n, rows[:equal]); err != nil {
			return err
		}
		rows = rows[equal:]
	}
	return nil
}

// insertRepeatedly inserts rows with a statement for n of them, which is prepared once.
func insertRepeatedly(ctx context.Context, tx *tenantdb.Tx, t Table, n int, rows [][]any) (err error) {
	insert, err := tx.Prepare(ctx, insertSQL(t, n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, insert.Close()) }()
	arguments := make([]any, 0, n*len(t.Columns))
	for at := 0; at < len(rows); at += n {
		arguments = arguments[:0]
		for _, row := range rows[at : at+n] {
			arguments = append(arguments, row...)
		}
		if err := insert.Exec(ctx, arguments...); err != nil {
			return err
		}
	}
	return nil
}

// rowsOfArrays limits the rows of one statement with arrays: those of a block, which may be
// many, would be in memory twice more.
const rowsOfArrays = 500

// insertArrays inserts rows with one statement that has one array for each column. On
// PostgreSQL only COPY is faster, whose messages Stoa accepts from no server.
func insertArrays(ctx context.Context, tx *tenantdb.Tx, t Table, rows [][]any) error {
	var names, parameters, values []string
	arguments := make([]any, len(t.Columns))
	for i, c := range t.Columns {
		element, cast := "text", ""
		switch c.Type {
		case tenantdb.TypeInteger:
			element, arguments[i] = "bigint", arrayOf[int64](rows, i)
		case tenantdb.TypeBoolean:
			element, arguments[i] = "boolean", arrayOf[bool](rows, i)
		case tenantdb.TypeTimestamp:
			element, arguments[i] = "timestamptz", arrayOf[time.Time](rows, i)
		case tenantdb.TypeBytes:
			element, arguments[i] = "bytea", bytesOf(rows, i)
		case tenantdb.TypeUUID, tenantdb.TypeJSON, tenantdb.TypeDecimal:
			cast = map[tenantdb.ColumnType]string{tenantdb.TypeUUID: "::uuid", tenantdb.TypeJSON: "::jsonb", tenantdb.TypeDecimal: "::numeric"}[c.Type]
			arguments[i] = arrayOf[string](rows, i)
		default:
			arguments[i] = arrayOf[string](rows, i)
		}
		names = append(names, c.Name)
		parameters = append(parameters, "?::"+element+"[]")
		values = append(values, "r."+c.Name+cast)
	}
	list := strings.Join(names, ", ")
	_, err := tx.Exec(ctx, "INSERT INTO "+t.Name+" ("+list+") SELECT "+strings.Join(values, ", ")+" FROM unnest("+strings.Join(parameters, ", ")+") r ("+list+")", arguments...)
	return err
}

// arrayOf returns the values of a column: a []T, or a []*T if one is NULL.
func arrayOf[T any](rows [][]any, column int) any {
	values := make([]T, len(rows))
	var pointers []*T
	for i, row := range rows {
		v, ok := row[column].(T)
		if values[i] = v; !ok && pointers == nil {
			pointers = make([]*T, len(rows))
		}
	}
	if pointers == nil {
		return values
	}
	for i, row := range rows {
		if row[column] != nil {
			pointers[i] = &values[i]
		}
	}
	return pointers
}

// bytesOf returns the values of a column of bytes. A nil slice is NULL.
func bytesOf(rows [][]any, column int) [][]byte {
	values := make([][]byte, len(rows))
	for i, row := range rows {
		values[i], _ = row[column].([]byte)
	}
	return values
}
