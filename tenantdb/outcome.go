package tenantdb

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Outcome is how a migration of a store's database ended.
type Outcome struct {
	CredentialVersion int64     // of the credentials it used
	Schema            Schema    // how far the schema is; 0 where that is unknown
	Code              stoa.Code // why it failed; "" when it went well
	Message           string    // the same for the operator
}

// RecordSchema notes how far a store's database is.
func RecordSchema(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, schema Schema) error {
	_, err := tx.Exec(ctx, `UPDATE store_databases SET schema_version = $2, own_version = $3, updated_at = $4 WHERE store_id = $1`,
		store, schema.Version, schema.Own, tx.Now)
	return err
}

// BeginMigration counts a migration of a store's database before it works: one
// that dies with its process leaves nothing else behind. RecordMigration ends it.
// The version is that of the credentials it uses.
func BeginMigration(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, version int64) error {
	_, err := tx.Exec(ctx, `UPDATE store_databases SET migration_starts = migration_starts + 1, migration_started_at = $3
		WHERE store_id = $1 AND credential_version = $2`, store, version, tx.Now)
	return err
}

// AbandonMigration takes a migration off the count that was stopped cleanly.
func AbandonMigration(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, version int64) error {
	_, err := tx.Exec(ctx, `UPDATE store_databases SET migration_starts = migration_starts - 1
		WHERE store_id = $1 AND credential_version = $2 AND migration_starts > 0`, store, version)
	return err
}

// RecordMigration notes how a migration ended. If the credentials have been
// replaced since, it notes nothing: it was another database. Where the schema
// has changed, every replica opens the store's database anew, for what it
// prepared on it may no longer fit.
func RecordMigration(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, o Outcome) error {
	var before struct{ SchemaVersion, OwnVersion, CredentialVersion int64 }
	err := tx.Get(ctx, &before, `SELECT schema_version, own_version, credential_version FROM store_databases WHERE store_id = $1`+tx.ForUpdate(), store)
	if err != nil || before.CredentialVersion != o.CredentialVersion {
		return err
	}
	version, own := max(before.SchemaVersion, o.Schema.Version), max(before.OwnVersion, o.Schema.Own)
	var code, message *string
	increment := 0
	if o.Code != "" {
		code, message, increment = new(string(o.Code)), &o.Message, 1
	}
	_, err = tx.Exec(ctx, `UPDATE store_databases SET schema_version = $2, own_version = $3, migration_error = $4, migration_message = $5,
		migration_attempts = (migration_attempts + 1) * $6, migrated_at = $7, updated_at = $7, migration_starts = 0 WHERE store_id = $1`,
		store, version, own, code, message, increment, tx.Now)
	if err != nil || version == before.SchemaVersion && own == before.OwnVersion {
		return err
	}
	return notifyCredentials(tx, store)
}

// Expected is how far this process brings a store: the binary's schema and
// the operator's.
func (m *Manager) Expected() Schema { return Schema{LatestVersion(), m.opts.Own.Latest()} }
