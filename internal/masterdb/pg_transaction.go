package masterdb

import (
	"cmp"
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pgTx is a PostgreSQL transaction that sends what nobody waits for together with the next
// statement whose answer is needed. BEGIN, COMMIT and the statements of ExecLater thus make
// no round trip of their own. It implements pgx.Tx for libraries that send SQL themselves. It
// is not safe for concurrent use.
type pgTx struct {
	conn       *pgx.Conn
	waiting    *pgx.Batch    // not sent yet; at first BEGIN
	reading    map[int]Query // those of the waiting statements that have rows
	savepoints int
}

// inPgTx runs fn in a transaction that begins with the statement begin, and commits when fn
// returns nil.
func inPgTx(ctx context.Context, pool *pgxpool.Pool, begin string, fn func(*pgTx) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // closes the connection if the transaction is still open
	t := &pgTx{conn: conn.Conn(), waiting: &pgx.Batch{}}
	t.waiting.Queue(begin)
	defer t.Rollback(ctx) //nolint:errcheck // after Commit it has no effect
	if err := fn(t); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// send sends what waits and the last statements, and reads the answers to what has waited.
// The caller reads the answers to the last statements from the results, and closes them.
func (t *pgTx) send(ctx context.Context, last ...*pgx.QueuedQuery) (pgx.BatchResults, error) {
	batch, before, reading := t.waiting, t.waiting.Len(), t.reading
	batch.QueuedQueries = append(batch.QueuedQueries, last...)
	t.waiting, t.reading = &pgx.Batch{}, nil
	results := t.conn.SendBatch(ctx, batch)
	for i := range before {
		var err error
		if q, ok := reading[i]; ok {
			err = scanNext(results, q)
		} else {
			_, err = results.Exec()
		}
		if err != nil {
			_ = results.Close()
			return nil, err
		}
	}
	return results, nil
}

// readLater lets a query wait. Its rows are scanned with the next answer, at the latest
// with that to COMMIT.
func (t *pgTx) readLater(q Query) {
	if t.reading == nil {
		t.reading = map[int]Query{}
	}
	t.reading[t.waiting.Len()] = q
	t.waiting.QueuedQueries = append(t.waiting.QueuedQueries, queued([]Query{q})...)
}

// flush sends what waits.
func (t *pgTx) flush(ctx context.Context) error {
	if t.waiting.Len() == 0 {
		return nil
	}
	results, err := t.send(ctx)
	if err != nil {
		return err
	}
	return results.Close()
}

// Exec implements pgx.Tx.
func (t *pgTx) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	if len(args) == 0 || t.waiting.Len() == 0 { // without arguments it may be several statements, which no batch accepts
		if err := t.flush(ctx); err != nil {
			return pgconn.CommandTag{}, err
		}
		return t.conn.Exec(ctx, query, args...)
	}
	results, err := t.send(ctx, &pgx.QueuedQuery{SQL: query, Arguments: args})
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	return tag, cmp.Or(err, results.Close())
}

// Query implements pgx.Tx.
func (t *pgTx) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	if t.waiting.Len() == 0 {
		return t.conn.Query(ctx, query, args...)
	}
	results, err := t.send(ctx, &pgx.QueuedQuery{SQL: query, Arguments: args})
	if err != nil {
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		return nil, cmp.Or(err, results.Close())
	}
	return &batchRows{Rows: rows, results: results}, nil
}

// batchRows are the rows of the last statement of a batch, which ends with them.
type batchRows struct {
	pgx.Rows
	results pgx.BatchResults
	err     error
}

// Next implements pgx.Rows. Like those of a single query, the rows are closed after the last.
func (r *batchRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

// Close implements pgx.Rows.
func (r *batchRows) Close() {
	r.Rows.Close()
	r.err = cmp.Or(r.err, r.results.Close())
}

// Err implements pgx.Rows.
func (r *batchRows) Err() error { return cmp.Or(r.Rows.Err(), r.err) }

// QueryRow implements pgx.Tx.
func (t *pgTx) QueryRow(ctx context.Context, query string, args ...any) pgx.Row {
	rows, err := t.Query(ctx, query, args...)
	return firstRow{rows, err}
}

// firstRow is the first of some rows, or the error of their query.
type firstRow struct {
	rows pgx.Rows
	err  error
}

// Scan implements pgx.Row.
func (r firstRow) Scan(dst ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		return cmp.Or(r.rows.Err(), pgx.ErrNoRows)
	}
	if err := r.rows.Scan(dst...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// Commit implements pgx.Tx. It sends nothing if no statement was sent.
func (t *pgTx) Commit(ctx context.Context) error {
	if t.waiting.Len() == 1 && t.conn.PgConn().TxStatus() == 'I' { // only BEGIN
		t.waiting = &pgx.Batch{}
		return nil
	}
	var tag pgconn.CommandTag
	var err error
	if t.waiting.Len() == 0 {
		tag, err = t.conn.Exec(ctx, "commit")
	} else {
		results, sendErr := t.send(ctx, &pgx.QueuedQuery{SQL: "commit"})
		if sendErr != nil {
			return sendErr
		}
		tag, err = results.Exec()
		err = cmp.Or(err, results.Close())
	}
	if err == nil && tag.String() == "ROLLBACK" { // a statement had failed
		return pgx.ErrTxCommitRollback
	}
	return err
}

// Rollback implements pgx.Tx.
func (t *pgTx) Rollback(ctx context.Context) error {
	t.waiting, t.reading = &pgx.Batch{}, nil
	if t.conn.IsClosed() || t.conn.PgConn().TxStatus() == 'I' {
		return nil
	}
	_, err := t.conn.Exec(ctx, "rollback")
	return err
}

// Begin implements pgx.Tx with a savepoint.
func (t *pgTx) Begin(ctx context.Context) (pgx.Tx, error) {
	t.savepoints++
	name := "stoa_" + strconv.Itoa(t.savepoints)
	if _, err := t.Exec(ctx, "savepoint "+name); err != nil {
		return nil, err
	}
	return &savepoint{pgTx: t, name: name}, nil
}

// savepoint is a part of a transaction that may be undone alone.
type savepoint struct {
	*pgTx
	name  string
	ended bool
}

// Commit implements pgx.Tx.
func (s *savepoint) Commit(ctx context.Context) error { return s.end(ctx, "release savepoint ") }

// Rollback implements pgx.Tx.
func (s *savepoint) Rollback(ctx context.Context) error { return s.end(ctx, "rollback to savepoint ") }

func (s *savepoint) end(ctx context.Context, how string) error {
	if s.ended {
		return pgx.ErrTxClosed
	}
	s.ended = true
	_, err := s.Exec(ctx, how+s.name)
	return err
}

// SendBatch implements pgx.Tx.
func (t *pgTx) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	if err := t.flush(ctx); err != nil {
		return failedBatch{err}
	}
	return t.conn.SendBatch(ctx, batch)
}

// failedBatch are the results of a batch that was not sent.
type failedBatch struct{ err error }

func (f failedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, f.err }
func (f failedBatch) Query() (pgx.Rows, error)         { return nil, f.err }
func (f failedBatch) QueryRow() pgx.Row                { return firstRow{err: f.err} }
func (f failedBatch) Close() error                     { return f.err }
func (f failedBatch) Tx() pgx.Tx                       { return nil }

// CopyFrom implements pgx.Tx.
func (t *pgTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := t.flush(ctx); err != nil {
		return 0, err
	}
	return t.conn.CopyFrom(ctx, table, columns, rows)
}

// Prepare implements pgx.Tx.
func (t *pgTx) Prepare(ctx context.Context, name, query string) (*pgconn.StatementDescription, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	return t.conn.Prepare(ctx, name, query)
}

// LargeObjects implements pgx.Tx. Nothing in the master is a large object.
func (t *pgTx) LargeObjects() pgx.LargeObjects { panic(errors.ErrUnsupported) }

// Conn implements pgx.Tx. What waits has not reached it: see Snapshot.
func (t *pgTx) Conn() *pgx.Conn { return t.conn }
