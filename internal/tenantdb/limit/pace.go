package limit

import "time"

const (
	// connectingShare is the part of a server's connections that may be in the making
	// while others wait: one in so many.
	connectingShare = 25
	// minConnecting is the least number of these.
	minConnecting = 3
	// paceWait is how long a waiter waits for its turn in spite of a free connection.
	paceWait = 100 * time.Millisecond
)

// waiter waits for the permission to make a connection.
type waiter struct {
	acquired   chan struct{} // closed when the waiter has the permission
	since      time.Time
	connecting bool // it is counted as serverConnections.connecting then
}

func (s *serverConnections) admit(w *waiter) {
	s.open++
	if w.connecting {
		s.connecting++
	}
	close(w.acquired)
}

// admitWaiters gives permissions to the waiters, longest wait first. Connections of busy
// stores are closed for those of the waiters. While few of a server's connections are in
// the making, few busy stores are without one, and the server makes each sooner. A
// waiter waits at most paceWait for that.
func (l *Connections) admitWaiters(s *serverConnections) {
	for s.open < l.limit && s.queue.Len() > 0 && l.paceLeft(s) == 0 {
		s.admit(s.queue.Remove(s.queue.Front()).(*waiter))
		l.waiting.Add(-1)
		s.signal()
	}
}

// maxConnecting returns how many connections to a server may be in the making while others
// wait.
func (l *Connections) maxConnecting() int { return max(minConnecting, l.limit/connectingShare) }

// paceLeft returns how long the first waiter still waits for its turn.
func (l *Connections) paceLeft(s *serverConnections) time.Duration {
	first := s.queue.Front().Value.(*waiter)
	// More free connections than may be in the making were not taken from busy stores.
	if !first.connecting || s.connecting < l.maxConnecting() || l.limit-s.open > l.maxConnecting() {
		return 0
	}
	return max(0, paceWait-time.Since(first.since))
}

// paced returns a channel that receives when the next waiter has waited for paceWait; nil
// if all have.
func (l *Connections) paced(s *serverConnections) <-chan time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.admitWaiters(s)
	if _, next := l.overdue(s); next != nil {
		return time.After(paceWait - time.Since(next.since))
	}
	return nil
}

// markConnected records that a connection is made, or was not.
func (l *Connections) markConnected(s *serverConnections) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.connecting--
	l.admitWaiters(s)
}

// needsRoom reports whether the callers that may have a connection soon are more than
// the connections that are free or closing.
func (l *Connections) needsRoom(s *serverConnections) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	overdue, _ := l.overdue(s)
	return l.limit-s.open+s.closing < min(s.queue.Len(), max(l.maxConnecting(), overdue))
}

// overdue returns how many waiters need not wait for their turn any more, and the first of
// the others. It counts no more of them than there can be connections.
func (l *Connections) overdue(s *serverConnections) (n int, next *waiter) {
	for e := s.queue.Front(); e != nil && n < l.limit; e = e.Next() {
		if w := e.Value.(*waiter); w.connecting && time.Since(w.since) < paceWait {
			return n, w
		}
		n++
	}
	return n, nil
}
