package limit

const (
	GrowAfter    = growAfter
	QueuePerConn = queuePerConn
)

// Waiting returns how many callers wait.
func (l *Concurrency) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.Len()
}
