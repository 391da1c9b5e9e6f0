package accounts

import (
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/testkit"
)

// browserPrincipal signs in with the passkey, and returns the caller in a session whose
// authentication is an hour old.
func (b passkeyFixture) browserPrincipal() (authz.Principal, func() bool) {
	b.Helper()
	session, err := b.FinishPasskeyLogin(b.Context(), b.device.sign(b.T, b.asked()), inBrowser)
	testkit.Must(b.T, err)
	exec(b.T, b.db, `UPDATE sessions SET authenticated_at = $1 WHERE user_id = $2`, b.db.Now().Add(-time.Hour), b.p.UserID)
	present := func() authz.Principal {
		got, err := b.AuthenticateCookie(b.Context(), session.Cookie, inBrowser)
		testkit.Must(b.T, err)
		return got.Principal
	}
	return present(), func() bool { return present().RecentlyAuthenticated }
}

// TestPasskeyReauthentication checks that a passkey confirms a person once, and that
// nobody else's passkey, answer or challenge does.
func TestPasskeyReauthentication(t *testing.T) {
	t.Parallel()
	eachPasskeyFixture(t, func(b passkeyFixture) {
		p, recent := b.browserPrincipal()
		asked := func() PasskeyChallenge {
			c, err := b.BeginPasskeyReauthentication(b.Context(), p)
			testkit.Must(b.T, err)
			return c
		}
		refuse := func(name string, answer PasskeyAnswer, want stoa.Code) {
			b.Helper()
			if err := b.ReauthenticateByPasskey(b.Context(), p, answer); stoa.CodeOf(err) != want {
				b.Errorf("%s: %v, want %s", name, err, want)
			}
		}
		absent, foreign := *b.device, *b.device
		absent.options.UserNotVerified = true
		foreign.party.Origin = "https://evil.test"
		refuse("person not verified", absent.sign(b.T, asked()), stoa.InvalidCredentials)
		refuse("other origin", foreign.sign(b.T, asked()), stoa.InvalidCredentials)
		refuse("challenge of a sign-in", b.device.sign(b.T, b.asked()), stoa.TokenInvalid)
		earlier := asked()
		refuse("no answer", PasskeyAnswer{Token: asked().Token}, stoa.InvalidRequest)
		refuse("given-up challenge", b.device.sign(b.T, earlier), stoa.TokenInvalid)

		r := registration()
		r.Email = "eve@example.com"
		session, _, err := b.Register(b.Context(), r)
		testkit.Must(b.T, err)
		eve := principal(b.T, b.Accounts, session)
		_, err = b.BeginPasskeyReauthentication(b.Context(), eve)
		wantCode(b.T, err, stoa.NotFound)
		markVerified(b.T, b.Accounts, r.Email)
		eves := newDevice(eve.UserID)
		b.add(eve, eves, "Eve's")
		refuse("another person's passkey", eves.sign(b.T, asked()), stoa.InvalidCredentials)
		hers, err := b.BeginPasskeyReauthentication(b.Context(), eve)
		testkit.Must(b.T, err)
		refuse("another person's challenge", b.device.sign(b.T, hers), stoa.TokenInvalid)
		unknown := newDevice(b.p.UserID)
		unknown.credential = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
		refuse("unknown passkey", unknown.sign(b.T, asked()), stoa.InvalidCredentials)
		acting := p
		acting.Impersonator = eve.UserID
		_, err = b.BeginPasskeyReauthentication(b.Context(), acting)
		wantCode(b.T, err, stoa.Forbidden)
		wantCode(b.T, b.ReauthenticateByPasskey(b.Context(), acting, b.device.sign(b.T, asked())), stoa.Forbidden)
		if recent() {
			b.Fatal("a refused answer counts")
		}

		answer := b.device.sign(b.T, asked())
		testkit.Must(b.T, b.ReauthenticateByPasskey(b.Context(), p, answer))
		if !recent() {
			b.Error("the answer does not count")
		}
		refuse("sent twice", answer, stoa.TokenInvalid)
		for outcome, want := range map[audit.Outcome]int{audit.Success: 1, audit.Failed: 4} {
			var n int
			testkit.Must(b.T, b.db.Get(b.Context(), &n, `SELECT count(*) FROM audit_events WHERE action = $1 AND outcome = $2`, audit.Reauthenticated, string(outcome)))
			if n != want {
				b.Errorf("%d entries with %s, want %d", n, outcome, want)
			}
		}

		// A session that has ended is not confirmed.
		late := b.device.sign(b.T, asked())
		exec(b.T, b.db, `UPDATE sessions SET revoked_at = $1 WHERE user_id = $2`, b.db.Now(), b.p.UserID)
		if err := b.ReauthenticateByPasskey(b.Context(), p, late); err == nil {
			b.Error("an ended session was confirmed")
		}
	})
}
