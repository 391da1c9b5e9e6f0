package app

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// boundedListener limits how many connections are open at once, so that clients cannot use
// up the open files that stores' databases need. Beyond the limit, new connections wait in
// the operating system's queue, and the connections that were idle for longest are closed.
// It also limits what the operating system keeps of a response, see limitUnsent.
type boundedListener struct {
	net.Listener
	log    *slog.Logger
	slots  chan struct{} // nil: no limit
	closed chan struct{}
	close  func()
	spare  func() // closes files that are not needed at the moment
	warned atomic.Int64

	mu   sync.Mutex
	idle *list.List // of *boundedConn, idle for longest first
}

// warnPause is the minimum time between two warnings.
const warnPause = time.Minute

// bound returns l with a limit on the open connections of server. 0 means no limit.
func bound(l net.Listener, server *http.Server, most int, spare func(), log *slog.Logger) *boundedListener {
	b := &boundedListener{Listener: l, log: log, closed: make(chan struct{}), spare: spare, idle: list.New()}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	if most > 0 {
		b.slots = make(chan struct{}, most)
		server.ConnState = b.note
	}
	return b
}

// note records which connections are idle. It is http.Server's ConnState.
func (b *boundedListener) note(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*boundedConn)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.place != nil {
		b.idle.Remove(c.place)
		c.place = nil
	}
	if state == http.StateIdle {
		c.place = b.idle.PushBack(c)
	}
}

// closeIdle closes the connection that was idle for longest, if any is idle.
func (b *boundedListener) closeIdle() {
	b.mu.Lock()
	first := b.idle.Front()
	if first == nil {
		b.mu.Unlock()
		return
	}
	c := b.idle.Remove(first).(*boundedConn)
	c.place = nil
	b.mu.Unlock()
	_ = c.Close()
}

// Accept implements net.Listener. net/http calls it again after a temporary error.
func (b *boundedListener) Accept() (net.Conn, error) {
	if err := b.acquire(); err != nil {
		return nil, err
	}
	conn, err := b.Listener.Accept()
	if err != nil {
		b.release()
		if !errors.Is(err, net.ErrClosed) {
			b.warn("a connection could not be accepted", "err", err)
			b.closeIdle()
			b.spare()
		}
		return nil, err
	}
	limitUnsent(conn)
	return &boundedConn{Conn: conn, release: sync.OnceFunc(b.release)}, nil
}

// acquire waits until one more connection may be open.
func (b *boundedListener) acquire() error {
	if b.slots == nil {
		return nil
	}
	select {
	case b.slots <- struct{}{}:
		return nil
	default:
	}
	b.warn("clients wait for a connection: as many are open as the limit of open files allows", "client_connections", cap(b.slots))
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		b.closeIdle()
		select {
		case b.slots <- struct{}{}:
			return nil
		case <-b.closed:
			return net.ErrClosed
		case <-retry.C:
		}
	}
}

func (b *boundedListener) release() {
	if b.slots != nil {
		<-b.slots
	}
}

// Close implements net.Listener.
func (b *boundedListener) Close() error {
	b.close()
	return b.Listener.Close()
}

func (b *boundedListener) warn(text string, args ...any) {
	now, last := time.Now().UnixNano(), b.warned.Load()
	if now-last >= int64(warnPause) && b.warned.CompareAndSwap(last, now) {
		b.log.WarnContext(context.Background(), text, args...)
	}
}

// boundedConn releases its slot once, when it is closed.
type boundedConn struct {
	net.Conn
	release func()
	place   *list.Element // guarded by boundedListener.mu
}

// CloseWrite lets net/http end the answer to a body that it has not read without
// a reset, which could overtake the answer.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
