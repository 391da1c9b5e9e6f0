package masterdb

import (
	"context"
	"log/slog"
	"time"
)

// ListenQuickly is Listen for tests, which should not wait long to see a dead
// connection noticed.
func (db *DB) ListenQuickly(ctx context.Context, log *slog.Logger) {
	db.listen(ctx, log, listenTimes{
		answer: 2 * time.Second, echo: 200 * time.Millisecond, minPause: 10 * time.Millisecond, maxPause: time.Second,
		poll: 50 * time.Millisecond,
	})
}

// MigrateTo brings an empty database to an older version's schema.
func (db *DB) MigrateTo(ctx context.Context, version int64) error {
	p, closeProvider, err := db.migrations()
	if err != nil {
		return err
	}
	defer closeProvider()
	_, err = p.UpTo(ctx, version)
	return err
}

// SetSkew has db take ahead for what it measured.
func (db *DB) SetSkew(ahead time.Duration) { db.clock.set(ahead) }
