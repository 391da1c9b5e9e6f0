package stores

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// life is what decides where in its life a store can go next.
type life struct {
	Status       Status
	StatusBefore *Status    // of one that is being deleted
	DeleteAfter  *time.Time // likewise
	Held         bool       // suspended by the operator
}

// Suspend closes an active store to its shoppers, who get store_suspended; its
// database stays at work for its owner. A suspended store stays as it is. It
// fails with store_pending_database before the store was ever open, and with
// store_suspended once it is being deleted.
func (r *Registry) Suspend(ctx context.Context, p access.Principal, id stoa.StoreID) error {
	return r.turnAs(ctx, p, access.SuspendStore, id, suspension)
}

// Resume opens a suspended store again. An active store stays as it is. It
// fails with forbidden when the operator has suspended the store, and else as
// Suspend does.
func (r *Registry) Resume(ctx context.Context, p access.Principal, id stoa.StoreID) error {
	return r.turnAs(ctx, p, access.SuspendStore, id, resumption)
}

// Restore takes back a deletion within the grace period: the store is again
// in the state it had. One that is not being deleted stays as it is. After
// the grace period there is no such store any more: store_not_found.
func (r *Registry) Restore(ctx context.Context, p access.Principal, id stoa.StoreID) error {
	return r.turnAs(ctx, p, access.DeleteStore, id, restoration)
}

// Hold is Suspend by the operator, asking nobody: only Release, which is
// Resume by the operator, opens the store again. by is for the audit log.
func (r *Registry) Hold(ctx context.Context, by access.Principal, id stoa.StoreID) error {
	return r.turn(ctx, by, true, id, suspension)
}

// Release opens a suspended store again, whoever suspended it.
func (r *Registry) Release(ctx context.Context, by access.Principal, id stoa.StoreID) error {
	return r.turn(ctx, by, true, id, resumption)
}

// RestoreAny is Restore by the operator.
func (r *Registry) RestoreAny(ctx context.Context, by access.Principal, id stoa.StoreID) error {
	return r.turn(ctx, by, true, id, restoration)
}

// change is a step in a store's life, with its name in the audit log. The
// operator may take it further than others.
type change struct {
	next func(l life, operator bool) (life, error)
	name string
}

var (
	suspension  = change{life.suspended, access.StoreSuspended}
	resumption  = change{life.resumed, access.StoreResumed}
	restoration = change{life.restored, access.StoreRestored}
)

// turnAs is turn by a caller who needs the right to do so.
func (r *Registry) turnAs(ctx context.Context, p access.Principal, a access.Action, id stoa.StoreID, c change) error {
	role, err := access.Check(ctx, r.db, p, id, a)
	if err != nil {
		return err
	}
	return r.turn(ctx, p, role == access.Operator, id, c)
}

// turn takes the store where the change leads from where it is.
func (r *Registry) turn(ctx context.Context, by access.Principal, operator bool, id stoa.StoreID, c change) error {
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		l, err := lockLife(ctx, tx, id)
		if err != nil {
			return err
		}
		to, err := c.next(l, operator)
		if err != nil || to == l {
			return err
		}
		r.log.InfoContext(ctx, "store changes its state", "store", id.String(), "from", string(l.Status), "to", string(to.Status), "operator", operator)
		if err := access.Record(ctx, tx, by, access.Event{Action: c.name, Store: id}); err != nil {
			return err
		}
		return writeLife(ctx, tx, id, to)
	})
}

func (l life) suspended(operator bool) (life, error) {
	if l.Status == Active || l.Status == Suspended {
		l.Status, l.Held = Suspended, l.Held || operator
		return l, nil
	}
	return l, l.Status.requireActive()
}

func (l life) resumed(operator bool) (life, error) {
	switch {
	case l.Status != Suspended:
		return l, l.Status.requireActive()
	case l.Held && !operator:
		return l, stoa.Errorf(stoa.Forbidden, "The platform's operator has suspended this store. Ask them to resume it.")
	}
	l.Status, l.Held = Active, false
	return l, nil
}

func (l life) restored(bool) (life, error) {
	switch {
	case l.Status == Deleted:
		return l, access.ErrStoreNotFound()
	case l.Status == Deleting && l.StatusBefore != nil:
		l.Status, l.StatusBefore, l.DeleteAfter = *l.StatusBefore, nil, nil
	}
	return l, nil
}

// lockLife reads where the store is in its life and keeps it there until tx
// ends.
func lockLife(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) (l life, err error) {
	err = tx.Get(ctx, &l, `SELECT status, status_before, delete_after, held FROM stores WHERE id = $1`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		err = access.ErrStoreNotFound()
	}
	return l, err
}

func writeLife(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, l life) error {
	_, err := tx.Exec(ctx, `UPDATE stores SET status = $2, status_before = $3, delete_after = $4, held = $5, updated_at = $6 WHERE id = $1`,
		id, string(l.Status), (*string)(l.StatusBefore), l.DeleteAfter, l.Held, tx.Now)
	if err != nil {
		return err
	}
	return notify(tx, id)
}
