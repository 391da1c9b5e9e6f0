package tenantdb

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// MigrationStatus is the result of a migration of a store's database.
type MigrationStatus struct {
	CredentialVersion int64     // of the credentials that it used
	Schema            Schema    // 0 if unknown
	Code              stoa.Code // reason for the failure; "" after a success
	Message           string    // the reason as text for the operator
}

// RecordSchema records the schema version of a store's database.
func RecordSchema(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, schema Schema) error {
	return tx.ExecLater(ctx, `UPDATE store_databases SET schema_version = $2, own_version = $3, updated_at = $4 WHERE store_id = $1`,
		store, schema.Version, schema.Own, tx.Now)
}

// movePreventsMigration is the SQL condition of moves whose two databases must have the
// present schema: all but those that are complete and are not to be rolled back.
const movePreventsMigration = `finished_at IS NULL AND (step NOT IN ('keep', 'drop') OR wish = 'rollback')`

// NotMoving is the SQL condition that no move prevents the migration of the store's database.
// store is the SQL expression of the store's identifier.
func NotMoving(store string) string {
	return `NOT EXISTS (SELECT 1 FROM store_moves WHERE store_moves.store_id = ` + store + ` AND ` + movePreventsMigration + `)`
}

// BeginMigration counts a migration of a store's database before it starts,
// because a migration that ends with its process leaves no other trace.
// RecordMigration resets the count. version is the version of the credentials. It fails with
// move_in_progress for a store that is being moved to another database. A move that is
// complete can no longer be rolled back, because the old database cannot follow.
func BeginMigration(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, version int64) error {
	_, err := tx.Exec(ctx, `UPDATE store_databases SET migration_starts = migration_starts + 1, migration_started_at = $3
		WHERE store_id = $1 AND credential_version = $2`, store, version, tx.Now)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE store_moves SET keep_until = $2 WHERE store_id = $1 AND step = 'keep' AND wish <> 'rollback' AND keep_until > $2`, store, tx.Now); err != nil {
		return err
	}
	var moves int
	if err := tx.Get(ctx, &moves, `SELECT count(*) FROM store_moves WHERE store_id = $1 AND `+movePreventsMigration, store); err != nil {
		return err
	}
	if moves > 0 {
		return stoa.Errorf(stoa.MoveInProgress, "The store is being moved to another database. It is migrated after the move.")
	}
	return nil
}

// AbandonMigration subtracts a migration that was stopped cleanly from the
// count.
func AbandonMigration(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, version int64) error {
	_, err := tx.Exec(ctx, `UPDATE store_databases SET migration_starts = migration_starts - 1
		WHERE store_id = $1 AND credential_version = $2 AND migration_starts > 0`, store, version)
	return err
}

// RecordMigration records the result of a migration. It records nothing if the
// credentials have been replaced since, because they may name another database. If the
// schema has changed, every replica opens the store's database again, because its
// prepared statements may be invalid.
func RecordMigration(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, s MigrationStatus) error {
	var before struct{ SchemaVersion, OwnVersion, CredentialVersion int64 }
	err := tx.Get(ctx, &before, `SELECT schema_version, own_version, credential_version FROM store_databases WHERE store_id = $1`+tx.ForUpdate(), store)
	if err != nil || before.CredentialVersion != s.CredentialVersion {
		return err
	}
	version, own := max(before.SchemaVersion, s.Schema.Version), max(before.OwnVersion, s.Schema.Own)
	var code, message *string
	increment := 0
	if s.Code != "" {
		code, message, increment = new(string(s.Code)), &s.Message, 1
	}
	_, err = tx.Exec(ctx, `UPDATE store_databases SET schema_version = $2, own_version = $3, migration_error = $4, migration_message = $5,
		migration_attempts = (migration_attempts + 1) * $6, migrated_at = $7, updated_at = $7, migration_starts = 0 WHERE store_id = $1`,
		store, version, own, code, message, increment, tx.Now)
	if err != nil || version == before.SchemaVersion && own == before.OwnVersion {
		return err
	}
	return notifyCredentials(tx, store)
}

// Expected returns the schema version that this process migrates stores to.
func (m *Manager) Expected() Schema {
	return Schema{Version: LatestVersion(), Own: m.opts.Custom.Latest()}
}
