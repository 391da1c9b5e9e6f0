package accounts

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/quotas"
)

const (
	// keyPrefix lets secret scanners recognise a leaked key, and its checksum
	// lets them tell it from what only looks like one.
	keyPrefix = "stoa_live_"
	keyRandom = 26 // characters of base32: 130 bits
	keySum    = 7  // characters of base32: a CRC-32
	keyShown  = len(keyPrefix) + 4

	// keyUseEvery is how often the last use of a key is written down at most.
	keyUseEvery = time.Minute
)

// APIKey is a key of a store, without the key itself.
type APIKey struct {
	ID         stoa.KeyID
	Name       string
	Prefix     string // the first characters, so that its owner can tell it
	Scopes     string // separated by spaces
	CreatedBy  stoa.UserID
	CreatedAt  time.Time
	ExpiresAt  *time.Time // nil: never
	LastUsedAt *time.Time // to the minute
}

// NewKey says what a key is to be.
type NewKey struct {
	Name      string
	Scopes    []string
	ExpiresAt *time.Time // nil: never
}

// CreateKey makes a key that acts for the caller in that store, within its
// scopes and within what the caller may, for as long as they are a member. It
// is the only time that the key itself can be seen. It fails with
// invalid_request, naming every fault, with quota_exceeded, and with
// email_unverified before the caller's address is proven.
func (a *Accounts) CreateKey(ctx context.Context, p access.Principal, store stoa.StoreID, n NewKey) (APIKey, keyring.Secret, error) {
	if _, err := access.Check(ctx, a.db, p, store, access.ManageKeys); err != nil {
		return APIKey{}, keyring.Secret{}, err
	}
	if err := p.InPerson(); err != nil {
		return APIKey{}, keyring.Secret{}, err
	}
	secret := newKey()
	key := APIKey{ID: stoa.NewID[stoa.KeyID](), Prefix: secret.Reveal()[:keyShown], CreatedBy: p.UserID}
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := requireProven(ctx, tx, p); err != nil {
			return err
		}
		if err := key.fill(n, tx.Now); err != nil {
			return err
		}
		if err := a.checkKeys(ctx, tx, store); err != nil {
			return err
		}
		return insertKey(ctx, tx, p, store, key, secret)
	})
	if err != nil {
		return APIKey{}, keyring.Secret{}, err
	}
	return key, secret, nil
}

// fill takes over what was asked for, or names what is wrong with it.
func (k *APIKey) fill(n NewKey, now time.Time) error {
	var faults stoa.Invalid
	var fault string
	if k.Name, fault = normalName(n.Name); fault != "" {
		faults.Add("name", "%s", fault)
	}
	scopes := slices.Compact(slices.Sorted(slices.Values(n.Scopes)))
	if len(scopes) == 0 {
		faults.Add("scopes", "must name at least one of %v", access.Scopes())
	}
	for _, s := range scopes {
		if !slices.Contains(access.Scopes(), access.Scope(s)) {
			faults.Add("scopes", "there is no scope %.40q; there are %v", s, access.Scopes())
			break
		}
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

// checkKeys fails with quota_exceeded when the store has as many keys as it may
// have. It locks the store until tx ends.
func (a *Accounts) checkKeys(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	if err := quotas.LockStore(ctx, tx, store); err != nil {
		return err
	}
	var used int
	if err := tx.Get(ctx, &used, `SELECT count(*) FROM api_keys WHERE store_id = $1 AND revoked_at IS NULL`, store); err != nil {
		return err
	}
	if limit := a.opts.Quotas.APIKeys; quotas.Exceeded(limit, used) {
		return quotas.Error(quotas.APIKeys, limit, used, "This store has %d API keys, and %d are allowed. Revoke one that is not used.", used, limit)
	}
	return nil
}

func insertKey(ctx context.Context, tx *masterdb.Tx, p access.Principal, store stoa.StoreID, k APIKey, secret keyring.Secret) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO api_keys (id, store_id, created_by, name, prefix, hash, scopes, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		k.ID, store, p.UserID, k.Name, k.Prefix, tokenHash(secret), k.Scopes, tx.Now, k.ExpiresAt)
	if err != nil {
		return err
	}
	return access.Record(ctx, tx, p, access.Event{Action: access.KeyCreated, Store: store,
		Details: map[string]string{"key": k.ID.String(), "name": k.Name, "scopes": k.Scopes}})
}

// Keys lists the store's keys that were not revoked, newest first.
func (a *Accounts) Keys(ctx context.Context, p access.Principal, store stoa.StoreID) ([]APIKey, error) {
	if _, err := access.Check(ctx, a.db, p, store, access.ManageKeys); err != nil {
		return nil, err
	}
	var out []APIKey
	err := a.db.Select(ctx, &out, `
		SELECT id, name, prefix, scopes, created_by, created_at, expires_at, last_used_at
		FROM api_keys WHERE store_id = $1 AND revoked_at IS NULL ORDER BY id DESC`, store)
	return out, err
}

// RevokeKey ends a key at once, on every replica. It fails with not_found when
// the store has no such key.
func (a *Accounts) RevokeKey(ctx context.Context, p access.Principal, store stoa.StoreID, id stoa.KeyID) error {
	if _, err := access.Check(ctx, a.db, p, store, access.ManageKeys); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND store_id = $3 AND revoked_at IS NULL`, tx.Now, id, store)
		if err != nil {
			return err
		}
		if n == 0 {
			return stoa.Errorf(stoa.NotFound, "This store has no such key.")
		}
		return access.Record(ctx, tx, p, access.Event{Action: access.KeyRevoked, Store: store, Details: map[string]string{"key": id.String()}})
	})
}

// revokeKeysOf ends the keys that a user made for a store.
func revokeKeysOf(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, user stoa.UserID) error {
	_, err := tx.Exec(ctx, `UPDATE api_keys SET revoked_at = $1 WHERE store_id = $2 AND created_by = $3 AND revoked_at IS NULL`, tx.Now, store, user)
	return err
}

// authenticateKey returns who an API key acts for. The key of somebody who is
// no member any more is none.
func (a *Accounts) authenticateKey(ctx context.Context, text string) (access.Principal, error) {
	if !looksLikeKey(text) {
		return access.Principal{}, errKeyInvalid()
	}
	var k struct {
		access.Key
		UserID     stoa.UserID
		ExpiresAt  *time.Time
		RevokedAt  *time.Time
		LastUsedAt *time.Time
	}
	err := a.db.Get(ctx, &k, `
		SELECT k.id, k.store_id, k.scopes, k.created_by AS user_id, k.expires_at, k.revoked_at, k.last_used_at
		FROM api_keys k JOIN store_members m ON m.store_id = k.store_id AND m.user_id = k.created_by
		WHERE k.hash = $1`, tokenHash(keyring.NewSecret(text)))
	now := a.db.Now()
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return access.Principal{}, errKeyInvalid()
	case err != nil:
		return access.Principal{}, err
	case k.RevokedAt != nil:
		return access.Principal{}, stoa.Errorf(stoa.TokenInvalid, "This API key has been revoked. Make another one.")
	case k.ExpiresAt != nil && !now.Before(*k.ExpiresAt):
		return access.Principal{}, stoa.Errorf(stoa.TokenExpired, "This API key has expired. Make another one.")
	}
	p := access.Principal{UserID: k.UserID, Key: k.Key}
	if k.LastUsedAt == nil || now.Sub(*k.LastUsedAt) >= keyUseEvery {
		return p, a.noteUse(ctx, k.ID)
	}
	return p, nil
}

// noteUse writes down that a key is used. Of many calls at once one does.
func (a *Accounts) noteUse(ctx context.Context, id stoa.KeyID) error {
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE api_keys SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at <= $3)`,
			tx.Now, id, tx.Now.Add(-keyUseEvery))
		return err
	})
}

func newKey() keyring.Secret {
	text := rand.Text()[:keyRandom]
	return keyring.NewSecret(keyPrefix + text + keyChecksum(text))
}

// keyChecksum tells a mistyped key from one of ours without the database.
func keyChecksum(text string) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(text)))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum)
}

func looksLikeKey(s string) bool {
	rest, ok := strings.CutPrefix(s, keyPrefix)
	return ok && len(rest) == keyRandom+keySum && keyChecksum(rest[:keyRandom]) == rest[keyRandom:]
}

func errKeyInvalid() *stoa.Error {
	return stoa.Errorf(stoa.TokenInvalid, "The API key is not valid.")
}
