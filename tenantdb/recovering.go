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
)

// A driver may panic over what a server sends, and database/sql calls drivers
// on goroutines of its own, where nobody recovers: to open a connection, and to
// close rows and transactions whose context has ended. The types here stand
// between both. A panic becomes a protocolError that ends the connection.

// sessionConn is what the connections of both drivers can do.
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

// recoveringConn is a driver's connection whose panics are errors.
type recoveringConn struct {
	sessionConn
	socket io.Closer // what the connection is made of
	// explain turns an error of the driver into the one that caused it. decoding
	// says that a row was read.
	explain func(err error, decoding bool) error
	log     *slog.Logger
	life    life
	check   *socketCheck // nil: the socket cannot be asked whether the server has ended it
	broken  atomic.Bool  // not to be used again
}

// recovered is deferred by every call of the driver.
func (c *recoveringConn) recovered(err *error) {
	if cause := recover(); cause != nil {
		*err = c.condemn(cause)
		return
	}
	if *err != nil && c.explain != nil {
		*err = c.explain(*err, false)
	}
	c.leave(*err)
}

// leave discards this connection and all that are as old, if err says that the
// server takes no changes, or that a pooler keeps no session for it.
func (c *recoveringConn) leave(err error) {
	switch err { //nolint:errorlint // these two come with every query, as they are
	case nil, io.EOF, driver.ErrSkip:
		return
	}
	switch {
	case isReadOnly(err):
		c.broken.Store(true)
		c.life.endAll()
	case isPooled(err) && c.life.state != nil:
		c.broken.Store(true)
		c.life.state.found(TransactionPooler)
	}
}

func (c *recoveringConn) condemn(cause any) error {
	c.broken.Store(true)
	_ = c.socket.Close()
	return driverPanicked(c.log, cause)
}

// recoverDriver is deferred where a driver, or what scans its rows, is called
// on a goroutine that may end the process.
func recoverDriver(log *slog.Logger, err *error) {
	if cause := recover(); cause != nil {
		*err = driverPanicked(log, cause)
	}
}

// driverPanicked logs a driver's panic and returns what it means.
func driverPanicked(log *slog.Logger, cause any) error {
	logPanic(log, cause)
	return &protocolError{"the driver could not read the answer"}
}

// logPanic logs a panic with its stack. Other causes than the runtime's may hold
// a value that is not for the log: of them it names the type.
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
	if c.broken.Load() || c.life.isOver() {
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

// ResetSession implements driver.SessionResetter. database/sql calls it before a
// connection that was used before is used again.
func (c *recoveringConn) ResetSession(ctx context.Context) (err error) {
	defer c.recovered(&err)
	if c.life.isOver() {
		return driver.ErrBadConn
	}
	if c.check.hasPending() {
		if err := c.heard(ctx); err != nil {
			return driver.ErrBadConn
		}
	}
	return c.sessionConn.ResetSession(ctx)
}

// heard deals with what the server has said without being asked. PostgreSQL may
// report a parameter or a notice; MySQL says nothing but farewell.
func (c *recoveringConn) heard(ctx context.Context) error {
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
