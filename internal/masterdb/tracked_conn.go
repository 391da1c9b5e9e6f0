package masterdb

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// connecting marks the contexts of connections that are to become sessions, so that the dial
// can tell them from those that only bring a cancel request. It traces nothing: pgx has no
// other hook there.
type connecting struct{}

type connectingKey struct{}

// TraceConnectStart implements pgx.ConnectTracer.
func (connecting) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return context.WithValue(ctx, connectingKey{}, true)
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (connecting) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) {}

// TraceQueryStart implements pgx.QueryTracer.
func (connecting) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (connecting) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// trackedConn is the socket of one connection. It exists from the start of the dial.
type trackedConn struct {
	net.Conn  // set under breaker.mu when the dial has succeeded
	breaker   *breaker
	address   string
	probe     bool
	cancels   bool               // it brings a cancel request and becomes no session
	abandoned atomic.Bool        // its user is to go on without it; see abandon
	cancel    context.CancelFunc // cancels the dial
	skipTimer *time.Timer        // aborts the connection when no first byte comes; nil if there is no other host

	asked    atomic.Int64  // since when an answer is due, as returned by breaker.now; 0: none is due
	answered atomic.Bool   // whether a byte has come
	session  atomic.Uint32 // the server's id of the session; 0: unknown
	compared int64         // when it was last compared with the server's sessions; guarded by breaker.mu
}

// Write implements net.Conn.
func (c *trackedConn) Write(p []byte) (int, error) {
	if c.abandoned.Load() { // the end of TLS would be an end for the server
		return len(p), nil
	}
	c.asked.CompareAndSwap(0, c.breaker.now())
	return c.Conn.Write(p)
}

// Read implements net.Conn.
func (c *trackedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.asked.Store(0)
		c.answered.Store(true)
		if !c.probe {
			c.breaker.lastRead.Store(c.breaker.now())
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.breaker.forget(c)
	if c.abandoned.Load() {
		go func() {
			_ = c.SetReadDeadline(time.Now().Add(cancelWait))
			_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, 1<<20))
			_ = c.Conn.Close()
		}()
		return nil
	}
	return c.Conn.Close()
}

// abort makes pending reads and writes on the connection fail. The connection's user then
// closes it.
func (c *trackedConn) abort() {
	c.breaker.mu.Lock()
	conn := c.Conn
	c.breaker.mu.Unlock()
	c.cancel()
	if conn != nil {
		_ = conn.Close()
	}
}

// abandon makes the user of a cancel request go on at once, as abort does, and leaves the request
// to the server until it closes the connection: PgBouncer before 1.20 ends if the client of a
// cancel request goes first (its issue 801).
func (c *trackedConn) abandon() {
	c.breaker.mu.Lock()
	conn := c.Conn
	c.breaker.mu.Unlock()
	if conn == nil {
		c.abort()
		return
	}
	c.abandoned.Store(true)
	_ = conn.SetReadDeadline(time.Now())
}
