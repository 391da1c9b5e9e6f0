package accounts

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// wantEnded checks that neither token of a session works any more.
func wantEnded(t *testing.T, a *Accounts, s Session) {
	t.Helper()
	_, err := a.Authenticate(t.Context(), s.AccessToken.Reveal())
	wantCode(t, err, stoa.SessionRevoked)
	_, err = a.Refresh(t.Context(), s.RefreshToken, Client{})
	wantCode(t, err, stoa.SessionRevoked)
}

func TestLogout(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		here, elsewhere := setup(t, db, ring), setup(t, db, ring)
		session := register(t, here)
		other, err := here.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{})
		if err != nil {
			t.Fatal(err)
		}
		p := principal(t, elsewhere, session)

		for range 2 { // the second call changes nothing
			if err := here.Logout(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		wantEnded(t, here, session)
		wantEnded(t, elsewhere, session)
		principal(t, elsewhere, other) // the user's other session stays valid
	})
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		first := register(t, a)
		second, err := a.Refresh(t.Context(), first.RefreshToken, Client{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first.User, second.User); diff != "" {
			t.Errorf("user (-first +second):\n%s", diff)
		}
		if second.RefreshToken.Reveal() == first.RefreshToken.Reveal() || second.AccessToken.Reveal() == first.AccessToken.Reveal() {
			t.Error("a refresh must give new tokens")
		}
		if second.ExpiresIn != 15*time.Minute {
			t.Errorf("access token expires in %v", second.ExpiresIn)
		}
		if p, q := principal(t, a, first), principal(t, a, second); p != q {
			t.Errorf("principals %+v and %+v: want one session", p, q)
		}
		if _, err := a.Refresh(t.Context(), second.RefreshToken, Client{}); err != nil {
			t.Errorf("the second refresh token: %v", err)
		}
	})
}

func TestRefreshKeepsSessionAlive(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		yesterday := time.Now().UTC().Add(-24 * time.Hour).Truncate(time.Microsecond)
		exec(t, db, `UPDATE sessions SET created_at = $1, last_used_at = $1, expires_at = $2`, yesterday, yesterday.Add(48*time.Hour))

		long := strings.Repeat("x", 1000)
		if _, err := a.Refresh(t.Context(), session.RefreshToken, Client{Address: "2001:db8::1", UserAgent: long}); err != nil {
			t.Fatal(err)
		}
		var row struct {
			CreatedAt, LastUsedAt, ExpiresAt time.Time
			Address, UserAgent               string
		}
		err := db.Get(t.Context(), &row, `SELECT created_at, last_used_at, expires_at, address, user_agent FROM sessions`)
		if err != nil {
			t.Fatal(err)
		}
		if !row.CreatedAt.Equal(yesterday) || !row.LastUsedAt.After(yesterday) {
			t.Errorf("created %v, last used %v", row.CreatedAt, row.LastUsedAt)
		}
		if got := row.ExpiresAt.Sub(row.LastUsedAt); got != 30*24*time.Hour {
			t.Errorf("expires %v after its last use", got)
		}
		if row.Address != "2001:db8::1" || row.UserAgent != long[:256] {
			t.Errorf("address %q, user agent of %d bytes", row.Address, len(row.UserAgent))
		}
	})
}

func TestRefreshTokenUsedTwice(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		a, elsewhere := setup(t, db, ring), setup(t, db, ring)
		first := register(t, a)
		bystander, err := a.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{})
		if err != nil {
			t.Fatal(err)
		}
		second, err := a.Refresh(t.Context(), first.RefreshToken, Client{})
		if err != nil {
			t.Fatal(err)
		}
		endGrace(t, db)
		stolen, err := elsewhere.Refresh(t.Context(), first.RefreshToken, Client{})
		wantCode(t, err, stoa.SessionRevoked)
		if diff := cmp.Diff(User{}, stolen.User); diff != "" || !stolen.AccessToken.IsZero() || !stolen.RefreshToken.IsZero() {
			t.Errorf("a refused refresh returned a session: %+v", stolen)
		}
		wantEnded(t, a, first)
		wantEnded(t, a, second)
		principal(t, a, bystander)
		wantAudited(t, db, audit.TokenReused, audit.Denied, 1)
	})
}

func TestRefreshRefusals(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		for name, token := range map[string]string{
			"empty":                "",
			"prefix only":          refreshPrefix,
			"never issued":         newRefreshToken().Reveal(),
			"without prefix":       strings.TrimPrefix(session.RefreshToken.Reveal(), refreshPrefix),
			"longer":               session.RefreshToken.Reveal() + "A",
			"with its hash":        session.RefreshToken.Hash(),
			"an access token":      session.AccessToken.Reveal(),
			"bytes not in a token": refreshPrefix + strings.Repeat("\x00", 43),
		} {
			_, err := a.Refresh(t.Context(), keyring.NewSecret(token), Client{})
			if got := stoa.CodeOf(err); got != stoa.TokenInvalid {
				t.Errorf("%s: error %v, want token_invalid", name, err)
			}
		}
		if _, err := a.Refresh(t.Context(), session.RefreshToken, Client{}); err != nil {
			t.Errorf("after refusals of other tokens: %v", err)
		}
	})
}

func TestSessionExpires(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		exec(t, db, `UPDATE sessions SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
		_, err := a.Authenticate(t.Context(), session.AccessToken.Reveal())
		wantCode(t, err, stoa.TokenExpired)
		_, err = a.Refresh(t.Context(), session.RefreshToken, Client{})
		wantCode(t, err, stoa.TokenExpired)
	})
}

// TestRefreshConcurrently checks that tabs that refresh with one token at the same
// time, on any replica, all get a valid access token and the same refresh token.
func TestRefreshConcurrently(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		replicas := []*Accounts{setup(t, db, ring), setup(t, db, ring)}
		session := register(t, replicas[0])
		won := make([]Session, 10)
		errs := concurrently(len(won), func(i int) (err error) {
			won[i], err = replicas[i%2].Refresh(t.Context(), session.RefreshToken, Client{})
			return err
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 10}, codes(errs)); diff != "" {
			t.Fatalf("outcomes (-want +got):\n%s\n%v", diff, errs)
		}
		wantRows(t, db, map[string]int{"sessions": 1, "refresh_tokens": 2})
		wantOneUnspent(t, db, won[0].RefreshToken)
		for _, s := range won {
			principal(t, replicas[0], s)
			if s.RefreshToken != won[0].RefreshToken {
				t.Error("two tabs have different refresh tokens")
			}
		}
		errs = concurrently(len(won), func(i int) error {
			_, err := replicas[i%2].Refresh(t.Context(), won[i].RefreshToken, Client{})
			return err
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 10}, codes(errs)); diff != "" {
			t.Errorf("the tabs' next refresh (-want +got):\n%s\n%v", diff, errs)
		}
		wantRows(t, db, map[string]int{"sessions": 1, "refresh_tokens": 3})
	})
}

// TestRefreshGraceEnds checks that the grace period counts from the first use. A thief
// cannot extend the life of a used token by using it.
func TestRefreshGraceEnds(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		spent := func() (at time.Time) {
			var row struct{ SpentAt time.Time }
			if err := db.Get(t.Context(), &row, `SELECT spent_at FROM refresh_tokens WHERE hash = $1`, session.RefreshToken.Hash()); err != nil {
				t.Fatal(err)
			}
			return row.SpentAt
		}
		refresh := func() error {
			_, err := a.Refresh(t.Context(), session.RefreshToken, Client{})
			return err
		}
		if err := refresh(); err != nil {
			t.Fatal(err)
		}
		first := spent().Add(-refreshGrace / 2)
		exec(t, db, `UPDATE refresh_tokens SET spent_at = $1 WHERE spent_at IS NOT NULL`, first)
		if err := refresh(); err != nil || !spent().Equal(first) {
			t.Errorf("within the grace: %v, spent at %v, want %v", err, spent(), first)
		}
		exec(t, db, `UPDATE refresh_tokens SET spent_at = $1 WHERE spent_at IS NOT NULL`, first.Add(-refreshGrace))
		wantCode(t, refresh(), stoa.SessionRevoked)
	})
}

// TestNoGraceAfterLogout checks that a used token is refused after its session was
// revoked, also within the grace period.
func TestNoGraceAfterLogout(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		next, err := a.Refresh(t.Context(), session.RefreshToken, Client{})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Logout(t.Context(), principal(t, a, next)); err != nil {
			t.Fatal(err)
		}
		wantEnded(t, a, session)
		wantEnded(t, a, next)
	})
}

// wantAudited counts the entries of an action and outcome.
func wantAudited(t *testing.T, db *masterdb.DB, action string, outcome audit.Outcome, want int) {
	t.Helper()
	var n int
	if err := db.Get(t.Context(), &n, `SELECT count(*) FROM audit_events WHERE action = $1 AND outcome = $2`, action, string(outcome)); err != nil {
		t.Fatal(err)
	}
	if n != want {
		t.Errorf("%d entries of %s, %s; want %d", n, action, outcome, want)
	}
}

// TestLogoutDuringRefresh checks a concurrent logout and refresh: in either order no
// token of the session works afterwards.
func TestLogoutDuringRefresh(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		p := principal(t, a, session)
		next := session
		errs := concurrently(2, func(i int) error {
			if i == 0 {
				return a.Logout(t.Context(), p)
			}
			fresh, err := a.Refresh(t.Context(), session.RefreshToken, Client{})
			if err == nil {
				next = fresh
			}
			return err
		})
		if errs[0] != nil || errs[1] != nil && stoa.CodeOf(errs[1]) != stoa.SessionRevoked {
			t.Errorf("logout %v, refresh %v", errs[0], errs[1])
		}
		wantEnded(t, a, next)
		if _, err := a.Authenticate(t.Context(), session.AccessToken.Reveal()); stoa.CodeOf(err) != stoa.SessionRevoked {
			t.Errorf("the access token of before: %v", err)
		}
	})
}

func TestSessionOfDeletedUser(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		exec(t, db, `DELETE FROM users`)
		p, err := a.Authenticate(t.Context(), session.AccessToken.Reveal())
		wantCode(t, err, stoa.SessionRevoked)
		if p != (authz.Principal{}) {
			t.Errorf("principal %+v", p)
		}
		_, err = a.Refresh(t.Context(), session.RefreshToken, Client{})
		wantCode(t, err, stoa.TokenInvalid)
	})
}
