package limit

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

const (
	// freeAnswer is how many bytes of an answer a connection may keep in memory
	// without counting them. There are few connections, and most answers are
	// shorter.
	freeAnswer = 64 << 10
	// closeTimeout limits how long a server may take to close its end of a
	// connection that Stoa has closed.
	closeTimeout = 3 * time.Second
)

// countedConn is a connection that Connections counts.
type countedConn struct {
	net.Conn
	limiter *Connections
	server  string
	account Account
	closed  sync.Once
	// connected ends the time in which the connection is being made. A second call
	// does nothing.
	connected func()
	answer    atomic.Int64 // bytes received since the last request
}

// Read counts the bytes of the answer that the driver has, and the buffer for
// the rest, while it waits for the server. A driver waits only in the middle of
// an answer; the reader of the answer counts what it has read.
func (c *countedConn) Read(p []byte) (int, error) {
	if held := c.answer.Load() + int64(len(p)); held > freeAnswer {
		if err := c.account.Take(held); err != nil {
			return 0, err
		}
		defer c.account.Give(held)
	}
	n, err := c.Conn.Read(p)
	if c.answer.Add(int64(n)) > screen.MaxAnswer {
		return 0, screen.ErrAnswerTooLong
	}
	return n, err
}

// Write resets the count of the answer's bytes.
func (c *countedConn) Write(p []byte) (int, error) {
	c.RestartAnswer()
	return c.Conn.Write(p)
}

// RestartAnswer resets the count of the answer's bytes: see screen.RestartAnswer.
func (c *countedConn) RestartAnswer() { c.answer.Store(0) }

// Close returns at once. The connection counts until the server has closed it
// too, because only then can the server accept another one.
func (c *countedConn) Close() error {
	err := net.ErrClosed
	c.closed.Do(func() {
		err = nil
		c.connected()
		_ = c.SetDeadline(time.Unix(1, 0)) // ends pending reads and writes
		c.limiter.MarkClosing(c.server)
		go c.waitForServer()
	})
	return err
}

// waitForServer closes the sending side and reads until the server has closed
// its own. It uses its own timer because a driver may still change the deadlines
// of a connection that it has closed.
func (c *countedConn) waitForServer() {
	defer c.limiter.MarkClosed(c.server)
	defer c.Conn.Close()
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.SetReadDeadline(time.Time{}) != nil {
		return
	}
	late := time.AfterFunc(closeTimeout, func() { _ = c.Conn.Close() })
	defer late.Stop()
	_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, 1<<20)) // until the server closes
}

// NetConn returns the underlying connection, as the method of tls.Conn does.
func (c *countedConn) NetConn() net.Conn { return c.Conn }
