package tenantdb

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strconv"

	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// maxQueuedKills limits how many queries of a database wait to be killed. Any
// further query ends when its server notices that the connection is closed.
const maxQueuedKills = 16

// mysqlConn lists the methods of the driver's connections.
type mysqlConn interface {
	sessionConn
	driver.Validator
}

// cancellable ends a query at the server when its context is cancelled. The
// driver itself only closes the connection, and the server would continue until
// it had an answer to send.
type cancellable struct {
	mysqlConn
	last context.Context //nolint:containedctx // of the last statement: Close checks whether it was cancelled
	kill func()
}

// QueryContext implements driver.QueryerContext. database/sql also calls it for
// a statement with parameters, before it prepares the statement.
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

// connectionID asks the server for the id that KILL uses for the connection.
// Until the id is known, the server may send at most maxMySQLConnect bytes.
func connectionID(ctx context.Context, conn driver.QueryerContext) (uint64, error) {
	rows, err := conn.QueryContext(ctx, `SELECT CONNECTION_ID()`, nil)
	if err != nil {
		return 0, err
	}
	defer rows.Close() //nolint:errcheck // all rows were read
	id := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(id); err != nil {
		return 0, err
	}
	if len(id) != 1 {
		return 0, &screen.ProtocolError{Rule: "no connection id"}
	}
	if text, ok := id[0].([]byte); ok {
		return strconv.ParseUint(string(text), 10, 64)
	}
	return strconv.ParseUint(fmt.Sprint(id[0]), 10, 64)
}

// kill tries to end the query of a connection at the server within
// connectTimeout. If it fails, the server eventually notices by itself.
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
	conn, err := m.open(ctx)
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // no data is pending
	_, _ = conn.ExecContext(ctx, "KILL "+strconv.FormatUint(id, 10), nil)
}
