package stores

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

const selectStore = `SELECT s.id, s.name, s.slug, s.status, s.created_at, s.updated_at, s.delete_after, s.held FROM stores s`

// ListAll lists the stores of every owner, newest first, up to limit and after the store
// before. It lists the stores of one status unless status is "". The zero id means from
// the beginning. Like List it opens no tenant database. It checks no permissions: its
// callers have access to the master database.
func ListAll(ctx context.Context, q masterdb.Querier, status Status, before stoa.StoreID, limit int) ([]Store, error) {
	if before.IsZero() {
		before = page.LastID[stoa.StoreID]()
	}
	where, args := ` WHERE s.id < $1`, []any{before, limit}
	if status != "" {
		where, args = where+` AND s.status = $3`, append(args, string(status))
	}
	var list []Store
	err := q.Select(ctx, &list, selectStore+where+` ORDER BY s.id DESC LIMIT $2`, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if status != "" {
		// Stores of one status may be far apart: the details of those between them are not read.
		return list, addDetailsOf(ctx, q, list)
	}
	return list, addDetails(ctx, q, list, ` WHERE x.store_id <= $1 AND x.store_id >= $2`, list[0].ID, list[len(list)-1].ID)
}

// Find returns the store with that id, slug or hostname, deleted ones included, with the
// details of ListAll. It fails with store_not_found and checks no permissions.
func Find(ctx context.Context, q masterdb.Querier, name string) (Store, error) {
	where, arg := `s.slug = $1`, any(name)
	if id, err := stoa.ParseID[stoa.StoreID](name); err == nil {
		where, arg = `s.id = $1`, id
	}
	page := make([]Store, 1)
	err := q.Get(ctx, &page[0], selectStore+` WHERE `+where, arg)
	if errors.Is(err, masterdb.ErrNotFound) {
		if name, invalid := hostnames.Normalize(name); invalid == nil {
			err = q.Get(ctx, &page[0], selectStore+` JOIN store_hostnames h ON h.store_id = s.id WHERE h.hostname = $1`, name)
		}
	}
	if errors.Is(err, masterdb.ErrNotFound) {
		return Store{}, stoa.Errorf(stoa.StoreNotFound, "No store has the id, slug or hostname %.100q.", name)
	}
	if err != nil {
		return Store{}, err
	}
	return page[0], addDetails(ctx, q, page, ` WHERE x.store_id = $1`, page[0].ID)
}
