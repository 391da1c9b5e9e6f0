package credits

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// CheckIdempotencyKey adds a fault when a caller's Idempotency-Key is not valid. A valid
// key has 1 to 255 printable ASCII characters. An empty key means that the caller gave
// none and is valid.
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

// RequestHash returns the hash of a request that is stored with its idempotency
// key, so that another request under the same key is detected. The parts identify
// the request, with defaults filled in.
func RequestHash(parts ...any) string {
	// JSON keeps the boundaries between the parts; plain values never fail.
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// ErrIdempotencyConflict returns the error for a key that was used for another
// request.
func ErrIdempotencyConflict() error {
	return stoa.Errorf(stoa.IdempotencyConflict,
		"This idempotency key was already used for a different request. Use a new key for a new request.")
}

// firstAnswer is the transaction that a key was used for.
type firstAnswer struct {
	Transaction
	Key          string `db:"idempotency_key"`
	RequestHash  string
	AccountAfter *string
}

// findByKey returns the transaction that key made before, or nil when the key
// is new. It fails with idempotency_conflict when the key belongs to another
// request. The caller holds the account's lock.
func findByKey(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, key, hash string) (*Transaction, error) {
	found, err := findByKeys(ctx, tx, store, []string{key})
	first, used := found[key]
	switch {
	case err != nil || !used:
		return nil, err
	case first.RequestHash != hash:
		return nil, ErrIdempotencyConflict()
	}
	return &first.Transaction, nil
}

// findByKeys returns the transactions that the keys made before, by key. The caller holds
// the account's lock.
//
// With "= ANY" PostgreSQL would choose a plan over the whole account. The lateral look-up
// with OFFSET 0 uses the unique index.
func findByKeys(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, keys []string) (map[string]firstAnswer, error) {
	if len(keys) == 0 {
		return map[string]firstAnswer{}, nil
	}
	var list any = keys
	query := selectTransaction + `, idempotency_key, request_hash, account_after FROM unnest($2::text[]) AS u (key)
		CROSS JOIN LATERAL (SELECT * FROM credit_transactions WHERE store_id = $1 AND idempotency_key = u.key OFFSET 0) t`
	if tx.Postgres() == nil {
		text, err := json.Marshal(keys)
		if err != nil {
			return nil, err
		}
		list = string(text)
		query = selectTransaction + `, idempotency_key, request_hash, account_after FROM credit_transactions
			WHERE store_id = $1 AND idempotency_key IN (SELECT value FROM json_each($2))`
	}
	var rows []firstAnswer
	if err := tx.Select(ctx, &rows, query, store, list); err != nil {
		return nil, err
	}
	found := make(map[string]firstAnswer, len(rows))
	for _, row := range rows {
		found[row.Key] = row
	}
	return found, nil
}
