package accounts

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

// ForgotPassword enqueues a mail with a link that sets the account's password. It
// behaves the same for every address, whether or not it has an account, and fails
// with invalid_request for a malformed one.
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
// revokes all its sessions, and verifies its address. Second factors
// and passkeys are kept, so that access to the mailbox is not enough to sign in, but a
// passkey that somebody may have added no longer replaces the password. If the address
// was not verified before, the account may have been opened by somebody else, and all
// that was created in it is revoked (see revokeUnverified). It fails with token_invalid, token_expired, and with
// invalid_request for a weak password, which leaves the token unused.
func (a *Accounts) ResetPassword(ctx context.Context, token, password keyring.Secret, c Client) error {
	var email string
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error { // checked before the expensive hash
		t, err := lockToken(ctx, tx, resetPassword, token)
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
	fresh, err := a.hashNewPassword(ctx, "password", password, email)
	if err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := spendToken(ctx, tx, resetPassword, token)
		if err != nil {
			return err
		}
		return a.applyReset(ctx, tx, c.as(*t.UserID), fresh, c)
	})
}

// applyReset sets the password of a user who has verified their address.
func (a *Accounts) applyReset(ctx context.Context, tx *masterdb.Tx, p authz.Principal, hash string, c Client) error {
	var verified bool
	// The row is locked from here on: a concurrent call that requires a verified
	// address waits, and then finds its session revoked.
	err := tx.Get(ctx, &verified, `UPDATE users SET password_hash = $1, updated_at = $2 WHERE id = $3 RETURNING email_verified`, hash, tx.Now, p.UserID)
	if err != nil {
		return err
	}
	if err := revokeOtherAccess(ctx, tx, p.UserID, stoa.SessionID{}); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE passkeys SET passwordless = $1 WHERE user_id = $2`, false, p.UserID); err != nil {
		return err
	}
	if !verified {
		if err := revokeUnverified(ctx, tx, p); err != nil {
			return err
		}
		if err := confirmEmail(ctx, tx, p); err != nil {
			return err
		}
	}
	if err := a.rememberNetwork(ctx, tx, p.UserID, c); err != nil {
		return err
	}
	var details map[string]string
	if !verified {
		details = map[string]string{"firstProof": "what was made before is void"}
	}
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.PasswordReset, Details: details})
}
