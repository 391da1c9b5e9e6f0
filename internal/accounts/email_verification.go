package accounts

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/supabase/link"
)

// Anybody can register an address that is not theirs. Until the address is
// verified, the account cannot have a second factor, API keys, invitations,
// impersonation or the operator's role (authz.CheckVerified). An address is
// verified with a token that was mailed to it, in one of two ways. A person who
// also has the account's password or a session (VerifyEmail, AcceptInvitation)
// keeps everything in the account. A person who sets another password
// (ResetPassword) revokes everything that was created in it before.

// VerifyEmail verifies an address for a person who has the token of the mail and
// has opened the account: p is a session of it or, for the zero principal,
// password is its password. Otherwise somebody who registers another's address
// would only have to wait until its owner follows the link.
//
// It fails with token_invalid and token_expired; with invalid_request without
// session and password, with invalid_credentials for a wrong password, and with
// forbidden for a session of another account, which leave the token unused; and
// with rate_limited after many wrong passwords.
func (a *Accounts) VerifyEmail(ctx context.Context, p authz.Principal, token, password keyring.Secret, c Client) error {
	var t oneTime
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var err error
		t, err = lockToken(ctx, tx, verifyEmail, token)
		return err
	})
	if err != nil {
		return err
	}
	var hash string
	if p.UserID.IsZero() {
		p = c.as(*t.UserID)
		if hash, err = a.checkPassword(ctx, *t.UserID, password); err != nil {
			return err
		}
	} else if err := checkMayVerify(p, *t.UserID); err != nil {
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
		return errWrongRegistrationPassword() // a concurrent change came first
	}
	return err
}

// checkMayVerify fails with forbidden unless p is the user in person.
func checkMayVerify(p authz.Principal, user stoa.UserID) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	if p.UserID != user {
		return stoa.Errorf(stoa.Forbidden, "This is for another account. Sign in to that one, or give its password.")
	}
	return nil
}

// checkPassword checks the user's password and returns their hash.
func (a *Accounts) checkPassword(ctx context.Context, user stoa.UserID, password keyring.Secret) (string, error) {
	if password.IsZero() {
		var faults stoa.Invalid
		faults.Add("password", "is needed unless you are signed in: the password that the account was opened with. "+
			"If you have not opened it, do not confirm: set a password of your own, which ends what others made in it")
		return "", faults.Err()
	}
	hash, match, err := a.matchPassword(ctx, user, password)
	if err == nil && !match {
		return "", errWrongRegistrationPassword()
	}
	return hash, err
}

// matchPassword reports whether a password that comes without a session is the
// user's, and returns the stored hash. It fails with rate_limited after many wrong
// passwords.
func (a *Accounts) matchPassword(ctx context.Context, user stoa.UserID, password keyring.Secret) (hash string, match bool, err error) {
	tries := ratelimit.ID("verify-password", user)
	if err := a.attempt(ctx, tries, fromSession); err != nil {
		return "", false, err
	}
	if err := a.db.Get(ctx, &hash, `SELECT password_hash FROM users WHERE id = $1`, user); err != nil {
		return "", false, err
	}
	if match, _, err = a.passwords.verify(ctx, hash, password); err != nil || !match {
		return "", false, err
	}
	a.opts.Limits.Forget(ctx, tries)
	return hash, true, nil
}

func errWrongRegistrationPassword() error {
	return stoa.Errorf(stoa.InvalidCredentials, "That is not the password that the account was opened with. If you have not opened it, do not confirm: "+
		"set a password of your own, which ends what others made in it.")
}

// confirmEmail marks the address of p as verified.
func confirmEmail(ctx context.Context, tx *masterdb.Tx, p authz.Principal) error {
	n, err := tx.Exec(ctx, `UPDATE users SET email_verified = $1, updated_at = $2 WHERE id = $3 AND NOT email_verified`, true, tx.Now, p.UserID)
	if err != nil || n == 0 {
		return err
	}
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.EmailVerified})
}

// ResendVerification enqueues another verification mail, unless the caller's
// address is verified. The number of mails is limited (requestLimits).
func (a *Accounts) ResendVerification(ctx context.Context, p authz.Principal) error {
	user, err := a.Me(ctx, p)
	if err != nil || user.EmailVerified {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error { return a.requestMail(ctx, tx, verifyEmail, user.Email) })
}

// ConfirmEmail marks the address of the user with that address or id as verified,
// on the authority of the operator. Everything in the account is kept. It fails
// with not_found. It changes nothing for a verified address.
func ConfirmEmail(ctx context.Context, db *masterdb.DB, by authz.Principal, name string) (User, error) {
	var user User
	err := db.Tx(ctx, func(tx *masterdb.Tx) error {
		var err error
		if user, err = lockUserByName(ctx, tx, name); err != nil || user.EmailVerified {
			return err
		}
		user.EmailVerified = true
		if _, err := tx.Exec(ctx, `UPDATE users SET email_verified = $1, updated_at = $2 WHERE id = $3`, true, tx.Now, user.ID); err != nil {
			return err
		}
		return audit.Record(ctx, tx, by, audit.Event{Action: audit.EmailVerified,
			Details: map[string]string{"user": user.ID.String(), "by": "operator"}})
	})
	return user, err
}

// revokeUnverified revokes what was created in an account before its address was
// verified: sessions, second factors and passkeys with recovery codes, API keys,
// invitations, tokens, other members of the stores that the user owns, and the
// stores' connections to Supabase. The stores are kept. Accounts of earlier
// releases can have all of these.
func revokeUnverified(ctx context.Context, tx *masterdb.Tx, p authz.Principal) error {
	for _, statement := range []string{
		// The clients of these sessions are not known devices of the owner.
		`UPDATE sessions SET revoked_at = coalesce(revoked_at, $2), address = '', user_agent = '' WHERE user_id = $1`,
		`UPDATE sessions SET revoked_at = $2 WHERE impersonator = $1 AND revoked_at IS NULL`,
		`UPDATE one_time_tokens SET spent_at = $2 WHERE user_id = $1 AND spent_at IS NULL`,
		`UPDATE invitations SET revoked_at = $2 WHERE invited_by = $1` + openCondition,
		`UPDATE one_time_tokens SET spent_at = $2 WHERE spent_at IS NULL
			AND invitation_id IN (SELECT id FROM invitations WHERE invited_by = $1)`,
	} {
		if _, err := tx.Exec(ctx, statement, p.UserID, tx.Now); err != nil {
			return err
		}
	}
	for _, table := range []string{"second_factors", "passkeys", "passkey_challenges", "recovery_codes"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+table+` WHERE user_id = $1`, p.UserID); err != nil {
			return err
		}
	}
	if err := apikeys.RevokeOfUser(ctx, tx, p.UserID); err != nil {
		return err
	}
	if err := link.ForgetUser(ctx, tx, p); err != nil {
		return err
	}
	return removeOtherMembers(ctx, tx, p)
}

// removeOtherMembers removes all other members of the stores that the user owns,
// and revokes their API keys for these.
func removeOtherMembers(ctx context.Context, tx *masterdb.Tx, p authz.Principal) error {
	removed, err := authz.WithdrawOthers(ctx, tx, p.UserID)
	if err != nil {
		return err
	}
	for _, m := range removed {
		if err := apikeys.RevokeOfMember(ctx, tx, m.StoreID, m.UserID); err != nil {
			return err
		}
		err := audit.Record(ctx, tx, p, audit.Event{Action: audit.MemberRemoved, Store: m.StoreID,
			Details: map[string]string{"user": m.UserID.String(), "role": string(m.Role), "reason": "joined before the owner's address was proven"}})
		if err != nil {
			return err
		}
	}
	return nil
}
