package stores

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
)

// Disorder is a kind of thing that should not be in the registry. Its value
// is part of what 'stoa doctor --fleet --json' prints.
type Disorder string

// The disorders that the registry alone shows.
const (
	ActiveWithoutDatabase Disorder = "active_without_database"
	DeletionOverdue       Disorder = "deletion_overdue"
	DatabaseLeft          Disorder = "deleted_with_database"
	HostnameOfDeleted     Disorder = "hostname_of_deleted"
)

// Case is one disorder of one store.
type Case struct {
	Disorder Disorder
	StoreID  stoa.StoreID
	Slug     string
	Detail   string // a time, a hostname, an error's code
}

// overdueAfter is how late a deletion is that something is wrong with.
const overdueAfter = 10 * time.Minute

// disorders are the queries that find them; $1 is the time from which on a
// deletion is overdue.
var disorders = []struct {
	name  Disorder
	query string
}{
	{ActiveWithoutDatabase, `SELECT s.id AS store_id, s.slug, s.status AS detail FROM stores s
		WHERE s.status IN ('active', 'suspended') AND s.created_at < $1 AND NOT EXISTS (SELECT 1 FROM store_databases d WHERE d.store_id = s.id)`},
	{DeletionOverdue, `SELECT s.id AS store_id, s.slug, coalesce(s.status_before, '') AS detail FROM stores s WHERE s.status = 'deleting' AND s.delete_after < $1`},
	{DatabaseLeft, `SELECT s.id AS store_id, s.slug, coalesce(d.last_error, '') AS detail FROM stores s
		JOIN store_databases d ON d.store_id = s.id WHERE s.status = 'deleted' AND d.updated_at < $1`},
	{HostnameOfDeleted, `SELECT s.id AS store_id, s.slug, h.hostname AS detail FROM stores s
		JOIN store_hostnames h ON h.store_id = s.id WHERE s.status = 'deleted' AND h.created_at < $1`},
}

// Disorders finds what should not be in the registry. It is the operator's
// and asks nobody.
func (r *Registry) Disorders(ctx context.Context) (found []Case, err error) {
	for _, d := range disorders {
		var cases []Case
		if err := r.db.Select(ctx, &cases, d.query+` ORDER BY s.id`, r.db.Now().Add(-overdueAfter)); err != nil {
			return nil, err
		}
		for _, c := range cases {
			c.Disorder = d.name
			found = append(found, c)
		}
	}
	return found, nil
}

// Mend puts a case in order, unless that has happened meanwhile.
func (r *Registry) Mend(ctx context.Context, c Case) error {
	var pending []DeleteStore
	if c.Disorder == DeletionOverdue || c.Disorder == DatabaseLeft {
		var err error
		if pending, err = jobs.Unfinished[DeleteStore](ctx, r.db); err != nil {
			return err
		}
	}
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		l, err := lockLife(ctx, tx, c.StoreID)
		if err != nil {
			return err
		}
		switch c.Disorder {
		case ActiveWithoutDatabase:
			return r.reopen(ctx, tx, c.StoreID, l)
		case DeletionOverdue, DatabaseLeft:
			for _, job := range pending {
				if job.StoreID == c.StoreID {
					return nil // it is being tried
				}
			}
			return r.queue.Enqueue(ctx, tx, DeleteStore{StoreID: c.StoreID})
		case HostnameOfDeleted:
			if l.Status != Deleted {
				return nil
			}
			if err := freeHostnames(ctx, tx, c.StoreID); err != nil {
				return err
			}
			return notify(tx, c.StoreID)
		}
		return nil
	})
}

// reopen has a store that lost its database ask its owner for one.
func (r *Registry) reopen(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, l life) error {
	var databases int
	if err := tx.Get(ctx, &databases, `SELECT count(*) FROM store_databases WHERE store_id = $1`, id); err != nil || databases > 0 {
		return err
	}
	if l.Status != Active && l.Status != Suspended {
		return nil
	}
	l.Status, l.Held = PendingDatabase, false
	return writeLife(ctx, tx, id, l)
}
