package stores

import (
	"context"
	"iter"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// InconsistencyKind is a kind of inconsistency in the registry.
type InconsistencyKind string

// The inconsistencies that can be found in the registry's own rows.
const (
	ActiveWithoutDatabase InconsistencyKind = "active_without_database"
	DeletionOverdue       InconsistencyKind = "deletion_overdue"
	DeletedWithDatabase   InconsistencyKind = "deleted_with_database"
	HostnameOfDeleted     InconsistencyKind = "hostname_of_deleted"
)

// Inconsistency is one inconsistency of one store.
type Inconsistency struct {
	Kind    InconsistencyKind `db:"-"`
	StoreID stoa.StoreID
	Slug    string
	Detail  string // a time, a hostname, an error's code
}

// overdueAfter is how late a deletion is before it counts as overdue.
const overdueAfter = 10 * time.Minute

// inconsistencyQueries find the inconsistencies. $1 is the time before which a
// deletion is overdue. Each ends in its WHERE, so that a condition can be appended.
var inconsistencyQueries = []struct {
	kind  InconsistencyKind
	query string
}{
	{ActiveWithoutDatabase, `SELECT s.id AS store_id, s.slug, s.status AS detail FROM stores s
		WHERE s.status IN ('active', 'suspended') AND s.created_at < $1 AND NOT EXISTS (SELECT 1 FROM store_databases d WHERE d.store_id = s.id)`},
	{DeletionOverdue, `SELECT s.id AS store_id, s.slug, coalesce(s.status_before, '') AS detail FROM stores s WHERE s.status = 'deleting' AND s.delete_after < $1`},
	{DeletedWithDatabase, `SELECT s.id AS store_id, s.slug, coalesce(d.last_error, '') AS detail FROM stores s
		JOIN store_databases d ON d.store_id = s.id WHERE s.status = 'deleted' AND d.updated_at < $1`},
	{HostnameOfDeleted, `SELECT s.id AS store_id, s.slug, (SELECT min(h.hostname) FROM store_hostnames h WHERE h.store_id = s.id) AS detail FROM stores s
		WHERE s.status = 'deleted' AND EXISTS (SELECT 1 FROM store_hostnames h WHERE h.store_id = s.id AND h.created_at < $1)`},
}

// Inconsistencies yields the inconsistencies in the registry, one kind after the other. An
// error ends the sequence. It checks no permissions: it is for the operator.
func (r *Registry) Inconsistencies(ctx context.Context) iter.Seq2[Inconsistency, error] {
	return func(yield func(Inconsistency, error) bool) {
		for _, kind := range inconsistencyQueries {
			for i, err := range r.inconsistenciesOf(ctx, kind.query) {
				i.Kind = kind.kind
				if !yield(i, err) || err != nil {
					return
				}
			}
		}
	}
}

func (r *Registry) inconsistenciesOf(ctx context.Context, query string) iter.Seq2[Inconsistency, error] {
	before := r.db.Now().Add(-overdueAfter)
	return page.All(func(i Inconsistency) stoa.StoreID { return i.StoreID }, func(after stoa.StoreID) (list []Inconsistency, err error) {
		err = r.db.Select(ctx, &list, query+` AND s.id > $2 ORDER BY s.id LIMIT $3`, before, after, page.Part)
		return list, err
	})
}

// Repair repairs an inconsistency, unless it no longer exists.
func (r *Registry) Repair(ctx context.Context, i Inconsistency) error {
	var pending []DeleteStore
	if i.Kind == DeletionOverdue || i.Kind == DeletedWithDatabase {
		var err error
		if pending, err = jobs.Unfinished[DeleteStore](ctx, r.db); err != nil {
			return err
		}
	}
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		l, err := lockLifecycle(ctx, tx, i.StoreID)
		if err != nil {
			return err
		}
		switch i.Kind {
		case ActiveWithoutDatabase:
			return resetToPending(ctx, tx, i.StoreID, l)
		case DeletionOverdue, DeletedWithDatabase:
			for _, job := range pending {
				if job.StoreID == i.StoreID {
					return nil // the job is being retried
				}
			}
			return r.queue.Enqueue(ctx, tx, DeleteStore{StoreID: i.StoreID})
		case HostnameOfDeleted:
			if l.Status != Deleted {
				return nil
			}
			if err := hostnames.Release(ctx, tx, i.StoreID); err != nil {
				return err
			}
			return hostnames.NotifyChange(tx, i.StoreID)
		}
		return nil
	})
}

// resetToPending moves a store that lost its database to pending_database, so
// that its owner can connect another.
func resetToPending(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, l lifecycle) error {
	var databases int
	if err := tx.Get(ctx, &databases, `SELECT count(*) FROM store_databases WHERE store_id = $1`, id); err != nil || databases > 0 {
		return err
	}
	if l.Status != Active && l.Status != Suspended {
		return nil
	}
	l.Status, l.SuspendedByOperator = PendingDatabase, false
	return writeLifecycle(ctx, tx, id, l)
}
