package tenantdb

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
)

// MarkerTable is the table whose one row says which store a database belongs
// to. It is created before the first migration. It is not part of the schema
// that migrations create.
const MarkerTable = "stoa_tenant"

// ErrMarked means that the database belongs to another store.
var ErrMarked = errors.New("tenantdb: the database is marked as another store's")

// Mark marks the database as the store's, permanently. If several stores call
// it at the same time, one succeeds; the others get ErrMarked and have changed
// nothing. It does nothing if the store already has the database.
//
// An interruption may leave a marker table without a row. Such a database
// belongs to no store.
func (db *DB) Mark(ctx context.Context, store stoa.StoreID) error {
	const attempts = 3
	for attempt := 1; ; attempt++ {
		err := db.mark(ctx, store)
		if !lostRace(err) {
			return err
		}
		marked, readErr := db.Marked(ctx, store)
		switch {
		case marked || readErr != nil:
			return readErr
		case attempt == attempts:
			return err
		}
	}
}

func (db *DB) mark(ctx context.Context, store stoa.StoreID) error {
	if _, err := db.Exec(ctx, db.dialect.marker); err != nil {
		return err
	}
	_, err := db.Exec(ctx, `INSERT INTO `+MarkerTable+` (single_row, store_id, created_at) VALUES (1, ?, ?)`,
		store, time.Now().UTC().Truncate(time.Microsecond))
	return err
}

// lostRace reports whether another caller was faster. That caller has inserted
// the row or, on PostgreSQL, created the table or its type: IF NOT EXISTS does
// not wait for a concurrent creation.
func lostRace(err error) bool {
	return IsUnique(err) || IsState(err, "42P07") || IsState(err, "42710")
}

// Marked reports whether a database that has MarkerTable is marked as the
// store's. It fails with ErrMarked if it is marked as another store's. It
// returns false if the database is not marked.
func (db *DB) Marked(ctx context.Context, store stoa.StoreID) (bool, error) {
	var ids []string
	if err := db.Select(ctx, &ids, `SELECT substr(store_id, 1, 37) AS store_id FROM `+MarkerTable+` LIMIT 2`); err != nil {
		return false, err
	}
	for _, id := range ids {
		if id != store.String() {
			return false, ErrMarked
		}
	}
	return len(ids) > 0, nil
}
