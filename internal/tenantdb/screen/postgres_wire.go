package screen

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// maxCancelAnswer limits what a server may send, in bytes, on the connection
// that asks it to cancel a query: its part of a TLS handshake, and nothing
// more.
const maxCancelAnswer = 256 << 10

// postgresWire is one connection of the driver: the network connection,
// optionally TLS, and the screen above both. The screen is part of the driver's
// reader and not of its connection, because the driver binds SCRAM to the
// server's certificate only if its connection is a *tls.Conn itself.
type postgresWire struct {
	dial      dial.Func
	slot      hashingSlot
	screen    postgresScreen
	conn      net.Conn     // the network connection
	answer    atomic.Int64 // bytes received since the last request began, encrypted if TLS is on
	dialed    atomic.Bool
	condemned atomic.Bool
}

// Postgres adds a separate screen to the one connection that is made with cfg.
// limits is shared by all connections.
func Postgres(cfg *pgx.ConnConfig, limits HashingLimits) {
	w := &postgresWire{dial: dial.Func(cfg.DialFunc)}
	w.slot.limits = limits
	w.screen.slot, w.screen.onRequest = &w.slot, func() {
		w.answer.Store(0)
		RestartAnswer(w.conn)
	}
	cfg.DialFunc, cfg.BuildFrontend = w.connect, w.frontend
}

// connect implements DialFunc. The driver dials once for the connection, and
// again for each query that it cancels.
func (w *postgresWire) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if w.dialed.Swap(true) {
		return w.connectToCancel(ctx, network, address)
	}
	conn, err := w.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.slot.ctx = ctx
	w.conn = &limitedConn{Conn: conn, received: &w.answer, most: MaxAnswer, onClose: w.slot.release}
	return w.conn, nil
}

// connectToCancel makes no connection to a server that is no longer trusted.
func (w *postgresWire) connectToCancel(ctx context.Context, network, address string) (net.Conn, error) {
	if w.condemned.Load() {
		return nil, net.ErrClosed
	}
	conn, err := w.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &limitedConn{Conn: conn, received: new(atomic.Int64), most: maxCancelAnswer, onClose: func() {}}, nil
}

// frontend reads from r, the driver's own reader of conn, through the screen.
func (w *postgresWire) frontend(r io.Reader, conn io.Writer) *pgproto3.Frontend {
	c := NewConn(&frontendConn{Conn: conn.(net.Conn), r: r, wire: w}, &w.screen)
	return pgproto3.NewFrontend(c, c)
}

// frontendConn is the connection that the screen uses.
type frontendConn struct {
	net.Conn
	r    io.Reader
	wire *postgresWire
}

func (c *frontendConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Close is called only by the screen. It does not wait for the closing
// handshake of TLS.
func (c *frontendConn) Close() error {
	c.wire.condemned.Store(true)
	return c.wire.conn.Close()
}

// limitedConn returns ErrAnswerTooLong once received exceeds most, also to a
// concurrent writer.
type limitedConn struct {
	net.Conn
	received *atomic.Int64
	most     int64
	exceeded atomic.Bool
	onClose  func()
}

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.received.Add(int64(n)) > c.most || errors.Is(err, ErrAnswerTooLong) { // the underlying connection counts too
		c.exceeded.Store(true)
		_ = c.Close()
		return 0, ErrAnswerTooLong
	}
	return n, err
}

func (c *limitedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && c.exceeded.Load() {
		err = ErrAnswerTooLong
	}
	return n, err
}

func (c *limitedConn) Close() error {
	c.onClose()
	return c.Conn.Close()
}

// NetConn returns the underlying connection, as the method of tls.Conn does.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }
