package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/georgysavva/scany/v2/pgxscan"
	"github.com/jackc/pgx/v5"
	"github.com/jmoiron/sqlx"

	"github.com/stoahq/stoa/internal/ratelimit"
)

// errOutOfMemory means that answers use all the memory that the process, or the
// database's account, may use for them.
var errOutOfMemory = errors.New("tenantdb: the memory for answers is used up")

// IsBusy reports whether err means that this process, not the database, lacked memory
// for the call. A retry may succeed.
func IsBusy(err error) bool { return errors.Is(err, errOutOfMemory) }

// account counts the bytes that come from one database.
type account struct {
	budget *ratelimit.ByteBudget
	key    ratelimit.Key
}

func (a account) take(n int64) error {
	if a.budget.Take(a.key, n) {
		return nil
	}
	return errOutOfMemory
}

func (a account) give(n int64) { a.budget.Give(a.key, n) }

// hold counts n bytes for the request of ctx until the request has been
// answered.
func (a account) hold(ctx context.Context, n int) error {
	if ratelimit.ReservationIn(ctx).Take(a.key, int64(n)) {
		return nil
	}
	return errOutOfMemory
}

// queryer is a pool or a transaction.
type queryer interface {
	QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error)
}

// getRow reads the first row into dst, or returns ErrNotFound.
func (a account) getRow(ctx context.Context, q queryer, dst any, query string, args []any) error {
	rows, err := q.QueryxContext(ctx, query, args...)
	if err != nil {
		return readError{err}
	}
	defer rows.Close() //nolint:errcheck // rows.Err returns the error
	v := reflect.ValueOf(dst)
	if rows.Next() {
		if err := scanRow(rows, v); err != nil {
			return err
		}
		return a.accept(ctx, v.Elem())
	}
	if err := rows.Err(); err != nil {
		return readError{err}
	}
	return ErrNotFound
}

// getPgx does the same as getRow on a pgx connection, without database/sql.
func (a account) getPgx(ctx context.Context, c *pgx.Conn, dst any, query string, args []any) error {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return readError{err}
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return readError{err}
		}
		return ErrNotFound
	}
	if err := pgxscan.NewRowScanner(rows).Scan(dst); err != nil {
		return scanFault(err)
	}
	rows.Close() // reads the rest of the answer
	if err := rows.Err(); err != nil {
		return readError{err}
	}
	return a.accept(ctx, reflect.ValueOf(dst).Elem())
}

// selectRows reads all rows into dst, a pointer to a slice. It does not ask the database
// while the account has no room for what the last answer to the query needed.
func (a account) selectRows(ctx context.Context, q queryer, dst any, query string, args []any) error {
	r := ratelimit.ReservationIn(ctx)
	if !r.Expect(a.key, query) {
		return errOutOfMemory
	}
	err := a.readRows(ctx, q, dst, query, args)
	if errors.Is(err, errOutOfMemory) {
		r.Refused()
	}
	return err
}

func (a account) readRows(ctx context.Context, q queryer, dst any, query string, args []any) error {
	rows, err := q.QueryxContext(ctx, query, args...)
	if err != nil {
		return readError{err}
	}
	defer rows.Close() //nolint:errcheck // rows.Err returns the error
	list := reflect.ValueOf(dst).Elem()
	list.SetLen(0)
	for rows.Next() {
		if list.Len() == maxRows {
			return &contentError{reason: fmt.Sprintf("the answer has more than %d rows", maxRows)}
		}
		v := reflect.New(list.Type().Elem())
		if err := scanRow(rows, v); err != nil {
			return err
		}
		if err := a.accept(ctx, v.Elem()); err != nil {
			return err
		}
		list.Set(reflect.Append(list, v.Elem()))
	}
	if err := rows.Err(); err != nil {
		return readError{err}
	}
	return nil
}

// accept checks a row and counts its bytes.
func (a account) accept(ctx context.Context, v reflect.Value) error {
	size, err := checkRow(v)
	if err != nil {
		return err
	}
	return a.hold(ctx, size+int(v.Type().Size()))
}

func scanRow(rows *sqlx.Rows, v reflect.Value) error {
	scan := func(dst any) error { return rows.Scan(dst) }
	if isRow(v.Type().Elem()) {
		scan = rows.StructScan
	}
	if err := scan(v.Interface()); err != nil {
		return scanFault(err)
	}
	return nil
}

// scanFault returns the content error for a column that cannot be converted.
func scanFault(err error) error {
	var arg pgx.ScanArgError
	if errors.As(err, &arg) {
		return &contentError{column: arg.FieldName, reason: "cannot be read", cause: err}
	}
	return &contentError{reason: clip(err.Error()), cause: err}
}
