package stores

import (
	"context"
	"errors"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
)

// BeginProvisioning moves a store from pending_database to provisioning. In any other
// state it fails with an error that names the state.
func (r *Registry) BeginProvisioning(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	status, err := lockStatus(ctx, tx, id)
	if err != nil {
		return err
	}
	switch status {
	case PendingDatabase:
		return transition(ctx, tx, id, PendingDatabase, Provisioning)
	case Provisioning:
		return errBeingProvisioned()
	case Active:
		return stoa.Errorf(stoa.AlreadyConnected, "This store already has a database.")
	case Suspended:
		return stoa.Errorf(stoa.StoreSuspended, "This store is suspended. Resume it first.")
	case Deleting:
		return errBeingDeleted()
	case Deleted:
	}
	return authz.ErrStoreNotFound()
}

// CheckConnected fails unless the store has a usable database. The error names the
// store's state.
func (r *Registry) CheckConnected(ctx context.Context, id stoa.StoreID) error {
	status, err := readStatus(ctx, r.db, id, "")
	if err != nil {
		return err
	}
	return status.requireDatabase()
}

// LockConnected does what CheckConnected does and locks the store's row until tx ends.
func (r *Registry) LockConnected(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	status, err := lockStatus(ctx, tx, id)
	if err != nil {
		return err
	}
	return status.requireDatabase()
}

// LockNotMoving does what LockConnected does. It fails with move_in_progress for a store that
// is being moved to another database, or can still be moved back.
func (r *Registry) LockNotMoving(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	if err := r.LockConnected(ctx, tx, id); err != nil {
		return err
	}
	return checkNotMoving(ctx, tx, id, "running", "kept")
}

// checkNotMoving fails if the store has a move in one of the states.
func checkNotMoving(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, states ...string) error {
	var moves []string
	if err := tx.Select(ctx, &moves, `SELECT state FROM store_moves WHERE store_id = $1 AND finished_at IS NULL`, id); err != nil {
		return err
	}
	for _, state := range moves {
		if slices.Contains(states, state) {
			return stoa.Errorf(stoa.MoveInProgress, "This store is being moved to another database, or can still be moved back. Wait for the end of the move, or abort it, finish it or roll it back.")
		}
	}
	return nil
}

// requireDatabase fails for a state in which a store has no database. A suspended store
// keeps using its database, so that its owner can make corrections before it opens again.
func (s Status) requireDatabase() error {
	switch s {
	case Active, Suspended:
		return nil
	case PendingDatabase:
		return s.requireActive()
	case Provisioning:
		return errBeingProvisioned()
	case Deleting:
		return errBeingDeleted()
	case Deleted:
	}
	return authz.ErrStoreNotFound()
}

func errBeingDeleted() error {
	return stoa.Errorf(stoa.StoreSuspended, "This store is being deleted. Restore it first.")
}

func errBeingProvisioned() error {
	return stoa.Errorf(stoa.ProvisioningInProgress, "A database is being connected to this store. Wait until that is done.")
}

// FailProvisioning moves the store from provisioning back to pending_database. It
// leaves a store in any other state unchanged.
func (r *Registry) FailProvisioning(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	return transition(ctx, tx, id, Provisioning, PendingDatabase)
}

// Activate moves the store from provisioning to active and so opens it to
// shoppers. It leaves a store in any other state unchanged.
func (r *Registry) Activate(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	return transition(ctx, tx, id, Provisioning, Active)
}

// transition moves the store from one state to another. For a store that is being
// deleted it changes the state to which the store would be restored.
func transition(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, from, to Status) error {
	n, err := tx.Exec(ctx, `UPDATE stores SET status = $3, updated_at = $4 WHERE id = $1 AND status = $2`,
		id, string(from), string(to), tx.Now)
	if err == nil && n == 0 {
		_, err = tx.Exec(ctx, `UPDATE stores SET status_before = $3 WHERE id = $1 AND status = 'deleting' AND status_before = $2`,
			id, string(from), string(to))
	}
	if err != nil || n == 0 {
		return err
	}
	return hostnames.NotifyChange(tx, id)
}

// lockStatus locks the store's row until tx ends and returns its state.
func lockStatus(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) (Status, error) {
	return readStatus(ctx, tx, id, tx.ForUpdate())
}

func readStatus(ctx context.Context, q masterdb.Querier, id stoa.StoreID, lock string) (Status, error) {
	var status Status
	err := q.Get(ctx, &status, `SELECT status FROM stores WHERE id = $1`+lock, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return "", authz.ErrStoreNotFound()
	}
	return status, err
}

// requireActive fails for a state in which a store cannot be changed, with an
// error for its owner.
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
		return errBeingDeleted()
	case Deleted:
	}
	return authz.ErrStoreNotFound()
}

// Identity is the part of a store's profile whose source is the master.
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
		return identity, authz.ErrStoreNotFound()
	}
	return identity, err
}

// MapHostname gives the store the hostname <slug>.<domain>, which replaces an earlier
// one. It is idempotent. It fails with hostname_taken when another store answers there.
func (r *Registry) MapHostname(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	var slug string
	err := tx.Get(ctx, &slug, `SELECT slug FROM stores WHERE id = $1 AND status <> 'deleted'`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return authz.ErrStoreNotFound()
	}
	if err != nil {
		return err
	}
	return r.mapSlug(ctx, tx, id, slug)
}

// mapSlug calls hostnames.MapSlug and returns hostname_taken as its error.
func (r *Registry) mapSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, slug string) error {
	err := r.hostnames.MapSlug(ctx, tx, id, slug)
	if masterdb.IsUnique(err) {
		return errSlugTaken(slug)
	}
	return err
}
