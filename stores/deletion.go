package stores

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// DefaultGrace is how long a deleted store can be restored, unless told.
const DefaultGrace = 30 * 24 * time.Hour

// KeepDeleted sets how long from its deletion on a store can be restored. It
// is for the time before the registry is used.
func (r *Registry) KeepDeleted(grace time.Duration) { r.grace = grace }

// Delete closes the store at once and has it go for good after the grace
// period, until when Restore takes it back. It returns the store with that
// time. A store in any state can be deleted; one that is being deleted
// already keeps its time.
func (r *Registry) Delete(ctx context.Context, p access.Principal, id stoa.StoreID) (Store, error) {
	if _, err := access.Check(ctx, r.db, p, id, access.DeleteStore); err != nil {
		return Store{}, err
	}
	// Read first: without a grace period there may be nothing to read after.
	s, err := r.read(ctx, p, id)
	if err != nil {
		return Store{}, err
	}
	l, err := r.delete(ctx, p, id)
	s.Status, s.StatusBefore, s.DeleteAfter, s.Held = l.Status, l.StatusBefore, l.DeleteAfter, l.Held
	return s, err
}

// DeleteAny is Delete by the operator. It returns when the store will be gone.
func (r *Registry) DeleteAny(ctx context.Context, by access.Principal, id stoa.StoreID) (time.Time, error) {
	l, err := r.delete(ctx, by, id)
	if err != nil {
		return time.Time{}, err
	}
	return *l.DeleteAfter, nil
}

func (r *Registry) delete(ctx context.Context, p access.Principal, id stoa.StoreID) (l life, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if l, err = lockLife(ctx, tx, id); err != nil {
			return err
		}
		switch l.Status {
		case Deleting:
			return nil
		case Deleted:
			return access.ErrStoreNotFound()
		case PendingDatabase, Provisioning, Active, Suspended:
		}
		before, at := l.Status, tx.Now.Add(r.grace)
		l.Status, l.StatusBefore, l.DeleteAfter = Deleting, &before, &at
		if err := writeLife(ctx, tx, id, l); err != nil {
			return err
		}
		if err := access.Record(ctx, tx, p, access.Event{Action: access.StoreDeleting, Store: id}); err != nil {
			return err
		}
		return r.queue.EnqueueAt(ctx, tx, at, DeleteStore{StoreID: id})
	})
	return l, err
}

// DeleteStore is the job that deletes a store for good, once its time has
// come. It is harmless for a store that was restored.
type DeleteStore struct {
	StoreID stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (DeleteStore) Kind() string { return "stores.delete" }

// DeleteStoreTimeout bounds one attempt.
const DeleteStoreTimeout = 2 * time.Minute

// runPatience is how long a deletion waits for a provisioning run to end that
// is still at work on the store's database.
const runPatience = 15 * time.Minute

// FinishDeletion runs the job. First, in one transaction, the store ceases to
// exist for everybody and its credentials are destroyed: from there on there
// is no way back. Then its managed database is dropped; a merchant's own is
// never touched. As long as that fails the registry keeps the database and
// says why. Each part may run again.
func (r *Registry) FinishDeletion(ctx context.Context, job DeleteStore) error {
	deleted, err := r.bury(ctx, job.StoreID)
	if err != nil || !deleted {
		return err
	}
	info, err := tenantdb.ReadInfo(ctx, r.db, job.StoreID)
	if err != nil || info == nil {
		return err
	}
	r.tenants.Forget(job.StoreID)
	if err := r.tenants.DropManaged(ctx, job.StoreID, *info); err != nil {
		return r.keepFault(ctx, job.StoreID, err)
	}
	r.log.InfoContext(ctx, "store deleted", "store", job.StoreID.String(), "database", string(info.Kind))
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error { return tenantdb.DeleteRecord(ctx, tx, job.StoreID) })
}

// bury makes the store one that does not exist, or reports false for one
// that is to stay. Ledger, billing and runs are kept; custom hostnames are free
// for others, and so is the slug when its time is over.
func (r *Registry) bury(ctx context.Context, id stoa.StoreID) (deleted bool, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		deleted = false
		l, err := lockLife(ctx, tx, id)
		if stoa.CodeOf(err) == stoa.StoreNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if l.Status != Deleting || l.DeleteAfter == nil {
			deleted = l.Status == Deleted
			return nil
		}
		if wait := l.DeleteAfter.Sub(tx.Now); wait > 0 {
			return jobs.Snooze(wait + time.Second)
		}
		if l.StatusBefore != nil && *l.StatusBefore == Provisioning && tx.Now.Sub(*l.DeleteAfter) < runPatience {
			return jobs.Snooze(30 * time.Second)
		}
		deleted = true
		l.Status, l.StatusBefore, l.Held = Deleted, nil, false
		if err := writeLife(ctx, tx, id, l); err != nil {
			return err
		}
		if err := access.Record(ctx, tx, access.Principal{}, access.Event{Action: access.StoreDeleted, Store: id}); err != nil {
			return err
		}
		identity, err := readIdentity(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := r.releaseSlug(ctx, tx, id, identity.Slug); err != nil {
			return err
		}
		// No slug that a person can choose has a dot.
		if _, err := tx.Exec(ctx, `UPDATE stores SET slug = $2 WHERE id = $1`, id, "deleted."+id.String()); err != nil {
			return err
		}
		if err := freeHostnames(ctx, tx, id); err != nil {
			return err
		}
		if err := cloud.Destroy(ctx, tx, id); err != nil {
			return err
		}
		return tenantdb.Destroy(ctx, tx, id)
	})
	return deleted, err
}

// keepFault notes why the database could not be dropped and returns the cause
// for the queue, which tries again with growing pauses.
func (r *Registry) keepFault(ctx context.Context, id stoa.StoreID, cause error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cause // this process stops, which says nothing about the database
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	r.log.WarnContext(ctx, "a deleted store's database could not be dropped", "store", id.String(), "err", cause)
	if err := r.db.Tx(ctx, func(tx *masterdb.Tx) error { return tenantdb.RecordHealth(ctx, tx, id, cause) }); err != nil {
		return err
	}
	return cause
}
