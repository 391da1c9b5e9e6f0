package tenantdb

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// poolerTimeout limits the examination of a pooler. A pooler may have no second
// session available.
const poolerTimeout = 5 * time.Second

// findPooler detects a pooler in front of a PostgreSQL server that the
// credentials do not name. session is the id of conn's session at the server; a
// pooler reports a different id to conn. If the kind of pooler cannot be
// determined, findPooler assumes a transaction pooler, because whatever works
// with a transaction pooler works everywhere. It fails for a pooler in
// statement mode.
func (db *DB) findPooler(ctx context.Context, conn *pgx.Conn, session uint32) error {
	if db.pinned.poolerOf(db.credentials) != credential.NoPooler || session == conn.PgConn().PID() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, poolerTimeout)
	defer cancel()
	shares := true
	err := db.lend(limited, func(second *pgx.Conn) (err error) {
		shares, err = masterdb.SharesSessions(limited, conn, second)
		if err != nil { // the connection may be in a transaction
			_ = second.PgConn().Conn().Close()
		}
		return err
	})
	switch {
	case errors.Is(err, masterdb.ErrStatementPooling):
		return &settingError{name: "pool_mode", value: "statement", remedy: "Stoa needs transactions: set the connection pooler to the mode transaction or session, or give the address of the database server itself."}
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil || shares:
		db.pinned.found(credential.TransactionPooler)
	default:
		db.pinned.found(credential.SessionPooler)
	}
	return nil
}

// isPooled reports whether err shows a pooler: the session that the server
// executes a statement in does not know a statement that was prepared on this
// connection, or already has one of that name, because another client received
// the session that it was prepared in. Nothing was executed.
// Source: PostgreSQL manual, appendix A: invalid_sql_statement_name,
// duplicate_prepared_statement.
func isPooled(err error) bool { return IsState(err, "26000") || IsState(err, "42P05") }

// holdAdvisory waits for the migration lock and keeps it in a transaction on a
// separate connection, because a transaction pooler keeps no session for longer
// than a transaction. lost is called if the transaction ends before release is
// called. The transaction holds no snapshot meanwhile, because CREATE INDEX
// CONCURRENTLY would wait for it.
func holdAdvisory(ctx context.Context, conn *sql.Conn, lost func(error)) (release func(), err error) {
	held, end := context.WithCancel(context.WithoutCancel(ctx)) // the transaction outlives the wait for the lock
	givesUp := context.AfterFunc(ctx, end)
	tx, err := conn.BeginTx(held, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		end()
		return nil, err
	}
	stop := func() { // unlockTimeout limits the wait for a server that does not answer
		overdue := time.AfterFunc(unlockTimeout, end)
		_ = tx.Rollback()
		overdue.Stop()
		end()
	}
	err = tryAdvisory(ctx, tx, `SELECT pg_try_advisory_xact_lock($1)`)
	if err == nil { // the snapshot of a query with parameters is kept until the next statement
		_, err = tx.ExecContext(ctx, `SELECT 1`)
	}
	if err == nil && !givesUp() {
		err = ctx.Err()
	}
	if err != nil {
		stop()
		return nil, err
	}
	watched, leave := context.WithCancel(held)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := stayInTransaction(watched, tx); err != nil {
			lost(err)
		}
	}()
	return func() {
		leave()
		<-done
		stop()
	}, nil
}

// transactionPause is the time between two statements of a transaction that
// only keeps a lock. Servers and poolers may end transactions that are idle for
// longer.
const transactionPause = 5 * time.Second

// stayInTransaction keeps the transaction from being idle until ctx ends; then
// it returns nil. It returns an error if the server does not answer within
// unlockTimeout.
func stayInTransaction(ctx context.Context, tx *sql.Tx) (err error) {
	defer recoverDriver(nil, &err)
	for err == nil {
		select {
		case <-time.After(transactionPause):
			err = askInTransaction(context.WithoutCancel(ctx), tx)
		case <-ctx.Done():
			return nil
		}
	}
	return err
}

func askInTransaction(ctx context.Context, tx *sql.Tx) error {
	ctx, cancel := context.WithTimeout(ctx, unlockTimeout)
	defer cancel()
	_, err := tx.ExecContext(ctx, `SELECT 1`)
	return err
}
