package accounts

import (
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

var inBrowser = Client{Address: "192.0.2.7", UserAgent: "Firefox", Browser: true}

// signInBrowser registers a user and returns the session of their browser.
func signInBrowser(t *testing.T, a *Accounts) Session {
	t.Helper()
	register(t, a)
	s, err := a.Login(t.Context(), registration().Email, keyring.NewSecret(goodPassword), inBrowser)
	testkit.Must(t, err)
	if s.Cookie.IsZero() || !s.AccessToken.IsZero() || !s.RefreshToken.IsZero() {
		t.Fatalf("%+v: want a cookie and no tokens", s)
	}
	return s
}

func TestCookie(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		s := signInBrowser(t, a)
		got, err := a.AuthenticateCookie(t.Context(), s.Cookie, inBrowser)
		testkit.Must(t, err)
		p := got.Principal
		if p.UserID != s.User.ID || !p.Browser || !p.RecentlyAuthenticated || p.Origin.Address != inBrowser.Address || got.User.Email != s.User.Email {
			t.Errorf("%+v", got)
		}
		for name, cookie := range map[string]string{"none": "", "short": "stoa_bs_x", "unknown": newToken(cookiePrefix).Reveal(),
			"refresh token": newToken(refreshPrefix).Reveal(), "its hash": s.Cookie.Hash()} {
			if _, err := a.AuthenticateCookie(t.Context(), keyring.NewSecret(cookie), inBrowser); stoa.CodeOf(err) != stoa.TokenInvalid {
				t.Errorf("%s: %v, want token_invalid", name, err)
			}
		}
		if _, err := a.Authenticate(t.Context(), s.Cookie.Reveal()); stoa.CodeOf(err) != stoa.TokenInvalid {
			t.Errorf("as an access token: %v, want token_invalid", err)
		}
		list, err := a.Sessions(t.Context(), p)
		testkit.Must(t, err)
		if len(list) != 2 || !list[0].Current && !list[1].Current {
			t.Errorf("%+v, want both sessions, one of them the current", list)
		}
		testkit.Must(t, a.Logout(t.Context(), p))
		_, err = a.AuthenticateCookie(t.Context(), s.Cookie, inBrowser)
		wantCode(t, err, stoa.SessionRevoked)
	})
}

// TestCookieExpires checks that a use extends a session and that one which is left
// unused ends.
func TestCookieExpires(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		s := signInBrowser(t, a)
		age := func(d time.Duration) {
			t.Helper()
			exec(t, db, `UPDATE sessions SET last_used_at = $1, expires_at = $2 WHERE cookie_hash IS NOT NULL`, db.Now().Add(-d), db.Now().Add(DefaultRefreshTTL-d))
		}
		expiry := func() time.Time {
			t.Helper()
			got, err := a.AuthenticateCookie(t.Context(), s.Cookie, inBrowser)
			testkit.Must(t, err)
			return got.ExpiresAt
		}
		age(30 * time.Minute)
		if left := expiry().Sub(db.Now()); left > DefaultRefreshTTL-29*time.Minute {
			t.Errorf("%v left after half an hour, want no extension yet", left)
		}
		age(2 * time.Hour)
		for range 2 {
			if left := expiry().Sub(db.Now()); left < DefaultRefreshTTL-time.Minute {
				t.Errorf("%v left after a use, want an extension", left)
			}
		}
		age(DefaultRefreshTTL)
		_, err := a.AuthenticateCookie(t.Context(), s.Cookie, inBrowser)
		wantCode(t, err, stoa.TokenExpired)
	})
}

// TestReauthenticate checks that what needs a recent password is refused to a browser
// without one, and to no other caller.
func TestReauthenticate(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		s := signInBrowser(t, a)
		store := stoa.NewID[stoa.StoreID]()
		principal := func() authz.Principal {
			t.Helper()
			got, err := a.AuthenticateCookie(t.Context(), s.Cookie, inBrowser)
			testkit.Must(t, err)
			return got.Principal
		}
		wantRecent := func(recent bool) {
			t.Helper()
			err := principal().Within(store, authz.DeleteStore)
			if recent != (err == nil) || !recent && stoa.CodeOf(err) != stoa.ReauthenticationRequired {
				t.Errorf("%v, want recent: %v", err, recent)
			}
			if err := principal().Within(store, authz.UpdateStore); err != nil {
				t.Errorf("an ordinary action: %v", err)
			}
		}
		wantRecent(true)
		exec(t, db, `UPDATE sessions SET authenticated_at = $1`, db.Now().Add(-recentAuthentication))
		wantRecent(false)
		token := principal()
		token.Browser = false
		testkit.Must(t, token.Within(store, authz.DeleteStore))

		wantCode(t, a.Reauthenticate(t.Context(), principal(), keyring.NewSecret("wrong password"), ""), stoa.InvalidCredentials)
		wantCode(t, a.Reauthenticate(t.Context(), principal(), keyring.Secret{}, "123456"), stoa.InvalidCredentials)
		wantRecent(false)
		wantAudited(t, db, audit.Reauthenticated, audit.Failed, 1)
		acting := principal()
		acting.Impersonator = stoa.NewID[stoa.UserID]()
		wantCode(t, a.Reauthenticate(t.Context(), acting, keyring.NewSecret(goodPassword), ""), stoa.Forbidden)
		testkit.Must(t, a.Reauthenticate(t.Context(), principal(), keyring.NewSecret(goodPassword), ""))
		wantRecent(true)
		wantAudited(t, db, audit.Reauthenticated, audit.Success, 1)
	})
}

// TestImpersonationInABrowser checks that an operator who acts as a user has a cookie
// that expires with the impersonation and no recent authentication.
func TestImpersonationInABrowser(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		user := register(t, a)
		r := registration()
		r.Email = "op@example.com"
		session, _, err := a.Register(t.Context(), r)
		testkit.Must(t, err)
		markVerified(t, a, user.User.Email)
		markVerified(t, a, r.Email)
		_, err = SetPlatformRole(t.Context(), db, authz.Principal{}, r.Email, "admin")
		testkit.Must(t, err)
		as, err := a.Impersonate(t.Context(), principal(t, a, session), user.User.ID, "ticket 17: sees no orders", inBrowser)
		testkit.Must(t, err)
		got, err := a.AuthenticateCookie(t.Context(), as.Cookie, inBrowser)
		testkit.Must(t, err)
		if p := got.Principal; p.UserID != user.User.ID || p.Impersonator != session.User.ID || p.RecentlyAuthenticated || as.ExpiresIn != impersonation {
			t.Errorf("%+v, %v", p, as.ExpiresIn)
		}
		exec(t, db, `UPDATE sessions SET last_used_at = $1 WHERE impersonator IS NOT NULL`, db.Now().Add(-2*time.Hour))
		if again, err := a.AuthenticateCookie(t.Context(), as.Cookie, inBrowser); err != nil || again.ExpiresAt != got.ExpiresAt {
			t.Errorf("%v, %v: an impersonation must not be extended", again.ExpiresAt, err)
		}
	})
}
