package provisioning

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// maxBegun is how often a store may start or retry runs within an hour, since each run
// adds rows to the master database and connects to a server.
const maxBegun = 60

// creator is the user who created a store, for whom its managed database counts.
type creator struct {
	quotas.User
	used int // managed databases of the user's other stores
}

// lockCreator locks the creator's row until tx ends. For another kind of database, which
// counts for no user, it returns nil and locks nothing.
func lockCreator(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, kind credential.Kind) (*creator, error) {
	if kind != credential.Managed {
		return nil, nil //nolint:nilnil // documented: it counts for no user
	}
	var c creator
	var err error
	c.User, err = quotas.LockCreator(ctx, tx, store, tenantdb.CountManaged(&c.used, store))
	return &c, err
}

// checkRate fails with rate_limited when the store has started or retried maxBegun runs
// within an hour. The caller has locked the store.
func checkRate(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	var begun []struct{ CreatedAt time.Time }
	err := tx.Select(ctx, &begun, `SELECT e.created_at FROM provisioning_events e JOIN provisioning_runs r ON r.id = e.run_id
		WHERE r.store_id = $1 AND e.step = '' AND e.state = 'queued' AND e.created_at > $2
		ORDER BY e.created_at DESC LIMIT $3`, store, tx.Now.Add(-time.Hour), maxBegun)
	if err != nil || len(begun) < maxBegun {
		return err
	}
	e := stoa.Errorf(stoa.RateLimited, "A database was connected to this store %d times within an hour. Correct what the last error says, and wait as long as Retry-After says.", maxBegun)
	e.RetryAfter = begun[maxBegun-1].CreatedAt.Add(time.Hour).Sub(tx.Now)
	return e
}

// CheckQuota fails as Connect does when the store must not get another database of that kind,
// because its creator has too many. It locks the creator until tx ends; the caller locks the
// store afterwards.
func (s *Service) CheckQuota(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, kind credential.Kind) error {
	creator, err := lockCreator(ctx, tx, store, kind)
	if err != nil {
		return err
	}
	return s.checkManaged(creator)
}

// checkManaged fails with quota_exceeded when the store's creator has as many managed
// databases as allowed. A nil creator has no limit. The caller has locked the creator.
func (s *Service) checkManaged(c *creator) error {
	if c == nil {
		return nil
	}
	if limit := s.opts.Quotas.ManagedDatabaseLimit(c.User); quotas.Exceeded(limit, c.used) {
		return quotas.Error(quotas.ManagedDatabases, limit, c.used, "The user who created this store has %d managed databases, and %d are allowed. %s"+
			"Connect a database of your own, delete a store that has a managed one, or ask the operator of the platform for more.",
			c.used, limit, s.opts.Quotas.ManagedDatabases.Verification(c.User, c.ManagedDatabases))
	}
	return nil
}
