package audit

import (
	"context"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// The bounds of the retention. They do not apply when entries are kept forever.
const (
	MinRetention = 24 * time.Hour
	MaxRetention = 10 * 365 * 24 * time.Hour
)

// clockSkew is the greatest assumed difference between the clocks of a server
// and of its database. The database decides what has expired, and rejects a
// batch that contains a row that has not.
const clockSkew = time.Hour

// Retention returns how long entries are kept; 0 is forever. It is stored in the
// database, whose trigger rejects the deletion of younger entries.
func Retention(ctx context.Context, q masterdb.Querier) (time.Duration, error) {
	var seconds int64
	err := q.Get(ctx, &seconds, `SELECT keep_seconds FROM audit_retention`)
	return time.Duration(seconds) * time.Second, err
}

// SetRetention changes how long entries are kept, and records the change. On
// PostgreSQL only the role that owns the tables may do so.
func SetRetention(ctx context.Context, db *masterdb.DB, by Subject, keep time.Duration) error {
	return db.Tx(ctx, func(tx *masterdb.Tx) error {
		before, err := Retention(ctx, tx)
		if err != nil || before == keep.Truncate(time.Second) {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE audit_retention SET keep_seconds = $1`, int64(keep/time.Second)); err != nil {
			return err
		}
		return Record(ctx, tx, by, Event{Action: RetentionSet, Details: map[string]string{"old": before.String(), "new": keep.String()}})
	})
}

// Expiry returns the rule that deletes entries after the retention.
func Expiry(keep time.Duration) masterdb.Expiry {
	if keep > 0 {
		keep += clockSkew
	}
	return masterdb.Expiry{Table: "audit_events", Key: []string{"id"}, Age: "created_at", Keep: keep}
}
