package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

// purpose is the purpose of a one-time token.
type purpose string

const (
	verifyEmail   purpose = "verify_email"
	resetPassword purpose = "reset_password"
	invitation    purpose = "invitation"
	secondFactor  purpose = "second_factor"
	changeEmail   purpose = "change_email" // stored in email_change_tokens
)

// lifetimes are how long tokens are valid.
var lifetimes = map[purpose]time.Duration{
	verifyEmail:   48 * time.Hour,
	resetPassword: time.Hour,
	invitation:    7 * 24 * time.Hour,
	secondFactor:  5 * time.Minute,
	changeEmail:   24 * time.Hour,
}

// prefix lets secret scanners recognise a leaked token.
func (p purpose) prefix() string {
	return map[purpose]string{verifyEmail: "stoa_ve_", resetPassword: "stoa_pr_", invitation: "stoa_in_", secondFactor: "stoa_sf_",
		changeEmail: "stoa_ec_"}[p]
}

// oneTime is a row of one_time_tokens. Its purpose decides which ids are set.
type oneTime struct {
	UserID       *stoa.UserID
	InvitationID *stoa.InvitationID
	RequestID    *requestID
	ExpiresAt    time.Time
	SpentAt      *time.Time
}

// issueToken creates a token and stores its hash.
func issueToken(ctx context.Context, tx *masterdb.Tx, p purpose, t oneTime) (keyring.Secret, error) {
	token := newToken(p.prefix())
	err := tx.ExecLater(ctx, `
		INSERT INTO one_time_tokens (hash, purpose, user_id, invitation_id, request_id, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		token.Hash(), string(p), t.UserID, t.InvitationID, t.RequestID, tx.Now, t.ExpiresAt)
	return token, err
}

// spendToken uses a token up: of concurrent calls one succeeds. It fails with
// token_invalid and token_expired. It uses up the other tokens of the same user
// and purpose too.
func spendToken(ctx context.Context, tx *masterdb.Tx, p purpose, token keyring.Secret) (oneTime, error) {
	t, err := lockToken(ctx, tx, p, token)
	if err != nil {
		return oneTime{}, err
	}
	_, err = tx.Exec(ctx, `UPDATE one_time_tokens SET spent_at = $1 WHERE spent_at IS NULL AND purpose = $2
		AND (hash = $3 OR user_id = $4)`, tx.Now, string(p), token.Hash(), t.UserID)
	return t, err
}

// lockToken reads a token and locks its row.
func lockToken(ctx context.Context, tx *masterdb.Tx, p purpose, token keyring.Secret) (oneTime, error) {
	var t oneTime
	err := tx.Get(ctx, &t, `
		SELECT user_id, invitation_id, request_id, expires_at, spent_at FROM one_time_tokens WHERE hash = $1 AND purpose = $2`+tx.ForUpdate(),
		token.Hash(), string(p))
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return oneTime{}, errLinkInvalid()
	case err != nil:
		return oneTime{}, err
	case t.SpentAt != nil:
		return oneTime{}, errLinkUsed()
	case !tx.Now.Before(t.ExpiresAt):
		return oneTime{}, errLinkExpired()
	}
	return t, nil
}

func errLinkUsed() error {
	return stoa.Errorf(stoa.TokenInvalid, "This has been used already, or something newer has taken its place. Ask for another one.")
}

func errLinkExpired() error {
	return stoa.Errorf(stoa.TokenExpired, "This is too old. Ask for another one.")
}

func errLinkInvalid() error {
	return stoa.Errorf(stoa.TokenInvalid, "This is not valid. Ask for another one.")
}
