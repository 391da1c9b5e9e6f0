package tenantdb

import (
	"context"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
)

// CopyIn inserts rows into a table of PostgreSQL with one COPY, which is one transaction.
// rows returns a new reader of the rows, in the server's text format, for each attempt. The
// names go into the statement without quotes.
func (db *DB) CopyIn(ctx context.Context, table string, columns []string, rows func() io.Reader) error {
	// The screen knows this form: no other statement reads rows.
	query := "COPY " + table + " (" + strings.Join(columns, ", ") + ") FROM STDIN"
	span := db.statements.Begin(ctx, query)
	err := db.copyIn(ctx, query, rows)
	err = db.afterMove(ctx, err, func(next *DB) error { return next.copyIn(ctx, query, rows) })
	span.End(err)
	return err
}

func (db *DB) copyIn(ctx context.Context, query string, rows func() io.Reader) error {
	return db.retry(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		return db.withPgx(ctx, func(c *pgx.Conn) error {
			_, err := c.PgConn().CopyFrom(ctx, rows(), query)
			return err
		})
	})
}
