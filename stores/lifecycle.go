package stores

import (
	"context"
	"errors"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// BeginProvisioning takes a store from pending_database to provisioning. Any
// other state is an error that names it.
func (r *Registry) BeginProvisioning(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	status, err := lockStatus(ctx, tx, id)
	if err != nil {
		return err
	}
	switch status {
	case PendingDatabase:
		return setStatus(ctx, tx, id, Provisioning)
	case Provisioning:
		return stoa.Errorf(stoa.ProvisioningInProgress, "A database is being connected to this store. Follow it at /api/stores/%s/provisioning.", id)
	case Active:
		return stoa.Errorf(stoa.AlreadyConnected, "This store already has a database.")
	case Suspended, Deleting:
		return stoa.Errorf(stoa.StoreSuspended, "This store is suspended. Resume it first.")
	case Deleted:
	}
	return access.ErrStoreNotFound()
}

// FailProvisioning takes the store back to pending_database.
func (r *Registry) FailProvisioning(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	return setStatus(ctx, tx, id, PendingDatabase)
}

// Activate opens the store to shoppers.
func (r *Registry) Activate(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	return setStatus(ctx, tx, id, Active)
}

func setStatus(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, s Status) error {
	_, err := tx.Exec(ctx, `UPDATE stores SET status = $2, updated_at = $3 WHERE id = $1`, id, string(s), tx.Now)
	return err
}

// Identity is the part of a store's profile that the master decides.
type Identity struct {
	Name string
	Slug string
}

// ReadIdentity returns the store's name and slug.
func (r *Registry) ReadIdentity(ctx context.Context, id stoa.StoreID) (Identity, error) {
	var identity Identity
	err := r.db.Get(ctx, &identity, `SELECT name, slug FROM stores WHERE id = $1`, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return identity, access.ErrStoreNotFound()
	}
	return identity, err
}

// MapHostname gives the store its address <slug>.<domain>. Doing it again
// changes nothing.
func (r *Registry) MapHostname(ctx context.Context, id stoa.StoreID) error {
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var slug string
		if err := tx.Get(ctx, &slug, `SELECT slug FROM stores WHERE id = $1`, id); err != nil {
			return err
		}
		hostname := r.hostname(slug)
		_, err := tx.Exec(ctx, `
			INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
			VALUES ($1, $2, true, false, $3, $3) ON CONFLICT (hostname) DO NOTHING`, hostname, id, tx.Now)
		if err != nil {
			return err
		}
		var owner stoa.StoreID
		if err := tx.Get(ctx, &owner, `SELECT store_id FROM store_hostnames WHERE hostname = $1`, hostname); err != nil {
			return err
		}
		if owner != id {
			return slugTaken(slug)
		}
		return nil
	})
	r.Changed(ctx, id)
	return err
}

// Changed makes this replica see at once that the store's state or hostnames
// are new. Should it fail, the resolver's time to live stands behind it.
func (r *Registry) Changed(ctx context.Context, id stoa.StoreID) {
	hostnames, err := readHostnames(ctx, r.db, id)
	if err != nil {
		r.log.WarnContext(ctx, "hostnames not refreshed", "store", id.String(), "err", err)
	}
	r.resolver.forget(hostnames)
}

func (r *Registry) hostname(slug string) string { return slug + "." + strings.ToLower(r.domain) }
