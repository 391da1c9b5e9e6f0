package stores

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
)

// lifecycle is the position of a store in its lifecycle.
type lifecycle struct {
	Status              Status
	StatusBefore        *Status    // of a store that is being deleted
	DeleteAfter         *time.Time // of a store that is being deleted
	SuspendedByOperator bool       `db:"held"`
}

// Suspend closes an active store to its shoppers, who get store_suspended. Its owner can
// still use its database. A store that is already suspended is unchanged. It fails with
// store_pending_database for a store that was never open, and with store_suspended for
// one that is being deleted.
func (r *Registry) Suspend(ctx context.Context, p authz.Principal, id stoa.StoreID) error {
	return r.authorizeAndApply(ctx, p, authz.SuspendStore, id, suspension)
}

// Resume opens a suspended store again. An active store is unchanged. It fails with
// forbidden when the operator has suspended the store, and otherwise as Suspend does.
func (r *Registry) Resume(ctx context.Context, p authz.Principal, id stoa.StoreID) error {
	return r.authorizeAndApply(ctx, p, authz.SuspendStore, id, resumption)
}

// Restore cancels a deletion within the grace period: the store returns to its previous
// state. A store that is not being deleted is unchanged. After the grace period it fails
// with store_not_found.
func (r *Registry) Restore(ctx context.Context, p authz.Principal, id stoa.StoreID) error {
	return r.authorizeAndApply(ctx, p, authz.DeleteStore, id, restoration)
}

// SuspendByOperator suspends a store, as Suspend does, for the operator. It checks no
// permissions. Only ResumeByOperator, or Resume by an operator, opens the store again. by
// is recorded in the audit log.
func (r *Registry) SuspendByOperator(ctx context.Context, by authz.Principal, id stoa.StoreID) error {
	return r.apply(ctx, by, true, id, suspension)
}

// SuspendForOperator suspends a store, as Suspend does, with the permission of an operator
// of the platform, also where the operator is a member of the store. It reports whether
// the store has changed.
func (r *Registry) SuspendForOperator(ctx context.Context, p authz.Principal, id stoa.StoreID) (changed bool, err error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.SuspendStore); err != nil {
		return false, err
	}
	return r.applyReporting(ctx, p, true, id, suspension)
}

// ResumeForOperator opens a suspended store again, whoever suspended it, with the permission
// of an operator of the platform. It reports whether the store has changed.
func (r *Registry) ResumeForOperator(ctx context.Context, p authz.Principal, id stoa.StoreID) (changed bool, err error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.SuspendStore); err != nil {
		return false, err
	}
	return r.applyReporting(ctx, p, true, id, resumption)
}

// ResumeByOperator opens a suspended store again, whoever suspended it. It checks no
// permissions.
func (r *Registry) ResumeByOperator(ctx context.Context, by authz.Principal, id stoa.StoreID) error {
	return r.apply(ctx, by, true, id, resumption)
}

// RestoreByOperator restores a store, as Restore does, for the operator. It checks no
// permissions.
func (r *Registry) RestoreByOperator(ctx context.Context, by authz.Principal, id stoa.StoreID) error {
	return r.apply(ctx, by, true, id, restoration)
}

// lifecycleTransition is a transition that a person requests.
type lifecycleTransition int

const (
	suspension lifecycleTransition = iota
	resumption
	restoration
)

// event returns the transition's name in the audit log.
func (t lifecycleTransition) event() string {
	switch t {
	case suspension:
		return audit.StoreSuspended
	case resumption:
		return audit.StoreResumed
	case restoration:
	}
	return audit.StoreRestored
}

// from returns the position after the transition from l, or an error if the transition is
// not possible.
func (t lifecycleTransition) from(l lifecycle, operator bool) (lifecycle, error) {
	switch t {
	case suspension:
		return l.suspended(operator)
	case resumption:
		return l.resumed(operator)
	case restoration:
	}
	return l.restored()
}

// authorizeAndApply checks that the caller may do a and applies the transition.
func (r *Registry) authorizeAndApply(ctx context.Context, p authz.Principal, a authz.Action, id stoa.StoreID, t lifecycleTransition) error {
	role, err := authz.Check(ctx, r.db, p, id, a)
	if err != nil {
		return err
	}
	return r.apply(ctx, p, role == authz.Operator, id, t)
}

// apply applies the transition to the store and records it in the audit log.
func (r *Registry) apply(ctx context.Context, by authz.Principal, operator bool, id stoa.StoreID, t lifecycleTransition) error {
	_, err := r.applyReporting(ctx, by, operator, id, t)
	return err
}

// applyReporting is apply, and reports whether the store has changed.
func (r *Registry) applyReporting(ctx context.Context, by authz.Principal, operator bool, id stoa.StoreID, t lifecycleTransition) (changed bool, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		changed = false
		l, err := lockLifecycle(ctx, tx, id)
		if err != nil {
			return err
		}
		to, err := t.from(l, operator)
		if err != nil || to == l {
			return err
		}
		r.log.InfoContext(ctx, "store changes its state", "store", id.String(), "from", string(l.Status), "to", string(to.Status), "operator", operator)
		if err := audit.Record(ctx, tx, by, audit.Event{Action: t.event(), Store: id}); err != nil {
			return err
		}
		changed = true
		return writeLifecycle(ctx, tx, id, to)
	})
	return changed && err == nil, err
}

func (l lifecycle) suspended(operator bool) (lifecycle, error) {
	if l.Status == Active || l.Status == Suspended {
		l.Status, l.SuspendedByOperator = Suspended, l.SuspendedByOperator || operator
		return l, nil
	}
	return l, l.Status.requireActive()
}

func (l lifecycle) resumed(operator bool) (lifecycle, error) {
	switch {
	case l.Status != Suspended:
		return l, l.Status.requireActive()
	case l.SuspendedByOperator && !operator:
		return l, stoa.Errorf(stoa.Forbidden, "The platform's operator has suspended this store. Ask them to resume it.")
	}
	l.Status, l.SuspendedByOperator = Active, false
	return l, nil
}

func (l lifecycle) restored() (lifecycle, error) {
	switch {
	case l.Status == Deleted:
		return l, authz.ErrStoreNotFound()
	case l.Status == Deleting && l.StatusBefore != nil:
		l.Status, l.StatusBefore, l.DeleteAfter = *l.StatusBefore, nil, nil
	}
	return l, nil
}

// lockLifecycle locks the store's row until tx ends and returns its position.
func lockLifecycle(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) (l lifecycle, err error) {
	err = tx.Get(ctx, &l, `SELECT status, status_before, delete_after, held FROM stores WHERE id = $1`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		err = authz.ErrStoreNotFound()
	}
	return l, err
}

func writeLifecycle(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, l lifecycle) error {
	err := tx.ExecLater(ctx, `UPDATE stores SET status = $2, status_before = $3, delete_after = $4, held = $5, updated_at = $6 WHERE id = $1`,
		id, string(l.Status), (*string)(l.StatusBefore), l.DeleteAfter, l.SuspendedByOperator, tx.Now)
	if err != nil {
		return err
	}
	return hostnames.NotifyChange(tx, id)
}
