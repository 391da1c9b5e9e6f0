package accounts

import (
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

func login(t *testing.T, a *Accounts, c Client) Session {
	t.Helper()
	s, err := a.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSessions(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		a, elsewhere := setup(t, db, ring), setup(t, db, ring)
		first := register(t, a)
		phone, laptop := login(t, a, Client{Address: "192.0.2.8", UserAgent: "phone"}), login(t, a, Client{Address: "192.0.2.9", UserAgent: "laptop"})
		p := principal(t, a, phone)
		r := registration()
		r.Email = "other@example.com"
		other, _, err := a.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}

		list, err := a.Sessions(t.Context(), p)
		if err != nil || len(list) != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		if d := list[1]; list[0].UserAgent != "laptop" || d.UserAgent != "phone" || d.Address != "192.0.2.8" || !d.Current || list[0].Current || d.Impersonated {
			t.Errorf("sessions %+v", list)
		}
		if err := a.EndSession(t.Context(), p, list[0].ID); err != nil {
			t.Fatal(err)
		}
		wantEnded(t, elsewhere, laptop)
		wantCode(t, a.EndSession(t.Context(), p, list[0].ID), stoa.NotFound)
		wantCode(t, a.EndSession(t.Context(), p, principal(t, a, other).SessionID), stoa.NotFound)
		wantCode(t, a.EndSession(t.Context(), p, stoa.SessionID{}), stoa.NotFound)

		if err := a.EndOtherSessions(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		wantEnded(t, elsewhere, first)
		principal(t, elsewhere, phone)
		principal(t, elsewhere, other)
		if list, err := a.Sessions(t.Context(), p); err != nil || len(list) != 1 {
			t.Errorf("left: %+v, %v", list, err)
		}
		wantAudited(t, db, audit.SessionRevoked, audit.Success, 2)
	})
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ring := testRing(t)
		a, elsewhere := setup(t, db, ring), setup(t, db, ring)
		session := register(t, a)
		other := login(t, a, Client{})
		p := principal(t, a, session)
		if err := a.ForgotPassword(t.Context(), "owner@example.com"); err != nil {
			t.Fatal(err)
		}
		link := tokensIn(t, sendAll(t, a), resetPassword)[0]
		change := func(old, next string) error {
			return a.ChangePassword(t.Context(), p, keyring.NewSecret(old), keyring.NewSecret(next))
		}
		wantCode(t, change("not the old one", "quite another one"), stoa.InvalidCredentials)
		wantAudited(t, db, audit.PasswordChanged, audit.Failed, 1)
		if diff := cmp.Diff([]string{"newPassword"}, faultyFields(change(goodPassword, "short"))); diff != "" {
			t.Errorf("faults (-want +got):\n%s", diff)
		}
		principal(t, a, other) // the session is still valid
		if err := change(goodPassword, "quite another one"); err != nil {
			t.Fatal(err)
		}
		principal(t, elsewhere, session)
		if _, err := a.Refresh(t.Context(), session.RefreshToken, Client{}); err != nil {
			t.Errorf("the session that changed it: %v", err)
		}
		wantEnded(t, elsewhere, other)
		wantCode(t, a.ResetPassword(t.Context(), link, keyring.NewSecret("quite a third one"), Client{}), stoa.TokenInvalid)
		wantCode(t, change(goodPassword, "quite a third one"), stoa.InvalidCredentials)
		wantAudited(t, db, audit.PasswordChanged, audit.Success, 1)
	})
}

// TestLoginDuringChange checks that a sign-in with the old password opens no session
// when the password changes while it is being checked.
func TestLoginDuringChange(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		p := principal(t, a, register(t, a))
		const next = "quite another one"
		opened := make([]Session, 8)
		errs := concurrently(len(opened)+1, func(i int) (err error) {
			if i == len(opened) {
				return a.ChangePassword(t.Context(), p, keyring.NewSecret(goodPassword), keyring.NewSecret(next))
			}
			opened[i], err = a.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{})
			return err
		})
		if err := errs[len(opened)]; err != nil {
			t.Fatal(err)
		}
		for i, s := range opened {
			if errs[i] == nil {
				wantEnded(t, a, s)
			} else if code := stoa.CodeOf(errs[i]); code != stoa.InvalidCredentials && code != stoa.RateLimited {
				t.Error(errs[i])
			}
		}
	})
}

// TestSignInsAreAudited checks that sign-ins are recorded, failed ones for any address
// included.
func TestSignInsAreAudited(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		user := register(t, a).User
		from := Client{Address: "192.0.2.8", RequestID: "r-1"}
		login(t, a, from)
		for _, email := range []string{"owner@example.com", "nobody@example.com"} {
			_, err := a.Login(t.Context(), email, keyring.NewSecret("wrong password"), from)
			wantCode(t, err, stoa.InvalidCredentials)
		}
		wantAudited(t, db, audit.SignedIn, audit.Success, 1)
		wantAudited(t, db, audit.SignedIn, audit.Failed, 2)
		var known int
		err := db.Get(t.Context(), &known, `SELECT count(*) FROM audit_events WHERE action = 'auth.sign_in' AND user_id = $1 AND address = '192.0.2.8' AND request_id = 'r-1'`, user.ID)
		if err != nil || known != 2 {
			t.Errorf("%d entries of the user, %v; want 2", known, err)
		}
	})
}

func TestImpersonate(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		user := register(t, a)
		r := registration()
		r.Email = "op@example.com"
		session, _, err := a.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		op := principal(t, a, session)
		markVerified(t, a, registration().Email)
		markVerified(t, a, r.Email)
		const reason = "ticket 17: sees no orders"
		act := func(p authz.Principal, who stoa.UserID, reason string) (Session, error) {
			return a.Impersonate(t.Context(), p, who, reason, Client{Address: "192.0.2.1"})
		}
		_, err = act(op, user.User.ID, reason)
		wantCode(t, err, stoa.Forbidden)
		for range 2 {
			if u, err := SetPlatformRole(t.Context(), db, authz.Principal{}, "OP@example.com", "admin"); err != nil || u.Role != "admin" {
				t.Fatalf("%+v, %v", u, err)
			}
		}
		wantAudited(t, db, audit.OperatorPromoted, audit.Success, 1)
		_, err = SetPlatformRole(t.Context(), db, authz.Principal{}, "nobody@example.com", "admin")
		wantCode(t, err, stoa.NotFound)

		for _, bad := range []string{"", "too short", "two\nlines of reason"} {
			_, err = act(op, user.User.ID, bad)
			wantCode(t, err, stoa.InvalidRequest)
		}
		_, err = act(op, op.UserID, reason)
		wantCode(t, err, stoa.Forbidden)
		_, err = act(op, stoa.NewID[stoa.UserID](), reason)
		wantCode(t, err, stoa.NotFound)
		as, err := act(op, user.User.ID, reason)
		if err != nil || !as.RefreshToken.IsZero() {
			t.Fatalf("%+v, %v", as, err)
		}
		p := principal(t, a, as)
		if p.UserID != user.User.ID || p.Impersonator != op.UserID {
			t.Errorf("principal %+v", p)
		}
		wantCode(t, a.ChangePassword(t.Context(), p, keyring.NewSecret(goodPassword), keyring.NewSecret("quite another one")), stoa.Forbidden)
		wantCode(t, a.EndOtherSessions(t.Context(), p), stoa.Forbidden)
		list, err := a.Sessions(t.Context(), principal(t, a, user))
		if err != nil || len(list) != 2 || !list[0].Impersonated || list[0].ExpiresAt.Sub(list[0].CreatedAt) != 15*time.Minute {
			t.Errorf("the user sees %+v, %v", list, err)
		}
		var details string
		if err := db.Get(t.Context(), &details, `SELECT details FROM audit_events WHERE action = 'operator.impersonated'`); err != nil || !containsAll(details, reason, user.User.ID.String()) {
			t.Errorf("details %s, %v", details, err)
		}
		if _, err := SetPlatformRole(t.Context(), db, authz.Principal{}, op.UserID.String(), "user"); err != nil {
			t.Fatal(err)
		}
		_, err = a.Authenticate(t.Context(), as.AccessToken.Reveal())
		wantCode(t, err, stoa.SessionRevoked)
		users, err := ListUsers(t.Context(), db, "admin", stoa.UserID{}, 10)
		if err != nil || len(users) != 0 {
			t.Errorf("operators %+v, %v", users, err)
		}
	})
}
