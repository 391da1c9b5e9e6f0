package mail

import (
	"context"
	"time"

	"github.com/stoahq/stoa/masterdb"
)

// Allowance bounds how many mails of one kind may leave for one key, such as a
// recipient or a sender: Burst at once, and one more after each Every. What was
// taken is kept in the master database (mail_allowances), so it is exact over
// all replicas and holds after a restart.
type Allowance struct {
	Name  string // of the kind; keys of different kinds are counted apart
	Burst int    // 0 is no limit
	Every time.Duration
}

// Take counts one mail in tx and returns zero, or counts none and returns how
// long to wait for the next. The count ends with tx: a rolled-back act has cost
// nothing. The key's row is locked until then, so whoever takes several
// allowances takes them in one order.
func (a Allowance) Take(ctx context.Context, tx *masterdb.Tx, key string) (wait time.Duration, err error) {
	if a.Burst == 0 {
		return 0, nil
	}
	// The row says when the whole burst is free again (GCRA): one number holds
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

// Forget takes back all that was counted under the key.
func (a Allowance) Forget(ctx context.Context, tx *masterdb.Tx, key string) error {
	_, err := tx.Exec(ctx, `DELETE FROM mail_allowances WHERE name = $1 AND key = $2`, a.Name, key)
	return err
}

// purgeBatch is how many allowances one transaction removes.
const purgeBatch = 1000

// PurgeAllowances removes what does not count any more, a batch at a time.
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
