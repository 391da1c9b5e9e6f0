package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Info describes a store's database. It contains no secret.
type Info struct {
	Kind              credential.Kind
	Engine            credential.EngineName
	Host              string
	Port              int
	DatabaseName      string
	Status            Status
	LastError         stoa.Code // reason for the status failed; "" otherwise
	SchemaVersion     int64
	OwnVersion        int64 // of the operator's custom migrations; 0 if there are none
	CredentialVersion int64 // incremented with each change of the credentials
	LastCheckedAt     *time.Time
}

// InfoColumns lists the columns of Info, from store_databases as x.
const InfoColumns = `x.kind, x.engine, x.host, x.port, x.database_name, x.status, coalesce(x.last_error, '') AS last_error,
	x.schema_version, x.own_version, x.credential_version, x.last_checked_at`

// Status is the result of the last attempt to use a database.
type Status string

// These constants are the states of a database after the last attempt to use
// it.
const (
	StatusUnknown Status = "unknown"
	StatusOK      Status = "ok"
	StatusFailed  Status = "failed"
)

// Save encrypts c and stores it for the store, replacing earlier credentials. It
// increments the credential version. When tx has committed, every replica retires
// its open pool: see Forget.
func (m *Manager) Save(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, c credential.Credentials) error {
	if c.Engine.Embedded() && c.Database != store.String() {
		return errors.New("tenantdb: the embedded database of another store")
	}
	envelope, err := c.Seal(m.ring, store)
	if err != nil {
		return err
	}
	err = tx.ExecLater(ctx, `
		INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials,
			credential_version, status, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 'unknown', $8, $8)
		ON CONFLICT (store_id) DO UPDATE SET kind = excluded.kind, engine = excluded.engine, host = excluded.host,
			port = excluded.port, database_name = excluded.database_name, credentials = excluded.credentials,
			credential_version = store_databases.credential_version + 1, schema_version = 0, own_version = 0,
			migration_attempts = 0, migration_error = NULL, migration_message = NULL, migrated_at = NULL, migration_starts = 0,
			status = 'unknown', last_error = NULL, last_checked_at = NULL, exposure_checked_at = NULL, exposure_error = NULL,
			updated_at = excluded.updated_at`,
		store, string(c.Kind), string(c.Engine), c.Host, c.Port, c.Database, envelope, tx.Now)
	if err != nil {
		return err
	}
	return notifyCredentials(tx, store)
}

// Amend changes the stored credentials of a store in tx, with the row locked, and returns
// them. The database stays the same, and so do its schema version and health. If change
// reports that the way to sign in is another, the credential version is incremented, and
// every replica retires its open pool: see Forget. It fails as Load does.
func (m *Manager) Amend(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, change func(*credential.Credentials) (renewed bool)) (credential.Credentials, error) {
	if _, err := tx.Exec(ctx, `UPDATE store_databases SET updated_at = updated_at WHERE store_id = $1`, store); err != nil {
		return credential.Credentials{}, err // on PostgreSQL, it waits for others that change the row
	}
	c, err := m.Load(ctx, tx, store)
	if err != nil {
		return c, err
	}
	before, more := c, 0
	renewed := change(&c)
	if c == before {
		return c, nil
	}
	if renewed {
		more = 1
	}
	envelope, err := c.Seal(m.ring, store)
	if err != nil {
		return c, err
	}
	_, err = tx.Exec(ctx, `UPDATE store_databases SET credentials = $2, credential_version = credential_version + $3, updated_at = $4
		WHERE store_id = $1`, store, envelope, more, tx.Now)
	if err != nil || !renewed {
		return c, err
	}
	return c, notifyCredentials(tx, store)
}

// Registered is the stored record of a store's database.
type Registered struct {
	Credentials credential.Credentials
	Version     int64  // of the credentials; incremented with each change
	Schema      Schema // as last recorded
	Restoring   bool   // an archive is being loaded into it
}

// Load returns a store's decrypted credentials, or store_pending_database if it has
// none; see Read.
func (m *Manager) Load(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (credential.Credentials, error) {
	r, err := m.Read(ctx, q, store)
	return r.Credentials, err
}

// Read returns the record of a store's database. It fails with
// database_credentials_lost when the encryption key of the credentials is missing.
func (m *Manager) Read(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (Registered, error) {
	row, err := readRegistered(ctx, q, store)
	if err != nil {
		return Registered{}, err
	}
	return m.unsealRow(store, row)
}

// registeredRow is the row that Registered is read from.
type registeredRow struct {
	Credentials       string
	CredentialVersion int64
	SchemaVersion     int64
	OwnVersion        int64
	Restoring         bool
}

func readRegistered(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (row registeredRow, err error) {
	err = q.Get(ctx, &row, `SELECT credentials, credential_version, schema_version, own_version, restoring FROM store_databases
		WHERE store_id = $1 AND credentials <> ''`, store) // credentials are '' after they were destroyed
	if errors.Is(err, masterdb.ErrNotFound) {
		err = stoa.Errorf(stoa.StorePendingDatabase, "This store has no database yet. Connect one first.")
	}
	return row, err
}

func (m *Manager) unsealRow(store stoa.StoreID, row registeredRow) (Registered, error) {
	c, err := credential.Unseal(m.ring, store, row.Credentials)
	if err != nil {
		err = credentialsLost(err)
	}
	return Registered{
		Credentials: c, Version: row.CredentialVersion,
		Schema: Schema{Version: row.SchemaVersion, Own: row.OwnVersion}, Restoring: row.Restoring,
	}, err
}

// credentialsLost returns the error for credentials that cannot be decrypted: the key
// is missing or the row was changed. It concerns one store only.
func credentialsLost(cause error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseCredentialsLost, "The stored credentials of this store's database cannot be decrypted. "+
		"The operator can give the platform the key they were encrypted with; or give the store new ones: rotate its credentials.").WithCause(cause)
}

// SealedCredentials names the column that contains encrypted credentials, for key
// rotation.
func SealedCredentials() keyrotation.Column {
	return keyrotation.Column{Table: "store_databases", Key: "store_id", Name: "credentials", Owner: credential.SealOwner}
}

// SealedMoves names the columns of moves that contain encrypted credentials.
func SealedMoves() []keyrotation.Column {
	return []keyrotation.Column{
		{Table: "store_moves", Key: "store_id", Name: "source_credentials", Owner: credential.SealOwner},
		{Table: "store_moves", Key: "store_id", Name: "target_credentials", Owner: credential.SealOwner},
	}
}

// SealCredentials encrypts credentials that the store does not use yet, or no longer.
func (m *Manager) SealCredentials(store stoa.StoreID, c credential.Credentials) (string, error) {
	return c.Seal(m.ring, store)
}

// UnsealCredentials decrypts what SealCredentials returned for the same store.
func (m *Manager) UnsealCredentials(store stoa.StoreID, envelope string) (credential.Credentials, error) {
	c, err := credential.Unseal(m.ring, store, envelope)
	if err != nil {
		return c, credentialsLost(err)
	}
	return c, nil
}

// readable returns tenant_unavailable for a store that is being restored, and for one
// whose schema is too old for this binary. Version 0 means that no version was recorded
// yet.
func (r Registered) readable() error {
	if r.Restoring {
		return errRestoring()
	}
	if v := r.Schema.Version; v == 0 || v >= OldestReadable {
		return nil
	}
	e := stoa.Errorf(stoa.TenantUnavailable, "This store is being brought up to date. Try again shortly.")
	e.RetryAfter = migrationRetryAfter
	return e.WithCause(fmt.Errorf("its schema has version %d, this binary needs %d: 'stoa tenants migrate'", r.Schema.Version, OldestReadable))
}

// migrationRetryAfter is the time after which a shopper is asked to retry while
// the store is migrated.
const migrationRetryAfter = 30 * time.Second

// ReadInfo returns the description of a store's database, or nil if none was
// ever connected.
func ReadInfo(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (*Info, error) {
	var found []*Info
	if err := q.Batch(ctx, InfoQuery(&found, store)); err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// InfoQuery is the query of ReadInfo. It finds none or one.
func InfoQuery(found *[]*Info, store stoa.StoreID) masterdb.Query {
	return masterdb.All(found, `SELECT `+InfoColumns+` FROM store_databases x WHERE x.store_id = $1`, store)
}

// CountManaged is the query for how many managed databases belong to the other stores of the
// user who created the store. It includes databases that are yet to be created or dropped.
func CountManaged(n *int, store stoa.StoreID) masterdb.Query {
	return masterdb.One(n, `SELECT count(*) FROM store_databases d JOIN stores s ON s.id = d.store_id
		WHERE s.created_by = (SELECT created_by FROM stores WHERE id = $1) AND d.kind = 'managed' AND d.store_id <> $1`, store)
}

// RecordHealth records the result of an attempt to use the database. cause is nil for
// a success.
func RecordHealth(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, cause error) error {
	return RecordHealthOf(ctx, tx, store, 0, cause)
}

// RecordHealthOf records the result of an attempt with the given version of the
// credentials. It records nothing if the credentials have been replaced since.
func RecordHealthOf(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, version int64, cause error) error {
	status, code := StatusOK, (*string)(nil)
	if cause != nil {
		c := string(HealthCode(cause))
		status, code = StatusFailed, &c
	}
	return tx.ExecLater(ctx, `UPDATE store_databases SET status = $2, last_error = $3, last_checked_at = $4
		WHERE store_id = $1 AND (credential_version = $5 OR $5 = 0)`, store, string(status), code, tx.Now, version)
}

// RecordExposure records whether an HTTP API can reach the store's tables, as
// checked with the given version of the credentials. cause is nil if no HTTP
// API can reach them. It records nothing if the credentials have been replaced
// since; version 0 means any version.
func RecordExposure(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, version int64, cause error) error {
	var code *string
	if cause != nil {
		c := string(stoa.CodeOf(cause))
		code = &c
	}
	return tx.ExecLater(ctx, `UPDATE store_databases SET exposure_checked_at = $2, exposure_error = $3
		WHERE store_id = $1 AND (credential_version = $4 OR $4 = 0)`, store, tx.Now, code, version)
}

// Destroy permanently removes a store's credentials, in the transaction that
// deletes the store. The rest of the record stays until DeleteRecord, because a
// managed database must still be dropped.
func Destroy(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	err := tx.ExecLater(ctx, `UPDATE store_databases SET credentials = '', credential_version = credential_version + 1, updated_at = $2
		WHERE store_id = $1`, store, tx.Now)
	if err != nil {
		return err
	}
	return notifyCredentials(tx, store)
}

// DeleteRecord deletes the record of a database that was dropped or does not belong to
// Stoa.
func DeleteRecord(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	return tx.ExecLater(ctx, `DELETE FROM store_databases WHERE store_id = $1`, store)
}
