package masterdb

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Each runs a query and calls fn for each row, once the row's columns have been scanned into
// dst, pointers in the order of the columns. It is for reads of very many rows: nothing looks
// up where a column belongs, and dst may be the same for all of them.
func (tx *Tx) Each(ctx context.Context, query string, args, dst []any, fn func() error) error {
	span := tx.statements.Begin(ctx, query)
	err := tx.each(ctx, query, args, dst, fn)
	span.End(fault(err))
	return err
}

func (tx *Tx) each(ctx context.Context, query string, args, dst []any, fn func() error) error {
	if tx.pg != nil {
		rows, err := tx.pg.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, dst, fn)
		return err
	}
	rows, err := tx.lite.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // rows.Err returns the error
	for rows.Next() {
		if err := rows.Scan(dst...); err != nil {
			return err
		}
		if err := fn(); err != nil {
			return err
		}
	}
	return rows.Err()
}
