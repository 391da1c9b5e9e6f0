package tenantdb

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Info is what may be shown of a store's database: never a secret.
type Info struct {
	Kind          Kind
	Engine        EngineName
	Host          string
	Port          int
	DatabaseName  string
	Status        Status
	SchemaVersion int64
	LastCheckedAt *time.Time
}

// Status is what the last attempt to use a database found.
type Status string

// The states of a database as last seen.
const (
	StatusUnknown Status = "unknown"
	StatusOK      Status = "ok"
	StatusFailed  Status = "failed"
)

// Save encrypts c and stores it for the store, in place of what was there.
// The credential version grows with each call. When tx has committed, every
// replica retires the pool it has open: see Forget.
func (m *Manager) Save(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, c Credentials) error {
	if c.Engine == SQLite && c.Database != store.String() {
		return errors.New("tenantdb: the embedded database of another store")
	}
	envelope, err := c.seal(m.ring, store)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials,
			credential_version, status, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 'unknown', $8, $8)
		ON CONFLICT (store_id) DO UPDATE SET kind = excluded.kind, engine = excluded.engine, host = excluded.host,
			port = excluded.port, database_name = excluded.database_name, credentials = excluded.credentials,
			credential_version = store_databases.credential_version + 1, schema_version = 0,
			status = 'unknown', last_error = NULL, last_checked_at = NULL, updated_at = excluded.updated_at`,
		store, string(c.Kind), string(c.Engine), c.Host, c.Port, c.Database, envelope, tx.Now)
	if err != nil {
		return err
	}
	return notifyCredentials(ctx, tx, store)
}

// Load decrypts a store's credentials. Without any it returns
// store_pending_database.
func (m *Manager) Load(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (Credentials, error) {
	var envelope string
	err := q.Get(ctx, &envelope, `SELECT credentials FROM store_databases WHERE store_id = $1`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Credentials{}, stoa.Errorf(stoa.StorePendingDatabase, "This store has no database yet. Connect one first.")
	}
	if err != nil {
		return Credentials{}, err
	}
	return unseal(m.ring, store, envelope)
}

// ReadInfo describes a store's database, or returns nil when none was ever
// connected.
func ReadInfo(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (*Info, error) {
	var info Info
	err := q.Get(ctx, &info, `
		SELECT kind, engine, host, port, database_name, status, schema_version, last_checked_at
		FROM store_databases WHERE store_id = $1`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented: no database, no info
	}
	if err != nil {
		return nil, err
	}
	return &info, nil
}

// RecordHealth notes what an attempt to use the database found; cause is nil
// when it worked.
func RecordHealth(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, cause error) error {
	status, code := StatusOK, (*string)(nil)
	if cause != nil {
		c := string(stoa.CodeOf(cause))
		status, code = StatusFailed, &c
	}
	_, err := tx.Exec(ctx, `UPDATE store_databases SET status = $2, last_error = $3, last_checked_at = $4 WHERE store_id = $1`,
		store, string(status), code, tx.Now)
	return err
}

// RecordSchema notes the schema version of a store's database.
func RecordSchema(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, version int64) error {
	_, err := tx.Exec(ctx, `UPDATE store_databases SET schema_version = $2, updated_at = $3 WHERE store_id = $1`,
		store, version, tx.Now)
	return err
}
