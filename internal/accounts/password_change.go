package accounts

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/ratelimit"
)

// ChangePassword sets the caller's password and revokes their other sessions. It
// fails with invalid_credentials when old is not the current password, and with
// invalid_request for a weak new one.
func (a *Accounts) ChangePassword(ctx context.Context, p authz.Principal, old, next keyring.Secret) error {
	stored, email, err := a.reauthenticate(ctx, p, old, audit.PasswordChanged)
	if err != nil {
		return err
	}
	fresh, err := a.hashNewPassword(ctx, "newPassword", next, email)
	if err != nil {
		return err
	}
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := replaceHash(ctx, tx, p.UserID, stored, fresh); err != nil {
			return err
		}
		if err := revokeOtherAccess(ctx, tx, p.UserID, p.SessionID); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.PasswordChanged})
	})
	if err == errHashChanged { //nolint:errorlint // it comes from right here
		return errWrongPassword() // a concurrent change came first
	}
	return err
}

// reauthenticate checks the caller's password and returns their hash and address.
// It records a wrong password as a failure of the action. It fails with
// invalid_credentials, and with rate_limited after many wrong passwords.
func (a *Accounts) reauthenticate(ctx context.Context, p authz.Principal, password keyring.Secret, action string) (stored, email string, err error) {
	if err := p.InPerson(); err != nil {
		return "", "", err
	}
	session := ratelimit.ID("session-password", p.SessionID)
	if err := a.attempt(ctx, session, fromSession); err != nil {
		return "", "", err
	}
	var row struct{ PasswordHash, Email string }
	if err := a.db.Get(ctx, &row, `SELECT password_hash, email FROM users WHERE id = $1`, p.UserID); err != nil {
		return "", "", err
	}
	match, _, err := a.passwords.verify(ctx, row.PasswordHash, password)
	if err != nil {
		return "", "", err
	}
	if match {
		a.opts.Limits.Forget(ctx, session)
		return row.PasswordHash, row.Email, nil
	}
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p, audit.Event{Action: action, Outcome: audit.Failed})
	})
	if err != nil {
		return "", "", err
	}
	return "", "", errWrongPassword()
}

func errWrongPassword() error {
	return stoa.Errorf(stoa.InvalidCredentials, "That is not your password.")
}

// hashNewPassword hashes a new password. It fails with invalid_request for a weak
// one, naming the field.
func (a *Accounts) hashNewPassword(ctx context.Context, field string, password keyring.Secret, email string) (string, error) {
	password = normalPassword(password)
	if fault := passwordFault(password, email); fault != "" {
		var faults stoa.Invalid
		faults.Add(field, "%s", fault)
		return "", faults.Err()
	}
	return a.passwords.hash(ctx, password)
}

// revokeOtherAccess revokes the access that the previous password gave: sessions
// but keep, sign-ins that wait for a second factor, passkeys that are being added, password links, and a change of
// the address that is not confirmed yet.
func revokeOtherAccess(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, keep stoa.SessionID) error {
	_, err := tx.Exec(ctx, `UPDATE one_time_tokens SET spent_at = $1
		WHERE user_id = $2 AND purpose IN ('reset_password', 'second_factor') AND spent_at IS NULL`, tx.Now, user)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM passkey_challenges WHERE user_id = $1`, user); err != nil {
		return err
	}
	if _, err := endEmailChange(ctx, tx, user); err != nil {
		return err
	}
	return revokeOtherSessions(ctx, tx, user, keep)
}
