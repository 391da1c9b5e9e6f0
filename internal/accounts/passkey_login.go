package accounts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

// BeginPasskeyLogin returns a challenge for a sign-in with a passkey. The authenticator
// knows the accounts that it has passkeys of: none is named here.
func (a *Accounts) BeginPasskeyLogin(ctx context.Context) (PasskeyChallenge, error) {
	if err := a.checkPasskeys(); err != nil {
		return PasskeyChallenge{}, err
	}
	options, session, err := a.relyingParty.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return PasskeyChallenge{}, err
	}
	var challenge PasskeyChallenge
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		challenge, err = storeChallenge(ctx, tx, passkeySignIn, nil, session, options)
		return err
	})
	return challenge, err
}

// FinishPasskeyLogin opens a session with the answer to BeginPasskeyLogin. The
// authenticator has verified the person, so that neither password nor second factor is
// asked for. It fails with token_invalid and token_expired for the challenge, with
// invalid_request for a malformed answer, and with invalid_credentials in all other
// cases: an unknown passkey, a wrong signature, another origin, a passkey that is no
// longer Passwordless, and a signature counter that went back, as it does when a passkey
// was copied.
func (a *Accounts) FinishPasskeyLogin(ctx context.Context, answer PasskeyAnswer, c Client) (Session, error) {
	if err := a.checkPasskeys(); err != nil {
		return Session{}, err
	}
	parsed, err := parsePasskey(answer.Response, protocol.ParseCredentialRequestResponseBytes)
	if err != nil {
		return Session{}, err
	}
	session, err := a.spendChallenge(ctx, passkeySignIn, stoa.UserID{}, answer.Token)
	if err != nil {
		return Session{}, err
	}
	return a.loginByPasskey(ctx, c, keyring.Secret{}, parsed, func(owner passkeyOwner) (*webauthn.Credential, error) {
		return a.relyingParty.ValidateDiscoverableLogin(func(_, handle []byte) (webauthn.User, error) {
			if !bytes.Equal(handle, owner.WebAuthnID()) {
				return nil, errPasskeyRefused()
			}
			return owner, nil
		}, session, parsed)
	})
}

// BeginPasskeySecondFactor returns a challenge for one of the passkeys of the user who
// has given their password: challenge is that of SecondFactorRequired. It fails with
// token_invalid and token_expired for that, and with not_found for a user without
// passkeys, who uses a code.
func (a *Accounts) BeginPasskeySecondFactor(ctx context.Context, challenge keyring.Secret) (PasskeyChallenge, error) {
	if err := a.checkPasskeys(); err != nil {
		return PasskeyChallenge{}, err
	}
	var asked PasskeyChallenge
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := lockToken(ctx, tx, secondFactor, challenge)
		if err != nil {
			return err
		}
		owner, err := readPasskeyOwner(ctx, tx, User{ID: *t.UserID})
		if err != nil {
			return err
		}
		if len(owner.credentials) == 0 {
			return stoa.Errorf(stoa.NotFound, "Your account has no passkey. Enter the code of your authenticator app.")
		}
		// The password was given, so that the presence of the person suffices.
		options, session, err := a.relyingParty.BeginLogin(owner, webauthn.WithUserVerification(protocol.VerificationPreferred))
		if err != nil {
			return err
		}
		asked, err = storeChallenge(ctx, tx, passkeySecondFactor, t.UserID, session, options)
		return err
	})
	return asked, err
}

// FinishPasskeySecondFactor opens a session with the challenge of SecondFactorRequired
// and the answer to BeginPasskeySecondFactor. It fails as FinishPasskeyLogin does, and
// with token_invalid and token_expired for either challenge.
func (a *Accounts) FinishPasskeySecondFactor(ctx context.Context, challenge keyring.Secret, answer PasskeyAnswer, c Client) (Session, error) {
	if err := a.checkPasskeys(); err != nil {
		return Session{}, err
	}
	parsed, err := parsePasskey(answer.Response, protocol.ParseCredentialRequestResponseBytes)
	if err != nil {
		return Session{}, err
	}
	var user stoa.UserID
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := lockToken(ctx, tx, secondFactor, challenge)
		if err == nil {
			user = *t.UserID
		}
		return err
	})
	if err != nil {
		return Session{}, err
	}
	session, err := a.spendChallenge(ctx, passkeySecondFactor, user, answer.Token)
	if err != nil {
		return Session{}, err
	}
	return a.loginByPasskey(ctx, c, challenge, parsed, a.answerOf(user, session, parsed))
}

// answerOf returns a function that verifies the answer of one of the user's passkeys.
func (a *Accounts) answerOf(user stoa.UserID, asked webauthn.SessionData, parsed *protocol.ParsedCredentialAssertionData) func(passkeyOwner) (*webauthn.Credential, error) {
	// The passkeys that were named may have been removed since: the one that answered is
	// there.
	asked.AllowedCredentialIDs = nil
	return func(owner passkeyOwner) (*webauthn.Credential, error) {
		if owner.ID != user {
			return nil, errPasskeyRefused()
		}
		return a.relyingParty.ValidateLogin(owner, asked, parsed)
	}
}

// loginByPasskey opens a session for the owner of the passkey that answered, if verify
// accepts it, and uses the challenge of SecondFactorRequired up. Without that the
// passkey replaces the password. A refusal is recorded.
func (a *Accounts) loginByPasskey(ctx context.Context, c Client, challenge keyring.Secret, parsed *protocol.ParsedCredentialAssertionData,
	verify func(passkeyOwner) (*webauthn.Credential, error),
) (Session, error) {
	by := "passkey"
	if !challenge.IsZero() {
		by = "password and passkey"
	}
	var session Session
	var refused error
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		session, refused = Session{}, nil
		if !challenge.IsZero() { // locked first, as in LoginSecondFactor
			if _, err := lockToken(ctx, tx, secondFactor, challenge); err != nil {
				return err
			}
		}
		user, reason, err := usePasskey(ctx, tx, parsed, !challenge.IsZero(), verify)
		if err != nil {
			return err
		}
		if reason != "" {
			refused = errPasskeyRefused()
			return recordPasskeyRefusal(ctx, tx, c, user.ID, by, reason)
		}
		if !challenge.IsZero() {
			if _, err := spendToken(ctx, tx, secondFactor, challenge); err != nil {
				return err
			}
		}
		session, err = a.signIn(ctx, tx, user, c, by)
		return err
	})
	if err := eitherError(err, refused); err != nil {
		return Session{}, err
	}
	return session, nil
}

// usePasskey records a use of the passkey that answered, if verify accepts it, and
// returns its owner. Otherwise it returns why not, with the owner if there is one. As
// a second factor, a passkey need not be Passwordless.
func usePasskey(ctx context.Context, tx *masterdb.Tx, parsed *protocol.ParsedCredentialAssertionData, second bool,
	verify func(passkeyOwner) (*webauthn.Credential, error),
) (owner User, refusal string, err error) {
	owner, row, err := lockPasskey(ctx, tx, parsed.RawID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, "unknown passkey", nil
	}
	if err != nil {
		return User{}, "", err
	}
	stored, err := row.credential()
	if err != nil {
		return User{}, "", err
	}
	used, err := verify(passkeyOwner{User: owner, credentials: []webauthn.Credential{stored}})
	if refusal := refusalOf(used, err, row.Passwordless || second); refusal != "" {
		return owner, refusal, nil
	}
	return owner, "", updatePasskey(ctx, tx, row, *used)
}

// refusalOf returns why an answer is refused, "" if it is not.
func refusalOf(used *webauthn.Credential, err error, suffices bool) string {
	switch {
	case err != nil:
		return "the answer does not verify"
	case !suffices:
		return "the password was reset since the passkey was added: both are needed"
	case used.Authenticator.CloneWarning:
		return "the signature counter went back: the passkey may have been copied"
	}
	return ""
}

func recordPasskeyRefusal(ctx context.Context, tx *masterdb.Tx, c Client, user stoa.UserID, by, reason string) error {
	return audit.Record(ctx, tx, c.as(user), audit.Event{Action: audit.SignedIn, Outcome: audit.Failed,
		Details: map[string]string{"by": by, "reason": reason}})
}

// lockPasskey returns the passkey with the authenticator's id, and its owner. Both rows
// are locked, the owner's first. It fails with masterdb.ErrNotFound.
func lockPasskey(ctx context.Context, tx *masterdb.Tx, credentialID []byte) (User, passkeyRow, error) {
	var owner stoa.UserID
	if err := tx.Get(ctx, &owner, `SELECT user_id FROM passkeys WHERE credential_id = $1`, credentialKey(credentialID)); err != nil {
		return User{}, passkeyRow{}, err
	}
	user, err := lockUser(ctx, tx, owner)
	if err != nil {
		return User{}, passkeyRow{}, err
	}
	var row passkeyRow
	err = tx.Get(ctx, &row, `SELECT `+passkeyRowColumns+` FROM passkeys WHERE credential_id = $1 AND user_id = $2`+tx.ForUpdate(),
		credentialKey(credentialID), owner)
	return user, row, err
}

// updatePasskey records a use.
func updatePasskey(ctx context.Context, tx *masterdb.Tx, row passkeyRow, used webauthn.Credential) error {
	record, err := json.Marshal(used)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE passkeys SET credential = $1, sign_count = $2, last_used_at = $3 WHERE id = $4`,
		string(record), int64(used.Authenticator.SignCount), tx.Now, row.ID)
	return err
}

func errPasskeyRefused() error {
	return stoa.Errorf(stoa.InvalidCredentials, "This passkey was not accepted. Try again, or sign in with your password.")
}
