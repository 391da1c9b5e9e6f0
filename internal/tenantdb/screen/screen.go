// Package screen checks what a tenant's database server sends before its driver sees
// it: the sizes and counts that the driver would allocate, the kinds of messages, and
// the work that a server asks for. It knows the protocols of PostgreSQL and MySQL as
// far as their drivers read them.
package screen

import (
	"errors"
	"net"
	"sync/atomic"
)

// checker checks what a tenant's server sends before the driver sees it.
// A driver trusts the lengths and counts that a server sends: it allocates that
// much memory, or uses them to index a packet. Each method is called by one
// goroutine at a time; received and sent may run at the same time.
type checker interface {
	// received checks the next bytes of the server's stream. After an error the
	// connection is not used any more.
	received(p []byte) error
	// sent records the next bytes of the client's stream before they are sent.
	sent(p []byte)
}

// Conn is a connection with every Read passing through a screen. After the screen has
// returned an error, the driver receives no further bytes, the connection is closed,
// and each later Read returns the same error.
type Conn struct {
	net.Conn
	screen checker
	failed atomic.Pointer[screenFailure]
}

// NewConn returns conn with a screen, such as NewMySQL.
func NewConn(conn net.Conn, s checker) *Conn { return &Conn{Conn: conn, screen: s} }

type screenFailure struct{ error }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.Failure(); err != nil {
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
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.Failure(); err != nil {
		return 0, err
	}
	c.screen.sent(p)
	return c.Conn.Write(p)
}

// Failure returns the screen's error, or nil. It is safe for concurrent use.
func (c *Conn) Failure() error {
	if f := c.failed.Load(); f != nil {
		return f.error
	}
	return nil
}

// RestartAnswer tells the connections under conn that count the bytes of an answer to begin
// anew: the driver keeps nothing of what it has read.
func RestartAnswer(conn net.Conn) {
	for conn != nil {
		if c, ok := conn.(interface{ RestartAnswer() }); ok {
			c.RestartAnswer()
		}
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		conn = outer.NetConn()
	}
}

// ErrAnswerTooLong means that a server's answer to one request was longer than
// any valid answer to Stoa's queries.
var ErrAnswerTooLong = errors.New("screen: the database's answer is too long")

// MaxAnswer limits what a server may send for one request, in bytes, and one row of a stream:
// the driver passes each row on before it reads the next. A
// merchant's database is not trusted: it could send an endless answer. The
// largest answer to one of Stoa's queries, a page of products, has 3 MiB.
const MaxAnswer = 8 << 20

// ProtocolError means that a server sent what its protocol does not allow, or
// more than this platform accepts. It contains none of the server's bytes.
type ProtocolError struct {
	Rule string // the broken rule, in Stoa's own words
}

func (e *ProtocolError) Error() string {
	return "screen: the server does not speak the protocol correctly: " + e.Rule
}
