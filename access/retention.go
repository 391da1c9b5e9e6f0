package access

import (
	"context"
	"time"

	"github.com/stoahq/stoa/masterdb"
)

// How long the audit log may be kept, unless for ever.
const (
	MinAuditRetention = 24 * time.Hour
	MaxAuditRetention = 10 * 365 * 24 * time.Hour
)

// clockSkew is by how much the clocks of a server and of its database may
// differ: the database decides what has expired, and refuses a batch with one
// row that has not.
const clockSkew = time.Hour

// AuditRetention returns how long entries of the audit log are kept; 0 is for
// ever. The database holds it, since its trigger refuses to delete any entry
// before that.
func AuditRetention(ctx context.Context, q masterdb.Querier) (time.Duration, error) {
	var seconds int64
	err := q.Get(ctx, &seconds, `SELECT keep_seconds FROM audit_retention`)
	return time.Duration(seconds) * time.Second, err
}

// SetAuditRetention changes it. The change has an entry in the log, by by. On
// PostgreSQL only the role that owns the tables may do so.
func SetAuditRetention(ctx context.Context, db *masterdb.DB, by Principal, keep time.Duration) error {
	return db.Tx(ctx, func(tx *masterdb.Tx) error {
		before, err := AuditRetention(ctx, tx)
		if err != nil || before == keep.Truncate(time.Second) {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE audit_retention SET keep_seconds = $1`, int64(keep/time.Second)); err != nil {
			return err
		}
		return Record(ctx, tx, by, Event{Action: RetentionSet, Details: map[string]string{"old": before.String(), "new": keep.String()}})
	})
}

// Expiry is the rule by which entries of the audit log are deleted that are
// kept so long.
func Expiry(keep time.Duration) masterdb.Expiry {
	if keep > 0 {
		keep += clockSkew
	}
	return masterdb.Expiry{Table: "audit_events", Key: []string{"id"}, Age: "created_at", Keep: keep}
}
