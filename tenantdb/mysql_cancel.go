package tenantdb

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strconv"
)

// mysqlConn is what the driver's connections can do.
type mysqlConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// cancellable ends a query at the server when its caller gives up. The driver
// only closes the connection, and the server would go on until it had an
// answer to send.
type cancellable struct {
	mysqlConn
	last context.Context //nolint:containedctx // of the last statement: Close has to know whether it was cancelled
	kill func()
}

// QueryContext implements driver.QueryerContext. A statement with parameters
// comes by here too, before it is prepared.
func (c *cancellable) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.last = ctx
	return c.mysqlConn.QueryContext(ctx, query, args)
}

// ExecContext implements driver.ExecerContext.
func (c *cancellable) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.last = ctx
	return c.mysqlConn.ExecContext(ctx, query, args)
}

// Close implements driver.Conn. database/sql calls it as soon as a statement
// has left the connection unusable.
func (c *cancellable) Close() error {
	if !c.IsValid() && c.last != nil && c.last.Err() != nil {
		go c.kill()
	}
	return c.mysqlConn.Close()
}

// cancels makes the connector's connections cancellable.
type cancels struct {
	driver.Connector
	turn chan struct{} // who kills holds it: one more connection at a time
}

// Connect implements driver.Connector.
func (c cancels) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	able, ok := conn.(mysqlConn)
	if !ok {
		return conn, nil
	}
	id, err := connectionID(ctx, able)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &cancellable{mysqlConn: able, kill: func() { c.killConnection(id) }}, nil
}

func connectionID(ctx context.Context, conn driver.QueryerContext) (uint64, error) {
	rows, err := conn.QueryContext(ctx, `SELECT CONNECTION_ID()`, nil)
	if err != nil {
		return 0, err
	}
	defer rows.Close() //nolint:errcheck // it was read
	id := make([]driver.Value, 1)
	if err := rows.Next(id); err != nil {
		return 0, err
	}
	if text, ok := id[0].([]byte); ok {
		return strconv.ParseUint(string(text), 10, 64)
	}
	return strconv.ParseUint(fmt.Sprint(id[0]), 10, 64)
}

// killConnection does what it can; when it cannot, the server notices by
// itself in the end.
func (c cancels) killConnection(id uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return
	}
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	if able, ok := conn.(driver.ExecerContext); ok {
		_, _ = able.ExecContext(ctx, "KILL "+strconv.FormatUint(id, 10), nil)
	}
}
