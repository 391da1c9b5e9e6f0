// Package masterdb opens the master database, PostgreSQL or SQLite, and runs transactions
// on it. Domain packages write one SQL text in the subset that both engines share, with $1
// placeholders. Where the engines differ, the code branches on Tx.Postgres or DB.Engine.
package masterdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/georgysavva/scany/v2/dbscan"
	"github.com/georgysavva/scany/v2/pgxscan"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tracing"
)

// Engine is the kind of server behind the master database.
type Engine string

// The master engines.
const (
	Postgres Engine = "postgresql"
	SQLite   Engine = "sqlite"
)

// DB is the master database. It is safe for concurrent use.
//
// On SQLite all writes share one connection. Code inside Tx must use that Tx only: a write
// on the DB would wait for the transaction that it is part of.
type DB struct {
	Engine Engine

	pool        *pgxpool.Pool // PostgreSQL
	sessions    *pgxpool.Pool // PostgreSQL: for what needs a session of the server
	servers     []*server     // of these pools, which may be one
	write, read *sql.DB       // SQLite
	path        string        // SQLite
	strict      bool          // the isolation level is stricter than read committed
	full        atomic.Int64  // time of the last write that failed on a full disk, in Unix nanoseconds; 0 after a successful one

	clock clock

	statements *tracing.Statements // nil: statements have no spans

	subscribers   sync.RWMutex
	subscriptions []subscription
	listening     listenState
}

// Querier reads from the database. *DB and *Tx implement it.
type Querier interface {
	// Get scans exactly one row into dst, a struct pointer or a pointer to a
	// single value (a time needs a struct around it). Without a row it returns
	// ErrNotFound.
	Get(ctx context.Context, dst any, query string, args ...any) error
	// Select scans all rows into dst, a pointer to a slice.
	Select(ctx context.Context, dst any, query string, args ...any) error
	// Batch sends all queries at once, on PostgreSQL in one round trip, and scans their rows.
	// If a One has no row, Batch scans the others and returns ErrNotFound.
	Batch(ctx context.Context, queries ...Query) error
}

// Execer runs a statement: *DB as a transaction of its own, *Tx in its transaction.
type Execer interface {
	Exec(ctx context.Context, query string, args ...any) (rows int64, err error)
}

// Handle reads, and writes in a transaction. *DB begins a new transaction, *Tx uses its
// own.
type Handle interface {
	Querier
	// Within runs fn in the handle's transaction if it is one, and otherwise in a new one.
	// On SQLite a new transaction waits at most withinWait for the write connection and
	// then fails with ErrBusy. A caller that passes the DB from within a transaction thus
	// gets an error instead of a deadlock.
	Within(ctx context.Context, fn func(*Tx) error) error
}

// Tx is one transaction. Now is the time of DB.Now when it begins: every row written in it
// has the same time.
type Tx struct {
	Now time.Time

	pg       *pgTx
	lite     *sql.Tx
	begin    string    // the statement that starts it on PostgreSQL
	messages []message // for the subscribers, once the transaction has committed
	here     []message // for the subscribers in this process
	servers  []message // for those of the servers, if this process is none
	after    []func()

	listens    bool // the process has called Listen
	statements *tracing.Statements
	duplicate  bool // a statement has met a row with its unique value
}

// Open connects to url, "postgres://…" or "sqlite:PATH", and checks that the server
// answers. It does not check the schema: see Migrate.
func Open(ctx context.Context, url string) (*DB, error) { return OpenPooled(ctx, url, "") }

// OpenPooled is Open for a PostgreSQL server behind a pooler in transaction mode at url.
// sessionURL leads to the server itself, or through a pooler in session mode. It is for what
// needs a session: a handful of connections. If it is empty, url leads there.
func OpenPooled(ctx context.Context, url, sessionURL string) (*DB, error) {
	switch {
	case sessionURL != "" && !(isPostgres(url) && isPostgres(sessionURL)):
		return nil, errors.New("a master database with a URL for sessions must be postgres://…, and so must that URL")
	case isPostgres(url):
		db, err := openPostgres(ctx, url, sessionURL)
		if err != nil {
			return nil, err
		}
		if _, err := db.MeasureSkew(ctx); err != nil {
			db.Close()
			return nil, fmt.Errorf("master database: %w", err)
		}
		return db, nil
	case strings.HasPrefix(url, "sqlite:"):
		return openSQLite(ctx, strings.TrimPrefix(url, "sqlite:"))
	default:
		// The URL may contain a password. The error does not repeat it.
		return nil, errors.New("master database URL must be postgres://… or sqlite:PATH")
	}
}

func isPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// closeTimeout is how long Close waits for running queries, and again after it has aborted
// them.
const closeTimeout = 3 * time.Second

// Close waits closeTimeout for running queries, then aborts them, and closes every
// connection. It returns after twice closeTimeout at most.
func (db *DB) Close() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if db.pool != nil {
			for _, s := range db.servers {
				s.Close()
			}
			return
		}
		_ = db.read.Close()
		_ = db.write.Close()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
	if db.pool == nil {
		return
	}
	for _, s := range db.servers {
		s.stop()
		s.breaker.abortAll()
	}
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}

// Ping checks that the server answers, and that its disk was not full at the last
// write.
func (db *DB) Ping(ctx context.Context) error {
	ping := func() error { return db.read.PingContext(ctx) }
	if db.pool != nil {
		ping = func() error { return db.pool.Ping(ctx) }
	}
	if err := db.MapError(ctx, ping()); err != nil {
		return err
	}
	if full := db.full.Load(); full != 0 && time.Since(time.Unix(0, full)) < fullFor {
		return stoa.Errorf(stoa.PlatformUnavailable, "The master database has no room left to write: free some, or give its disk more.")
	}
	return nil
}

// CheckWrite writes 64 KiB to the disk and removes them.
func (db *DB) CheckWrite(ctx context.Context) error {
	return db.Tx(ctx, func(tx *Tx) error {
		if tx.pg != nil {
			_, err := tx.Exec(ctx, `SELECT pg_logical_emit_message(true, 'stoa', repeat('x', 65536))`)
			return err
		}
		for _, statement := range []string{`CREATE TABLE stoa_write_check (x BLOB)`, `INSERT INTO stoa_write_check VALUES (randomblob(65536))`, `DROP TABLE stoa_write_check`} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// OnOutage registers fn to be called with the cause when the master becomes unreachable,
// and with nil when it answers again. fn must return at once. On SQLite it is never called.
func (db *DB) OnOutage(fn func(cause error)) {
	if db.pool == nil {
		return
	}
	b := db.breaker()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.callbacks = append(b.callbacks, fn)
}

// IsUnreachable reports whether the circuit breaker is open. While it is, every call fails
// at once.
func (db *DB) IsUnreachable() bool { return db.pool != nil && db.breaker().allow() != nil }

// breaker returns the breaker in front of a PostgreSQL master. Sessions of their own have
// another one: those who use them open them again.
func (db *DB) breaker() *breaker { return db.servers[0].breaker }

// Pool returns the PostgreSQL pool, or nil on SQLite. It is for libraries that send SQL
// themselves, such as the job queue. Two transactions of a connection may have different
// sessions.
func (db *DB) Pool() *pgxpool.Pool { return db.pool }

// Sessions returns a PostgreSQL pool whose connections have a session of the server each, or
// nil on SQLite. It is small: see OpenPooled.
func (db *DB) Sessions() *pgxpool.Pool { return db.sessions }

// Writer returns the SQLite write connection, or nil on PostgreSQL. See Pool.
func (db *DB) Writer() *sql.DB { return db.write }

// Get implements Querier outside a transaction.
func (db *DB) Get(ctx context.Context, dst any, query string, args ...any) error {
	span := db.statements.Begin(ctx, query)
	err := db.get(ctx, dst, query, args)
	span.End(fault(err))
	return err
}

func (db *DB) get(ctx context.Context, dst any, query string, args []any) error {
	if db.pool != nil {
		return db.Retry(ctx, func() error { return pgGet(ctx, db.pool, dst, query, args) })
	}
	return db.MapError(ctx, liteGet(ctx, db.read, dst, query, args))
}

// Select implements Querier outside a transaction.
func (db *DB) Select(ctx context.Context, dst any, query string, args ...any) error {
	span := db.statements.Begin(ctx, query)
	err := db.selectRows(ctx, dst, query, args)
	span.End(fault(err))
	return err
}

func (db *DB) selectRows(ctx context.Context, dst any, query string, args []any) error {
	if db.pool != nil {
		return db.Retry(ctx, func() error { return pgxscan.Select(ctx, db.pool, dst, query, args...) })
	}
	return db.MapError(ctx, liteSelect(ctx, db.read, dst, query, args))
}

// Get implements Querier.
func (tx *Tx) Get(ctx context.Context, dst any, query string, args ...any) error {
	span := tx.statements.Begin(ctx, query)
	err := tx.get(ctx, dst, query, args)
	span.End(fault(err))
	return err
}

func (tx *Tx) get(ctx context.Context, dst any, query string, args []any) error {
	if tx.pg != nil {
		return tx.look(pgGet(ctx, tx.pg, dst, query, args))
	}
	return liteGet(ctx, tx.lite, dst, query, args)
}

// Select implements Querier.
func (tx *Tx) Select(ctx context.Context, dst any, query string, args ...any) error {
	span := tx.statements.Begin(ctx, query)
	err := tx.selectRows(ctx, dst, query, args)
	span.End(fault(err))
	return err
}

func (tx *Tx) selectRows(ctx context.Context, dst any, query string, args []any) error {
	if tx.pg != nil {
		return tx.look(pgxscan.Select(ctx, tx.pg, dst, query, args...))
	}
	return liteSelect(ctx, tx.lite, dst, query, args)
}

// Exec runs a statement and returns how many rows it changed.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	span := tx.statements.Begin(ctx, query)
	n, err := tx.exec(ctx, query, args)
	span.End(fault(err))
	return n, err
}

func (tx *Tx) exec(ctx context.Context, query string, args []any) (int64, error) {
	if tx.pg != nil {
		tag, err := tx.pg.Exec(ctx, query, args...)
		return tag.RowsAffected(), tx.look(err)
	}
	res, err := tx.lite.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// ExecLater is Exec for a statement of which nobody needs the count of rows: on PostgreSQL it
// is sent together with the next statement of the transaction whose answer is needed, or with
// the commit, which then return its error. Their order remains. It is not for a statement
// that may meet a row with its unique value or locks what is decided on outside the database,
// nor for one that a later statement cannot be prepared without, such as CREATE TABLE.
func (tx *Tx) ExecLater(ctx context.Context, query string, args ...any) error {
	if tx.pg == nil {
		_, err := tx.Exec(ctx, query, args...)
		return err
	}
	tx.statements.Begin(ctx, query).End(nil) // its time is that of the statement it goes with
	tx.pg.waiting.Queue(query, args...)
	return nil
}

// ReadLater is Select for rows that nobody needs before the transaction, or the function given
// to Within, has ended: the queries, each an All, go together as the statements of ExecLater
// do. COMMIT may be sent with them, so a row that is missing could not undo anything; a One
// is refused.
func (tx *Tx) ReadLater(ctx context.Context, queries ...Query) error {
	if slices.ContainsFunc(queries, func(q Query) bool { return !q.many }) {
		return errors.New("masterdb: ReadLater takes only queries made by All")
	}
	if tx.pg == nil {
		return tx.Batch(ctx, queries...)
	}
	for _, q := range queries {
		tx.statements.Begin(ctx, q.text).End(nil)
		tx.pg.readLater(q)
	}
	return nil
}

// look keeps in mind that a statement has met a duplicate, and returns err.
func (tx *Tx) look(err error) error {
	tx.duplicate = tx.duplicate || err != nil && IsUnique(err)
	return err
}

// ForUpdate returns the clause that locks the rows of a SELECT until the end of the
// transaction. It is empty on SQLite, where a write transaction locks the whole
// database.
func (tx *Tx) ForUpdate() string {
	if tx.pg != nil {
		return " FOR UPDATE"
	}
	return ""
}

// Postgres returns the native transaction, or nil on SQLite. See DB.Pool.
func (tx *Tx) Postgres() pgx.Tx {
	if tx.pg == nil {
		return nil
	}
	return tx.pg
}

// SQLite returns the native transaction, or nil on PostgreSQL. See DB.Pool.
func (tx *Tx) SQLite() *sql.Tx { return tx.lite }

func pgGet(ctx context.Context, q pgxscan.Querier, dst any, query string, args []any) error {
	err := pgxscan.Get(ctx, q, dst, query, args...)
	if pgxscan.NotFound(err) {
		return ErrNotFound
	}
	return err
}

type liteQuerier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func liteGet(ctx context.Context, q liteQuerier, dst any, query string, args []any) error {
	rows, err := q.QueryContext(ctx, query, args...) //nolint:rowserrcheck // dbscan checks it and closes the rows
	if err != nil {
		return err
	}
	err = liteScan.ScanOne(dst, rows)
	if dbscan.NotFound(err) {
		return ErrNotFound
	}
	return err
}

func liteSelect(ctx context.Context, q liteQuerier, dst any, query string, args []any) error {
	rows, err := q.QueryContext(ctx, query, args...) //nolint:rowserrcheck // dbscan checks it and closes the rows
	if err != nil {
		return err
	}
	return liteScan.ScanAll(dst, rows)
}
