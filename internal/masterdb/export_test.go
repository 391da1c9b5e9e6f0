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
