package stores

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
)

// checkStoreQuota fails with quota_exceeded when the user has as many stores as allowed,
// and with rate_limited when they have created as many within an hour. A store counts for
// the user who created it, whoever owns it now, until its deletion is final. Otherwise a
// user could create any number by creating and deleting in turn. It locks the user's row
// until tx ends.
func (r *Registry) checkStoreQuota(ctx context.Context, tx *masterdb.Tx, id stoa.UserID) error {
	var found struct {
		Present int
		Recent  int
	}
	user, err := quotas.LockUser(ctx, tx, id, masterdb.One(&found, `SELECT count(CASE WHEN status <> 'deleted' THEN 1 END) AS present,
		count(CASE WHEN created_at > $2 THEN 1 END) AS recent FROM stores WHERE created_by = $1`, id, tx.Now.Add(-time.Hour)))
	if err != nil {
		return err
	}
	if limit := r.quotas.StoreLimit(user); quotas.Exceeded(limit, found.Present) {
		return quotas.Error(quotas.Stores, limit, found.Present, "You have created %d stores, and %d are allowed. %s"+
			"Delete a store that is not needed, which counts until its grace period is over, or ask the operator of the platform for more.",
			found.Present, limit, r.quotas.Stores.Verification(user, user.Stores))
	}
	if limit := r.quotas.HourlyStoreLimit(user); quotas.Exceeded(limit, found.Recent) {
		return r.hourlyQuotaError(ctx, tx, id, limit, found.Recent)
	}
	return nil
}

// hourlyQuotaError returns rate_limited with the time after which the user may
// create the next store: when enough of the recent ones are an hour old.
func (r *Registry) hourlyQuotaError(ctx context.Context, tx *masterdb.Tx, id stoa.UserID, limit, used int) error {
	var next struct{ CreatedAt time.Time }
	err := tx.Get(ctx, &next, `SELECT created_at FROM stores WHERE created_by = $1 ORDER BY created_at DESC LIMIT 1 OFFSET $2`, id, limit-1)
	if err != nil {
		return err
	}
	return quotas.RateError(quotas.StoresPerHour, limit, used, next.CreatedAt.Add(time.Hour).Sub(tx.Now),
		"You have created %d stores within an hour, and %d are allowed. Wait as long as Retry-After says.", used, limit)
}
