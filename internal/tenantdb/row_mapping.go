package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jmoiron/sqlx"
	"github.com/jmoiron/sqlx/reflectx"

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

// Take implements limit.Account.
func (a account) Take(n int64) error {
	if a.budget.Take(a.key, n) {
		return nil
	}
	return errOutOfMemory
}

// Give implements limit.Account.
func (a account) Give(n int64) { a.budget.Give(a.key, n) }

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
	v := reflect.ValueOf(dst).Elem()
	if err := scanPgx(c.TypeMap(), rows, v); err != nil {
		return err
	}
	rows.Close() // reads the rest of the answer
	if err := rows.Err(); err != nil {
		return readError{err}
	}
	return a.accept(ctx, v)
}

// pgxMapping says which fields of a struct type a query's columns belong to.
type pgxMapping struct {
	columns []string
	fields  []pgxField
}

type pgxField struct {
	path   []int // as reflect.Value.FieldByIndex takes it
	isText bool  // it is a string
}

// pgxMappings caches the last mapping of each struct type, by reflect.Type. Queries for a
// type have the same columns, unless a database answers with others.
var pgxMappings sync.Map

// scanPgx scans the current row into v. It maps columns to fields as sqlx does for the
// other engines. Texts, which most columns are, are copied without a plan of the driver's.
func scanPgx(types *pgtype.Map, rows pgx.Rows, v reflect.Value) error {
	columns := rows.FieldDescriptions()
	if !isRow(v.Type()) {
		return scanFault(rows.Scan(v.Addr().Interface()))
	}
	fields, err := fieldsOf(v.Type(), columns)
	if err != nil {
		return err
	}
	for i, raw := range rows.RawValues() {
		column, field := &columns[i], v.FieldByIndex(fields[i].path)
		if fields[i].isText && raw != nil && isTextType(column.DataTypeOID) {
			field.SetString(string(raw))
		} else if err := types.Scan(column.DataTypeOID, column.Format, raw, field.Addr().Interface()); err != nil {
			return &contentError{column: clip(column.Name), reason: "cannot be read", cause: err}
		}
	}
	return nil
}

// isTextType reports whether a type's values are their text in both formats.
func isTextType(oid uint32) bool { return oid == pgtype.TextOID || oid == pgtype.VarcharOID }

// fieldsOf returns the field of each column, or an error for a column that has none.
func fieldsOf(t reflect.Type, columns []pgconn.FieldDescription) ([]pgxField, error) {
	known, _ := pgxMappings.Load(t)
	if m, ok := known.(*pgxMapping); ok && slices.EqualFunc(m.columns, columns, func(name string, c pgconn.FieldDescription) bool { return name == c.Name }) {
		return m.fields, nil
	}
	m := &pgxMapping{columns: make([]string, len(columns)), fields: make([]pgxField, len(columns))}
	for i, c := range columns {
		m.columns[i] = c.Name
	}
	for i, path := range rowMapper.TraversalsByName(t, m.columns) {
		if len(path) == 0 {
			return nil, &contentError{reason: fmt.Sprintf("a column %q was not asked for", clip(m.columns[i]))}
		}
		m.fields[i] = pgxField{path, t.FieldByIndex(path).Type == reflect.TypeFor[string]()}
	}
	pgxMappings.Store(t, m)
	return m.fields, nil
}

// rowMapper has the rules of sqlx.
var rowMapper = reflectx.NewMapperFunc("db", strings.ToLower)

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
	return scanFault(scan(v.Interface()))
}

// scanFault returns the content error for a column that cannot be converted, or nil.
func scanFault(err error) error {
	if err == nil {
		return nil
	}
	var arg pgx.ScanArgError
	if errors.As(err, &arg) {
		return &contentError{column: arg.FieldName, reason: "cannot be read", cause: err}
	}
	return &contentError{reason: clip(err.Error()), cause: err}
}
