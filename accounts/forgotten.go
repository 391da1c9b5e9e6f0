package accounts

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
)

// ForgotPassword has a link sent with which the account's password can be set.
// It does and answers the same for every address, and fails with
// invalid_request for what is none.
func (a *Accounts) ForgotPassword(ctx context.Context, email string) error {
	email, ok := storedEmail(email)
	if !ok {
		var faults stoa.Invalid
		faults.Add("email", malformedEmail)
		return faults.Err()
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error { return a.requestMail(ctx, tx, resetPassword, email) })
}

// ResetPassword sets the password of the account that the link was sent to,
// ends all its sessions, and takes its address as proven. A second factor
// stays. It fails with token_invalid, token_expired, and with invalid_request
// for a password that is not good enough, which leaves the token unspent.
func (a *Accounts) ResetPassword(ctx context.Context, token, password keyring.Secret, c Client) error {
	var email string
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error { // before the hash, which is dear
		t, err := heldToken(ctx, tx, resetPassword, token)
		if err != nil {
			return err
		}
		user, err := ReadUser(ctx, tx, *t.UserID)
		email = user.Email
		return err
	})
	if err != nil {
		return err
	}
	fresh, err := a.hashNew(ctx, "password", password, email)
	if err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := spendToken(ctx, tx, resetPassword, token)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE users SET password_hash = $1, email_verified = $2, updated_at = $3 WHERE id = $4`, fresh, true, tx.Now, *t.UserID)
		if err != nil {
			return err
		}
		if err := endAllElse(ctx, tx, *t.UserID, stoa.SessionID{}); err != nil {
			return err
		}
		if err := a.remember(ctx, tx, *t.UserID, c); err != nil {
			return err
		}
		return access.Record(ctx, tx, c.as(*t.UserID), access.Event{Action: access.PasswordReset})
	})
}

// VerifyEmail takes an address as its user's own. It fails with token_invalid
// and token_expired.
func (a *Accounts) VerifyEmail(ctx context.Context, token keyring.Secret, c Client) error {
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := spendToken(ctx, tx, verifyEmail, token)
		if err != nil {
			return err
		}
		return confirmEmail(ctx, tx, c.as(*t.UserID))
	})
}

func confirmEmail(ctx context.Context, tx *masterdb.Tx, p access.Principal) error {
	n, err := tx.Exec(ctx, `UPDATE users SET email_verified = $1, updated_at = $2 WHERE id = $3 AND NOT email_verified`, true, tx.Now, p.UserID)
	if err != nil || n == 0 {
		return err
	}
	return access.Record(ctx, tx, p, access.Event{Action: access.EmailVerified})
}

// ResendVerification has the caller's address verified again. Of an address
// that is verified nothing is asked.
func (a *Accounts) ResendVerification(ctx context.Context, p access.Principal) error {
	user, err := a.Me(ctx, p)
	if err != nil || user.EmailVerified {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error { return a.requestMail(ctx, tx, verifyEmail, user.Email) })
}
