package stores

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
)

// DefaultKeepSlugs is the default time for which a released slug is kept for its owner:
// links, bookmarks and passwords saved for the old address must not lead to another
// owner's store. During that time no store answers there. A custom hostname is not kept,
// since only the person who controls its DNS can verify it.
const DefaultKeepSlugs = 90 * 24 * time.Hour

// maxReleasedSlugs is how many released slugs one store may have. Without the limit a
// store could reserve any number of names by renaming.
const maxReleasedSlugs = 10

// KeepSlugs sets how long a released slug is kept for its owner; 0 releases it at once.
// Call it before the registry is in use.
func (r *Registry) KeepSlugs(d time.Duration) { r.keepSlugs = d }

// claimSlug reports whether the store, whose row already contains the slug, may have it.
// It returns false while the slug is kept for another store, unless owner owns that store
// too, or owned it until it was deleted. Call it after the row is written. A query before
// that would miss a concurrent release that commits while the write waits for the unique
// slug.
func claimSlug(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, owner stoa.UserID, slug string) (bool, error) {
	var kept struct {
		StoreID   stoa.StoreID
		KeptUntil time.Time
	}
	err := tx.Get(ctx, &kept, `SELECT store_id, kept_until FROM released_slugs WHERE slug = $1`, slug)
	if errors.Is(err, masterdb.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if kept.StoreID != store && tx.Now.Before(kept.KeptUntil) {
		if role, err := authz.RoleOf(ctx, tx, kept.StoreID, owner); err != nil || role != authz.Owner {
			return false, err
		}
	}
	err = tx.ExecLater(ctx, `DELETE FROM released_slugs WHERE slug = $1`, slug)
	return true, err
}

// releaseSlug keeps for its owner a slug that the store no longer has. The caller has
// locked the store.
func (r *Registry) releaseSlug(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, slug string) error {
	if r.keepSlugs <= 0 {
		return nil
	}
	return tx.ExecLater(ctx, `INSERT INTO released_slugs (slug, store_id, released_at, kept_until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (slug) DO UPDATE SET store_id = excluded.store_id, released_at = excluded.released_at, kept_until = excluded.kept_until`,
		slug, store, tx.Now, tx.Now.Add(r.keepSlugs))
}

// checkReleased fails with quota_exceeded when the store has as many released slugs as
// allowed. The caller has locked the store.
func checkReleased(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	var used int
	err := tx.Get(ctx, &used, `SELECT count(*) FROM released_slugs WHERE store_id = $1 AND kept_until > $2`, store, tx.Now)
	if err != nil || !quotas.Exceeded(maxReleasedSlugs, used) {
		return err
	}
	return quotas.Error(quotas.ReleasedSlugs, maxReleasedSlugs, used,
		"This store has released %d slugs that are still kept for it. Take one of them back, or wait until one is free.", used)
}

// Expiry returns the retention rule of released slugs. A slug is free when its time has
// passed, whether or not its row is deleted.
func Expiry() masterdb.Expiry {
	return masterdb.Expiry{Table: "released_slugs", Key: []string{"slug"}, Age: "kept_until", Keep: time.Hour}
}
