package tenantdb

import (
	"net"
	"sync/atomic"
)

// protocolScreen checks what a tenant's server sends before the driver sees it.
// A driver trusts the lengths and counts that a server sends: it allocates that
// much memory, or uses them to index a packet. Each method is called by one
// goroutine at a time; received and sent may run at the same time.
type protocolScreen interface {
	// received checks the next bytes of the server's stream. After an error the
	// connection is not used any more.
	received(p []byte) error
	// sent records the next bytes of the client's stream before they are sent.
	sent(p []byte)
}

// screened returns conn with every Read passing through s. After s has returned
// an error, the driver receives no further bytes, conn is closed, and each
// later Read returns the same error.
func screened(conn net.Conn, s protocolScreen) net.Conn {
	return &screenedConn{Conn: conn, screen: s}
}

type screenedConn struct {
	net.Conn
	screen protocolScreen
	failed atomic.Pointer[screenFailure]
}

type screenFailure struct{ error }

// Read implements net.Conn.
func (c *screenedConn) Read(p []byte) (int, error) {
	if err := c.failure(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		if fault := c.screen.received(p[:n]); fault != nil {
			c.failed.Store(&screenFailure{fault})
			_ = c.Close()
			return 0, fault
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *screenedConn) Write(p []byte) (int, error) {
	if err := c.failure(); err != nil {
		return 0, err
	}
	c.screen.sent(p)
	return c.Conn.Write(p)
}

// failure returns the screen's error, or nil. It is safe for concurrent use.
func (c *screenedConn) failure() error {
	if f := c.failed.Load(); f != nil {
		return f.error
	}
	return nil
}

// protocolError means that a server sent what its protocol does not allow, or
// more than this platform accepts. It contains none of the server's bytes.
type protocolError struct {
	what string // the broken rule, in Stoa's own words
}

func (e *protocolError) Error() string {
	return "tenantdb: the server does not speak the protocol correctly: " + e.what
}
