package tenantdb

import (
	"container/list"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errBudget: no connection to that server could be had in time.
var errBudget = errors.New("tenantdb: every connection to this database server is in use")

// errTooMuch: a server's answer to one request was longer than any of ours is.
var errTooMuch = errors.New("tenantdb: the database's answer is too long")

const (
	// maxAnswer bounds what a server may send for one request, in bytes. A
	// merchant's database is not ours to trust: it could answer without end. The
	// largest answer that a query of ours has, a page of products, is 3 MiB.
	maxAnswer = 8 << 20
	// freeAnswer is what a connection may have in memory without counting it:
	// there are few connections, and most answers are shorter.
	freeAnswer = 64 << 10
)

const (
	// reclaimEvery is how often a waiter looks for an idle connection that
	// could make room. The first look is at once.
	reclaimEvery = 5 * time.Millisecond
	// farewell is how long a server has to end a connection that we closed.
	farewell = 3 * time.Second
)

// budget limits the connections to each database server, however many stores
// live there. It counts real connections: from before the dial until the
// server has seen the end.
type budget struct {
	limit   int
	reclaim func(server string) // closes an idle connection of any store on server, if there is one

	spareFiles func() // see Options; nil does nothing

	mu      sync.Mutex
	servers map[string]*serverBudget
	ending  int        // connections closed by us and not yet by their server
	ended   *sync.Cond // signalled when there are none

	dials, failedDials atomic.Uint64
}

type serverBudget struct {
	open   int
	ending int       // of these, closed by us and not yet by the server
	busy   bool      // a waiter is reclaiming one
	queue  list.List // of chan struct{}, closed when its owner has a connection
}

func newBudget(limit int, reclaim func(string)) *budget {
	b := &budget{limit: limit, reclaim: reclaim, servers: map[string]*serverBudget{}}
	b.ended = sync.NewCond(&b.mu)
	return b
}

// dial counts the connections that next makes to server, and in the account
// the bytes that they have in memory.
func (b *budget) dial(server string, a account, next DialFunc) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := b.take(ctx, server); err != nil {
			return nil, err
		}
		b.dials.Add(1)
		conn, err := next(ctx, network, address)
		for try := 1; isExhausted(err) && try < fileTries && b.spareFiles != nil; try++ {
			b.spareFiles()
			if pause(ctx, filePause) != nil {
				break
			}
			conn, err = next(ctx, network, address)
		}
		if err != nil {
			b.failedDials.Add(1)
			b.give(server)
			return nil, err
		}
		return &countedConn{Conn: conn, budget: b, server: server, account: a}, nil
	}
}

// take waits for the right to one connection until ctx is done. Who waited
// longest is served first.
func (b *budget) take(ctx context.Context, server string) error {
	b.mu.Lock()
	s := b.servers[server]
	if s == nil {
		s = &serverBudget{}
		b.servers[server] = s
	}
	if s.open < b.limit && s.queue.Len() == 0 {
		s.open++
		b.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	place := s.queue.PushBack(turn)
	b.mu.Unlock()
	return b.wait(ctx, server, turn, place)
}

func (b *budget) wait(ctx context.Context, server string, turn chan struct{}, place *list.Element) error {
	retry := time.NewTicker(reclaimEvery)
	defer retry.Stop()
	for {
		b.makeRoom(server)
		select {
		case <-turn:
			return nil
		case <-retry.C:
		case <-ctx.Done():
			b.mu.Lock()
			defer b.mu.Unlock()
			s := b.servers[server]
			select {
			case <-turn: // too late: pass it on
				b.pass(server, s)
			default:
				s.queue.Remove(place)
			}
			return errors.Join(errBudget, ctx.Err())
		}
	}
}

// makeRoom reclaims a connection if fewer are ending than callers wait. One
// waiter at a time does so for each server: what is reclaimed in excess must be
// made again, and a server that is slow to let go holds up no other's.
func (b *budget) makeRoom(server string) {
	b.mu.Lock()
	s := b.servers[server]
	if s == nil || s.busy || s.ending >= s.queue.Len() {
		b.mu.Unlock()
		return
	}
	s.busy = true
	b.mu.Unlock()
	b.reclaim(server)
	b.mu.Lock()
	s.busy = false
	b.mu.Unlock()
}

// give ends the count of a connection that was never made.
func (b *budget) give(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pass(server, b.servers[server])
}

// part notes that a connection was closed by us, and parted that its server
// has done the same: then another can have its place.
func (b *budget) part(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers[server].ending++
	b.ending++
}

func (b *budget) parted(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.servers[server]
	s.ending--
	b.pass(server, s)
	if b.ending--; b.ending == 0 {
		b.ended.Broadcast()
	}
}

// drain waits until no connection is ending any more.
func (b *budget) drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.ending > 0 {
		b.ended.Wait()
	}
}

// pass hands a connection's right to who waits for it.
func (b *budget) pass(server string, s *serverBudget) {
	if first := s.queue.Front(); first != nil {
		close(s.queue.Remove(first).(chan struct{}))
		return
	}
	if s.open--; s.open == 0 {
		delete(b.servers, server)
	}
}

// countedConn is one connection of a budget.
type countedConn struct {
	net.Conn
	budget  *budget
	server  string
	account account
	closed  sync.Once
	answer  atomic.Int64 // bytes received since the last request
}

// Read counts, while it waits for the server, what the driver has of the
// answer and the room that it has made for the rest. A driver waits only in
// the middle of an answer; what it has read is counted by its reader.
func (c *countedConn) Read(p []byte) (int, error) {
	if held := c.answer.Load() + int64(len(p)); held > freeAnswer {
		if err := c.account.take(held); err != nil {
			return 0, err
		}
		defer c.account.give(held)
	}
	n, err := c.Conn.Read(p)
	if c.answer.Add(int64(n)) > maxAnswer {
		return 0, errTooMuch
	}
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.answer.Store(0)
	return c.Conn.Write(p)
}

// Close returns at once. The connection counts until the server has ended it
// too: only then has that server room for another.
func (c *countedConn) Close() error {
	err := net.ErrClosed
	c.closed.Do(func() {
		err = nil
		_ = c.SetDeadline(time.Unix(1, 0)) // wakes who still reads or writes
		c.budget.part(c.server)
		go c.end()
	})
	return err
}

// end has a timer of its own: a driver may still change the deadlines of a
// connection that it has closed.
func (c *countedConn) end() {
	defer c.budget.parted(c.server)
	defer c.Conn.Close()
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.SetReadDeadline(time.Time{}) != nil {
		return
	}
	late := time.AfterFunc(farewell, func() { _ = c.Conn.Close() })
	defer late.Stop()
	_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, 1<<20)) // until the server's own end
}
