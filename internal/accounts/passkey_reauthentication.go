package accounts

import (
	"context"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// BeginPasskeyReauthentication returns a challenge for one of the caller's passkeys. It
// fails with not_found for a caller without one, and with forbidden for an operator who
// acts as the user.
func (a *Accounts) BeginPasskeyReauthentication(ctx context.Context, p authz.Principal) (PasskeyChallenge, error) {
	if err := a.checkPasskeyReauthentication(p); err != nil {
		return PasskeyChallenge{}, err
	}
	var asked PasskeyChallenge
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		user, err := lockCaller(ctx, tx, p)
		if err != nil {
			return err
		}
		owner, err := readPasskeyOwner(ctx, tx, user)
		if err != nil {
			return err
		}
		if len(owner.credentials) == 0 {
			return stoa.Errorf(stoa.NotFound, "Your account has no passkey. Enter your password.")
		}
		if err := dropChallenges(ctx, tx, passkeyReauthenticate, user.ID); err != nil {
			return err
		}
		// The browser is signed in already, and may have been left alone with a security
		// key in it: the authenticator must verify the person.
		options, session, err := a.relyingParty.BeginLogin(owner, webauthn.WithUserVerification(protocol.VerificationRequired))
		if err != nil {
			return err
		}
		asked, err = storeChallenge(ctx, tx, passkeyReauthenticate, &user.ID, session, options)
		return err
	})
	return asked, err
}

// ReauthenticateByPasskey is Reauthenticate with the answer to
// BeginPasskeyReauthentication. It fails as FinishPasskeyLogin does.
func (a *Accounts) ReauthenticateByPasskey(ctx context.Context, p authz.Principal, answer PasskeyAnswer) error {
	if err := a.checkPasskeyReauthentication(p); err != nil {
		return err
	}
	parsed, err := parsePasskey(answer.Response, protocol.ParseCredentialRequestResponseBytes)
	if err != nil {
		return err
	}
	session, err := a.spendChallenge(ctx, passkeyReauthenticate, p.UserID, answer.Token)
	if err != nil {
		return err
	}
	var refused error
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		refused = nil
		_, refusal, err := usePasskey(ctx, tx, parsed, true, a.answerOf(p.UserID, session, parsed))
		if err != nil {
			return err
		}
		if refusal != "" {
			refused = errPasskeyRefused()
			return audit.Record(ctx, tx, p, audit.Event{Action: audit.Reauthenticated, Outcome: audit.Failed,
				Details: map[string]string{"by": "passkey", "reason": refusal}})
		}
		return recordAuthentication(ctx, tx, p, "passkey")
	})
	return eitherError(err, refused)
}

func (a *Accounts) checkPasskeyReauthentication(p authz.Principal) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	return a.checkPasskeys()
}
