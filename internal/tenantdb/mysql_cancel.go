package tenantdb

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strconv"
)

// maxQueuedKills bounds how many queries of a database wait to be killed. What
// is more than that ends when its server notices.
const maxQueuedKills = 16

// mysqlConn is what the driver's connections can do.
type mysqlConn interface {
	sessionConn
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

// connectionID asks the server what KILL calls the connection. Until it is
// known, the server may send no more than maxMySQLConnect.
func connectionID(ctx context.Context, conn driver.QueryerContext) (uint64, error) {
	rows, err := conn.QueryContext(ctx, `SELECT CONNECTION_ID()`, nil)
	if err != nil {
		return 0, err
	}
	defer rows.Close() //nolint:errcheck // it was read
	id := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(id); err != nil {
		return 0, err
	}
	if len(id) != 1 {
		return 0, &protocolError{"no connection id"}
	}
	if text, ok := id[0].([]byte); ok {
		return strconv.ParseUint(string(text), 10, 64)
	}
	return strconv.ParseUint(fmt.Sprint(id[0]), 10, 64)
}

// kill ends the query of a connection at the server, as well as it can within
// connectTimeout. When it cannot, the server notices by itself in the end.
func (m *mysqlConnector) kill(id uint64) {
	select {
	case m.queued <- struct{}{}:
		defer func() { <-m.queued }()
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	select {
	case m.kills <- struct{}{}:
		defer func() { <-m.kills }()
	case <-ctx.Done():
		return
	}
	conn, _, err := m.open(ctx)
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // nothing is pending
	_, _ = conn.ExecContext(ctx, "KILL "+strconv.FormatUint(id, 10), nil)
}
