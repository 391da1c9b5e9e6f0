package tenantdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jmoiron/sqlx"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/sqlite"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tracing"
)

// ErrNotFound means that a query for one row found none.
var ErrNotFound = sql.ErrNoRows

// retryAfter is the time after which a caller is asked to retry a store whose
// database cannot be reached.
const retryAfter = 5 * time.Second

// DB is one open tenant database. Queries are written once, with ?
// placeholders, in the subset that PostgreSQL, MySQL, MariaDB and SQLite
// share.
//
// An error that means that the database cannot be used is a *stoa.Error with a
// database_… code, or tenant_unavailable from a lease. Other errors are the driver's.
// A DB is safe for concurrent use.
type DB struct {
	Engine credential.EngineName

	sqlx        *sqlx.DB
	engine      Engine
	dialect     *dialect
	credentials credential.Credentials
	dial        dial.Func
	dials       *dialTracker
	account     account
	bulkhead    *bulkhead // nil when the database is not leased: see failed
	own         *CustomMigrations
	pinned      *sessionState
	log         *slog.Logger        // nil: slog.Default()
	statements  *tracing.Statements // nil: statements have no spans
	migrating   sync.Mutex          // locked while a migration uses the pool

	// successor leases the store's database if it is another one now; otherwise the lease
	// has no database, and moving says whether there may be another one soon. It is nil
	// unless this database is leased.
	successor func(context.Context) (_ Lease, moving bool, _ error)
}

// newDB opens the database of c. b is nil unless the database is leased.
func newDB(engines map[credential.EngineName]Engine, c credential.Credentials, dial dial.Func, b *bulkhead) (*DB, error) {
	engine, ok := engines[c.Rules()]
	if !ok {
		return nil, fmt.Errorf("no engine %q", c.Rules())
	}
	db := &DB{Engine: c.Engine, engine: engine, dialect: registered[c.Engine].dialect, credentials: c, dial: dial, bulkhead: b, pinned: new(sessionState)}
	db.pinned.passwords.planned, db.pinned.leased = c.Reset.Next, b != nil
	pool, err := engine.Open(c, dial, db.pinned)
	if err != nil {
		return nil, db.wrap(err)
	}
	db.sqlx = sqlx.NewDb(pool, db.dialect.driver)
	return db, nil
}

// Close closes every connection. It fails for a leased database, which the manager
// closes because others use it too.
func (db *DB) Close() error {
	if db.bulkhead != nil {
		return errors.New("tenantdb: a leased database is released, not closed")
	}
	return db.sqlx.Close()
}

// LimitConnections sets how many connections db may have, which is not leased.
func (db *DB) LimitConnections(n int) { db.sqlx.SetMaxOpenConns(n) }

// FoundPooler returns the pooler in front of db's server, as far as it is known.
func (db *DB) FoundPooler() credential.Pooler { return db.pinned.poolerOf(db.credentials) }

// Ping checks that a connection can be made. Every failure counts as a failure
// of the database.
func (db *DB) Ping(ctx context.Context) error { return db.do(ctx, db.ping) }

func (db *DB) ping(ctx context.Context) error { return db.settle(ctx, db.roundTrip) }

// settle runs the first operation on a database. It treats an unknown error as
// unreachable.
func (db *DB) settle(ctx context.Context, op func(context.Context) error) error {
	err := db.wrap(op(ctx))
	var known *stoa.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	return db.failed(unreachable(err))
}

// roundTrip sends an empty request to the server. On PostgreSQL it bypasses
// database/sql, which hides the cause of a failure.
func (db *DB) roundTrip(ctx context.Context) error {
	if db.dialect.native {
		return db.withPgx(ctx, func(c *pgx.Conn) error { return c.Ping(ctx) })
	}
	return db.sqlx.PingContext(ctx)
}

// Inspect describes the database before anything is written to it.
func (db *DB) Inspect(ctx context.Context) (Inspection, error) {
	in, err := db.engine.Inspect(ctx, db)
	return in, MissingRow(db.wrap(err))
}

// Get scans one row into dst, or returns ErrNotFound. It returns
// database_content_invalid for text that is not UTF-8 or has more characters
// than the max tag of its field allows (255 by default), for a date outside the
// years 1 to 9999 and for a number that is not finite.
func (db *DB) Get(ctx context.Context, dst any, query string, args ...any) error {
	text := db.text(query)
	span := db.statements.Begin(ctx, text)
	err := db.getOnce(ctx, dst, text, args)
	span.End(err)
	return err
}

func (db *DB) getOnce(ctx context.Context, dst any, text string, args []any) error {
	return db.read(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		return db.get(ctx, dst, text, values(args))
	})
}

// Select scans all rows into dst, a pointer to a slice. It checks each row as
// Get does.
func (db *DB) Select(ctx context.Context, dst any, query string, args ...any) error {
	text := db.text(query)
	span := db.statements.Begin(ctx, text)
	err := db.selectRows(ctx, dst, text, args)
	span.End(err)
	return err
}

func (db *DB) selectRows(ctx context.Context, dst any, text string, args []any) error {
	return db.read(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		return db.account.selectRows(ctx, db.sqlx, dst, text, values(args))
	})
}

// Exec runs a statement and returns how many rows it matched, whether or not their
// values changed, on every engine. It retries after a deadlock, and in the store's new
// database after a move.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	span := db.statements.Begin(ctx, db.text(query))
	n, err = db.exec(ctx, query, args)
	err = db.afterMove(ctx, err, func(next *DB) (err error) {
		n, err = next.exec(ctx, query, args)
		return err
	})
	span.End(err)
	return n, err
}

func (db *DB) exec(ctx context.Context, query string, args []any) (n int64, err error) {
	err = db.retry(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		n, err = affected(db.sqlx.ExecContext(ctx, db.text(query), values(args)...))
		return err
	})
	return n, err
}

// Tx runs fn in one transaction and commits when it returns nil. A deadlock
// or serialization failure, or a move of the store to another database, runs fn again, so fn
// must not keep results of an earlier attempt. A panic of fn rolls the transaction back and continues in the
// caller.
func (db *DB) Tx(ctx context.Context, fn func(*Tx) error) error {
	span := db.statements.Begin(ctx, "TRANSACTION")
	err := db.tx(ctx, fn)
	err = db.afterMove(ctx, err, func(next *DB) error { return next.tx(ctx, fn) })
	span.End(err)
	return err
}

func (db *DB) tx(ctx context.Context, fn func(*Tx) error) error {
	return db.retry(ctx, func(ctx context.Context) error {
		t, err := db.sqlx.BeginTxx(ctx, db.txOptions())
		if err != nil {
			return beforeCommit(err)
		}
		defer t.Rollback() //nolint:errcheck // has no effect after Commit
		if err := fn(&Tx{t, db.dialect, db.account, db.log, db.statements}); err != nil {
			return beforeCommit(err)
		}
		return t.Commit()
	})
}

// txOptions names the isolation level on PostgreSQL, where a pooler may prevent
// Stoa from setting it for the session.
func (db *DB) txOptions() *sql.TxOptions {
	return &sql.TxOptions{Isolation: db.dialect.isolation}
}

// do runs op through the bulkhead, if there is one, and adds a code to its error.
func (db *DB) do(ctx context.Context, op func(context.Context) error) error {
	if db.bulkhead == nil {
		return db.wrap(op(ctx))
	}
	return db.bulkhead.run(ctx, func(ctx context.Context) error { return db.wrap(op(ctx)) })
}

// read runs an operation that changes nothing.
func (db *DB) read(ctx context.Context, op func(context.Context) error) error {
	return db.repeat(ctx, op, func(err error) bool { return sessionEnded(err) || isPooled(err) })
}

// retry runs an operation that leaves nothing behind when it fails. It retries once if the
// server has become read-only, too.
func (db *DB) retry(ctx context.Context, op func(context.Context) error) error {
	return db.repeat(ctx, op, changedNothing)
}

// repeat runs an operation. It retries after a conflict with another session, and once after
// an error for which once reports true: the server had ended the session, or a pooler had
// given it to another client. The pause lets a concurrent transaction finish.
func (db *DB) repeat(ctx context.Context, op func(context.Context) error, once func(error) bool) error {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		err := db.do(ctx, op)
		again := isRetryable(err) || attempt == 1 && once(err)
		if attempt == attempts || !again {
			return err
		}
		select {
		case <-time.After(time.Duration(attempt) * (5*time.Millisecond + rand.N(15*time.Millisecond))): //nolint:gosec // not a secret
		case <-ctx.Done():
			return err
		}
	}
}

// isRetryable reports whether err means that another session was in the way, so that nothing
// was done and the next attempt may succeed: a serialization failure or deadlock, or a table
// that was altered or got a trigger since the statement was prepared or the transaction began.
// On MySQL these are ER_CHECKREAD, ER_LOCK_DEADLOCK, ER_TABLE_DEF_CHANGED, ER_NEED_REPREPARE.
// Source: PostgreSQL manual, appendix A; MySQL and MariaDB server error references.
func isRetryable(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code == "40001" || pgErr.Code == "40P01"
	}
	return IsMySQL(err, 1020, 1213, 1412, 1615)
}

// wrap adds a code to an error that is a failure of the database.
func (db *DB) wrap(err error) error {
	// Cancellation is not a health signal.
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, context.Canceled) {
		return err
	}
	var known *stoa.Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, errOutOfMemory) {
		return unavailable(err)
	}
	switch fault := db.faultOf(err); {
	case fault != nil:
		return db.failed(fault)
	case db.bulkhead != nil && isOfServer(err):
		return tenantError(err)
	}
	return err
}

// faultOf returns the fault that err means, or nil. Faults in the content or the
// schema of Stoa's tables come before the engine's.
func (db *DB) faultOf(err error) *stoa.Error {
	if fault := contentFault(err); fault != nil {
		return fault
	}
	fault := db.engine.Fault(err)
	if fault == nil || fault.Code == stoa.TenantError && !IsTransient(fault) {
		if schema := schemaFault(err, db.bulkhead != nil); schema != nil {
			return schema
		}
	}
	return fault
}

// failed returns the error for a fault. An owner who connects a database gets
// the fault itself. A caller of a leased database gets tenant_unavailable with
// the fault as its cause: see HealthCode.
func (db *DB) failed(fault *stoa.Error) *stoa.Error {
	switch {
	case db.bulkhead == nil:
		return fault
	case fault.Code == stoa.TenantError: // a fault of one statement
		return tenantError(fault)
	case isOverloaded(fault):
		return unavailable(fault.Cause)
	}
	return unavailable(fault)
}

func unavailable(err error) *stoa.Error {
	e := stoa.Errorf(stoa.TenantUnavailable, "This store's database cannot be reached at the moment. Try again shortly.")
	e.RetryAfter = retryAfter
	return e.WithCause(err)
}

// Tx is one transaction in a tenant database.
type Tx struct {
	sqlx       *sqlx.Tx
	dialect    *dialect
	account    account
	log        *slog.Logger
	statements *tracing.Statements
}

// Get does the same as DB.Get inside the transaction.
func (tx *Tx) Get(ctx context.Context, dst any, query string, args ...any) (err error) {
	query = tx.dialect.text(query)
	span := tx.statements.Begin(ctx, query)
	defer func() { span.End(err) }()
	defer recoverDriver(tx.log, &err)
	return tx.account.getRow(ctx, tx.sqlx, dst, query, values(args))
}

// Select does the same as DB.Select inside the transaction.
func (tx *Tx) Select(ctx context.Context, dst any, query string, args ...any) (err error) {
	query = tx.dialect.text(query)
	span := tx.statements.Begin(ctx, query)
	defer func() { span.End(err) }()
	defer recoverDriver(tx.log, &err)
	return tx.account.selectRows(ctx, tx.sqlx, dst, query, values(args))
}

// Exec does the same as DB.Exec inside the transaction.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	query = tx.dialect.text(query)
	span := tx.statements.Begin(ctx, query)
	defer func() { span.End(err) }()
	defer recoverDriver(tx.log, &err)
	return affected(tx.sqlx.ExecContext(ctx, query, values(args)...))
}

// Stmt is a prepared statement of a transaction.
type Stmt struct {
	sqlx *sqlx.Stmt
	log  *slog.Logger
}

// Prepare prepares a statement that the transaction runs several times, which saves the
// server its parsing. The caller must call Close before the transaction ends.
func (tx *Tx) Prepare(ctx context.Context, query string) (_ *Stmt, err error) {
	defer recoverDriver(tx.log, &err)
	s, err := tx.sqlx.PreparexContext(ctx, tx.dialect.text(query))
	if err != nil {
		return nil, err
	}
	return &Stmt{s, tx.log}, nil
}

// Exec runs the statement.
func (s *Stmt) Exec(ctx context.Context, args ...any) (err error) {
	defer recoverDriver(s.log, &err)
	_, err = s.sqlx.ExecContext(ctx, values(args)...)
	return err
}

// Close frees the statement.
func (s *Stmt) Close() (err error) {
	defer recoverDriver(s.log, &err)
	return s.sqlx.Close()
}

// values replaces arguments that implement driver.Valuer with their values. pgx
// does the same with about twenty allocations each.
func values(args []any) []any {
	out := slices.Clone(args)
	for i, arg := range args {
		if _, ok := arg.(driver.Valuer); !ok {
			continue
		}
		if v, err := driver.DefaultParameterConverter.ConvertValue(arg); err == nil {
			out[i] = v
		} // on an error, the driver reports the same error
	}
	return out
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// uniqueViolation is the SQLSTATE of a violated uniqueness constraint.
const uniqueViolation = "23505"

// IsUnique reports whether err says that a UNIQUE or PRIMARY KEY constraint
// was violated, on any engine.
func IsUnique(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code == uniqueViolation
	}
	var myErr *mysql.MySQLError
	if errors.As(err, &myErr) {
		return myErr.Number == 1062 // ER_DUP_ENTRY
	}
	return sqlite.IsUnique(err)
}
