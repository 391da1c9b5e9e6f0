package tenantdb

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// get reads one row. On PostgreSQL it bypasses database/sql, which starts a
// goroutine for each query and allocates each column. Storefronts use it for
// their reads.
func (db *DB) get(ctx context.Context, dst any, text string, args []any) error {
	if !db.dialect.native {
		return db.account.getRow(ctx, db.sqlx, dst, text, args)
	}
	return db.withPgx(ctx, func(c *pgx.Conn) error {
		return db.account.getPgx(ctx, c, dst, text, args)
	})
}

// withPgx calls op with a pgx connection of the pool. It retries with another connection
// if the server had closed the first.
func (db *DB) withPgx(ctx context.Context, op func(*pgx.Conn) error) error {
	const attempts = 3 // as database/sql does
	for attempt := 1; ; attempt++ {
		err := db.lend(ctx, op)
		if attempt == attempts || !errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
}

func (db *DB) lend(ctx context.Context, op func(*pgx.Conn) error) error {
	conn, err := db.sqlx.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	return conn.Raw(func(c any) error {
		err := pgxConn(c, op)
		if pgconn.SafeToRetry(err) {
			return errors.Join(driver.ErrBadConn, err)
		}
		return err
	})
}
