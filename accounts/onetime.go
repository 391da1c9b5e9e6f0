package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
)

// purpose is what a one-time token is good for.
type purpose string

const (
	verifyEmail   purpose = "verify_email"
	resetPassword purpose = "reset_password"
	invitation    purpose = "invitation"
	secondFactor  purpose = "second_factor"
)

// lifetimes are how long tokens are good for.
var lifetimes = map[purpose]time.Duration{
	verifyEmail:   48 * time.Hour,
	resetPassword: time.Hour,
	invitation:    7 * 24 * time.Hour,
	secondFactor:  5 * time.Minute,
}

// prefix lets secret scanners recognise a leaked token.
func (p purpose) prefix() string {
	return map[purpose]string{verifyEmail: "stoa_ve_", resetPassword: "stoa_pr_", invitation: "stoa_in_", secondFactor: "stoa_sf_"}[p]
}

// oneTime is a token's row. Of its ids those are set that its purpose needs.
type oneTime struct {
	UserID       *stoa.UserID
	InvitationID *stoa.InvitationID
	RequestID    *requestID
	ExpiresAt    time.Time
	SpentAt      *time.Time
}

// issueToken makes a token. Only its hash is kept.
func issueToken(ctx context.Context, tx *masterdb.Tx, p purpose, t oneTime) (keyring.Secret, error) {
	token := newToken(p.prefix())
	_, err := tx.Exec(ctx, `
		INSERT INTO one_time_tokens (hash, purpose, user_id, invitation_id, request_id, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		tokenHash(token), string(p), t.UserID, t.InvitationID, t.RequestID, tx.Now, t.ExpiresAt)
	return token, err
}

// spendToken takes a token, once: of several calls at once one gets it. It
// fails with token_invalid, and with token_expired after its time. Other tokens
// of the same user and purpose are spent with it.
func spendToken(ctx context.Context, tx *masterdb.Tx, p purpose, token keyring.Secret) (oneTime, error) {
	t, err := heldToken(ctx, tx, p, token)
	if err != nil {
		return oneTime{}, err
	}
	_, err = tx.Exec(ctx, `UPDATE one_time_tokens SET spent_at = $1 WHERE spent_at IS NULL AND purpose = $2
		AND (hash = $3 OR user_id = $4)`, tx.Now, string(p), tokenHash(token), t.UserID)
	return t, err
}

// heldToken finds a token and locks it.
func heldToken(ctx context.Context, tx *masterdb.Tx, p purpose, token keyring.Secret) (oneTime, error) {
	if !looksLike(token, p.prefix()) {
		return oneTime{}, errLinkInvalid()
	}
	var t oneTime
	err := tx.Get(ctx, &t, `
		SELECT user_id, invitation_id, request_id, expires_at, spent_at FROM one_time_tokens WHERE hash = $1 AND purpose = $2`+tx.ForUpdate(),
		tokenHash(token), string(p))
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return oneTime{}, errLinkInvalid()
	case err != nil:
		return oneTime{}, err
	case t.SpentAt != nil:
		return oneTime{}, stoa.Errorf(stoa.TokenInvalid, "This has been used already, or something newer has taken its place. Ask for another one.")
	case !tx.Now.Before(t.ExpiresAt):
		return oneTime{}, stoa.Errorf(stoa.TokenExpired, "This is too old. Ask for another one.")
	}
	return t, nil
}

func errLinkInvalid() error {
	return stoa.Errorf(stoa.TokenInvalid, "This is not valid. Ask for another one.")
}
