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
		return move(ctx, tx, id, PendingDatabase, Provisioning)
	case Provisioning:
		return beingProvisioned(id)
	case Active:
		return stoa.Errorf(stoa.AlreadyConnected, "This store already has a database.")
	case Suspended:
		return stoa.Errorf(stoa.StoreSuspended, "This store is suspended. Resume it first.")
	case Deleting:
		return beingDeleted()
	case Deleted:
	}
	return access.ErrStoreNotFound()
}

// Connected fails unless the store has a database that it works with; the
// error names the state it is in.
func (r *Registry) Connected(ctx context.Context, id stoa.StoreID) error {
	status, err := readStatus(ctx, r.db, id, "")
	if err != nil {
		return err
	}
	return status.requireDatabase(id)
}

// HoldConnected is Connected, and keeps the store as it is until tx ends.
func (r *Registry) HoldConnected(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	status, err := lockStatus(ctx, tx, id)
	if err != nil {
		return err
	}
	return status.requireDatabase(id)
}

// requireDatabase: a suspended store keeps its database at work, so that its
// owner can put it in order before it opens again.
func (s Status) requireDatabase(id stoa.StoreID) error {
	switch s {
	case Active, Suspended:
		return nil
	case PendingDatabase:
		return s.requireActive()
	case Provisioning:
		return beingProvisioned(id)
	case Deleting:
		return beingDeleted()
	case Deleted:
	}
	return access.ErrStoreNotFound()
}

func beingDeleted() error {
	return stoa.Errorf(stoa.StoreSuspended, "This store is being deleted. Restore it first.")
}

func beingProvisioned(id stoa.StoreID) error {
	return stoa.Errorf(stoa.ProvisioningInProgress, "A database is being connected to this store. Follow it at /api/stores/%s/provisioning.", id)
}

// FailProvisioning takes the store back from provisioning to
// pending_database. A store in any other state stays as it is.
func (r *Registry) FailProvisioning(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	return move(ctx, tx, id, Provisioning, PendingDatabase)
}

// Activate takes the store from provisioning to active and so opens it to
// shoppers. A store in any other state stays as it is.
func (r *Registry) Activate(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	return move(ctx, tx, id, Provisioning, Active)
}

// move takes the store from one state to another. Of a store that is being
// deleted, the state moves to which it would be restored.
func move(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, from, to Status) error {
	n, err := tx.Exec(ctx, `UPDATE stores SET status = $3, updated_at = $4 WHERE id = $1 AND status = $2`,
		id, string(from), string(to), tx.Now)
	if err == nil && n == 0 {
		_, err = tx.Exec(ctx, `UPDATE stores SET status_before = $3 WHERE id = $1 AND status = 'deleting' AND status_before = $2`,
			id, string(from), string(to))
	}
	if err != nil || n == 0 {
		return err
	}
	return notify(tx, id)
}

// lockStatus reads the store's state and keeps it until tx ends.
func lockStatus(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) (Status, error) {
	return readStatus(ctx, tx, id, tx.ForUpdate())
}

func readStatus(ctx context.Context, q masterdb.Querier, id stoa.StoreID, lock string) (Status, error) {
	var status Status
	err := q.Get(ctx, &status, `SELECT status FROM stores WHERE id = $1`+lock, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return "", access.ErrStoreNotFound()
	}
	return status, err
}

// requireActive says to its owner why a store cannot be changed; nil for one
// that can.
func (s Status) requireActive() error {
	switch s {
	case Active:
		return nil
	case PendingDatabase:
		return stoa.Errorf(stoa.StorePendingDatabase, "This store has no database yet. Connect one first.")
	case Provisioning:
		return stoa.Errorf(stoa.StorePendingDatabase, "This store is being set up. Try again when that is done.")
	case Suspended:
		return stoa.Errorf(stoa.StoreSuspended, "This store is suspended. Resume it first.")
	case Deleting:
		return beingDeleted()
	case Deleted:
	}
	return access.ErrStoreNotFound()
}

// Identity is the part of a store's profile that the master decides.
type Identity struct {
	Name string
	Slug string
}

// ReadIdentity returns the store's name and slug.
func (r *Registry) ReadIdentity(ctx context.Context, id stoa.StoreID) (Identity, error) {
	return readIdentity(ctx, r.db, id)
}

func readIdentity(ctx context.Context, q masterdb.Querier, id stoa.StoreID) (Identity, error) {
	var identity Identity
	err := q.Get(ctx, &identity, `SELECT name, slug FROM stores WHERE id = $1`, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return identity, access.ErrStoreNotFound()
	}
	return identity, err
}

// MapHostname gives the store its address <slug>.<domain>, in place of the
// one it may have had. Doing it again changes nothing. It fails with
// hostname_taken when another store answers there.
func (r *Registry) MapHostname(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	var slug string
	err := tx.Get(ctx, &slug, `SELECT slug FROM stores WHERE id = $1 AND status <> 'deleted'`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return access.ErrStoreNotFound()
	}
	if err != nil {
		return err
	}
	return r.putHostname(ctx, tx, id, slug)
}

// freeHostnames lets other stores have the store's hostnames, and drops what
// it claims.
func freeHostnames(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	if _, err := tx.Exec(ctx, `DELETE FROM hostname_claims WHERE store_id = $1`, id); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM store_hostnames WHERE store_id = $1`, id)
	return err
}

// putHostname writes the one hostname of a store that is not custom; it is
// the primary one unless the owner has chosen another. The caller has locked
// the store.
func (r *Registry) putHostname(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, slug string) error {
	hostname := slug + "." + strings.ToLower(r.domain)
	n, err := tx.Exec(ctx, `UPDATE store_hostnames SET hostname = $2 WHERE store_id = $1 AND NOT custom`, id, hostname)
	if err == nil && n == 0 {
		_, err = tx.Exec(ctx, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
			VALUES ($1, $2, NOT EXISTS (SELECT 1 FROM store_hostnames WHERE store_id = $2 AND is_primary), false, $3, $3)`, hostname, id, tx.Now)
	}
	if masterdb.IsUnique(err) {
		return slugTaken(slug)
	}
	if err != nil {
		return err
	}
	return notify(tx, id)
}
