package tenantdb

import (
	"context"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// CopyIn inserts rows into a table of PostgreSQL with one COPY, which is one transaction.
// rows returns a new reader of the rows for each attempt: in the server's binary format for
// columns of the given types, which cost the server least to read, or in its text format
// without types. The names go into the statement without quotes.
func (db *DB) CopyIn(ctx context.Context, table string, columns []StreamColumn, rows func(types []uint32) io.Reader) error {
	span := db.statements.Begin(ctx, screen.CopyIn(table, names(columns), true))
	err := db.copyIn(ctx, table, columns, rows)
	err = db.afterMove(ctx, err, func(next *DB) error { return next.copyIn(ctx, table, columns, rows) })
	span.End(err)
	return err
}

func (db *DB) copyIn(ctx context.Context, table string, columns []StreamColumn, rows func(types []uint32) io.Reader) error {
	return db.retry(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		return db.withPgx(ctx, func(c *pgx.Conn) error {
			types, err := binaryTypesOf(ctx, c, table, columns, "")
			if err != nil {
				return err
			}
			if slices.Contains(types, pgtype.NumericOID) { // nobody here writes its binary format
				types = nil
			}
			_, err = c.PgConn().CopyFrom(ctx, rows(types), screen.CopyIn(table, names(columns), types != nil))
			return err
		})
	})
}
