package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

// storeChallenge stores what an authenticator was asked, and returns the token for it.
func storeChallenge(ctx context.Context, tx *masterdb.Tx, p passkeyPurpose, user *stoa.UserID, session *webauthn.SessionData, options any) (PasskeyChallenge, error) {
	data, err := json.Marshal(session)
	if err != nil {
		return PasskeyChallenge{}, err
	}
	public, err := json.Marshal(options)
	if err != nil {
		return PasskeyChallenge{}, err
	}
	token := newToken(challengePrefix)
	_, err = tx.Exec(ctx, `INSERT INTO passkey_challenges (hash, purpose, user_id, session, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		token.Hash(), string(p), user, string(data), tx.Now, tx.Now.Add(passkeyLifetime))
	return PasskeyChallenge{Token: token, Options: public}, err
}

// dropChallenges deletes a user's open challenges of a purpose that they have one of at
// a time.
func dropChallenges(ctx context.Context, tx *masterdb.Tx, p passkeyPurpose, user stoa.UserID) error {
	_, err := tx.Exec(ctx, `DELETE FROM passkey_challenges WHERE user_id = $1 AND purpose = $2`, user, string(p))
	return err
}

// spendChallenge uses a challenge up, whatever becomes of the answer: of concurrent
// calls one succeeds. It fails with token_invalid and token_expired. The zero user is
// for a sign-in, whose user is not known yet.
func (a *Accounts) spendChallenge(ctx context.Context, p passkeyPurpose, user stoa.UserID, token keyring.Secret) (webauthn.SessionData, error) {
	if !hasTokenForm(token, challengePrefix) {
		return webauthn.SessionData{}, errLinkInvalid()
	}
	var row struct {
		UserID    *stoa.UserID
		Session   string
		ExpiresAt time.Time
	}
	var now time.Time
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		now = tx.Now
		return tx.Get(ctx, &row, `DELETE FROM passkey_challenges WHERE hash = $1 AND purpose = $2 RETURNING user_id, session, expires_at`,
			token.Hash(), string(p))
	})
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return webauthn.SessionData{}, errLinkInvalid()
	case err != nil:
		return webauthn.SessionData{}, err
	case row.UserID == nil && !user.IsZero() || row.UserID != nil && *row.UserID != user:
		return webauthn.SessionData{}, errLinkInvalid()
	case !now.Before(row.ExpiresAt):
		return webauthn.SessionData{}, errLinkExpired()
	}
	var session webauthn.SessionData
	err = json.Unmarshal([]byte(row.Session), &session)
	return session, err
}

// parsePasskey parses an authenticator's answer. It fails with invalid_request.
func parsePasskey[T any](response json.RawMessage, parse func([]byte) (*T, error)) (*T, error) {
	var faults stoa.Invalid
	if len(response) > maxPasskeyResponse {
		faults.Add("credential", "is longer than %d bytes", maxPasskeyResponse)
		return nil, faults.Err()
	}
	parsed, err := parse(response)
	if err != nil {
		faults.Add("credential", "is not the answer of an authenticator, as navigator.credentials gives it")
		return nil, faults.Err()
	}
	return parsed, nil
}
