package limit

const (
	GrowAfter    = growAfter
	QueuePerConn = queuePerConn
)

// Slots returns how many callers may use the database now, and Waiting how many wait.
func (l *Concurrency) Slots() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slots
}

func (l *Concurrency) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.Len()
}
