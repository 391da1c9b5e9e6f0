package tenantdb

import (
	"context"
	"database/sql/driver"
	"sync"

	"github.com/jmoiron/sqlx"

	"github.com/stoahq/stoa"
)

// Bulk is a connection to an embedded database on which many rows are inserted. It checks no
// foreign keys: the caller does so afterwards, with Dangling. What was committed is copied from
// the log into the file beside the next transactions, which would otherwise wait for the disk
// after every 4 MB.
//
// The log and its syncs are those of other connections. A process that is killed leaves whole
// transactions, and so does a power failure, which may take the last ones with it.
//
// It is not safe for concurrent use.
type Bulk struct {
	db        *DB
	conn      *sqlx.Conn
	committed chan struct{} // has an element after a commit that was not copied yet
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// bulkSettings are those of a Bulk's connection. It copies 16 MB of log itself, and waits for
// that, when the copying beside it does not keep up. What undoes a statement stays in memory: it
// is at most the pages that the statement changes.
var bulkSettings = []string{`PRAGMA foreign_keys = 0`, `PRAGMA wal_autocheckpoint = 4000`, `PRAGMA temp_store = 2`}

// Bulk takes a connection of the pool. The caller must call Close. It returns nil for a server's
// database.
func (db *DB) Bulk(ctx context.Context) (*Bulk, error) {
	if !db.dialect.embedded {
		return nil, nil
	}
	conn, err := db.sqlx.Connx(ctx)
	if err != nil {
		return nil, db.wrap(err)
	}
	beside, stop := context.WithCancel(ctx)
	b := &Bulk{db: db, conn: conn, committed: make(chan struct{}, 1), stop: stop}
	for _, setting := range bulkSettings {
		if _, err := conn.ExecContext(ctx, setting); err != nil {
			b.Close()
			return nil, db.wrap(err)
		}
	}
	b.running.Go(func() { b.checkpoints(beside) })
	return b, nil
}

// checkpoints copies the log into the file after commits, until ctx ends. It ignores failures:
// the log stays, and the connection's own copying reports what is wrong with the disk.
func (b *Bulk) checkpoints(ctx context.Context) {
	for {
		select {
		case <-b.committed:
			_ = stoa.CatchPanic(func() error {
				_, err := b.db.sqlx.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
				return err
			})
		case <-ctx.Done():
			return
		}
	}
}

// Tx runs fn in one transaction and commits when it returns nil. It runs fn once.
func (b *Bulk) Tx(ctx context.Context, fn func(*Tx) error) error {
	return b.db.do(ctx, func(ctx context.Context) error {
		t, err := b.conn.BeginTxx(ctx, b.db.txOptions())
		if err != nil {
			return err
		}
		defer t.Rollback() //nolint:errcheck // has no effect after Commit
		if err := fn(&Tx{t, b.db.dialect, b.db.account, b.db.log, b.db.statements}); err != nil {
			return err
		}
		if err := t.Commit(); err != nil {
			return err
		}
		select {
		case b.committed <- struct{}{}:
		default:
		}
		return nil
	})
}

// Close closes the connection: with its settings, the pool must not use it again.
func (b *Bulk) Close() {
	b.stop()
	b.running.Wait()
	_ = b.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = b.conn.Close() // it is closed already
}

// Dangling reports whether a row of a table references one that does not exist.
func (b *Bulk) Dangling(ctx context.Context, table string) (found bool, err error) {
	err = b.Tx(ctx, func(tx *Tx) error {
		var rows []int64
		err := tx.Select(ctx, &rows, `SELECT 1 FROM pragma_foreign_key_check(?) LIMIT 1`, table)
		found = len(rows) > 0
		return err
	})
	return found, err
}
