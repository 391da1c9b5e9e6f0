package masterdb

import (
	"context"
	"errors"
	"fmt"
)

// Schema describes the version of the master database's schema and which releases may run
// on it. A release is identified by the number of its last migration.
type Schema struct {
	Version int64 // of the database; 0 before the first migration
	Binary  int64 // of this binary
	// OldestBinary is the oldest release that may run on the schema; 0 when the
	// schema does not state it.
	OldestBinary int64
	// Restoring is set while a restore of the whole database is incomplete.
	Restoring bool
}

// ErrSchemaTooNew means that a newer release has migrated the schema and that this release
// must not run on it.
var ErrSchemaTooNew = errors.New("this release must not run on it: start the release that migrated it, or a newer one")

// ErrSchemaTooOld means that the schema lacks migrations of this release.
var ErrSchemaTooOld = errors.New("migrations are missing")

// ErrRestoreIncomplete means that a restore of the whole database has begun and not ended:
// it runs, or it was interrupted.
var ErrRestoreIncomplete = errors.New("a backup is being restored into it, or that was interrupted")

// RestoreTable is the table that exists as long as a restore is incomplete.
const RestoreTable = "master_restore"

// Schema reads the version and compatibility of the database's schema. It changes nothing.
func (db *DB) Schema(ctx context.Context) (Schema, error) {
	var s Schema
	var err error
	if s.Binary, err = LatestVersion(); err != nil {
		return s, err
	}
	if s.Restoring, err = db.hasTable(ctx, RestoreTable); err != nil {
		return s, err
	}
	there, err := db.hasTable(ctx, "goose_db_version")
	if err != nil || !there {
		return s, err
	}
	if err := db.Get(ctx, &s.Version, `SELECT coalesce(max(version_id), 0) FROM goose_db_version`); err != nil {
		return s, err
	}
	there, err = db.hasTable(ctx, "schema_compatibility")
	if err != nil || !there {
		return s, err
	}
	return s, db.Get(ctx, &s.OldestBinary, `SELECT coalesce(max(oldest_binary), 0) FROM schema_compatibility`)
}

// Newer reports whether a newer release has migrated the schema.
func (s Schema) Newer() bool { return s.Version > s.Binary }

// Check returns nil when this binary may run on the schema as it is: the versions are
// equal, or the schema is newer and states that this release may run on it. Otherwise it
// returns ErrRestoreIncomplete, ErrSchemaTooOld or ErrSchemaTooNew.
func (s Schema) Check() error {
	switch {
	case s.Restoring:
		return ErrRestoreIncomplete
	case s.Version < s.Binary:
		return fmt.Errorf("version %d, this binary needs %d: %w", s.Version, s.Binary, ErrSchemaTooOld)
	case s.Newer() && s.OldestBinary == 0:
		return fmt.Errorf("version %d is newer than this binary (%d) and does not state which releases may run on it: %w", s.Version, s.Binary, ErrSchemaTooNew)
	case s.Newer() && s.OldestBinary > s.Binary:
		return fmt.Errorf("version %d is newer than this binary (%d) and needs a release of version %d or newer: %w", s.Version, s.Binary, s.OldestBinary, ErrSchemaTooNew)
	}
	return nil
}

// refuseNewer returns ErrSchemaTooNew if this binary must not run on the schema, and
// ErrRestoreIncomplete if nothing may.
func (db *DB) refuseNewer(ctx context.Context) error {
	s, err := db.Schema(ctx)
	if err != nil {
		return err
	}
	if err := s.Check(); errors.Is(err, ErrSchemaTooNew) || errors.Is(err, ErrRestoreIncomplete) {
		return fmt.Errorf("master database schema: %w", err)
	}
	return nil
}

func (db *DB) hasTable(ctx context.Context, name string) (there bool, err error) {
	query := `SELECT to_regclass($1) IS NOT NULL`
	if db.Engine == SQLite {
		query = `SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = $1`
	}
	err = db.Get(ctx, &there, query, name)
	return there, err
}
