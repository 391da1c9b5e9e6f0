package accounts

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	// maxPasskeys is how many passkeys one user can have.
	maxPasskeys = 20

	// maxPasskeyResponse limits what an authenticator answers, in bytes.
	maxPasskeyResponse = 32 << 10

	// passkeyLifetime is how long a challenge waits for the authenticator.
	passkeyLifetime = 5 * time.Minute

	// challengePrefix lets secret scanners recognise a leaked token.
	challengePrefix = "stoa_pc_"
)

type passkeyKind struct{}

// PasskeyID identifies a passkey. It is not the id that its authenticator chose.
type PasskeyID = stoa.ID[passkeyKind]

// Passkey is a credential of an authenticator: a device, a password manager or a
// security key. It replaces the password and the second factor, or the second factor
// alone.
type Passkey struct {
	ID         PasskeyID
	Name       string
	CreatedAt  time.Time
	LastUsedAt *time.Time

	// Passwordless is false for a passkey that was added before the password was reset
	// with a link: it is a second factor only.
	Passwordless bool
}

const passkeyColumns = "id, name, created_at, last_used_at, passwordless" //nolint:gosec // column names

// PasskeyChallenge is what an authenticator is asked to sign, within five minutes and
// once. Options are the JSON for navigator.credentials.create or get. Token is passed
// back with the answer.
type PasskeyChallenge struct {
	Token   keyring.Secret
	Options json.RawMessage
}

// PasskeyAnswer is the answer of an authenticator. Response is the JSON of the
// browser's PublicKeyCredential.
type PasskeyAnswer struct {
	Token    keyring.Secret
	Response json.RawMessage
}

// passkeyPurpose is what a challenge is for.
type passkeyPurpose string

const (
	passkeyRegister       passkeyPurpose = "register"
	passkeySignIn         passkeyPurpose = "sign_in"
	passkeySecondFactor   passkeyPurpose = "second_factor"
	passkeyReauthenticate passkeyPurpose = "reauthenticate"
)

// newRelyingParty returns the identity to which passkeys are bound: the host of the
// base URL. Authenticators accept no IP address as that. For a loopback address it is
// localhost, where the same server answers; for another IP address there is none.
func newRelyingParty(baseURL string) *webauthn.WebAuthn {
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" {
		return nil
	}
	host := strings.ToLower(u.Hostname())
	if ip := net.ParseIP(host); ip != nil {
		if !ip.IsLoopback() {
			return nil
		}
		host = "localhost"
		u.Host = strings.TrimSuffix(net.JoinHostPort(host, u.Port()), ":")
	}
	party, err := webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: "Stoa", RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		// Password managers answer with extensions that nobody asked for. None is used.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(),
			UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		return nil
	}
	return party
}

// PasskeysAvailable reports whether the platform's address is one that passkeys can be
// bound to.
func (a *Accounts) PasskeysAvailable() bool { return a.relyingParty != nil }

func (a *Accounts) checkPasskeys() error {
	if a.relyingParty == nil {
		return stoa.Errorf(stoa.Forbidden, "Passkeys need a platform with a host name: this one is reached by its IP address.")
	}
	return nil
}

// passkeyRow is a row of passkeys.
type passkeyRow struct {
	Passkey
	UserID     stoa.UserID
	Credential string // JSON of webauthn.Credential
	SignCount  int64
}

const passkeyRowColumns = passkeyColumns + ", user_id, credential, sign_count"

// credential returns the credential with the stored counter.
func (r passkeyRow) credential() (webauthn.Credential, error) {
	var c webauthn.Credential
	if err := json.Unmarshal([]byte(r.Credential), &c); err != nil {
		return c, fmt.Errorf("passkey %s: %w", r.ID, err)
	}
	c.Authenticator.SignCount = uint32(r.SignCount) //nolint:gosec // it was a uint32 when it was stored
	return c, nil
}

// passkeyOwner implements webauthn.User.
type passkeyOwner struct {
	User
	credentials []webauthn.Credential
}

func (o passkeyOwner) WebAuthnID() []byte                         { return o.ID[:] }
func (o passkeyOwner) WebAuthnName() string                       { return o.Email }
func (o passkeyOwner) WebAuthnCredentials() []webauthn.Credential { return o.credentials }
func (o passkeyOwner) WebAuthnDisplayName() string {
	if name := strings.TrimSpace(o.FirstName + " " + o.LastName); name != "" {
		return name
	}
	return o.Email
}

// readPasskeyOwner returns the user with all their passkeys.
func readPasskeyOwner(ctx context.Context, tx *masterdb.Tx, user User) (passkeyOwner, error) {
	var rows []passkeyRow
	err := tx.Select(ctx, &rows, `SELECT `+passkeyRowColumns+` FROM passkeys WHERE user_id = $1 ORDER BY id LIMIT $2`, user.ID, maxPasskeys)
	if err != nil {
		return passkeyOwner{}, err
	}
	o := passkeyOwner{User: user, credentials: make([]webauthn.Credential, len(rows))}
	for i, r := range rows {
		if o.credentials[i], err = r.credential(); err != nil {
			return passkeyOwner{}, err
		}
	}
	return o, nil
}

// confirmPerson fails unless the caller has just shown who they are: the session of a
// browser by a recent authentication, another caller with the password.
func (a *Accounts) confirmPerson(ctx context.Context, p authz.Principal, password keyring.Secret, action string) error {
	if !p.Browser {
		_, _, err := a.reauthenticate(ctx, p, password, action)
		return err
	}
	if err := p.InPerson(); err != nil {
		return err
	}
	if !p.RecentlyAuthenticated {
		return authz.ErrReauthenticate()
	}
	return nil
}

// BeginPasskeyRegistration returns a challenge for a new passkey of the caller. A
// browser's session needs a recent authentication (reauthentication_required), another
// one the password (invalid_credentials). It fails with email_unverified until the
// address is verified, and with quota_exceeded for a user with 20 passkeys.
func (a *Accounts) BeginPasskeyRegistration(ctx context.Context, p authz.Principal, password keyring.Secret) (PasskeyChallenge, error) {
	if err := a.checkPasskeys(); err != nil {
		return PasskeyChallenge{}, err
	}
	if err := a.confirmPerson(ctx, p, password, audit.PasskeyAdded); err != nil {
		return PasskeyChallenge{}, err
	}
	var challenge PasskeyChallenge
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := authz.CheckVerified(ctx, tx, p); err != nil {
			return err
		}
		user, err := lockCaller(ctx, tx, p)
		if err != nil {
			return err
		}
		owner, err := readPasskeyOwner(ctx, tx, user)
		if err != nil {
			return err
		}
		if err := checkPasskeyCount(len(owner.credentials)); err != nil {
			return err
		}
		if err := dropChallenges(ctx, tx, passkeyRegister, user.ID); err != nil {
			return err
		}
		options, session, err := a.relyingParty.BeginRegistration(owner,
			webauthn.WithExclusions(webauthn.Credentials(owner.credentials).CredentialDescriptors()))
		if err != nil {
			return err
		}
		challenge, err = storeChallenge(ctx, tx, passkeyRegister, &user.ID, session, options)
		return err
	})
	return challenge, err
}

func checkPasskeyCount(n int) error {
	if n >= maxPasskeys {
		return stoa.Errorf(stoa.QuotaExceeded, "You have %d passkeys, which is as many as there can be. Remove one first.", maxPasskeys)
	}
	return nil
}

// FinishPasskeyRegistration stores the passkey. For the user's first second factor it
// returns recovery codes too, which cannot be read again. It fails with token_invalid
// and token_expired for the challenge, and with invalid_request for a bad name or an
// answer that is malformed, of another origin or of another challenge.
func (a *Accounts) FinishPasskeyRegistration(ctx context.Context, p authz.Principal, answer PasskeyAnswer, name string) (Passkey, []keyring.Secret, error) {
	if err := errors.Join(a.checkPasskeys(), p.InPerson()); err != nil {
		return Passkey{}, nil, err
	}
	name, err := passkeyName(name)
	if err != nil {
		return Passkey{}, nil, err
	}
	parsed, err := parsePasskey(answer.Response, protocol.ParseCredentialCreationResponseBytes)
	if err != nil {
		return Passkey{}, nil, err
	}
	session, err := a.spendChallenge(ctx, passkeyRegister, p.UserID, answer.Token)
	if err != nil {
		return Passkey{}, nil, err
	}
	credential, err := a.relyingParty.CreateCredential(passkeyOwner{User: User{ID: p.UserID}}, session, parsed)
	if err != nil {
		var faults stoa.Invalid
		faults.Add("credential", "is not an answer to this challenge at this address. Try again")
		return Passkey{}, nil, faults.Err()
	}
	return a.insertPasskey(ctx, p, name, *credential)
}

// insertPasskey stores a verified credential. It relies on the unique index.
func (a *Accounts) insertPasskey(ctx context.Context, p authz.Principal, name string, credential webauthn.Credential) (Passkey, []keyring.Secret, error) {
	credential.Attestation = webauthn.CredentialAttestation{} // none was asked for
	record, err := json.Marshal(credential)
	if err != nil {
		return Passkey{}, nil, err
	}
	passkey := Passkey{ID: stoa.NewID[PasskeyID](), Name: name, Passwordless: true}
	var codes []keyring.Secret
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		codes = nil
		if err := authz.CheckVerified(ctx, tx, p); err != nil {
			return err
		}
		if _, err := lockCaller(ctx, tx, p); err != nil {
			return err
		}
		factors, err := countFactors(ctx, tx, p.UserID)
		if err != nil {
			return err
		}
		if err := checkPasskeyCount(factors.Passkeys); err != nil {
			return err
		}
		passkey.CreatedAt = tx.Now
		_, err = tx.Exec(ctx, `INSERT INTO passkeys (id, user_id, credential_id, name, credential, sign_count, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			passkey.ID, p.UserID, credentialKey(credential.ID), name, string(record), int64(credential.Authenticator.SignCount), tx.Now)
		if masterdb.IsUnique(err) {
			return stoa.Errorf(stoa.InvalidRequest, "This passkey is registered already.")
		}
		if err != nil {
			return err
		}
		if factors == (factorCount{}) {
			if codes, err = replaceRecoveryCodes(ctx, tx, p.UserID); err != nil {
				return err
			}
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.PasskeyAdded, Details: map[string]string{"passkey": passkey.ID.String(), "name": name}})
	})
	if err != nil {
		return Passkey{}, nil, err
	}
	return passkey, codes, nil
}

// credentialKey returns a credential's id as it is stored.
func credentialKey(id []byte) string { return base64.RawURLEncoding.EncodeToString(id) }

// CheckPasskeyName returns the fault of a passkey's name, so that it can be corrected
// before the device makes the passkey. It fails with invalid_request.
func CheckPasskeyName(name string) error {
	_, err := passkeyName(name)
	return err
}

// passkeyName returns a name as it is stored.
func passkeyName(name string) (string, error) {
	name, fault := stoa.NormalName(name)
	if fault != "" {
		var faults stoa.Invalid
		faults.Add("name", "%s", fault)
		return "", faults.Err()
	}
	return name, nil
}

// Passkeys returns the caller's passkeys, the oldest first: at most 20.
func (a *Accounts) Passkeys(ctx context.Context, p authz.Principal) ([]Passkey, error) {
	if err := p.SignedIn(); err != nil {
		return nil, err
	}
	var list []Passkey
	err := a.db.Select(ctx, &list, `SELECT `+passkeyColumns+` FROM passkeys WHERE user_id = $1 ORDER BY id LIMIT $2`, p.UserID, maxPasskeys)
	return list, err
}

// RenamePasskey gives one of the caller's passkeys another name. It fails with
// not_found and with invalid_request.
func (a *Accounts) RenamePasskey(ctx context.Context, p authz.Principal, id PasskeyID, name string) (Passkey, error) {
	if err := p.InPerson(); err != nil {
		return Passkey{}, err
	}
	name, err := passkeyName(name)
	if err != nil {
		return Passkey{}, err
	}
	var passkey Passkey
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockCaller(ctx, tx, p); err != nil {
			return err
		}
		err := tx.Get(ctx, &passkey, `UPDATE passkeys SET name = $1 WHERE id = $2 AND user_id = $3 RETURNING `+passkeyColumns, name, id, p.UserID)
		if errors.Is(err, masterdb.ErrNotFound) {
			return errNoPasskey()
		}
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.PasskeyRenamed, Details: map[string]string{"passkey": id.String(), "name": name}})
	})
	return passkey, err
}

// RemovePasskey removes one of the caller's passkeys. Sessions that it opened stay. It
// needs what BeginPasskeyRegistration needs, and fails with not_found.
func (a *Accounts) RemovePasskey(ctx context.Context, p authz.Principal, id PasskeyID, password keyring.Secret) error {
	if err := a.confirmPerson(ctx, p, password, audit.PasskeyRemoved); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockCaller(ctx, tx, p); err != nil {
			return err
		}
		var name string
		err := tx.Get(ctx, &name, `DELETE FROM passkeys WHERE id = $1 AND user_id = $2 RETURNING name`, id, p.UserID)
		if errors.Is(err, masterdb.ErrNotFound) {
			return errNoPasskey()
		}
		if err != nil {
			return err
		}
		if err := dropUnusedRecoveryCodes(ctx, tx, p.UserID); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.PasskeyRemoved, Details: map[string]string{"passkey": id.String(), "name": name}})
	})
}

func errNoPasskey() error { return stoa.Errorf(stoa.NotFound, "There is no such passkey.") }
