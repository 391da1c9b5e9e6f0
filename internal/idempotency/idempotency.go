// Package idempotency keeps the answers of calls that have an idempotency key, so that a
// call which is repeated with its key is carried out once. It owns the table
// idempotency_keys. The ledger, whose keys hold for good, has its own.
package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	// Retention is how long a key holds.
	Retention = 24 * time.Hour
	// MaxBody is the size of the largest body of an answer that is kept, in bytes.
	MaxBody = 128 << 10
	// maxKeys is how many keys one caller may use within Retention.
	maxKeys = 10_000
	// maxKey is the length of the longest key.
	maxKey = 255
	// retryAfter is when the repetition of a call that is still under way may be repeated.
	retryAfter = 2 * time.Second
)

// CheckKey adds a fault when a caller's key is not valid. A valid key has 1 to 255 printable
// ASCII characters.
func CheckKey(faults *stoa.Invalid, field, key string) {
	if len(key) > maxKey {
		faults.Add(field, "must not be longer than %d characters", maxKey)
	}
	for _, c := range []byte(key) {
		if c < ' ' || c > '~' {
			faults.Add(field, "must consist of printable ASCII characters")
			return
		}
	}
}

// Store keeps answers in the master database. It is safe for concurrent use.
type Store struct {
	db   *masterdb.DB
	ring *keyring.Ring
}

// New returns the Store of a master database. All answers are encrypted with the ring, since
// some hold secrets.
func New(db *masterdb.DB, ring *keyring.Ring) *Store { return &Store{db: db, ring: ring} }

// Expiry returns the rule by which keys are deleted.
func Expiry() masterdb.Expiry {
	return masterdb.Expiry{Table: "idempotency_keys", Key: []string{"id"}, Age: "created_at", Keep: Retention}
}

// Sealed describes the encrypted column.
func Sealed() keyrotation.Column {
	return keyrotation.Column{Table: "idempotency_keys", Key: "id", Name: "sealed", Owner: func(id string) string { return id }}
}

// Request is a call with a key.
type Request struct {
	Caller authz.Principal
	Key    string
	// Hash identifies the call: the same key with another hash is refused.
	Hash string
	// Timeout is the longest time that the call may take. After it, the call is taken for
	// dead, and a repetition is carried out.
	Timeout time.Duration
}

// Answer is the answer to a call.
type Answer struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header,omitempty"`
	Body   []byte            `json:"body,omitempty"`
}

// content is what the sealed column holds.
type content struct {
	Request string  `json:"request"`
	Answer  *Answer `json:"answer,omitempty"` // nil while the call is under way
}

// Call is a call under way that has claimed its key.
type Call struct {
	store *Store
	id    keyID
	owner string
	hash  string
}

type keyKind struct{}

type keyID = stoa.ID[keyKind]

// callerName names who a key belongs to. An operator who acts as a user shares no keys with
// them.
func callerName(p authz.Principal) string {
	switch {
	case p.IsKey():
		return "key:" + p.Key.ID.String()
	case !p.Impersonator.IsZero():
		return "user:" + p.UserID.String() + ":" + p.Impersonator.String()
	default:
		return "user:" + p.UserID.String()
	}
}

// Begin claims the key for the call, or returns the answer that is kept for it. It fails with
// idempotency_conflict for a key that was used for another call, with idempotency_in_progress
// while the first call with the key is under way, and with rate_limited for a caller who has
// used too many keys.
func (s *Store) Begin(ctx context.Context, req Request) (*Call, *Answer, error) {
	sum := sha256.Sum256([]byte(req.Key))
	c := &Call{store: s, owner: stoa.NewID[keyID]().String(), hash: req.Hash}
	var kept *Answer
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		kept, err = c.claim(ctx, tx, callerName(req.Caller), hex.EncodeToString(sum[:]), req.Timeout)
		return err
	})
	if err != nil || kept != nil {
		return nil, kept, err
	}
	return c, nil, nil
}

// row is the state of a key.
type row struct {
	ID           keyID
	Sealed       string
	ClaimedUntil *time.Time
	CreatedAt    time.Time
}

func (c *Call) claim(ctx context.Context, tx *masterdb.Tx, caller, key string, timeout time.Duration) (*Answer, error) {
	var r row
	err := tx.Get(ctx, &r, `SELECT id, sealed, claimed_until, created_at FROM idempotency_keys
		WHERE caller = $1 AND key_hash = $2`+tx.ForUpdate(), caller, key)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, c.insert(ctx, tx, caller, key, timeout)
	}
	if err != nil {
		return nil, err
	}
	if r.CreatedAt.After(tx.Now.Add(-Retention)) {
		kept, err := c.earlier(r, tx.Now)
		if err != nil || kept != nil {
			return kept, err
		}
	}
	c.id = r.ID
	sealed, err := c.seal(nil)
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `UPDATE idempotency_keys SET sealed = $2, claimed_by = $3, claimed_until = $4, created_at = $5 WHERE id = $1`,
		c.id, sealed, c.owner, tx.Now.Add(timeout), tx.Now)
	return nil, err
}

// earlier returns the answer that is kept for an earlier call with the key, or nil when that
// call ended without one: its process was killed.
func (c *Call) earlier(r row, now time.Time) (*Answer, error) {
	text, err := c.store.ring.Open(r.Sealed, r.ID.String())
	if err != nil {
		return nil, err
	}
	var first content
	if err := json.Unmarshal(text, &first); err != nil {
		return nil, err
	}
	switch {
	case first.Request != c.hash:
		return nil, stoa.Errorf(stoa.IdempotencyConflict,
			"This idempotency key was already used for a different request. Use a new key for a new request.")
	case first.Answer == nil && r.ClaimedUntil != nil && r.ClaimedUntil.After(now):
		e := stoa.Errorf(stoa.IdempotencyInProgress, "The first request with this idempotency key is still being carried out. Repeat this one when Retry-After has passed.")
		e.RetryAfter = retryAfter
		return nil, e
	}
	return first.Answer, nil
}

func (c *Call) insert(ctx context.Context, tx *masterdb.Tx, caller, key string, timeout time.Duration) error {
	var used int
	if err := tx.Get(ctx, &used, `SELECT count(*) FROM (SELECT 1 FROM idempotency_keys WHERE caller = $1 LIMIT $2) k`, caller, maxKeys); err != nil {
		return err
	}
	if used >= maxKeys {
		e := stoa.Errorf(stoa.RateLimited, "You have used %d idempotency keys within a day, the most there may be. Repeat the request later, or send it without a key.", maxKeys)
		e.RetryAfter = time.Hour
		return e
	}
	c.id = stoa.NewID[keyID]()
	sealed, err := c.seal(nil)
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `INSERT INTO idempotency_keys (id, caller, key_hash, sealed, claimed_by, claimed_until, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`, c.id, caller, key, sealed, c.owner, tx.Now.Add(timeout), tx.Now)
	if err == nil && n == 0 { // another call has claimed the key since
		e := stoa.Errorf(stoa.IdempotencyInProgress, "Another request with this idempotency key has just begun. Repeat this one when Retry-After has passed.")
		e.RetryAfter = retryAfter
		return e
	}
	return err
}

func (c *Call) seal(a *Answer) (string, error) {
	text, err := json.Marshal(content{Request: c.hash, Answer: a})
	if err != nil {
		return "", err
	}
	return c.store.ring.Seal(text, c.id.String())
}

// Keep keeps the answer of the call for its repetitions. A call that has exceeded its timeout
// may have lost the key to a repetition: then nothing is kept.
func (c *Call) Keep(ctx context.Context, a Answer) error {
	sealed, err := c.seal(&a)
	if err != nil {
		return err
	}
	return c.store.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE idempotency_keys SET sealed = $3, claimed_by = NULL, claimed_until = NULL WHERE id = $1 AND claimed_by = $2`,
			c.id, c.owner, sealed)
		return err
	})
}

// Release gives the key back: a repetition of the call is carried out.
func (c *Call) Release(ctx context.Context) error {
	return c.store.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM idempotency_keys WHERE id = $1 AND claimed_by = $2`, c.id, c.owner)
		return err
	})
}
