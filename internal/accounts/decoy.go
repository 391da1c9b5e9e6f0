package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"

	"github.com/stoahq/stoa/internal/passwordhash"
)

// decoyLabel separates the places of decoys from the signatures of access tokens, which are made
// with the same keys.
const decoyLabel = "stoa sign-in decoy\n"

// decoyHash returns the hash that a password for an address without an account is compared with,
// so that the time of the refusal does not tell it from an account's. The hashes of imported users
// cost as much as their old system chose, until they sign in for the first time. The decoy is
// therefore a user's own hash: a keyed hash of the address chooses where in the order of addresses
// it is, so that it costs always the same for one address, and as much for different ones as those
// of the users do.
func (a *Accounts) decoyHash(ctx context.Context, email string) (hash string, err error) {
	_, key := a.tokens.ring.Current()
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(decoyLabel + email))
	sum := mac.Sum(nil)
	place, further := sum[:8], int(sum[8])
	for i := range place {
		place[i] = 'a' + place[i]%26
	}
	// Addresses may be alike, such as customer1 to customer99999: so it is one of the next 256. After
	// the last one come the first.
	err = a.db.Get(ctx, &hash, `SELECT coalesce((SELECT password_hash FROM users WHERE email >= $1 ORDER BY email LIMIT 1 OFFSET $2),
		(SELECT password_hash FROM users ORDER BY email LIMIT 1
			OFFSET $2 % (SELECT CASE count(*) WHEN 0 THEN 1 ELSE count(*) END FROM (SELECT 1 FROM users LIMIT 256) few)), '')`, string(place), further)
	if _, unreadable := passwordhash.Parse(hash); unreadable != nil {
		hash = a.passwords.unmatchable
	}
	return hash, err
}
