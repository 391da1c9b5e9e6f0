package credits

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// CheckIdempotencyKey adds a fault when a caller's Idempotency-Key cannot be
// used: it has 1 to 255 printable ASCII characters. An empty key means that
// the caller gave none and is fine.
func CheckIdempotencyKey(faults *stoa.Invalid, key string) {
	const field = "idempotencyKey"
	if len(key) > 255 {
		faults.Add(field, "must not be longer than 255 characters")
	}
	for _, c := range []byte(key) {
		if c < ' ' || c > '~' {
			faults.Add(field, "must consist of printable ASCII characters")
			return
		}
	}
}

// RequestHash is the fingerprint of a request that is stored with its
// idempotency key, so that another request under the same key is noticed.
// The parts are what makes the request that request, defaults filled in.
func RequestHash(parts ...any) string {
	// JSON keeps the boundaries between the parts; plain values never fail.
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// ErrIdempotencyConflict is the answer to a key that was used for another
// request.
func ErrIdempotencyConflict() error {
	return stoa.Errorf(stoa.IdempotencyConflict,
		"This idempotency key was already used for a different request. Use a new key for a new request.")
}

// findByKey returns the transaction that key made before, or nil when the
// key is new or empty. It fails with idempotency_conflict when the key
// belongs to another request. The caller holds the account's lock.
func findByKey(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, key, hash string) (*Transaction, error) {
	if key == "" {
		return nil, nil
	}
	var found struct {
		Transaction
		RequestHash string
	}
	err := tx.Get(ctx, &found, selectTransaction+`, request_hash FROM credit_transactions
		WHERE store_id = $1 AND idempotency_key = $2`, store, key)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case found.RequestHash != hash:
		return nil, ErrIdempotencyConflict()
	}
	return &found.Transaction, nil
}

// firstAnswer is what a key was used for before.
type firstAnswer struct {
	Transaction
	Key         string `db:"idempotency_key"`
	RequestHash string
}

// findByKeys is findByKey for many keys of one store.
//
// On PostgreSQL "= ANY" would pick a plan over the whole account; the lateral
// look-up with OFFSET 0 stays on the unique index.
func findByKeys(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, keys []string) (map[string]firstAnswer, error) {
	var rows []firstAnswer
	found := map[string]firstAnswer{}
	switch {
	case len(keys) == 0:
		return found, nil
	case tx.Postgres() != nil:
		err := tx.Select(ctx, &rows, selectTransaction+`, idempotency_key, request_hash FROM unnest($2::text[]) AS u (key)
			CROSS JOIN LATERAL (SELECT * FROM credit_transactions WHERE store_id = $1 AND idempotency_key = u.key OFFSET 0) t`, store, keys)
		if err != nil {
			return nil, err
		}
	default:
		for _, key := range keys {
			if err := tx.Select(ctx, &rows, selectTransaction+`, idempotency_key, request_hash FROM credit_transactions
				WHERE store_id = $1 AND idempotency_key = $2`, store, key); err != nil {
				return nil, err
			}
			for _, row := range rows {
				found[key] = row
			}
		}
	}
	for _, row := range rows {
		found[row.Key] = row
	}
	return found, nil
}
