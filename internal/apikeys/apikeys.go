// Package apikeys holds the API keys of programs: their creation, list and
// revocation, and the authentication of a caller by a key. A key acts for the
// user who created it, in one store and within its scopes. The package owns the
// table api_keys, which stores the hash of a key only.
package apikeys

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
)

const (
	// prefix lets secret scanners recognise a leaked key. The checksum lets them
	// reject a string that only resembles one.
	prefix       = "stoa_live_"
	randomLength = 26 // characters of base32: 130 bits
	sumLength    = 7  // characters of base32: a CRC-32
	shownLength  = len(prefix) + 4

	// useInterval is the minimum time between two updates of a key's last use.
	useInterval = time.Minute

	// retention is how long revoked and expired keys are kept.
	retention = 90 * 24 * time.Hour
)

// Key describes an API key of a store. It does not contain the key itself.
type Key struct {
	ID         stoa.KeyID
	Name       string
	Prefix     string // the first characters, by which its owner recognises it
	Scopes     string // separated by spaces
	CreatedBy  stoa.UserID
	CreatedAt  time.Time
	ExpiresAt  *time.Time // nil: never
	LastUsedAt *time.Time // to the minute
}

// Service manages the API keys of stores. It is safe for concurrent use.
type Service struct {
	db    *masterdb.DB
	limit int
}

// New returns the service on db. limit is how many keys a store may have; 0 is
// no limit.
func New(db *masterdb.DB, limit int) *Service { return &Service{db: db, limit: limit} }

// NewKey describes a key to create.
type NewKey struct {
	Name      string
	Scopes    []string
	ExpiresAt *time.Time // nil: never
	// FormKey identifies the form that asks for the key, unless it is empty: a form that
	// is sent again makes no second key.
	FormKey string
}

const maxFormKey = 100 // bytes

// Create creates a key that acts for the caller in the store, within the key's
// scopes and the caller's role, as long as they are a member. It returns the key
// itself, which cannot be read again. It fails with invalid_request, naming
// every fault, with quota_exceeded, with idempotency_conflict when the form has made a
// key already, and with email_unverified until the caller's address is verified.
func (s *Service) Create(ctx context.Context, p authz.Principal, store stoa.StoreID, n NewKey) (Key, keyring.Secret, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ManageKeys); err != nil {
		return Key{}, keyring.Secret{}, err
	}
	if err := p.InPerson(); err != nil {
		return Key{}, keyring.Secret{}, err
	}
	secret := generate()
	key := Key{ID: stoa.NewID[stoa.KeyID](), Prefix: secret.Reveal()[:shownLength], CreatedBy: p.UserID}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := authz.CheckVerified(ctx, tx, p); err != nil {
			return err
		}
		if err := key.fill(n, tx.Now); err != nil {
			return err
		}
		if err := s.checkQuota(ctx, tx, store); err != nil {
			return err
		}
		return insert(ctx, tx, p, store, key, n.FormKey, secret)
	})
	if err != nil {
		return Key{}, keyring.Secret{}, err
	}
	return key, secret, nil
}

// fill sets what was requested. It fails with invalid_request, naming every fault.
func (k *Key) fill(n NewKey, now time.Time) error {
	var faults stoa.Invalid
	var fault string
	if k.Name, fault = stoa.NormalName(n.Name); fault != "" {
		faults.Add("name", "%s", fault)
	}
	scopes := slices.Compact(slices.Sorted(slices.Values(n.Scopes)))
	if len(scopes) == 0 {
		faults.Add("scopes", "must name at least one of %v", authz.Scopes())
	}
	for _, scope := range scopes {
		if !slices.Contains(authz.Scopes(), authz.Scope(scope)) {
			faults.Add("scopes", "there is no scope %.40q; there are %v", scope, authz.Scopes())
			break
		}
	}
	if len(n.FormKey) > maxFormKey || !utf8.ValidString(n.FormKey) || strings.Contains(n.FormKey, "\x00") {
		faults.Add("key", "is not that of a form")
	}
	k.Scopes, k.CreatedAt = strings.Join(scopes, " "), now
	if n.ExpiresAt != nil {
		at := n.ExpiresAt.UTC().Truncate(time.Microsecond)
		k.ExpiresAt = &at
		if !at.After(now) || at.Year() > 9999 {
			faults.Add("expiresAt", "must be in the future")
		}
	}
	return faults.Err()
}

// checkQuota fails with quota_exceeded when the store has reached its limit of
// keys. It locks the store until tx ends.
func (s *Service) checkQuota(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	if err := quotas.LockStore(ctx, tx, store); err != nil {
		return err
	}
	var used int
	if err := tx.Get(ctx, &used, `SELECT count(*) FROM api_keys WHERE store_id = $1 AND revoked_at IS NULL`, store); err != nil {
		return err
	}
	if quotas.Exceeded(s.limit, used) {
		return quotas.Error(quotas.APIKeys, s.limit, used, "This store has %d API keys, and %d are allowed. Revoke one that is not used.", used, s.limit)
	}
	return nil
}

func insert(ctx context.Context, tx *masterdb.Tx, p authz.Principal, store stoa.StoreID, k Key, formKey string, secret keyring.Secret) error {
	n, err := tx.Exec(ctx, `
		INSERT INTO api_keys (id, store_id, created_by, name, prefix, hash, scopes, created_at, expires_at, form_key)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
		k.ID, store, p.UserID, k.Name, k.Prefix, secret.Hash(), k.Scopes, tx.Now, k.ExpiresAt, sql.NullString{String: formKey, Valid: formKey != ""})
	if err != nil {
		return err
	}
	if n == 0 {
		return stoa.Errorf(stoa.IdempotencyConflict,
			"This form has made a key already, which was shown once. If you have not kept it, revoke it and make another one.")
	}
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.KeyCreated, Store: store,
		Details: map[string]string{"key": k.ID.String(), "name": k.Name, "scopes": k.Scopes}})
}

// List returns the store's keys that are not revoked, newest first.
func (s *Service) List(ctx context.Context, p authz.Principal, store stoa.StoreID) ([]Key, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ManageKeys); err != nil {
		return nil, err
	}
	var out []Key
	err := s.db.Select(ctx, &out, `
		SELECT id, name, prefix, scopes, created_by, created_at, expires_at, last_used_at
		FROM api_keys WHERE store_id = $1 AND revoked_at IS NULL ORDER BY id DESC`, store)
	return out, err
}

// Revoke revokes a key at once, on every replica. It fails with not_found when
// the store has no such key.
func (s *Service) Revoke(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.KeyID) error {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ManageKeys); err != nil {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND store_id = $3 AND revoked_at IS NULL`, tx.Now, id, store)
		if err != nil {
			return err
		}
		if n == 0 {
			return stoa.Errorf(stoa.NotFound, "This store has no such key.")
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.KeyRevoked, Store: store, Details: map[string]string{"key": id.String()}})
	})
}

// RevokeOfMember revokes the keys that a user created for a store.
func RevokeOfMember(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, user stoa.UserID) error {
	_, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $1 WHERE store_id = $2 AND created_by = $3 AND revoked_at IS NULL`, tx.Now, store, user)
	return err
}

// RevokeOfUser revokes the keys that a user created, in all stores.
func RevokeOfUser(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) error {
	_, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $2 WHERE created_by = $1 AND revoked_at IS NULL`, user, tx.Now)
	return err
}

// IsKey reports whether a credential is meant as an API key, by its prefix.
func IsKey(text string) bool { return strings.HasPrefix(text, prefix) }

// Authenticator finds the principals of keys. It is safe for concurrent use.
type Authenticator struct {
	db   *masterdb.DB
	keys *masterdb.Lookup[string, keyState]
}

// keyState is what decides whether a key may still be used.
type keyState struct {
	authz.Key
	Hash       string
	UserID     stoa.UserID
	ExpiresAt  *time.Time
	RevokedAt  *time.Time
	LastUsedAt *time.Time
	Suspended  bool // the user
}

// NewAuthenticator returns the Authenticator of the keys in db.
func NewAuthenticator(db *masterdb.DB) *Authenticator {
	return &Authenticator{db, masterdb.NewLookup(db, `
		SELECT k.id, k.store_id, k.scopes, k.created_by AS user_id, k.expires_at, k.revoked_at, k.last_used_at, k.hash,
			u.suspended_at IS NOT NULL AS suspended
		FROM api_keys k JOIN store_members m ON m.store_id = k.store_id AND m.user_id = k.created_by JOIN users u ON u.id = k.created_by`,
		`k.hash`, func(k keyState) string { return k.Hash })}
}

// Authenticate returns the principal of an API key. It fails with token_invalid
// for a key that was never issued, is revoked, or whose creator is not a member
// of the store any more, and with token_expired.
func (a *Authenticator) Authenticate(ctx context.Context, text string) (authz.Principal, error) {
	if !isWellFormed(text) {
		return authz.Principal{}, errInvalid()
	}
	k, err := a.keys.Get(ctx, keyring.NewSecret(text).Hash())
	now := a.db.Now()
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return authz.Principal{}, errInvalid()
	case err != nil:
		return authz.Principal{}, err
	case k.Suspended:
		return authz.Principal{}, authz.ErrAccountSuspended()
	case k.RevokedAt != nil:
		return authz.Principal{}, stoa.Errorf(stoa.TokenInvalid, "This API key has been revoked. Make another one.")
	case k.ExpiresAt != nil && !now.Before(*k.ExpiresAt):
		return authz.Principal{}, stoa.Errorf(stoa.TokenExpired, "This API key has expired. Make another one.")
	}
	p := authz.Principal{UserID: k.UserID, Key: k.Key}
	if k.LastUsedAt == nil || now.Sub(*k.LastUsedAt) >= useInterval {
		return p, recordUse(ctx, a.db, k.ID)
	}
	return p, nil
}

// recordUse updates the key's last use. Of concurrent calls only one updates it.
func recordUse(ctx context.Context, db *masterdb.DB, id stoa.KeyID) error {
	return db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE api_keys SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at <= $3)`,
			tx.Now, id, tx.Now.Add(-useInterval))
		return err
	})
}

// generate returns a new random key.
func generate() keyring.Secret {
	text := rand.Text()[:randomLength]
	return keyring.NewSecret(prefix + text + checksum(text))
}

// checksum detects a mistyped key without a query.
func checksum(text string) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(text)))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum)
}

func isWellFormed(s string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) == randomLength+sumLength && checksum(rest[:randomLength]) == rest[randomLength:]
}

// Expiries returns the rules that delete revoked and expired keys.
func Expiries() []masterdb.Expiry {
	id := []string{"id"}
	return []masterdb.Expiry{
		{Table: "api_keys", Key: id, Age: "revoked_at", Keep: retention},
		{Table: "api_keys", Key: id, Age: "expires_at", Keep: retention},
	}
}

func errInvalid() *stoa.Error {
	return stoa.Errorf(stoa.TokenInvalid, "The API key is not valid.")
}
