package tenantdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"
)

// snapshotEnd limits how long the end of a snapshot's transaction may take.
const snapshotEnd = 5 * time.Second

// Snapshot is a read-only transaction that sees the database as it was when the
// transaction began, whatever others write meanwhile. On MySQL this holds for InnoDB
// tables only.
type Snapshot struct {
	db   *DB
	conn *sqlx.Conn
	q    queryer // the transaction on conn
}

// Snapshot runs fn in a snapshot of the database. It does not run fn again after a
// failure, because fn has used what it has read. On a server, a long snapshot keeps old
// row versions: the caller limits its duration with ctx.
func (db *DB) Snapshot(ctx context.Context, fn func(*Snapshot) error) error {
	return db.do(ctx, func(ctx context.Context) error {
		s, end, err := db.beginSnapshot(ctx)
		if err != nil {
			return err
		}
		defer end()
		return fn(s)
	})
}

// beginSnapshot begins a snapshot, with another connection if the server had closed the
// first. The caller must call end.
func (db *DB) beginSnapshot(ctx context.Context) (s *Snapshot, end func(), err error) {
	const attempts = 3 // as database/sql does
	for attempt := 1; ; attempt++ {
		conn, err := db.sqlx.Connx(ctx)
		if err != nil {
			return nil, nil, err
		}
		begin := db.beginSnapshotTx
		if db.dialect.beginSnapshot != "" {
			begin = db.beginSnapshotBy
		}
		s, rollback, err := begin(ctx, conn)
		if err == nil {
			return s, func() {
				rollback()
				_ = conn.Close() // it goes back to the pool
			}, nil
		}
		_ = conn.Close()
		if attempt == attempts || !errors.Is(err, driver.ErrBadConn) {
			return nil, nil, err
		}
	}
}

func (db *DB) beginSnapshotTx(ctx context.Context, conn *sqlx.Conn) (_ *Snapshot, rollback func(), err error) {
	tx, err := conn.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: db.dialect.snapshot})
	if err != nil {
		return nil, nil, err
	}
	rollback = func() { _ = tx.Rollback() } // it has changed nothing
	// PostgreSQL and SQLite take the snapshot at the first read of a table.
	var n int
	if err := tx.GetContext(ctx, &n, `SELECT count(*) FROM `+VersionTable); err != nil {
		rollback()
		return nil, nil, err
	}
	return &Snapshot{db, conn, tx}, rollback, nil
}

// beginSnapshotBy begins the snapshot by a statement that the driver's BeginTx does not send.
func (db *DB) beginSnapshotBy(ctx context.Context, conn *sqlx.Conn) (_ *Snapshot, rollback func(), err error) {
	if _, err := conn.ExecContext(ctx, db.dialect.beginSnapshot); err != nil {
		return nil, nil, err
	}
	return &Snapshot{db, conn, conn}, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotEnd)
		defer cancel()
		if _, err := conn.ExecContext(ctx, `ROLLBACK`); err != nil {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // the pool must not use it again
		}
	}, nil
}

// Select does the same as DB.Select in the snapshot.
func (s *Snapshot) Select(ctx context.Context, dst any, query string, args ...any) (err error) {
	defer recoverDriver(s.db.log, &err)
	return s.db.wrap(s.db.account.selectRows(ctx, s.q, dst, s.db.text(query), values(args)))
}

// EachRow calls fn with the values of each row, as the driver returns them. The values are
// not checked: see Select. fn may keep them, but not the slice. The answer may have as many
// bytes as any other answer of a server, so the query must limit its rows.
func (s *Snapshot) EachRow(ctx context.Context, fn func([]any) error, query string, args ...any) (err error) {
	defer recoverDriver(s.db.log, &err)
	rows, err := s.q.QueryxContext(ctx, s.db.text(query), values(args)...)
	if err != nil {
		return s.db.wrap(readError{err})
	}
	defer rows.Close() //nolint:errcheck // rows.Err returns the error
	row, err := rowTargets(rows)
	if err != nil {
		return s.db.wrap(readError{err})
	}
	for rows.Next() {
		if err := rows.Scan(row.targets...); err != nil {
			return s.db.wrap(scanFault(err))
		}
		if err := fn(row.values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return s.db.wrap(readError{err})
	}
	return nil
}

// rowBuffer receives the values of one row.
type rowBuffer struct{ values, targets []any }

func rowTargets(rows *sqlx.Rows) (rowBuffer, error) {
	columns, err := rows.Columns()
	b := rowBuffer{make([]any, len(columns)), make([]any, len(columns))}
	for i := range b.values {
		b.targets[i] = &b.values[i]
	}
	return b, err
}
