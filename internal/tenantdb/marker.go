package tenantdb

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// MarkerTable says whose a database is, in one row, from before its first
// migration on. It is no part of the schema that migrations make.
const MarkerTable = "stoa_tenant"

// ErrMarked means that the database is another store's.
var ErrMarked = errors.New("tenantdb: the database is marked as another store's")

// markerDDL differs in how an engine names a moment. The ids are compared in
// Go: no collation has a say.
var markerDDL = map[credential.EngineName]string{
	credential.SQLite: `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row integer NOT NULL PRIMARY KEY CHECK (single_row = 1),
		store_id text NOT NULL, created_at timestamp NOT NULL)`,
	credential.PostgreSQL: `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row smallint NOT NULL PRIMARY KEY CHECK (single_row = 1),
		store_id varchar(36) NOT NULL, created_at timestamptz NOT NULL)`,
	credential.MySQL: `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row SMALLINT NOT NULL PRIMARY KEY CHECK (single_row = 1),
		store_id VARCHAR(36) NOT NULL, created_at DATETIME(6) NOT NULL) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci`,
}

// Mark makes the database the store's own, once and for all: of several stores
// that come at once one wins, and the others get ErrMarked and have changed
// nothing. For the store that has it, it does nothing.
//
// What an interruption leaves, a marker table without its row, is nobody's.
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
	if _, err := db.Exec(ctx, markerDDL[db.Engine]); err != nil {
		return err
	}
	_, err := db.Exec(ctx, `INSERT INTO `+MarkerTable+` (single_row, store_id, created_at) VALUES (1, ?, ?)`,
		store, time.Now().UTC().Truncate(time.Microsecond))
	return err
}

// lostRace: another caller was faster, with the row or, on PostgreSQL, with
// the table or its type, whose IF NOT EXISTS does not wait for a creation
// under way.
func lostRace(err error) bool {
	return IsUnique(err) || isState(err, "42P07") || isState(err, "42710")
}

// Marked reports whether a database that has MarkerTable is marked as the
// store's. It fails with ErrMarked when it is another's, and is false when
// nobody has it yet.
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
