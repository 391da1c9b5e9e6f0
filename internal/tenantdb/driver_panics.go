package tenantdb

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// A driver may panic because of what a server sends. The package database/sql
// calls drivers on its own goroutines, which do not recover from panics: to
// open a connection, and to close rows and transactions whose context has
// ended. The types in this file turn a panic into a screen.ProtocolError and close the
// connection.

// sessionConn lists the interfaces that the connections of both drivers implement.
type sessionConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
}

// recoveringConn is a driver's connection that returns panics as errors.
type recoveringConn struct {
	sessionConn
	socket io.Closer // the network connection
	// explain returns the cause of a driver's error. decoding is true while a row is
	// read.
	explain  func(err error, decoding bool) error
	log      *slog.Logger
	lifetime lifetime
	check    *socketCheck // nil: the socket cannot report whether the server has closed it
	broken   atomic.Bool  // must not be used again
}

// recovered handles a panic or an error of a driver's call. Every call defers it.
func (c *recoveringConn) recovered(err *error) {
	if cause := recover(); cause != nil {
		*err = c.panicked(cause)
		return
	}
	if *err != nil && c.explain != nil {
		*err = c.explain(*err, false)
	}
	c.discardAfter(*err)
}

// discardAfter discards this connection and all of its generation if err says
// that the server refuses changes or that a pooler keeps no session for the
// connection.
func (c *recoveringConn) discardAfter(err error) {
	switch err { //nolint:errorlint // these two errors are returned unwrapped with every query
	case nil, io.EOF, driver.ErrSkip:
		return
	}
	switch {
	case isReadOnly(err):
		c.broken.Store(true)
		c.lifetime.expireAll()
	case isPooled(err) && c.lifetime.state != nil:
		c.broken.Store(true)
		c.lifetime.state.found(credential.TransactionPooler)
	}
}

// abandon closes the connection in the middle of an answer.
func (c *recoveringConn) abandon() {
	c.broken.Store(true)
	_ = c.socket.Close()
}

func (c *recoveringConn) panicked(cause any) error {
	c.abandon()
	return driverPanicked(c.log, cause)
}

// recoverDriver turns a panic of a driver, or of the code that scans its rows, into an
// error. Callers defer it.
func recoverDriver(log *slog.Logger, err *error) {
	if cause := recover(); cause != nil {
		*err = driverPanicked(log, cause)
	}
}

// driverPanicked logs a driver's panic and returns its error.
func driverPanicked(log *slog.Logger, cause any) error {
	logPanic(log, cause)
	return &screen.ProtocolError{Rule: "the driver could not read the answer"}
}

// logPanic logs a panic with its stack. It logs only the type of a cause that is not a
// runtime error, because its value may be confidential.
func logPanic(log *slog.Logger, cause any) {
	if log == nil {
		log = slog.Default()
	}
	text := fmt.Sprintf("%T", cause)
	if fault, ok := cause.(runtime.Error); ok {
		text = fault.Error()
	}
	log.Error("panic in a database driver", "panic", text, "stack", string(debug.Stack()))
}

// IsValid implements driver.Validator.
func (c *recoveringConn) IsValid() (valid bool) {
	if c.broken.Load() || c.lifetime.isExpired() {
		return false
	}
	v, ok := c.sessionConn.(driver.Validator)
	return !ok || v.IsValid()
}

// Close implements driver.Conn.
func (c *recoveringConn) Close() (err error) {
	defer c.recovered(&err)
	return c.sessionConn.Close()
}

// Ping implements driver.Pinger.
func (c *recoveringConn) Ping(ctx context.Context) (err error) {
	defer c.recovered(&err)
	return c.sessionConn.Ping(ctx)
}

// ResetSession implements driver.SessionResetter. database/sql calls it before
// it reuses a connection.
func (c *recoveringConn) ResetSession(ctx context.Context) (err error) {
	defer c.recovered(&err)
	if c.lifetime.isExpired() {
		return driver.ErrBadConn
	}
	if c.check.hasPending() {
		if err := c.readPending(ctx); err != nil {
			return driver.ErrBadConn
		}
	}
	return c.sessionConn.ResetSession(ctx)
}

// readPending handles data that the server sent without a request. PostgreSQL may
// report a parameter or a notice; MySQL only sends an error before it closes.
func (c *recoveringConn) readPending(ctx context.Context) error {
	if _, isPostgres := c.sessionConn.(*stdlib.Conn); isPostgres {
		return c.sessionConn.Ping(ctx)
	}
	return driver.ErrBadConn
}

// ExecContext implements driver.ExecerContext.
func (c *recoveringConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (result driver.Result, err error) {
	defer c.recovered(&err)
	return c.sessionConn.ExecContext(ctx, query, args)
}

// QueryContext implements driver.QueryerContext.
func (c *recoveringConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (rows driver.Rows, err error) {
	defer c.recovered(&err)
	return c.wrapRows(c.sessionConn.QueryContext(ctx, query, args))
}

func (c *recoveringConn) wrapRows(rows driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, err
	}
	return &recoveringRows{rows, c}, nil
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *recoveringConn) PrepareContext(ctx context.Context, query string) (prepared driver.Stmt, err error) {
	defer c.recovered(&err)
	stmt, err := c.sessionConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &recoveringStmt{stmt, c}, nil
}

// BeginTx implements driver.ConnBeginTx.
func (c *recoveringConn) BeginTx(ctx context.Context, opts driver.TxOptions) (begun driver.Tx, err error) {
	defer c.recovered(&err)
	tx, err := c.sessionConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &recoveringTx{tx, c}, nil
}

// recoveringStmt is a prepared statement of a recoveringConn.
type recoveringStmt struct {
	driver.Stmt
	conn *recoveringConn
}

// Close implements driver.Stmt.
func (s *recoveringStmt) Close() (err error) {
	defer s.conn.recovered(&err)
	return s.Stmt.Close()
}

// CheckNamedValue implements driver.NamedValueChecker.
func (s *recoveringStmt) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return s.conn.CheckNamedValue(v)
}

// ExecContext implements driver.StmtExecContext.
func (s *recoveringStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (result driver.Result, err error) {
	defer s.conn.recovered(&err)
	return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

// QueryContext implements driver.StmtQueryContext.
func (s *recoveringStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (rows driver.Rows, err error) {
	defer s.conn.recovered(&err)
	return s.conn.wrapRows(s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args))
}

// recoveringRows are rows of a recoveringConn.
type recoveringRows struct {
	driver.Rows
	conn *recoveringConn
}

// Close implements driver.Rows.
func (r *recoveringRows) Close() (err error) {
	defer r.conn.recovered(&err)
	return r.Rows.Close()
}

// Next implements driver.Rows. A row that cannot be decoded ends the
// connection.
func (r *recoveringRows) Next(dest []driver.Value) (err error) {
	defer r.conn.recovered(&err)
	err = r.Rows.Next(dest)
	if err != nil && r.conn.explain != nil {
		err = r.conn.explain(err, true)
	}
	return err
}

// HasNextResultSet implements driver.RowsNextResultSet.
func (r *recoveringRows) HasNextResultSet() bool {
	next, ok := r.Rows.(driver.RowsNextResultSet)
	return ok && next.HasNextResultSet()
}

// NextResultSet implements driver.RowsNextResultSet.
func (r *recoveringRows) NextResultSet() (err error) {
	defer r.conn.recovered(&err)
	next, ok := r.Rows.(driver.RowsNextResultSet)
	if !ok {
		return io.EOF
	}
	return next.NextResultSet()
}

// recoveringTx is a transaction of a recoveringConn.
type recoveringTx struct {
	driver.Tx
	conn *recoveringConn
}

// Commit implements driver.Tx.
func (t *recoveringTx) Commit() (err error) {
	defer t.conn.recovered(&err)
	return t.Tx.Commit()
}

// Rollback implements driver.Tx.
func (t *recoveringTx) Rollback() (err error) {
	defer t.conn.recovered(&err)
	return t.Tx.Rollback()
}
