package sqlite

import (
	"container/list"
	"context"
	"database/sql/driver"
	"errors"
	"reflect"
	"strings"
)

// conn is a driver's connection that keeps prepared statements, by their text: to parse and
// plan a short query costs more than to run it. It keeps the most recently used ones.
//
// As every driver.Conn it is used by one goroutine at a time.
type conn struct {
	driverConn
	most   int                   // statements to keep
	kept   map[string]*statement // by text
	recent list.List             // of *statement, the most recently used first
}

// driverConn is what the driver's connections can do.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// statement is a prepared statement that is kept.
type statement struct {
	driverStatement
	text    string
	place   *list.Element // in conn.recent
	busy    bool          // its rows are open: the same text is prepared anew
	dropped bool          // it is not kept any more
}

type driverStatement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// keepStatements returns c as a connection that keeps that many statements.
func keepStatements(c driver.Conn, most int) (driver.Conn, error) {
	inner, ok := c.(driverConn)
	if !ok {
		return nil, errors.Join(errors.New("sqlite: the driver's connection lacks a method"), c.Close())
	}
	return &conn{driverConn: inner, most: most, kept: map[string]*statement{}}, nil
}

// ExecContext implements driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s := c.statement(ctx, query)
	if s == nil {
		return c.driverConn.ExecContext(ctx, query, args)
	}
	result, err := s.ExecContext(ctx, args)
	if err != nil {
		c.drop(s)
	}
	return result, err
}

// QueryContext implements driver.QueryerContext.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s := c.statement(ctx, query)
	if s == nil {
		return c.driverConn.QueryContext(ctx, query, args)
	}
	found, err := s.QueryContext(ctx, args)
	if err != nil {
		c.drop(s)
		return nil, err
	}
	inner, ok := found.(driverRows)
	if !ok {
		return nil, errors.Join(errors.New("sqlite: the driver's rows lack a method"), found.Close())
	}
	s.busy = true
	return &rows{inner, c, s}, nil
}

// Close implements driver.Conn.
func (c *conn) Close() error {
	for c.recent.Len() > 0 {
		c.drop(c.oldest())
	}
	return c.driverConn.Close()
}

// statement returns the prepared statement of a text, or nil when the text is not kept: the
// driver runs it, and says what is wrong with it.
func (c *conn) statement(ctx context.Context, text string) *statement {
	if s := c.kept[text]; s != nil {
		if s.busy {
			return nil
		}
		c.recent.MoveToFront(s.place)
		return s
	}
	if !keeps(text) {
		return nil
	}
	prepared, err := c.PrepareContext(ctx, text)
	if err != nil {
		return nil
	}
	inner, ok := prepared.(driverStatement)
	if !ok {
		_ = prepared.Close()
		return nil
	}
	if c.recent.Len() >= c.most {
		c.drop(c.oldest())
	}
	s := &statement{driverStatement: inner, text: text}
	s.place = c.recent.PushFront(s)
	c.kept[text] = s
	return s
}

// oldest returns the statement that was used least recently. There must be one.
func (c *conn) oldest() *statement { return c.recent.Back().Value.(*statement) } //nolint:forcetypeassert // the list has no others

// drop forgets a statement. One that is busy is closed with its rows.
func (c *conn) drop(s *statement) {
	if !s.dropped {
		delete(c.kept, s.text)
		c.recent.Remove(s.place)
		s.dropped = true
	}
	if !s.busy {
		_ = s.Close() // it repeats the error of the statement's last run
	}
}

// keeps reports whether a text reads or changes rows. Others may not be kept: SQLite runs a
// PRAGMA, for example, while it prepares it. Long texts, such as lists of values, seldom come back.
func keeps(text string) bool {
	const longest = 4 << 10
	word, _, _ := strings.Cut(strings.TrimSpace(text[:min(len(text), 64)]), " ")
	switch strings.ToUpper(strings.TrimSpace(word)) {
	case "SELECT", "WITH", "INSERT", "UPDATE", "DELETE":
		return len(text) <= longest
	}
	return false
}

// rows are the rows of a kept statement, which can be used again once they are closed.
type rows struct {
	driverRows
	conn      *conn
	statement *statement
}

// driverRows is what the driver's rows can do.
type driverRows interface {
	driver.Rows
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypeNullable
	driver.RowsColumnTypePrecisionScale
	ColumnTypeScanType(index int) reflect.Type
}

// Close implements driver.Rows.
func (r *rows) Close() error {
	err := r.driverRows.Close()
	r.statement.busy = false
	if err != nil || r.statement.dropped {
		r.conn.drop(r.statement)
	}
	return err
}
