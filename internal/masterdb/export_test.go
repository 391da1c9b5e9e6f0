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

// MigrateTo migrates an empty database to the schema of an older version.
func (db *DB) MigrateTo(ctx context.Context, version int64) error {
	p, closeProvider, err := db.migrations()
	if err != nil {
		return err
	}
	defer closeProvider()
	_, err = p.UpTo(ctx, version)
	return err
}

// SetSkew makes db use ahead as the measured skew.
func (db *DB) SetSkew(ahead time.Duration) { db.clock.set(ahead) }
