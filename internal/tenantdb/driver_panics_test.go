package tenantdb

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// faultyDriver panics in every call once panics is set. It is its own
// connector, rows and transaction.
type faultyDriver struct {
	panics bool
	closed chan struct{} // closed when the rows are closed
	once   sync.Once
}

func (d *faultyDriver) call() {
	if d.panics {
		panic("secret of the panic")
	}
}

func (d *faultyDriver) Connect(context.Context) (driver.Conn, error) { d.call(); return nil, io.EOF }
func (d *faultyDriver) Driver() driver.Driver                        { return nil }
func (d *faultyDriver) Exec([]driver.Value) (driver.Result, error)   { panic("not called") }
func (d *faultyDriver) Query([]driver.Value) (driver.Rows, error)    { panic("not called") }
func (d *faultyDriver) NumInput() int                                { return -1 }
func (d *faultyDriver) Columns() []string                            { return []string{"a"} }
func (d *faultyDriver) CheckNamedValue(*driver.NamedValue) error     { return nil }
func (d *faultyDriver) Ping(context.Context) error                   { d.call(); return nil }
func (d *faultyDriver) ResetSession(context.Context) error           { d.call(); return nil }
func (d *faultyDriver) Commit() error                                { d.call(); return nil }
func (d *faultyDriver) Rollback() error                              { d.call(); return nil }
func (d *faultyDriver) Next([]driver.Value) error                    { d.call(); return nil }
func (d *faultyDriver) HasNextResultSet() bool                       { return false }
func (d *faultyDriver) NextResultSet() error                         { d.call(); return nil }
func (d *faultyDriver) Close() error {
	if d.closed != nil {
		d.once.Do(func() { close(d.closed) })
	}
	d.call()
	return nil
}

func (d *faultyDriver) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	d.call()
	return d, nil
}

// faultyConn is the connection of a faultyDriver.
type faultyConn struct{ *faultyDriver }

func (faultyConn) Prepare(string) (driver.Stmt, error) { panic("not called") }
func (faultyConn) Begin() (driver.Tx, error)           { panic("not called") }

func (c faultyConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	c.call()
	return driver.ResultNoRows, nil
}

func (c faultyConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.call()
	return c.faultyDriver, nil
}

func (c faultyConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	c.call()
	return faultyStmt(c), nil
}

type faultyStmt struct{ *faultyDriver }

func (s faultyStmt) ExecContext(context.Context, []driver.NamedValue) (driver.Result, error) {
	s.call()
	return driver.ResultNoRows, nil
}

func (s faultyStmt) QueryContext(context.Context, []driver.NamedValue) (driver.Rows, error) {
	s.call()
	return s.faultyDriver, nil
}

// closedSocket counts how often it was closed.
type closedSocket struct{ times int }

func (s *closedSocket) Close() error {
	s.times++
	return nil
}

// TestDriverPanics checks that a driver's panic in any call becomes an error,
// ends the connection and is not retried by database/sql. The log contains its
// stack and not its value.
func TestDriverPanics(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, call := range map[string]func(c *recoveringConn, stmt driver.Stmt, rows driver.Rows, tx driver.Tx) error{
		"ping":          func(c *recoveringConn, _ driver.Stmt, _ driver.Rows, _ driver.Tx) error { return c.Ping(ctx) },
		"reset session": func(c *recoveringConn, _ driver.Stmt, _ driver.Rows, _ driver.Tx) error { return c.ResetSession(ctx) },
		"close":         func(c *recoveringConn, _ driver.Stmt, _ driver.Rows, _ driver.Tx) error { return c.Close() },
		"exec": func(c *recoveringConn, _ driver.Stmt, _ driver.Rows, _ driver.Tx) error {
			_, err := c.ExecContext(ctx, "", nil)
			return err
		},
		"query": func(c *recoveringConn, _ driver.Stmt, _ driver.Rows, _ driver.Tx) error {
			_, err := c.QueryContext(ctx, "", nil)
			return err
		},
		"prepare": func(c *recoveringConn, _ driver.Stmt, _ driver.Rows, _ driver.Tx) error {
			_, err := c.PrepareContext(ctx, "")
			return err
		},
		"begin": func(c *recoveringConn, _ driver.Stmt, _ driver.Rows, _ driver.Tx) error {
			_, err := c.BeginTx(ctx, driver.TxOptions{})
			return err
		},
		"statement exec": func(_ *recoveringConn, s driver.Stmt, _ driver.Rows, _ driver.Tx) error {
			_, err := s.(driver.StmtExecContext).ExecContext(ctx, nil)
			return err
		},
		"statement query": func(_ *recoveringConn, s driver.Stmt, _ driver.Rows, _ driver.Tx) error {
			_, err := s.(driver.StmtQueryContext).QueryContext(ctx, nil)
			return err
		},
		"statement close": func(_ *recoveringConn, s driver.Stmt, _ driver.Rows, _ driver.Tx) error { return s.Close() },
		"next row":        func(_ *recoveringConn, _ driver.Stmt, r driver.Rows, _ driver.Tx) error { return r.Next(nil) },
		"next result": func(_ *recoveringConn, _ driver.Stmt, r driver.Rows, _ driver.Tx) error {
			return r.(driver.RowsNextResultSet).NextResultSet()
		},
		"rows close": func(_ *recoveringConn, _ driver.Stmt, r driver.Rows, _ driver.Tx) error { return r.Close() },
		"commit":     func(_ *recoveringConn, _ driver.Stmt, _ driver.Rows, tx driver.Tx) error { return tx.Commit() },
		"rollback":   func(_ *recoveringConn, _ driver.Stmt, _ driver.Rows, tx driver.Tx) error { return tx.Rollback() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			faulty, socket := &faultyDriver{}, &closedSocket{}
			c := &recoveringConn{sessionConn: faultyConn{faulty}, socket: socket, log: slog.New(slog.NewTextHandler(&log, nil))}
			stmt, stmtErr := c.PrepareContext(ctx, "")
			rows, rowsErr := c.QueryContext(ctx, "", nil)
			tx, txErr := c.BeginTx(ctx, driver.TxOptions{})
			if err := errors.Join(stmtErr, rowsErr, txErr); err != nil || !c.IsValid() {
				t.Fatal(err)
			}
			faulty.panics = true
			err := call(c, stmt, rows, tx)
			var broken *screen.ProtocolError
			if !errors.As(err, &broken) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
			if c.IsValid() || socket.times == 0 {
				t.Error("the connection is used again")
			}
			if text := log.String(); !strings.Contains(text, "faultyDriver") || strings.Contains(text, "secret") {
				t.Errorf("the log has %s", text)
			}
		})
	}
}

// TestDriverPanicsOnGoroutinesOfSQL checks panics on the goroutines on which
// database/sql opens connections and closes the rows of a context that has
// ended.
func TestDriverPanicsOnGoroutinesOfSQL(t *testing.T) {
	t.Parallel()
	silent := slog.New(slog.DiscardHandler)
	cfg, err := postgresEngine{}.config(credential.Credentials{Engine: credential.PostgreSQL, Host: "tenant", Port: 5432, TLS: credential.TLSDisable},
		func(context.Context, string, string) (net.Conn, error) { panic(faultyDriver{}) })
	if err != nil {
		t.Fatal(err)
	}
	pool := sql.OpenDB(&postgresConnector{cfg: cfg, state: new(sessionState), log: silent})
	defer pool.Close() //nolint:errcheck // the pool has no connection
	pool.SetMaxOpenConns(1)
	var callers sync.WaitGroup
	for range 8 { // the opener serves the waiting callers
		callers.Go(func() {
			var broken *screen.ProtocolError
			if err := pool.PingContext(t.Context()); !errors.As(err, &broken) {
				t.Errorf("got %v", err)
			}
		})
	}
	callers.Wait()

	faulty := &faultyDriver{closed: make(chan struct{})}
	rows := sql.OpenDB(connectorOf{&recoveringConn{sessionConn: faultyConn{faulty}, socket: &closedSocket{}, log: silent}})
	defer rows.Close() //nolint:errcheck // it panics again
	ctx, cancel := context.WithCancel(t.Context())
	result, err := rows.QueryContext(ctx, "") //nolint:rowserrcheck // nothing is read
	if err != nil {
		t.Fatal(err)
	}
	faulty.panics = true
	cancel()
	<-faulty.closed    // on the goroutine that waits for ctx
	_ = result.Close() //nolint:sqlclosecheck // waits for that goroutine
}

// connectorOf is a connector that always returns one connection.
type connectorOf struct{ driver.Conn }

func (c connectorOf) Connect(context.Context) (driver.Conn, error) { return c.Conn, nil }
func (c connectorOf) Driver() driver.Driver                        { return nil }
