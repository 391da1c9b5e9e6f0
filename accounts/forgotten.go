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
// stays, unless the address had not been proven before: then whoever opened the
// account may be another person, and all that was made in it is void (see
// voidUnproven). It fails with token_invalid, token_expired, and with
// invalid_request for a password that is not good enough, which leaves the token
// unspent.
func (a *Accounts) ResetPassword(ctx context.Context, token, password keyring.Secret, c Client) error {
	var email string
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error { // before the hash, which is expensive
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
		return a.setForgotten(ctx, tx, c.as(*t.UserID), fresh, c)
	})
}

// setForgotten gives the account the password of who has proven its address.
func (a *Accounts) setForgotten(ctx context.Context, tx *masterdb.Tx, p access.Principal, hash string, c Client) error {
	var proven bool
	// The row is locked from here on: what needs a proven address waits, and
	// then finds its session ended.
	err := tx.Get(ctx, &proven, `UPDATE users SET password_hash = $1, updated_at = $2 WHERE id = $3 RETURNING email_verified`, hash, tx.Now, p.UserID)
	if err != nil {
		return err
	}
	if err := endAllElse(ctx, tx, p.UserID, stoa.SessionID{}); err != nil {
		return err
	}
	if !proven {
		if err := voidUnproven(ctx, tx, p); err != nil {
			return err
		}
		if err := confirmEmail(ctx, tx, p); err != nil {
			return err
		}
	}
	if err := a.remember(ctx, tx, p.UserID, c); err != nil {
		return err
	}
	var details map[string]string
	if !proven {
		details = map[string]string{"firstProof": "what was made before is void"}
	}
	return access.Record(ctx, tx, p, access.Event{Action: access.PasswordReset, Details: details})
}
