package masterdb

import (
	"context"
	"log/slog"
	"testing"
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

// WaitForLookup waits until l has that many statements in progress and calls that wait. It
// fails the test after half a minute.
func WaitForLookup[K comparable, R any](t *testing.T, l *Lookup[K, R], running, waiting int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(time.Millisecond) {
		l.mu.Lock()
		r, w := l.running, len(l.waiting)
		l.mu.Unlock()
		if r == running && w == waiting {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d statements are in progress and %d calls wait, want %d and %d", r, w, running, waiting)
		}
	}
}

// SetPatience sets how long calls wait for the statement in progress.
func SetPatience[K comparable, R any](l *Lookup[K, R], patience time.Duration) { l.patience = patience }
