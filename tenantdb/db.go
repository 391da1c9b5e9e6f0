package tenantdb

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jmoiron/sqlx"
)

// ErrNotFound means that a query for one row found none.
var ErrNotFound = sql.ErrNoRows

// DB is one open tenant database. Queries are written once, with ?
// placeholders, in the subset that PostgreSQL, MySQL, MariaDB and SQLite
// share.
type DB struct {
	Engine EngineName
	sqlx   *sqlx.DB
}

func newDB(engine EngineName, db *sql.DB) *DB {
	// sqlx knows how to rebind by driver name.
	driver := map[EngineName]string{PostgreSQL: "pgx", MySQL: "mysql", SQLite: "sqlite3"}[engine]
	return &DB{Engine: engine, sqlx: sqlx.NewDb(db, driver)}
}

// Get scans exactly one row into dst, or returns ErrNotFound.
func (db *DB) Get(ctx context.Context, dst any, query string, args ...any) error {
	return db.sqlx.GetContext(ctx, dst, db.sqlx.Rebind(query), args...)
}

// Select scans all rows into dst, a pointer to a slice.
func (db *DB) Select(ctx context.Context, dst any, query string, args ...any) error {
	return db.sqlx.SelectContext(ctx, dst, db.sqlx.Rebind(query), args...)
}

// Exec runs a statement and returns how many rows it changed. MySQL counts
// rows that matched, changed or not, as the other engines do.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return affected(db.sqlx.ExecContext(ctx, db.sqlx.Rebind(query), args...))
}

// Tx runs fn in one transaction and commits when it returns nil.
func (db *DB) Tx(ctx context.Context, fn func(*Tx) error) error {
	t, err := db.sqlx.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(&Tx{t}); err != nil {
		return errors.Join(err, t.Rollback())
	}
	return t.Commit()
}

// Tx is one transaction in a tenant database.
type Tx struct{ sqlx *sqlx.Tx }

// Get is DB.Get inside the transaction.
func (tx *Tx) Get(ctx context.Context, dst any, query string, args ...any) error {
	return tx.sqlx.GetContext(ctx, dst, tx.sqlx.Rebind(query), args...)
}

// Select is DB.Select inside the transaction.
func (tx *Tx) Select(ctx context.Context, dst any, query string, args ...any) error {
	return tx.sqlx.SelectContext(ctx, dst, tx.sqlx.Rebind(query), args...)
}

// Exec is DB.Exec inside the transaction.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return affected(tx.sqlx.ExecContext(ctx, tx.sqlx.Rebind(query), args...))
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
