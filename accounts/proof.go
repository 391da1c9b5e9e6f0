package accounts

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/limits"
	"github.com/stoahq/stoa/masterdb"
)

// Anybody can register an address that is not theirs. So until the address is
// proven nothing can be made that lasts in its owner's name: no second factor,
// no API key, no invitation, no impersonation, no operator. An address is proven
// by a person who has what was mailed to it and, in one of two ways, a right to
// the account: either they have opened it, as its password or a session shows
// (VerifyEmail, AcceptInvitation), and then all of it stays; or they set another
// password (ResetPassword), and then all that was made before is void.

// requireProven fails with email_unverified unless the caller's address is
// proven, and with session_revoked when their session has ended since the
// request began. It locks the user's row: whoever proves the address at the same
// moment comes before or after tx.
func requireProven(ctx context.Context, tx *masterdb.Tx, p access.Principal) error {
	var proven bool
	err := tx.Get(ctx, &proven, `UPDATE users SET updated_at = updated_at WHERE id = $1 RETURNING email_verified`, p.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return errSessionRevoked()
	}
	if err != nil {
		return err
	}
	if !proven {
		return stoa.Errorf(stoa.EmailUnverified, "Confirm your e-mail address first, with the link that was sent to it. Ask for another mail if it is lost.")
	}
	var live int
	err = tx.Get(ctx, &live, `SELECT count(*) FROM sessions WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL`, p.SessionID, p.UserID)
	if err == nil && live == 0 {
		return errSessionRevoked()
	}
	return err
}

// VerifyEmail takes an address as proven, for a person who has the mail's token
// and has opened the account: they are signed in to it as p or, with the zero
// principal, give its password. Otherwise somebody who registers another's
// address would only have to wait until its owner clicks on the link.
//
// It fails with token_invalid and token_expired; with invalid_request when there
// is neither session nor password, with invalid_credentials for a wrong
// password, and with forbidden for a session of another account, all of which
// leave the token unspent. After many wrong passwords it fails with
// rate_limited.
func (a *Accounts) VerifyEmail(ctx context.Context, p access.Principal, token, password keyring.Secret, c Client) error {
	var t oneTime
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var err error
		t, err = heldToken(ctx, tx, verifyEmail, token)
		return err
	})
	if err != nil {
		return err
	}
	var hash string
	if p.UserID.IsZero() {
		p = c.as(*t.UserID)
		if hash, err = a.matchPassword(ctx, *t.UserID, password); err != nil {
			return err
		}
	} else if err := mayVerify(p, *t.UserID); err != nil {
		return err
	}
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := spendToken(ctx, tx, verifyEmail, token)
		if err != nil {
			return err
		}
		if hash != "" {
			if err := replaceHash(ctx, tx, *t.UserID, hash, hash); err != nil {
				return err
			}
		}
		return confirmEmail(ctx, tx, p)
	})
	if errors.Is(err, errHashChanged) {
		return errNotTheirPassword() // another change was first
	}
	return err
}

// mayVerify: only the account's own session, of the person themselves.
func mayVerify(p access.Principal, user stoa.UserID) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	if p.UserID != user {
		return stoa.Errorf(stoa.Forbidden, "This is for another account. Sign in to that one, or give its password.")
	}
	return nil
}

// matchPassword returns the user's hash when that is their password.
func (a *Accounts) matchPassword(ctx context.Context, user stoa.UserID, password keyring.Secret) (string, error) {
	if password.IsZero() {
		var faults stoa.Invalid
		faults.Add("password", "is needed unless you are signed in: the password that the account was opened with. "+
			"If you have not opened it, do not confirm: set a password of your own, which ends what others made in it")
		return "", faults.Err()
	}
	tries := limits.ID("verify-password", user)
	if err := a.attempt(ctx, tries, fromSession); err != nil {
		return "", err
	}
	var hash string
	if err := a.db.Get(ctx, &hash, `SELECT password_hash FROM users WHERE id = $1`, user); err != nil {
		return "", err
	}
	match, _, err := a.passwords.verify(ctx, hash, password)
	if err != nil {
		return "", err
	}
	if !match {
		return "", errNotTheirPassword()
	}
	a.opts.Limits.Forget(ctx, tries)
	return hash, nil
}

func errNotTheirPassword() error {
	return stoa.Errorf(stoa.InvalidCredentials, "That is not the password that the account was opened with. If you have not opened it, do not confirm: "+
		"set a password of your own, which ends what others made in it.")
}

// confirmEmail marks the address of p as proven.
func confirmEmail(ctx context.Context, tx *masterdb.Tx, p access.Principal) error {
	n, err := tx.Exec(ctx, `UPDATE users SET email_verified = $1, updated_at = $2 WHERE id = $3 AND NOT email_verified`, true, tx.Now, p.UserID)
	if err != nil || n == 0 {
		return err
	}
	return access.Record(ctx, tx, p, access.Event{Action: access.EmailVerified})
}

// ResendVerification has the caller's address verified again. Of an address
// that is verified nothing is asked. How many mails are sent is bounded
// (requestLimits).
func (a *Accounts) ResendVerification(ctx context.Context, p access.Principal) error {
	user, err := a.Me(ctx, p)
	if err != nil || user.EmailVerified {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error { return a.requestMail(ctx, tx, verifyEmail, user.Email) })
}

// ConfirmEmail marks the address of the user with that address or id as
// proven, on the word of the operator of the platform. All that the account
// holds stays. It fails with not_found. To confirm again changes nothing.
func ConfirmEmail(ctx context.Context, db *masterdb.DB, by access.Principal, name string) (User, error) {
	var user User
	err := db.Tx(ctx, func(tx *masterdb.Tx) error {
		var err error
		if user, err = lockNamed(ctx, tx, name); err != nil || user.EmailVerified {
			return err
		}
		user.EmailVerified = true
		if _, err := tx.Exec(ctx, `UPDATE users SET email_verified = $1, updated_at = $2 WHERE id = $3`, true, tx.Now, user.ID); err != nil {
			return err
		}
		return access.Record(ctx, tx, by, access.Event{Action: access.EmailVerified,
			Details: map[string]string{"user": user.ID.String(), "by": "operator"}})
	})
	return user, err
}

// voidUnproven ends what was made in an account before its address was proven,
// by whoever opened it: sessions, second factor with its recovery codes, API
// keys, invitations, tokens, members of the stores that the user owns, and what
// connects those with Supabase. The stores stay. Accounts of earlier releases
// can have all of these.
func voidUnproven(ctx context.Context, tx *masterdb.Tx, p access.Principal) error {
	for _, statement := range []string{
		// Where a session was used from is no place that the owner has signed in from.
		`UPDATE sessions SET revoked_at = coalesce(revoked_at, $2), address = '', user_agent = '' WHERE user_id = $1`,
		`UPDATE sessions SET revoked_at = $2 WHERE impersonator = $1 AND revoked_at IS NULL`,
		`UPDATE one_time_tokens SET spent_at = $2 WHERE user_id = $1 AND spent_at IS NULL`,
		`UPDATE api_keys SET revoked_at = $2 WHERE created_by = $1 AND revoked_at IS NULL`,
		`UPDATE invitations SET revoked_at = $2 WHERE invited_by = $1` + stillOpen,
		`UPDATE one_time_tokens SET spent_at = $2 WHERE spent_at IS NULL
			AND invitation_id IN (SELECT id FROM invitations WHERE invited_by = $1)`,
	} {
		if _, err := tx.Exec(ctx, statement, p.UserID, tx.Now); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, `DELETE FROM second_factors WHERE user_id = $1`, p.UserID); err != nil {
		return err
	}
	if err := cloud.ForgetUser(ctx, tx, p); err != nil {
		return err
	}
	return removeLetIn(ctx, tx, p)
}

// removeLetIn ends the memberships of all others in the stores that the user
// owns, and their keys to these.
func removeLetIn(ctx context.Context, tx *masterdb.Tx, p access.Principal) error {
	removed, err := access.WithdrawOthers(ctx, tx, p.UserID)
	if err != nil {
		return err
	}
	for _, m := range removed {
		if err := revokeKeysOf(ctx, tx, m.StoreID, m.UserID); err != nil {
			return err
		}
		err := access.Record(ctx, tx, p, access.Event{Action: access.MemberRemoved, Store: m.StoreID,
			Details: map[string]string{"user": m.UserID.String(), "role": string(m.Role), "reason": "joined before the owner's address was proven"}})
		if err != nil {
			return err
		}
	}
	return nil
}
