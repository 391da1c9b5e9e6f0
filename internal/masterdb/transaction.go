package masterdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Tx runs fn in one read-write transaction and commits when it returns nil. After a
// deadlock or serialization failure it runs fn again: fn must not keep results of an
// earlier attempt.
func (db *DB) Tx(ctx context.Context, fn func(*Tx) error) error {
	return db.transaction(ctx, "begin", db.strict, fn)
}

// TxReadCommitted is Tx at read committed, also where the default level is stricter. It is
// for a transaction of many statements that are each correct alone: an UPDATE or DELETE of
// one row, found by its key, whose condition repeats everything that the statement was
// decided by. PostgreSQL checks that condition again after it has waited for the row. At a
// stricter level such a transaction conflicts with every change of the table while it runs.
// The longest of several that conflict fails again at every attempt, because the others
// commit first.
func (db *DB) TxReadCommitted(ctx context.Context, fn func(*Tx) error) error {
	return db.transaction(ctx, "begin isolation level read committed", false, fn)
}

// transaction runs fn in a transaction that the statement begin starts on PostgreSQL. again: a
// transaction that failed on a unique value is run once more, see errUnseen.
func (db *DB) transaction(ctx context.Context, begin string, again bool, fn func(*Tx) error) error {
	return db.Retry(ctx, func() error {
		span := db.statements.Begin(ctx, "TRANSACTION")
		tx := db.newTx()
		tx.begin = begin
		err := db.committed(tx, db.commit(ctx, db.write, tx, fn))
		span.End(fault(err))
		if err != nil && tx.duplicate && again {
			again = false
			return fmt.Errorf("%w: %w", errUnseen, err)
		}
		return err
	})
}

// errUnseen means that a transaction failed on a unique value, which may be in a row that
// it could not see. At a level stricter than read committed a transaction sees the database
// as it was when it began, also after it has waited for a lock. Run again, it sees the row
// and decides by it.
var errUnseen = errors.New("a row with this unique value was added meanwhile")

// attempts is how often a transaction is tried that conflicts with others. Where every
// transaction is serializable, several that touch one row fail until one is alone.
const attempts = 10

// Retry runs do, which sends a single statement or a whole transaction, and runs it again
// while the server refuses it for a conflict with another transaction. Where the isolation
// level is serializable, also a statement that only reads may be refused.
func (db *DB) Retry(ctx context.Context, do func() error) error {
	for attempt := 1; ; attempt++ {
		err := do()
		if attempt == attempts || !isRetryable(err) {
			return db.MapError(ctx, err)
		}
		// The pause lets the transaction that won the conflict finish first.
		select {
		case <-time.After(time.Duration(attempt) * (5*time.Millisecond + rand.N(15*time.Millisecond))): //nolint:gosec // not a secret
		case <-ctx.Done():
			return db.MapError(ctx, err)
		}
	}
}

// Exec runs one statement as a transaction of its own, and returns how many rows it changed. On
// PostgreSQL it costs no BEGIN and COMMIT. Like Tx, it runs the statement again after a conflict.
func (db *DB) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	if db.pool == nil {
		err = db.Tx(ctx, func(tx *Tx) error {
			n, err = tx.Exec(ctx, query, args...)
			return err
		})
		return n, err
	}
	span := db.statements.Begin(ctx, query)
	err = db.Retry(ctx, func() error {
		tag, err := db.pool.Exec(ctx, query, args...)
		n = tag.RowsAffected()
		return err
	})
	span.End(fault(err))
	return n, err
}

// withinWait is how long Within waits for the SQLite write connection.
const withinWait = 3 * time.Second

// Within implements Handle with a transaction of its own.
func (db *DB) Within(ctx context.Context, fn func(*Tx) error) error {
	if db.Engine != SQLite {
		return db.Tx(ctx, fn)
	}
	waiting, cancel := context.WithTimeout(ctx, withinWait)
	defer cancel()
	conn, err := db.write.Conn(waiting)
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = ErrBusy
		}
		return db.MapError(ctx, err)
	}
	tx := db.newTx()
	err = db.commit(ctx, conn, tx, fn)
	_ = conn.Close() // returned to the pool before subscribers learn of the commit
	return db.MapError(ctx, db.committed(tx, err))
}

// Within implements Handle: fn runs in tx itself.
func (tx *Tx) Within(ctx context.Context, fn func(*Tx) error) error {
	if err := fn(tx); err != nil {
		return err
	}
	if tx.pg != nil && len(tx.pg.reading) > 0 {
		return tx.look(tx.pg.flush(ctx))
	}
	return nil
}

// liteBeginner begins a transaction on SQLite. The pool and its connections implement it.
type liteBeginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

func (db *DB) newTx() *Tx {
	return &Tx{Now: db.Now(), listens: db.listening.runs.Load(), statements: db.statements}
}

// committed notifies the subscribers if err is nil, which means that the transaction has
// committed.
func (db *DB) committed(tx *Tx, err error) error {
	if err != nil {
		return err
	}
	if db.full.Load() != 0 {
		db.full.Store(0)
	}
	db.deliver(tx.messages)
	db.deliver(tx.here)
	for _, fn := range tx.after {
		fn()
	}
	return nil
}

// AfterCommit registers fn to be called when tx has committed. If the process ends between
// the commit and the call, fn is not called.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

func (db *DB) commit(ctx context.Context, lite liteBeginner, tx *Tx, fn func(*Tx) error) error {
	if db.pool != nil {
		return tx.look(inPgTx(ctx, db.pool, tx.begin, func(t *pgTx) error {
			tx.pg = t
			if err := fn(tx); err != nil {
				return err
			}
			return tx.publish(ctx, db.listening.origin())
		}))
	}
	t, err := lite.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer t.Rollback() //nolint:errcheck // after Commit it has no effect
	tx.lite = t
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.publish(ctx, db.listening.origin()); err != nil {
		return err
	}
	err = t.Commit()
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err() // database/sql rolled back when the context ended
	}
	return err
}

// Snapshot runs fn with a transaction that reads the database as it was when fn began.
func (db *DB) Snapshot(ctx context.Context, fn func(*Tx) error) error {
	return db.MapError(ctx, db.snapshot(ctx, fn))
}

func (db *DB) snapshot(ctx context.Context, fn func(*Tx) error) error {
	if db.pool != nil {
		return inPgTx(ctx, db.pool, "begin isolation level repeatable read read only", func(t *pgTx) error {
			if err := t.flush(ctx); err != nil { // fn may use the connection itself
				return err
			}
			return fn(&Tx{pg: t, statements: db.statements})
		})
	}
	t, err := db.read.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback() //nolint:errcheck // there is nothing to undo
	return fn(&Tx{lite: t, statements: db.statements})
}
