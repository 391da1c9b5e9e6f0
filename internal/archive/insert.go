package archive

import (
	"context"
	"errors"
	"io"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// insertBlock inserts a block of rows in one transaction.
func (l *loader) insertBlock(ctx context.Context, t Table, rows [][]any) error {
	if l.db.ArchiveSQL().CopyIn {
		return l.db.CopyIn(ctx, t.Name, streamColumns(t.Columns), func(types []uint32) io.Reader { return newCopyReader(t.Columns, types, rows) })
	}
	return l.tx(ctx, func(tx *tenantdb.Tx) error { return insertRows(ctx, tx, t, rows) })
}

func insertRows(ctx context.Context, tx *tenantdb.Tx, t Table, rows [][]any) error {
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
