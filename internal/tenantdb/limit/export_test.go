package limit

const (
	GrowAfter    = growAfter
	QueuePerConn = queuePerConn
	PaceWait     = paceWait
)

// Waiting returns how many callers wait.
func (l *Concurrency) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.Len()
}

// MaxConnecting returns how many connections to a server may be in the making while others
// wait.
func MaxConnecting(l *Connections) int { return l.maxConnecting() }
