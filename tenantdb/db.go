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
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa"
)

// ErrNotFound means that a query for one row found none.
var ErrNotFound = sql.ErrNoRows

// retryAfter is what a caller is told to wait before it tries a store again
// whose database cannot be reached.
const retryAfter = 5 * time.Second

// DB is one open tenant database. Queries are written once, with ?
// placeholders, in the subset that PostgreSQL, MySQL, MariaDB and SQLite
// share.
//
// An error that means "this database cannot be used" comes back as a
// *stoa.Error with a database_… code, or as tenant_unavailable from a lease;
// every other error is the driver's own.
type DB struct {
	Engine EngineName

	sqlx        *sqlx.DB
	engine      Engine
	credentials Credentials
	dial        DialFunc
	dials       *dialTracker
	account     account
	bulkhead    *bulkhead // nil when it is not leased: see failed
	own         *OwnMigrations
	pinned      *sessionState
	log         *slog.Logger // nil: slog.Default()
	migrating   sync.Mutex   // held by whoever migrates on the pool
}

// newDB opens c, with a bulkhead if it is to be leased.
func newDB(engines map[EngineName]Engine, c Credentials, dial DialFunc, b *bulkhead) (*DB, error) {
	engine, ok := engines[c.rules()]
	if !ok {
		return nil, fmt.Errorf("no engine %q", c.rules())
	}
	db := &DB{Engine: c.Engine, engine: engine, credentials: c, dial: dial, bulkhead: b, pinned: new(sessionState)}
	pool, err := engine.Open(c, dial, db.pinned)
	if err != nil {
		return nil, db.wrap(err)
	}
	// sqlx knows how to rebind by driver name.
	name := map[EngineName]string{PostgreSQL: "pgx", MySQL: "mysql", SQLite: "sqlite3"}[c.Engine]
	db.sqlx = sqlx.NewDb(pool, name)
	return db, nil
}

// Close closes every connection. A leased database is the manager's to
// close: others use it too.
func (db *DB) Close() error {
	if db.bulkhead != nil {
		return errors.New("tenantdb: a leased database is released, not closed")
	}
	return db.sqlx.Close()
}

// Ping makes sure that a connection can be had. Whatever kept it from being
// made, known or not, is the database's failure.
func (db *DB) Ping(ctx context.Context) error { return db.do(ctx, db.ping) }

func (db *DB) ping(ctx context.Context) error { return db.settle(ctx, db.roundTrip) }

// settle runs the first operation on a connection.
func (db *DB) settle(ctx context.Context, op func(context.Context) error) error {
	err := db.wrap(op(ctx))
	var known *stoa.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	return db.failed(unreachable(err))
}

// roundTrip asks the server for nothing. database/sql's own way on PostgreSQL
// would keep the cause of a failure to itself.
func (db *DB) roundTrip(ctx context.Context) error {
	if db.Engine == PostgreSQL {
		return db.native(ctx, func(c *pgx.Conn) error { return c.Ping(ctx) })
	}
	return db.sqlx.PingContext(ctx)
}

// Inspect reports what is in the database before anything is written to it.
func (db *DB) Inspect(ctx context.Context) (Inspection, error) {
	in, err := db.engine.Inspect(ctx, db)
	return in, MissingRow(db.wrap(err))
}

// Get scans one row into dst, or returns ErrNotFound. What cannot be used is
// an error of the code database_content_invalid: text that is not in UTF-8 or
// has more characters than the max tag of its field says (255 without one), a
// date outside the years 1 to 9999, a number that is not finite.
func (db *DB) Get(ctx context.Context, dst any, query string, args ...any) error {
	return db.read(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		return db.get(ctx, dst, query, values(args))
	})
}

// Select scans all rows into dst, a pointer to a slice, each as Get does.
func (db *DB) Select(ctx context.Context, dst any, query string, args ...any) error {
	return db.read(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		return db.account.selectRows(ctx, db.sqlx, dst, db.sqlx.Rebind(query), values(args))
	})
}

// Exec runs a statement and returns how many rows it matched, whether or not
// their values changed, on every engine. One that lost a deadlock is run
// again.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = db.retry(ctx, func(ctx context.Context) (err error) {
		defer recoverDriver(db.log, &err)
		n, err = affected(db.sqlx.ExecContext(ctx, db.sqlx.Rebind(query), values(args)...))
		return err
	})
	return n, err
}

// Tx runs fn in one transaction and commits when it returns nil. A deadlock
// or serialization failure runs fn again, so fn must not keep results of an
// earlier attempt. A panic of fn ends the transaction and goes on to the
// caller.
func (db *DB) Tx(ctx context.Context, fn func(*Tx) error) error {
	return db.retry(ctx, func(ctx context.Context) error {
		t, err := db.sqlx.BeginTxx(ctx, db.txOptions())
		if err != nil {
			return beforeCommit(err)
		}
		defer t.Rollback() //nolint:errcheck // after Commit it has nothing to do
		if err := fn(&Tx{t, db.account, db.log}); err != nil {
			return beforeCommit(err)
		}
		return t.Commit()
	})
}

// txOptions name the isolation that every transaction has, where a pooler keeps
// the setting of the session from being pinned.
func (db *DB) txOptions() *sql.TxOptions {
	if db.Engine == PostgreSQL {
		return &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	return nil
}

// do runs op through the bulkhead, if there is one, and gives its error a code.
func (db *DB) do(ctx context.Context, op func(context.Context) error) error {
	if db.bulkhead == nil {
		return db.wrap(op(ctx))
	}
	return db.bulkhead.run(ctx, func(ctx context.Context) error { return db.wrap(op(ctx)) })
}

// read is do for what changes nothing: it runs op again, once, if the server had
// ended the session, or a pooler had given it to others.
func (db *DB) read(ctx context.Context, op func(context.Context) error) error {
	err := db.do(ctx, op)
	if sessionEnded(err) || isPooled(err) {
		return db.do(ctx, op)
	}
	return err
}

// retry is do for what is undone as a whole when it fails: it runs op again
// if that lost to another transaction, or met a server that had ended the session
// or takes no changes any more, or a pooler that had given the session to others.
// The pause lets the other one get through first.
func (db *DB) retry(ctx context.Context, op func(context.Context) error) error {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		err := db.do(ctx, op)
		again := isRetryable(err) || attempt == 1 && keptNothing(err)
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

// isRetryable: the transaction lost to another one and may succeed if run
// again. Serialization failure and deadlock on PostgreSQL, ER_LOCK_DEADLOCK on
// MySQL.
func isRetryable(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code == "40001" || pgErr.Code == "40P01"
	}
	var myErr *mysql.MySQLError
	return errors.As(err, &myErr) && myErr.Number == 1213
}

// wrap gives an error that is the database's own failure its code.
func (db *DB) wrap(err error) error {
	// Who cancels learns nothing about the database.
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, context.Canceled) {
		return err
	}
	var known *stoa.Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, errNoMemory) {
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

// faultOf returns what err means, nil for an error that has no meaning of its
// own. What a statement met in Stoa's tables is told by their content.
func (db *DB) faultOf(err error) *stoa.Error {
	if fault := contentFault(err); fault != nil {
		return fault
	}
	fault := db.engine.Fault(err)
	if fault == nil || fault.Code == stoa.TenantError && !IsPassing(fault) {
		if schema := schemaFault(err, db.bulkhead != nil); schema != nil {
			return schema
		}
	}
	return fault
}

// failed tells the owner who is connecting a database the cause; a shopper
// whose request meets it learns that the store cannot be reached, with the
// fault as the cause: see HealthCode.
func (db *DB) failed(fault *stoa.Error) *stoa.Error {
	switch {
	case db.bulkhead == nil:
		return fault
	case fault.Code == stoa.TenantError: // of one statement
		return tenantError(fault)
	case errors.Is(fault, errNoConnection): // a want of connections is this side's
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
	sqlx    *sqlx.Tx
	account account
	log     *slog.Logger
}

// Get is DB.Get inside the transaction.
func (tx *Tx) Get(ctx context.Context, dst any, query string, args ...any) (err error) {
	defer recoverDriver(tx.log, &err)
	return tx.account.getRow(ctx, tx.sqlx, dst, tx.sqlx.Rebind(query), values(args))
}

// Select is DB.Select inside the transaction.
func (tx *Tx) Select(ctx context.Context, dst any, query string, args ...any) (err error) {
	defer recoverDriver(tx.log, &err)
	return tx.account.selectRows(ctx, tx.sqlx, dst, tx.sqlx.Rebind(query), values(args))
}

// Exec is DB.Exec inside the transaction.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	defer recoverDriver(tx.log, &err)
	return affected(tx.sqlx.ExecContext(ctx, tx.sqlx.Rebind(query), values(args)...))
}

// values asks ids and the like for their values. database/sql does so by
// itself, but pgx asks it not to and then makes twenty allocations of each.
func values(args []any) []any {
	out := slices.Clone(args)
	for i, arg := range args {
		if _, ok := arg.(driver.Valuer); !ok {
			continue
		}
		if v, err := driver.DefaultParameterConverter.ConvertValue(arg); err == nil {
			out[i] = v
		} // else the driver meets the error too and reports it
	}
	return out
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// uniqueViolation is an SQLSTATE.
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
	var liteErr *sqlite.Error
	return errors.As(err, &liteErr) &&
		(liteErr.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || liteErr.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}
