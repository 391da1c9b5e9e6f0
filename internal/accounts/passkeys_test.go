package accounts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// device is an authenticator in software with one passkey.
type device struct {
	party      virtualwebauthn.RelyingParty
	options    virtualwebauthn.AuthenticatorOptions
	credential virtualwebauthn.Credential
}

func newDevice(user stoa.UserID) *device {
	return &device{
		party:      virtualwebauthn.RelyingParty{ID: "stoa.test", Name: "Stoa", Origin: "https://stoa.test"},
		options:    virtualwebauthn.AuthenticatorOptions{UserHandle: user[:], BackupEligible: true},
		credential: testkit.NewPasskey(),
	}
}

// create answers a registration.
func (d *device) create(t *testing.T, c PasskeyChallenge) PasskeyAnswer {
	t.Helper()
	options, err := virtualwebauthn.ParseAttestationOptions(string(c.Options))
	testkit.Must(t, err)
	response := virtualwebauthn.CreateAttestationResponse(d.party, virtualwebauthn.NewAuthenticatorWithOptions(d.options), d.credential, *options)
	return PasskeyAnswer{Token: c.Token, Response: json.RawMessage(response)}
}

// sign answers a sign-in.
func (d *device) sign(t *testing.T, c PasskeyChallenge) PasskeyAnswer {
	t.Helper()
	options, err := virtualwebauthn.ParseAssertionOptions(string(c.Options))
	testkit.Must(t, err)
	response := virtualwebauthn.CreateAssertionResponse(d.party, virtualwebauthn.NewAuthenticatorWithOptions(d.options), d.credential, *options)
	return PasskeyAnswer{Token: c.Token, Response: json.RawMessage(response)}
}

// passkeyFixture is a user with a passkey.
type passkeyFixture struct {
	*testing.T
	*Accounts
	p       authz.Principal
	device  *device
	passkey Passkey
	codes   []keyring.Secret
}

func newPasskeyFixture(t *testing.T, db *masterdb.DB) passkeyFixture {
	t.Helper()
	b := passkeyFixture{T: t, Accounts: setup(t, db, testRing(t))}
	b.p = principal(t, b.Accounts, register(t, b.Accounts))
	markVerified(t, b.Accounts, registration().Email)
	b.device = newDevice(b.p.UserID)
	b.passkey, b.codes = b.add(b.p, b.device, "Laptop")
	return b
}

func eachPasskeyFixture(t *testing.T, test func(passkeyFixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) { test(newPasskeyFixture(t, db)) })
}

func (b passkeyFixture) add(p authz.Principal, d *device, name string) (Passkey, []keyring.Secret) {
	b.Helper()
	passkey, codes, err := b.FinishPasskeyRegistration(b.Context(), p, d.create(b.T, b.registration(p)), name)
	testkit.Must(b.T, err)
	return passkey, codes
}

func (b passkeyFixture) registration(p authz.Principal) PasskeyChallenge {
	b.Helper()
	c, err := b.BeginPasskeyRegistration(b.Context(), p, keyring.NewSecret(goodPassword))
	testkit.Must(b.T, err)
	return c
}

func (b passkeyFixture) asked() PasskeyChallenge {
	b.Helper()
	c, err := b.BeginPasskeyLogin(b.Context())
	testkit.Must(b.T, err)
	return c
}

func (b passkeyFixture) signIn(d *device) error {
	b.Helper()
	_, err := b.FinishPasskeyLogin(b.Context(), d.sign(b.T, b.asked()), Client{})
	return err
}

// challengeFor gives the password and returns the challenge of the second factor.
func (b passkeyFixture) challengeFor(password string) keyring.Secret {
	b.Helper()
	_, err := b.Login(b.Context(), registration().Email, keyring.NewSecret(password), Client{})
	var required *SecondFactorRequired
	if !errors.As(err, &required) {
		b.Fatalf("%v, want second_factor_required", err)
	}
	return required.Challenge
}

func TestPasskeyReplacesPassword(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		if len(b.codes) != recoveryCodes || !b.passkey.Passwordless || b.passkey.Name != "Laptop" {
			b.Errorf("%+v with %d recovery codes", b.passkey, len(b.codes))
		}
		asked := b.asked()
		if strings.Contains(string(asked.Options), "allowCredentials") || !strings.Contains(string(asked.Options), `"userVerification":"required"`) {
			b.Errorf("asked for %s", asked.Options)
		}
		session, err := b.FinishPasskeyLogin(b.Context(), b.device.sign(b.T, asked), inBrowser)
		testkit.Must(b.T, err)
		got, err := b.AuthenticateCookie(b.Context(), session.Cookie, inBrowser)
		testkit.Must(b.T, err)
		if got.Principal.UserID != b.p.UserID || !got.Principal.RecentlyAuthenticated {
			b.Errorf("%+v", got.Principal)
		}
		list, err := b.Passkeys(b.Context(), b.p)
		testkit.Must(b.T, err)
		if len(list) != 1 || list[0].LastUsedAt == nil {
			b.Errorf("%+v, want one that was used", list)
		}
		if dump := dumpTables(b.T, b.db, "passkeys", "passkey_challenges"); strings.Contains(dump, asked.Token.Reveal()) {
			b.Error("the token is stored")
		}
		if got := b.signInsBy("passkey", audit.Success); got != 1 {
			b.Errorf("%d entries of the sign-in", got)
		}
	})
}

// signInsBy counts entries of the audit log.
func (b passkeyFixture) signInsBy(by string, outcome audit.Outcome) int {
	b.Helper()
	var details []string
	err := b.db.Select(b.Context(), &details, `SELECT details FROM audit_events WHERE action = $1 AND outcome = $2`, audit.SignedIn, string(outcome))
	testkit.Must(b.T, err)
	n := 0
	for _, d := range details {
		var m map[string]string
		testkit.Must(b.T, json.Unmarshal([]byte(d), &m))
		if m["by"] == by {
			n++
		}
	}
	return n
}

// TestPasskeyOfSuspendedAndDeleted checks that a passkey opens no session of a suspended
// user, alone or after the password, and that it ends with its account.
func TestPasskeyOfSuspendedAndDeleted(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		challenge := b.challengeFor(goodPassword)
		second, err := b.BeginPasskeySecondFactor(b.Context(), challenge)
		testkit.Must(b.T, err)
		suspend := func(at *time.Time) {
			b.Helper()
			exec(b.T, b.db, `UPDATE users SET suspended_at = $1 WHERE id = $2`, at, b.p.UserID)
		}
		now := b.db.Now()
		suspend(&now)
		wantCode(b.T, b.signIn(b.device), stoa.AccountSuspended)
		_, err = b.FinishPasskeySecondFactor(b.Context(), challenge, b.device.sign(b.T, second), Client{})
		wantCode(b.T, err, stoa.AccountSuspended)
		suspend(nil)
		testkit.Must(b.T, b.signIn(b.device))
		testkit.Must(b.T, b.DeleteAccount(b.Context(), b.p, keyring.NewSecret(goodPassword)))
		wantCode(b.T, b.signIn(b.device), stoa.InvalidCredentials)
	})
}

// TestPasskeySignInRefused checks answers that must not sign in, each of which uses
// its challenge up.
func TestPasskeySignInRefused(t *testing.T) {
	t.Parallel()
	other := stoa.NewID[stoa.UserID]()
	tests := map[string]struct {
		change func(*device)
		answer func(PasskeyAnswer) PasskeyAnswer
		want   stoa.Code
	}{
		"other origin":        {change: func(d *device) { d.party.Origin = "https://evil.test" }},
		"subdomain":           {change: func(d *device) { d.party.Origin = "https://shop.stoa.test" }},
		"plain http":          {change: func(d *device) { d.party.Origin = "http://stoa.test" }},
		"other relying party": {change: func(d *device) { d.party.ID = "evil.test" }},
		"person not verified": {change: func(d *device) { d.options.UserNotVerified = true }},
		"nobody present":      {change: func(d *device) { d.options.UserNotPresent = true }},
		"no user":             {change: func(d *device) { d.options.UserHandle = nil }},
		"another user":        {change: func(d *device) { d.options.UserHandle = other[:] }},
		"unknown passkey":     {change: func(d *device) { d.credential = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2) }},
		"another key":         {change: func(d *device) { d.credential.Key = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2).Key }},
		"another token": {want: stoa.TokenInvalid, answer: func(a PasskeyAnswer) PasskeyAnswer {
			return PasskeyAnswer{Token: newToken(challengePrefix), Response: a.Response}
		}},
		"no token":  {want: stoa.TokenInvalid, answer: func(a PasskeyAnswer) PasskeyAnswer { return PasskeyAnswer{Response: a.Response} }},
		"no answer": {want: stoa.InvalidRequest, answer: func(a PasskeyAnswer) PasskeyAnswer { return PasskeyAnswer{Token: a.Token} }},
		"not JSON": {want: stoa.InvalidRequest, answer: func(a PasskeyAnswer) PasskeyAnswer {
			return PasskeyAnswer{Token: a.Token, Response: json.RawMessage("\x00\xff")}
		}},
		"deep JSON": {want: stoa.InvalidRequest, answer: func(a PasskeyAnswer) PasskeyAnswer {
			return PasskeyAnswer{Token: a.Token, Response: json.RawMessage(strings.Repeat("[", 20000))}
		}},
		"huge": {want: stoa.InvalidRequest, answer: func(a PasskeyAnswer) PasskeyAnswer {
			return PasskeyAnswer{Token: a.Token, Response: append(a.Response, bytes.Repeat([]byte(" "), maxPasskeyResponse)...)}
		}},
	}
	eachPasskeyFixture(t, func(b passkeyFixture) {
		for name, test := range tests {
			d := *b.device
			if test.change != nil {
				test.change(&d)
			}
			answer := d.sign(b.T, b.asked())
			if test.answer != nil {
				answer = test.answer(answer)
			}
			want := test.want
			if want == "" {
				want = stoa.InvalidCredentials
			}
			if _, err := b.FinishPasskeyLogin(b.Context(), answer, Client{}); stoa.CodeOf(err) != want {
				b.Errorf("%s: %v, want %s", name, err, want)
			}
		}
		testkit.Must(b.T, b.signIn(b.device))
	})
}

// TestPasskeyChallenges checks that a challenge is good once, for five minutes and for
// what it was issued for.
func TestPasskeyChallenges(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		answer := b.device.sign(b.T, b.asked())
		_, err := b.FinishPasskeyLogin(b.Context(), answer, Client{})
		testkit.Must(b.T, err)
		_, err = b.FinishPasskeyLogin(b.Context(), answer, Client{})
		wantCode(b.T, err, stoa.TokenInvalid)

		spent := b.asked()
		bad := *b.device
		bad.party.Origin = "https://evil.test"
		_, err = b.FinishPasskeyLogin(b.Context(), bad.sign(b.T, spent), Client{})
		wantCode(b.T, err, stoa.InvalidCredentials)
		_, err = b.FinishPasskeyLogin(b.Context(), b.device.sign(b.T, spent), Client{})
		wantCode(b.T, err, stoa.TokenInvalid)

		expired := b.device.sign(b.T, b.asked())
		exec(b.T, b.db, `UPDATE passkey_challenges SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
		_, err = b.FinishPasskeyLogin(b.Context(), expired, Client{})
		wantCode(b.T, err, stoa.TokenExpired)

		// The answer to one challenge with the token of another.
		mixed := b.device.sign(b.T, b.asked())
		mixed.Token = b.asked().Token
		_, err = b.FinishPasskeyLogin(b.Context(), mixed, Client{})
		wantCode(b.T, err, stoa.InvalidCredentials)

		// The challenge of a second factor does not sign in alone, nor the other way round.
		first := b.challengeFor(goodPassword)
		second, err := b.BeginPasskeySecondFactor(b.Context(), first)
		testkit.Must(b.T, err)
		_, err = b.FinishPasskeyLogin(b.Context(), b.device.sign(b.T, second), Client{})
		wantCode(b.T, err, stoa.TokenInvalid)
		_, err = b.FinishPasskeySecondFactor(b.Context(), first, b.device.sign(b.T, b.asked()), Client{})
		wantCode(b.T, err, stoa.TokenInvalid)
	})
}

func TestPasskeyConcurrentSignIn(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		answer := b.device.sign(b.T, b.asked())
		var wg sync.WaitGroup
		var succeeded atomic.Int32
		for range 5 {
			wg.Go(func() {
				_, err := b.FinishPasskeyLogin(b.Context(), answer, Client{})
				if err == nil {
					succeeded.Add(1)
				} else if stoa.CodeOf(err) != stoa.TokenInvalid {
					b.Errorf("%v, want token_invalid", err)
				}
			})
		}
		wg.Wait()
		if n := succeeded.Load(); n != 1 {
			b.Errorf("%d of 5 signed in, want 1", n)
		}
	})
}

// TestPasskeyCounter checks that a counter which goes back is refused and recorded.
func TestPasskeyCounter(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		b.device.credential.Counter = 7
		testkit.Must(b.T, b.signIn(b.device))
		for _, copied := range []uint32{7, 6, 0} {
			b.device.credential.Counter = copied
			wantCode(b.T, b.signIn(b.device), stoa.InvalidCredentials)
		}
		var recorded int
		err := b.db.Get(b.Context(), &recorded, `SELECT count(*) FROM audit_events WHERE action = $1 AND outcome = 'failed' AND user_id = $2
			AND CAST(details AS text) LIKE '%counter went back%'`, audit.SignedIn, b.p.UserID)
		testkit.Must(b.T, err)
		if recorded != 3 {
			b.Errorf("%d entries, want 3", recorded)
		}
		b.device.credential.Counter = 8
		testkit.Must(b.T, b.signIn(b.device))
	})
}

// TestPasskeySecondFactor checks the passkey of a user who has no app: it is asked for
// after the password, and a recovery code replaces it.
func TestPasskeySecondFactor(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		first := b.challengeFor(goodPassword)
		asked, err := b.BeginPasskeySecondFactor(b.Context(), first)
		testkit.Must(b.T, err)
		unverified := *b.device
		unverified.options.UserNotVerified = true // the password was given
		session, err := b.FinishPasskeySecondFactor(b.Context(), first, unverified.sign(b.T, asked), Client{})
		testkit.Must(b.T, err)
		if session.User.ID != b.p.UserID {
			b.Errorf("%+v", session.User)
		}
		_, err = b.BeginPasskeySecondFactor(b.Context(), first) // used
		wantCode(b.T, err, stoa.TokenInvalid)

		code := b.codes[0].Reveal()
		for _, wrong := range []string{"", "123456", "aaaa-aaaa-aaaa-aaaa"} {
			_, err = b.LoginSecondFactor(b.Context(), b.challengeFor(goodPassword), wrong, Client{})
			wantCode(b.T, err, stoa.InvalidCredentials)
		}
		_, err = b.LoginSecondFactor(b.Context(), b.challengeFor(goodPassword), code, Client{})
		testkit.Must(b.T, err)
		_, err = b.LoginSecondFactor(b.Context(), b.challengeFor(goodPassword), code, Client{})
		wantCode(b.T, err, stoa.InvalidCredentials) // once

		// An app that is not confirmed yet is no factor.
		e, err := b.EnrolFactor(b.Context(), b.p, keyring.NewSecret(goodPassword))
		testkit.Must(b.T, err)
		app := factorFixture{T: b.T, Accounts: b.Accounts, secret: e.Secret.Reveal()}
		_, err = b.LoginSecondFactor(b.Context(), b.challengeFor(goodPassword), app.code(0), Client{})
		wantCode(b.T, err, stoa.InvalidCredentials)

		// The password suffices when the passkey is gone.
		waiting := b.challengeFor(goodPassword)
		testkit.Must(b.T, b.RemovePasskey(b.Context(), b.p, b.passkey.ID, keyring.NewSecret(goodPassword)))
		_, err = b.BeginPasskeySecondFactor(b.Context(), waiting)
		wantCode(b.T, err, stoa.NotFound)
		login(b.T, b.Accounts, Client{})
		wantRows(b.T, b.db, map[string]int{"passkeys": 0, "recovery_codes": 0})
	})
}

// TestPasskeyOfAnotherUser checks that one user's passkey does not finish another's
// sign-in or registration, and that nobody sees or changes another's.
func TestPasskeyOfAnotherUser(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		r := registration()
		r.Email = "thief@example.com"
		session, _, err := b.Register(b.Context(), r)
		testkit.Must(b.T, err)
		markVerified(b.T, b.Accounts, r.Email)
		thief := principal(b.T, b.Accounts, session)
		stolen := newDevice(thief.UserID)
		b.add(thief, stolen, "Mine")

		first := b.challengeFor(goodPassword)
		asked, err := b.BeginPasskeySecondFactor(b.Context(), first)
		testkit.Must(b.T, err)
		_, err = b.FinishPasskeySecondFactor(b.Context(), first, stolen.sign(b.T, asked), Client{})
		wantCode(b.T, err, stoa.InvalidCredentials)

		_, _, err = b.FinishPasskeyRegistration(b.Context(), thief, newDevice(thief.UserID).create(b.T, b.registration(b.p)), "Theirs")
		wantCode(b.T, err, stoa.TokenInvalid)
		_, _, err = b.FinishPasskeyRegistration(b.Context(), thief, b.device.create(b.T, b.registration(thief)), "A copy")
		wantCode(b.T, err, stoa.InvalidRequest)

		_, err = b.RenamePasskey(b.Context(), thief, b.passkey.ID, "Owned")
		wantCode(b.T, err, stoa.NotFound)
		wantCode(b.T, b.RemovePasskey(b.Context(), thief, b.passkey.ID, keyring.NewSecret(goodPassword)), stoa.NotFound)
		list, err := b.Passkeys(b.Context(), thief)
		testkit.Must(b.T, err)
		if len(list) != 1 || list[0].Name != "Mine" {
			b.Errorf("%+v", list)
		}
	})
}

func TestPasskeyRegistrationRefused(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := passkeyFixture{T: t, Accounts: setup(t, db, testRing(t))}
		b.p = principal(t, b.Accounts, register(t, b.Accounts))
		_, err := b.BeginPasskeyRegistration(t.Context(), b.p, keyring.NewSecret(goodPassword))
		wantCode(t, err, stoa.EmailUnverified)
		markVerified(t, b.Accounts, registration().Email)
		_, err = b.BeginPasskeyRegistration(t.Context(), b.p, keyring.NewSecret("wrong"))
		wantCode(t, err, stoa.InvalidCredentials)
		browser := b.p
		browser.Browser = true
		_, err = b.BeginPasskeyRegistration(t.Context(), browser, keyring.NewSecret(goodPassword))
		wantCode(t, err, stoa.ReauthenticationRequired)
		acting := b.p
		acting.Impersonator = stoa.NewID[stoa.UserID]()
		_, err = b.BeginPasskeyRegistration(t.Context(), acting, keyring.NewSecret(goodPassword))
		wantCode(t, err, stoa.Forbidden)

		good := newDevice(b.p.UserID)
		for name, change := range map[string]func(*device, *PasskeyAnswer){
			"other origin":        func(d *device, _ *PasskeyAnswer) { d.party.Origin = "https://evil.test" },
			"other relying party": func(d *device, _ *PasskeyAnswer) { d.party.ID = "evil.test" },
			"person not verified": func(d *device, _ *PasskeyAnswer) { d.options.UserNotVerified = true },
			"malformed CBOR": func(_ *device, a *PasskeyAnswer) {
				a.Response = json.RawMessage(strings.Replace(string(a.Response), `"attestationObject":"`, `"attestationObject":"v7-_v7-_`, 1))
			},
			"truncated CBOR": func(_ *device, a *PasskeyAnswer) {
				at := strings.Index(string(a.Response), `"attestationObject":"`) + len(`"attestationObject":"`)
				a.Response = json.RawMessage(string(a.Response[:at+20]) + string(a.Response[at+40:]))
			},
			"empty": func(_ *device, a *PasskeyAnswer) { a.Response = json.RawMessage(`{}`) },
			"huge":  func(_ *device, a *PasskeyAnswer) { a.Response = bytes.Repeat([]byte(" "), maxPasskeyResponse+1) },
		} {
			d, answer := *good, PasskeyAnswer{Response: json.RawMessage(`{"attestationObject":"` + strings.Repeat("A", 64) + `"}`)}
			change(&d, &answer) // of the device only: this answer is not sent
			made := d.create(t, b.registration(b.p))
			change(&d, &made)
			if _, _, err := b.FinishPasskeyRegistration(t.Context(), b.p, made, "Key"); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%s: %v, want invalid_request", name, err)
			}
		}
		for _, name := range []string{"", "  ", strings.Repeat("x", 5000), "a\x00b"} {
			_, _, err := b.FinishPasskeyRegistration(t.Context(), b.p, good.create(t, b.registration(b.p)), name)
			wantCode(t, err, stoa.InvalidRequest)
		}
		wantRows(t, db, map[string]int{"passkeys": 0, "recovery_codes": 0})
	})
}

func TestPasskeyLimitAndNames(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := newPasskeyFixture(t, db)
		pending := newDevice(b.p.UserID)
		for i := 1; i < maxPasskeys; i++ {
			if _, codes := b.add(b.p, newDevice(b.p.UserID), fmt.Sprintf("Key %d", i)); codes != nil {
				t.Error("recovery codes again")
			}
		}
		_, err := b.BeginPasskeyRegistration(t.Context(), b.p, keyring.NewSecret(goodPassword))
		wantCode(t, err, stoa.QuotaExceeded)
		testkit.Must(t, b.RemovePasskey(t.Context(), b.p, b.passkey.ID, keyring.NewSecret(goodPassword)))
		b.passkey, _ = b.add(b.p, pending, "שלום 🔑")
		renamed, err := b.RenamePasskey(t.Context(), b.p, b.passkey.ID, "<script>")
		testkit.Must(t, err)
		if renamed.Name != "<script>" || renamed.ID != b.passkey.ID {
			t.Errorf("%+v", renamed)
		}
		_, err = b.RenamePasskey(t.Context(), b.p, b.passkey.ID, strings.Repeat("x", 101))
		wantCode(t, err, stoa.InvalidRequest)
		_, err = b.RenamePasskey(t.Context(), b.p, PasskeyID{}, "x")
		wantCode(t, err, stoa.NotFound)
		wantCode(t, b.RemovePasskey(t.Context(), b.p, b.passkey.ID, keyring.NewSecret("wrong")), stoa.InvalidCredentials)
	})
}

// TestPasskeyAfterReset checks that a passkey does not replace the password after that
// was reset, and stays a second factor.
func TestPasskeyAfterReset(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		waiting := b.registration(b.p)
		err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error {
			hash, err := b.passwords.hash(b.Context(), keyring.NewSecret("Another-Password-1"))
			if err != nil {
				return err
			}
			return b.applyReset(b.Context(), tx, b.p, hash, Client{})
		})
		testkit.Must(b.T, err)
		_, _, err = b.FinishPasskeyRegistration(b.Context(), b.p, newDevice(b.p.UserID).create(b.T, waiting), "Late")
		wantCode(b.T, err, stoa.TokenInvalid)
		wantCode(b.T, b.signIn(b.device), stoa.InvalidCredentials)
		first := b.challengeFor("Another-Password-1")
		asked, err := b.BeginPasskeySecondFactor(b.Context(), first)
		testkit.Must(b.T, err)
		_, err = b.FinishPasskeySecondFactor(b.Context(), first, b.device.sign(b.T, asked), Client{})
		testkit.Must(b.T, err)
	})
}

// TestPasskeyOfUnverified checks that a reset by the owner of an address that was never
// verified ends the passkeys of whoever registered it.
func TestPasskeyOfUnverified(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		exec(b.T, b.db, `UPDATE users SET email_verified = $1`, false)
		err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error { return b.applyReset(b.Context(), tx, b.p, "x", Client{}) })
		testkit.Must(b.T, err)
		wantRows(b.T, b.db, map[string]int{"passkeys": 0, "recovery_codes": 0, "passkey_challenges": 0})
		wantCode(b.T, b.signIn(b.device), stoa.InvalidCredentials)
	})
}

func TestRelyingParty(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"http://localhost:3000":         "localhost http://localhost:3000",
		"http://127.0.0.1:3000":         "localhost http://localhost:3000",
		"https://stoa.example.com":      "stoa.example.com https://stoa.example.com",
		"https://stoa.example.com:8443": "stoa.example.com https://stoa.example.com:8443",
		"https://192.0.2.7":             "",
		"":                              "",
	} {
		got := ""
		if p := newRelyingParty(base); p != nil {
			got = p.Config.RPID + " " + strings.Join(p.Config.RPOrigins, " ")
		}
		if got != want {
			t.Errorf("%q: %q, want %q", base, got, want)
		}
	}
}
