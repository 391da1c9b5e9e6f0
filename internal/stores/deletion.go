package stores

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// DefaultGrace is the default grace period, in which a deleted store can be
// restored.
const DefaultGrace = 30 * 24 * time.Hour

// KeepDeleted sets the grace period, in which a deleted store can be restored.
// Call it before the registry is in use.
func (r *Registry) KeepDeleted(grace time.Duration) { r.grace = grace }

// Grace returns how long a deleted store can be restored.
func (r *Registry) Grace() time.Duration { return r.grace }

// Delete closes the store at once and schedules its final deletion for the end of the
// grace period. Until then Restore cancels it. It returns the store with that time. A
// store in any state can be deleted, but not while it is moved to another database. A store
// that is already being deleted keeps its time.
func (r *Registry) Delete(ctx context.Context, p authz.Principal, id stoa.StoreID) (Store, error) {
	if _, err := authz.Check(ctx, r.db, p, id, authz.DeleteStore); err != nil {
		return Store{}, err
	}
	// The store is read first: without a grace period it may already be deleted
	// afterwards.
	s, err := r.read(ctx, p, id)
	if err != nil {
		return Store{}, err
	}
	l, err := r.delete(ctx, p, id)
	s.Status, s.StatusBefore, s.DeleteAfter, s.SuspendedByOperator = l.Status, l.StatusBefore, l.DeleteAfter, l.SuspendedByOperator
	return s, err
}

// DeleteByOperator deletes a store, as Delete does, for the operator. It checks no
// permissions. It returns when the store will be deleted.
func (r *Registry) DeleteByOperator(ctx context.Context, by authz.Principal, id stoa.StoreID) (time.Time, error) {
	l, err := r.delete(ctx, by, id)
	if err != nil {
		return time.Time{}, err
	}
	return *l.DeleteAfter, nil
}

func (r *Registry) delete(ctx context.Context, p authz.Principal, id stoa.StoreID) (l lifecycle, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if l, err = lockLifecycle(ctx, tx, id); err != nil {
			return err
		}
		switch l.Status {
		case Deleting:
			return nil
		case Deleted:
			return authz.ErrStoreNotFound()
		case PendingDatabase, Provisioning, Active, Suspended:
		}
		if err := checkNotMoving(ctx, tx, id, "running"); err != nil {
			return err
		}
		before, at := l.Status, tx.Now.Add(r.grace)
		l.Status, l.StatusBefore, l.DeleteAfter = Deleting, &before, &at
		if err := writeLifecycle(ctx, tx, id, l); err != nil {
			return err
		}
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.StoreDeleting, Store: id}); err != nil {
			return err
		}
		return r.queue.EnqueueAt(ctx, tx, at, DeleteStore{StoreID: id})
	})
	return l, err
}

// DeleteStore is the job that finalizes a store's deletion after the grace
// period. It does nothing for a store that was restored.
type DeleteStore struct {
	StoreID stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (DeleteStore) Kind() string { return "stores.delete" }

// DeleteStoreTimeout bounds one attempt.
const DeleteStoreTimeout = 2 * time.Minute

// provisioningWait is how long a deletion waits for a provisioning run that still
// uses the store's database to end.
const provisioningWait = 15 * time.Minute

// FinishDeletion runs the job. First, in one transaction, it marks the store as deleted
// and destroys its credentials, which cannot be undone. Then it drops the store's managed
// database. It never changes a merchant's own database. While dropping fails, the
// registry keeps the database's record with the reason. Each part is idempotent.
func (r *Registry) FinishDeletion(ctx context.Context, job DeleteStore) error {
	deleted, err := r.finalizeDeletion(ctx, job.StoreID)
	if err != nil || !deleted {
		return err
	}
	info, err := tenantdb.ReadInfo(ctx, r.db, job.StoreID)
	if err != nil || info == nil {
		return err
	}
	r.tenants.Forget(job.StoreID)
	if err := r.managed.Drop(ctx, job.StoreID, *info); err != nil {
		return r.recordDropFailure(ctx, job.StoreID, err)
	}
	r.log.InfoContext(ctx, "store deleted", "store", job.StoreID.String(), "database", string(info.Kind))
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error { return tenantdb.DeleteRecord(ctx, tx, job.StoreID) })
}

// finalizeDeletion marks the store as deleted, or returns false for a store that must not
// be deleted. Ledger, billing and provisioning runs are kept. Other stores can use its
// custom hostnames at once, and its slug after the time set with KeepSlugs.
func (r *Registry) finalizeDeletion(ctx context.Context, id stoa.StoreID) (deleted bool, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		deleted = false
		l, err := lockLifecycle(ctx, tx, id)
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
		if l.StatusBefore != nil && *l.StatusBefore == Provisioning && tx.Now.Sub(*l.DeleteAfter) < provisioningWait {
			return jobs.Snooze(30 * time.Second)
		}
		deleted = true
		l.Status, l.StatusBefore, l.SuspendedByOperator = Deleted, nil, false
		if err := writeLifecycle(ctx, tx, id, l); err != nil {
			return err
		}
		if err := audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: audit.StoreDeleted, Store: id}); err != nil {
			return err
		}
		identity, err := readIdentity(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := r.releaseSlug(ctx, tx, id, identity.Slug); err != nil {
			return err
		}
		// The replacement slug contains a dot, which no chosen slug can.
		if _, err := tx.Exec(ctx, `UPDATE stores SET slug = $2 WHERE id = $1`, id, "deleted."+id.String()); err != nil {
			return err
		}
		if err := hostnames.Release(ctx, tx, id); err != nil {
			return err
		}
		if err := link.Destroy(ctx, tx, id); err != nil {
			return err
		}
		return tenantdb.Destroy(ctx, tx, id)
	})
	return deleted, err
}

// recordDropFailure records why the database could not be dropped and returns the
// cause for the queue, which retries with growing pauses.
func (r *Registry) recordDropFailure(ctx context.Context, id stoa.StoreID, cause error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cause // the process is stopping, which says nothing about the database's health
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	r.log.WarnContext(ctx, "database of a deleted store not dropped", "store", id.String(), "err", cause)
	if err := r.db.Tx(ctx, func(tx *masterdb.Tx) error { return tenantdb.RecordHealth(ctx, tx, id, cause) }); err != nil {
		return err
	}
	return cause
}
