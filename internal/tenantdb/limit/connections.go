// Package limit limits the connections to the servers of tenant databases, and how many
// callers use the database of one store at a time.
package limit

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// ErrNoConnection means that no connection to the server became free in time.
var ErrNoConnection = errors.New("limit: every connection to this database server is in use")

// SafetyNet is how often a waiter checks again by itself, in case a notification was lost.
const SafetyNet = time.Second

// Connections limits the connections to each database server, regardless
// of how many stores it serves. A connection counts from before the dial until
// the server has closed its end. It is safe for concurrent use.
type Connections struct {
	limit int
	// reclaim closes idle connections of one store on server and reports whether
	// it found any.
	reclaim func(server string) bool

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
	connecting int           // the number of these that are being made, if Dial makes them
	reclaiming bool          // a goroutine reclaims connections for the waiters
	changed    chan struct{} // wakes that goroutine; holds one signal
	queue      list.List     // of *waiter
}

// NewConnections returns a limiter with that many connections to each server. reclaim closes
// idle connections of one store on a server and reports whether it found any.
func NewConnections(limit int, reclaim func(server string) bool) *Connections {
	l := &Connections{limit: limit, reclaim: reclaim, servers: map[string]*serverConnections{}}
	l.closed = sync.NewCond(&l.mu)
	return l
}

// Account counts the memory that answers take.
type Account interface {
	Take(bytes int64) error
	Give(bytes int64)
}

// Dial returns a dial function that counts the connections that next makes to
// server, and their memory in the account. A driver ends the context of its dial
// when the connection is made, or was not.
func (l *Connections) Dial(server string, a Account, next dial.Func) dial.Func {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		s, err := l.acquire(ctx, server, true)
		if err != nil {
			return nil, err
		}
		l.dials.Add(1)
		conn, err := next(ctx, network, address)
		connected := sync.OnceFunc(func() { l.markConnected(s) })
		if err != nil {
			connected()
			l.failedDials.Add(1)
			l.Release(server)
			return nil, err
		}
		context.AfterFunc(ctx, connected)
		return &countedConn{Conn: conn, limiter: l, server: server, account: a, connected: connected}, nil
	}
}

// Acquire waits for the permission to make one connection until ctx is done.
// Waiters are served in order.
func (l *Connections) Acquire(ctx context.Context, server string) error {
	_, err := l.acquire(ctx, server, false)
	return err
}

func (l *Connections) acquire(ctx context.Context, server string, connecting bool) (*serverConnections, error) {
	l.mu.Lock()
	s := l.servers[server]
	if s == nil {
		s = &serverConnections{changed: make(chan struct{}, 1)}
		l.servers[server] = s
	}
	w := &waiter{acquired: make(chan struct{}), since: time.Now(), connecting: connecting}
	if s.open < l.limit && s.queue.Len() == 0 {
		s.admit(w)
		l.mu.Unlock()
		return s, nil
	}
	place := s.queue.PushBack(w)
	l.waiting.Add(1)
	if !s.reclaiming {
		s.reclaiming = true
		go l.reclaimForWaiters(server, s)
	} else {
		s.signal()
	}
	l.mu.Unlock()
	select {
	case <-w.acquired:
		return s, nil
	case <-ctx.Done():
		l.abandon(server, s, place)
		return nil, errors.Join(ErrNoConnection, ctx.Err())
	}
}

// abandon removes a waiter. If the waiter was given a connection meanwhile, the
// connection goes to the next waiter.
func (l *Connections) abandon(server string, s *serverConnections, place *list.Element) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := place.Value.(*waiter)
	select {
	case <-w.acquired:
		if w.connecting {
			s.connecting--
		}
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
func (l *Connections) reclaimForWaiters(server string, s *serverConnections) {
	check := time.NewTicker(SafetyNet)
	defer check.Stop()
	for {
		for l.needsRoom(s) && l.reclaim(server) {
		}
		select {
		case <-s.changed:
		case <-check.C:
		case <-l.paced(s):
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

// signal wakes the goroutine that reclaims connections, if there is one.
func (s *serverConnections) signal() {
	select {
	case s.changed <- struct{}{}:
	default: // a signal is already pending
	}
}

// Idle notifies the limiter that a connection to server may have become idle,
// so that it can be reclaimed for a waiter. It is cheap while no caller waits.
func (l *Connections) Idle(server string) {
	if l.waiting.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.servers[server]; s != nil && s.queue.Len() > 0 {
		s.signal()
	}
}

// Release stops counting a connection that was never made.
func (l *Connections) Release(server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handOver(server, l.servers[server])
}

// MarkClosing records that Stoa has closed its end of a connection.
func (l *Connections) MarkClosing(server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers[server].closing++
	l.closing++
}

// MarkClosed records that the server has closed its end too. Another connection
// can be made.
func (l *Connections) MarkClosed(server string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.servers[server]
	s.closing--
	l.handOver(server, s)
	if l.closing--; l.closing == 0 {
		l.closed.Broadcast()
	}
}

// WaitClosed waits until no connection is closing.
func (l *Connections) WaitClosed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.closing > 0 {
		l.closed.Wait()
	}
}

// handOver gives a connection's permission to the waiters, if there are any.
func (l *Connections) handOver(server string, s *serverConnections) {
	s.open--
	l.admitWaiters(s)
	if s.open == 0 && s.queue.Len() == 0 {
		delete(l.servers, server)
	}
}

// IsFull reports whether another connection to server needs one that is in use or idle
// now.
func (l *Connections) IsFull(server string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.servers[server]
	return s != nil && (s.open >= l.limit || s.queue.Len() > 0)
}

// Active returns the number of connections to server that are open and not
// closing.
func (l *Connections) Active(server string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.servers[server]; s != nil {
		return s.open - s.closing
	}
	return 0
}

// Dials returns how many connections were begun, and how many of these failed.
func (l *Connections) Dials() (begun, failed uint64) { return l.dials.Load(), l.failedDials.Load() }

// Waiting returns how many callers wait for a connection to any server.
func (l *Connections) Waiting() int { return int(l.waiting.Load()) }

// Server counts the connections to one server.
type Server struct {
	Server     string // host:port
	Open       int
	Connecting int // the number of these that are being made
	Waiting    int // callers that wait for a connection
}

// Servers returns the servers that have connections, those with the most first.
func (l *Connections) Servers() []Server {
	l.mu.Lock()
	servers := make([]Server, 0, len(l.servers))
	for name, s := range l.servers {
		servers = append(servers, Server{Server: name, Open: s.open, Connecting: s.connecting, Waiting: s.queue.Len()})
	}
	l.mu.Unlock()
	slices.SortFunc(servers, func(x, y Server) int {
		return cmp.Or(cmp.Compare(y.Open+y.Waiting, x.Open+x.Waiting), strings.Compare(x.Server, y.Server))
	})
	return servers
}
