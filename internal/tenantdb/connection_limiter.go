package tenantdb

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// errNoConnection means that no connection to the server became free in time.
var errNoConnection = errors.New("tenantdb: every connection to this database server is in use")

// isOverloaded reports whether Stoa, and not the database, lacks what a connection takes.
func isOverloaded(err error) bool {
	return errors.Is(err, errNoConnection) || errors.Is(err, screen.ErrHashing)
}

// connectionLimiter limits the connections to each database server, regardless
// of how many stores it serves. A connection counts from before the dial until
// the server has closed its end. It is safe for concurrent use.
type connectionLimiter struct {
	limit int
	// reclaim closes idle connections of one store on server and reports whether
	// it found any.
	reclaim func(server string) bool

	spareFiles func() // see Options; nil does nothing

	mu      sync.Mutex
	servers map[string]*serverConnections
	closing int        // connections closed by Stoa and not yet by their server
	closed  *sync.Cond // signalled when no connection is closing

	waiting            atomic.Int64 // length of all queues together
	dials, failedDials atomic.Uint64
}

// serverConnections are the connections to one server.
type serverConnections struct {
	open       int
	closing    int           // the number of these that Stoa has closed and the server has not
	reclaiming bool          // a goroutine reclaims connections for the waiters
	changed    chan struct{} // wakes that goroutine; holds one signal
	queue      list.List     // of chan struct{}, closed when its owner has a connection
}

func newConnectionLimiter(limit int, reclaim func(server string) bool) *connectionLimiter {
	l := &connectionLimiter{limit: limit, reclaim: reclaim, servers: map[string]*serverConnections{}}
	l.closed = sync.NewCond(&l.mu)
	return l
}

// dial returns a dial function that counts the connections that next makes to
// server, and their memory in the account.
func (l *connectionLimiter) dial(server string, a account, next dial.Func) dial.Func {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := l.acquire(ctx, server); err != nil {
			return nil, err
		}
		l.dials.Add(1)
		conn, err := next(ctx, network, address)
		for try := 1; isExhausted(err) && try < fileTries && l.spareFiles != nil; try++ {
			l.spareFiles()
			if pause(ctx, filePause) != nil {
				break
			}
			conn, err = next(ctx, network, address)
		}
		if err != nil {
			l.failedDials.Add(1)
			l.release(server)
			return nil, err
		}
		return &countedConn{Conn: conn, limiter: l, server: server, account: a}, nil
	}
}

// acquire waits for the permission to make one connection until ctx is done.
// Waiters are served in order.
func (l *connectionLimiter) acquire(ctx context.Context, server string) error {
	l.mu.Lock()
	s := l.servers[server]
	if s == nil {
		s = &serverConnections{changed: make(chan struct{}, 1)}
		l.servers[server] = s
	}
	if s.open < l.limit && s.queue.Len() == 0 {
		s.open++
		l.mu.Unlock()
		return nil
	}
	acquired := make(chan struct{})
	place := s.queue.PushBack(acquired)
	l.waiting.Add(1)
	if !s.reclaiming {
		s.reclaiming = true
		go l.reclaimForWaiters(server, s)
	} else {
		s.signal()
	}
	l.mu.Unlock()
	select {
	case <-acquired:
		return nil
	case <-ctx.Done():
		l.abandon(server, s, acquired, place)
		return errors.Join(errNoConnection, ctx.Err())
	}
}

// abandon removes a waiter. If the waiter was given a connection meanwhile, the
// connection goes to the next waiter.
func (l *connectionLimiter) abandon(server string, s *serverConnections, acquired chan struct{}, place *list.Element) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-acquired:
		l.handOver(server, s)
	default:
		s.queue.Remove(place)
		l.waiting.Add(-1)
		s.signal()
	}
}

// reclaimForWaiters closes idle connections to a server while callers wait for
// a connection: at once, and each time that a connection may have become idle.
// One goroutine per server does so. No more connections are therefore closed
// than waiters need, and a server that closes connections slowly does not delay
// the callers of other servers.
func (l *connectionLimiter) reclaimForWaiters(server string, s *serverConnections) {
	check := time.NewTicker(safetyNet)
	defer check.Stop()
	for {
		for l.needsRoom(s) && l.reclaim(server) {
		}
		select {
		case <-s.changed:
		case <-check.C:
		}
		l.mu.Lock()
		if s.queue.Len() == 0 {
			s.reclaiming = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// needsRoom reports whether the number of waiting callers exceeds the number of
// closing connections.
func (l *connectionLimiter) needsRoom(s *serverConnections) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.closing < s.queue.Len()
}

// signal wakes the goroutine that reclaims connections, if there is one.
func (s *serverConnections) signal() {
	select {
	case s.changed <- struct{}{}:
	default: // a signal is already pending
	}
}

// idle notifies the limiter that a connection to server may have become idle,
// so that it can be reclaimed for a waiter. It is cheap while no caller waits.
func (l *connectionLimiter) idle(server string) {
	if l.waiting.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.servers[server]; s != nil && s.queue.Len() > 0 {
		s.signal()
	}
}

// release stops counting a connection that was never made.
func (l *connectionLimiter) release(server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handOver(server, l.servers[server])
}

// markClosing records that Stoa has closed its end of a connection.
func (l *connectionLimiter) markClosing(server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers[server].closing++
	l.closing++
}

// markClosed records that the server has closed its end too. Another connection
// can be made.
func (l *connectionLimiter) markClosed(server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.servers[server]
	s.closing--
	l.handOver(server, s)
	if l.closing--; l.closing == 0 {
		l.closed.Broadcast()
	}
}

// waitClosed waits until no connection is closing.
func (l *connectionLimiter) waitClosed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.closing > 0 {
		l.closed.Wait()
	}
}

// handOver gives the permission to make a connection to the first waiter.
func (l *connectionLimiter) handOver(server string, s *serverConnections) {
	if first := s.queue.Front(); first != nil {
		close(s.queue.Remove(first).(chan struct{}))
		l.waiting.Add(-1)
		s.signal()
		return
	}
	if s.open--; s.open == 0 {
		delete(l.servers, server)
	}
}

// active returns the number of connections to server that are open and not
// closing.
func (l *connectionLimiter) active(server string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.servers[server]; s != nil {
		return s.open - s.closing
	}
	return 0
}
