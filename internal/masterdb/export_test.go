package masterdb

import (
	"context"
	"log/slog"
	"time"
)

// ListenQuickly is Listen with short times, so that tests detect a lost connection soon.
func (db *DB) ListenQuickly(ctx context.Context, log *slog.Logger) {
	db.listen(ctx, log, listenTimes{
		answer: 2 * time.Second, echo: 200 * time.Millisecond, minPause: 10 * time.Millisecond, maxPause: time.Second,
		poll: 50 * time.Millisecond,
	})
}

// SetSkew makes db use ahead as the measured skew.
func (db *DB) SetSkew(ahead time.Duration) { db.clock.set(ahead) }

// WaitForLookup waits until l has that many statements in progress and calls that wait.
func WaitForLookup[K comparable, R any](l *Lookup[K, R], running, waiting int) {
	for {
		l.mu.Lock()
		reached := l.running == running && len(l.waiting) == waiting
		l.mu.Unlock()
		if reached {
			return
		}
		<-time.After(time.Millisecond)
	}
}
