package accounts

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/limits"
	"github.com/stoahq/stoa/masterdb"
)

// ChangePassword gives the caller another password and ends their other
// sessions. It fails with invalid_credentials when old is not the password they
// have, and with invalid_request for one that is not good enough.
func (a *Accounts) ChangePassword(ctx context.Context, p access.Principal, old, next keyring.Secret) error {
	stored, email, err := a.provePassword(ctx, p, old, access.PasswordChanged)
	if err != nil {
		return err
	}
	fresh, err := a.hashNew(ctx, "newPassword", next, email)
	if err != nil {
		return err
	}
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := replaceHash(ctx, tx, p.UserID, stored, fresh); err != nil {
			return err
		}
		if err := endAllElse(ctx, tx, p.UserID, p.SessionID); err != nil {
			return err
		}
		return access.Record(ctx, tx, p, access.Event{Action: access.PasswordChanged})
	})
	if err == errHashChanged { //nolint:errorlint // it comes from right here
		return errWrongPassword() // another change was first
	}
	return err
}

// provePassword returns the caller's hash and address when that is their
// password. What else it was given for is written to the audit log. It fails
// with rate_limited after many that were not.
func (a *Accounts) provePassword(ctx context.Context, p access.Principal, password keyring.Secret, action string) (stored, email string, err error) {
	if err := p.InPerson(); err != nil {
		return "", "", err
	}
	session := limits.ID("session-password", p.SessionID)
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
		return access.Record(ctx, tx, p, access.Event{Action: action, Outcome: access.Failed})
	})
	if err != nil {
		return "", "", err
	}
	return "", "", errWrongPassword()
}

func errWrongPassword() error {
	return stoa.Errorf(stoa.InvalidCredentials, "That is not your password.")
}

// hashNew hashes a password that is to be, or names what is wrong with it.
func (a *Accounts) hashNew(ctx context.Context, field string, password keyring.Secret, email string) (string, error) {
	password = normalPassword(password)
	if fault := passwordFault(password, email); fault != "" {
		var faults stoa.Invalid
		faults.Add(field, "%s", fault)
		return "", faults.Err()
	}
	return a.passwords.hash(ctx, password)
}

// endAllElse ends what the password before has opened: sessions, sign-ins that
// wait for a second factor, and links that set a password.
func endAllElse(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, keep stoa.SessionID) error {
	_, err := tx.Exec(ctx, `UPDATE one_time_tokens SET spent_at = $1
		WHERE user_id = $2 AND purpose IN ('reset_password', 'second_factor') AND spent_at IS NULL`, tx.Now, user)
	if err != nil {
		return err
	}
	return revokeOthers(ctx, tx, user, keep)
}
