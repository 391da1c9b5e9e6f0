package mail

import (
	"context"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// Allowance limits the mails of one kind for one key, such as a recipient or a sender: it
// allows Burst mails at once, and one more after each Every. The counts are in the master
// database (mail_allowances), so that they are exact across replicas and restarts.
type Allowance struct {
	Name  string // the kind of mail; keys of different kinds are independent
	Burst int    // 0 is no limit
	Every time.Duration
}

// Take counts one mail in tx and returns zero, or counts none and returns the wait for the
// next. A rollback of tx undoes the count. The key's row is locked until tx ends, so
// callers must take several allowances in a fixed order.
func (a Allowance) Take(ctx context.Context, tx *masterdb.Tx, key string) (wait time.Duration, err error) {
	if a.Burst == 0 {
		return 0, nil
	}
	// The row stores when the whole burst is available again (GCRA): one number for
	// both the count and its time.
	now, every := tx.Now.UnixMicro(), a.Every.Microseconds()
	latest := now + int64(a.Burst-1)*every
	n, err := tx.Exec(ctx, `
		INSERT INTO mail_allowances (name, key, full_at) VALUES ($1, $2, $3)
		ON CONFLICT (name, key) DO UPDATE SET
			full_at = CASE WHEN mail_allowances.full_at > $4 THEN mail_allowances.full_at + $5 ELSE $3 END
		WHERE mail_allowances.full_at <= $6`, a.Name, key, now+every, now, every, latest)
	if err != nil || n > 0 {
		return 0, err
	}
	var fullAt int64
	if err := tx.Get(ctx, &fullAt, `SELECT full_at FROM mail_allowances WHERE name = $1 AND key = $2`, a.Name, key); err != nil {
		return 0, err
	}
	return time.Duration(fullAt-latest) * time.Microsecond, nil
}

// Forget deletes the count of the key.
func (a Allowance) Forget(ctx context.Context, tx *masterdb.Tx, key string) error {
	_, err := tx.Exec(ctx, `DELETE FROM mail_allowances WHERE name = $1 AND key = $2`, a.Name, key)
	return err
}

// purgeBatch is how many allowances one transaction deletes.
const purgeBatch = 1000

// PurgeAllowances deletes counts that have expired, in batches.
func PurgeAllowances(ctx context.Context, db *masterdb.DB) error {
	for {
		var n int64
		err := db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
			n, err = tx.Exec(ctx, `DELETE FROM mail_allowances WHERE (name, key) IN
				(SELECT name, key FROM mail_allowances WHERE full_at <= $1 ORDER BY full_at LIMIT $2)`, tx.Now.UnixMicro(), purgeBatch)
			return err
		})
		if err != nil || n < purgeBatch {
			return err
		}
	}
}
