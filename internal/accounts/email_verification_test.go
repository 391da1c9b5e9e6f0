package accounts

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pquerna/otp/totp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

const otherPassword = "quite another one"

// TestUnverifiedAccountCreatesNothingLasting checks that an account whose address is
// not verified cannot create anything that lasts.
func TestUnverifiedAccountCreatesNothingLasting(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		exec(b.T, b.db, `UPDATE users SET email_verified = $1 WHERE id = $2`, false, b.owner.UserID)
		token := tokensIn(b.T, sendAll(b.T, b.Accounts), verifyEmail)[0]
		good := keyring.NewSecret(goodPassword)
		acts := map[string]func() error{
			"a second factor":  func() error { _, err := b.EnrolFactor(b.Context(), b.owner, good); return err },
			"its confirmation": func() error { _, err := b.ConfirmFactor(b.Context(), b.owner, "123456"); return err },
			"an API key": func() error {
				_, _, err := b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
				return err
			},
			"an invitation": func() error {
				_, err := b.Invite(b.Context(), b.owner, b.store, "guest@example.com", authz.Member)
				return err
			},
			"the role of an operator": func() error {
				_, err := SetPlatformRole(b.Context(), b.db, authz.Principal{}, "owner@example.com", "admin")
				return err
			},
			"an operator's session as the user": func() error {
				operator := b.person("operator-" + stoa.NewID[stoa.UserID]().String() + "@example.com")
				exec(b.T, b.db, `UPDATE users SET role = 'admin' WHERE id = $1`, operator.UserID)
				_, err := b.Impersonate(b.Context(), operator, b.owner.UserID, "ticket 17: a test", Client{})
				return err
			},
		}
		for name, act := range acts {
			if err := act(); stoa.CodeOf(err) != stoa.EmailUnverified {
				b.Errorf("%s before the proof: %v", name, err)
			}
		}
		wantRows(b.T, b.db, map[string]int{"second_factors": 0, "recovery_codes": 0, "api_keys": 0, "invitations": 0})
		if err := b.VerifyEmail(b.Context(), b.owner, token, keyring.Secret{}, Client{}); err != nil {
			b.Fatal(err)
		}
		for name, act := range acts {
			if err := act(); stoa.CodeOf(err) == stoa.EmailUnverified {
				b.Errorf("%s after the proof: %v", name, err)
			}
		}
	})
}

// TestVerifyEmailNeedsPasswordOrSession checks that the owner of an address that
// another person registered does not verify it by following the link.
func TestVerifyEmailNeedsPasswordOrSession(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		exec(b.T, b.db, `UPDATE users SET email_verified = $1`, false)
		token := tokensIn(b.T, sendAll(b.T, b.Accounts), verifyEmail)[0]
		other := b.person("other@example.com")
		key := b.owner
		key.SessionID, key.Key = stoa.SessionID{}, authz.Key{ID: stoa.NewID[stoa.KeyID](), StoreID: b.store}
		lent := b.owner
		lent.Impersonator = other.UserID
		for name, c := range map[string]struct {
			p        authz.Principal
			password string
			want     stoa.Code
		}{
			"neither":                    {authz.Principal{}, "", stoa.InvalidRequest},
			"a wrong password":           {authz.Principal{}, otherPassword, stoa.InvalidCredentials},
			"another's session":          {other, "", stoa.Forbidden},
			"another's and the password": {other, goodPassword, stoa.Forbidden},
			"an API key":                 {key, "", stoa.Forbidden},
			"an impersonated session":    {lent, "", stoa.Forbidden},
		} {
			if err := b.VerifyEmail(b.Context(), c.p, token, keyring.NewSecret(c.password), Client{}); stoa.CodeOf(err) != c.want {
				b.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		if me, err := b.Me(b.Context(), b.owner); err != nil || me.EmailVerified {
			b.Fatalf("verified %t, %v", me.EmailVerified, err)
		}
		if err := b.VerifyEmail(b.Context(), authz.Principal{}, token, keyring.NewSecret(goodPassword), Client{}); err != nil {
			b.Errorf("with the password: %v", err)
		}
		if me, err := b.Me(b.Context(), b.owner); err != nil || !me.EmailVerified {
			b.Errorf("verified %t, %v: its session goes on", me.EmailVerified, err)
		}
	})
}

func TestVerifyEmailGuesses(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		token := tokensIn(t, sendAll(t, a), verifyEmail)[0]
		got := map[stoa.Code]int{}
		for range fromSession.Free + 3 {
			got[stoa.CodeOf(a.VerifyEmail(t.Context(), authz.Principal{}, token, keyring.NewSecret(otherPassword), Client{}))]++
		}
		if got[stoa.RateLimited] == 0 || got[stoa.InvalidCredentials] < fromSession.Free {
			t.Errorf("outcomes %v", got)
		}
	})
}

// squatter is a user who has created in an account everything that an account of an
// earlier release could have before its address was verified.
type squatter struct {
	storeFixture
	key    keyring.Secret
	guest  keyring.Secret // the token of an invitation
	verify keyring.Secret
	member authz.Principal
	theirs keyring.Secret // the member's key
}

func squat(b storeFixture) squatter {
	b.Helper()
	ctx, good := b.Context(), keyring.NewSecret(goodPassword)
	s := squatter{storeFixture: b}
	exec(b.T, b.db, `UPDATE users SET email_verified = $1`, false)
	s.verify = tokensIn(b.T, sendAll(b.T, b.Accounts), verifyEmail)[0]
	markVerified(b.T, b.Accounts, "owner@example.com")
	enrolment, err := b.EnrolFactor(ctx, b.owner, good)
	if err != nil {
		b.Fatal(err)
	}
	code, err := totp.GenerateCode(enrolment.Secret.Reveal(), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	if _, err := b.ConfirmFactor(ctx, b.owner, code); err != nil {
		b.Fatal(err)
	}
	s.guest = b.invite(authz.Admin)
	s.member = b.member(authz.Owner)
	for p, key := range map[*authz.Principal]*keyring.Secret{&b.owner: &s.key, &s.member: &s.theirs} {
		if _, *key, err = b.keys().Create(ctx, *p, b.store, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}}); err != nil {
			b.Fatal(err)
		}
	}
	exec(b.T, b.db, `INSERT INTO supabase_consents (id, store_id, user_id, created_at, expires_at) VALUES ('c', $1, $2, $3, $3)`, b.store, b.owner.UserID, time.Now().UTC())
	exec(b.T, b.db, `INSERT INTO supabase_connections (store_id, user_id, state, tokens, version, expires_at, created_at, updated_at)
		VALUES ($1, $2, 'connected', 'sealed', 1, $3, $3, $3)`, b.store, b.owner.UserID, time.Now().UTC())
	exec(b.T, b.db, `UPDATE users SET email_verified = $1 WHERE id = $2`, false, b.owner.UserID)
	return s
}

// reset sets the password by mail, as the owner of the address.
func (s squatter) reset() {
	s.Helper()
	if err := s.ForgotPassword(s.Context(), "owner@example.com"); err != nil {
		s.Fatal(err)
	}
	token := tokensIn(s.T, sendAll(s.T, s.Accounts), resetPassword)[0]
	if err := s.ResetPassword(s.Context(), token, keyring.NewSecret(otherPassword), Client{Address: "198.51.100.9"}); err != nil {
		s.Fatal(err)
	}
}

// TestFirstVerificationRevokesEverything checks that the owner of an address that
// another person registered takes the account over with a new password. Only the store
// is kept.
func TestFirstVerificationRevokesEverything(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		s := squat(b)
		guest := b.person("guest@example.com")
		s.reset()
		_, err := b.Me(b.Context(), b.owner)
		if _, err := b.Authenticate(b.Context(), s.key.Reveal()); stoa.CodeOf(err) != stoa.TokenInvalid {
			b.Errorf("the key: %v", err)
		}
		if _, err := b.Authenticate(b.Context(), s.theirs.Reveal()); stoa.CodeOf(err) != stoa.TokenInvalid {
			b.Errorf("the key of who was let in: %v", err)
		}
		if err != nil {
			b.Errorf("the account is gone: %v", err)
		}
		if _, err := b.AcceptInvitation(b.Context(), guest, s.guest); stoa.CodeOf(err) != stoa.TokenInvalid || b.roleOf(guest) != "" {
			b.Errorf("the invitation: %v", err)
		}
		wantCode(b.T, b.VerifyEmail(b.Context(), authz.Principal{}, s.verify, keyring.NewSecret(otherPassword), Client{}), stoa.TokenInvalid)
		if role := b.roleOf(s.member); role != "" {
			b.Errorf("who was let in is %q", role)
		}
		if role := b.roleOf(b.owner); role != authz.Owner {
			b.Errorf("the account's own role is %q", role)
		}
		wantRows(b.T, b.db, map[string]int{"second_factors": 0, "recovery_codes": 0, "supabase_consents": 0, "supabase_connections": 0, "stores": 1})
		session, err := b.Login(b.Context(), "owner@example.com", keyring.NewSecret(otherPassword), Client{})
		if err != nil || !session.User.EmailVerified {
			b.Errorf("the owner signs in: %v", err)
		}
		var known int
		err = b.db.Get(b.Context(), &known, `SELECT count(*) FROM sessions WHERE user_id = $1 AND address = $2`, b.owner.UserID, registration().Client.Address)
		if err != nil || known > 0 {
			b.Errorf("%d places of the other's are still known, %v", known, err)
		}
		wantAudited(b.T, b.db, audit.MemberRemoved, audit.Success, 1)
		wantAudited(b.T, b.db, audit.SupabaseLeft, audit.Success, 1)
	})
}

// TestPasswordResetKeepsVerifiedAccount checks that a reset in an account whose address
// is verified revokes sessions and tokens only.
func TestPasswordResetKeepsVerifiedAccount(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		s := squat(b)
		markVerified(b.T, b.Accounts, "owner@example.com")
		s.reset()
		if _, err := b.Authenticate(b.Context(), s.key.Reveal()); err != nil {
			b.Errorf("the key: %v", err)
		}
		if role := b.roleOf(s.member); role != authz.Owner {
			b.Errorf("the member is %q", role)
		}
		wantRows(b.T, b.db, map[string]int{"second_factors": 1, "supabase_connections": 1})
	})
}

// TestVerifyEmailKeepsEverything checks that the person who created the account keeps
// everything in it.
func TestVerifyEmailKeepsEverything(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		s := squat(b)
		if err := b.VerifyEmail(b.Context(), b.owner, s.verify, keyring.Secret{}, Client{}); err != nil {
			b.Fatal(err)
		}
		if _, err := b.Authenticate(b.Context(), s.key.Reveal()); err != nil || b.roleOf(s.member) != authz.Owner {
			b.Errorf("the key: %v, the member is %q", err, b.roleOf(s.member))
		}
		wantRows(b.T, b.db, map[string]int{"second_factors": 1, "supabase_connections": 1})
	})
}

// TestVerificationKeepsMembersOfOtherStores checks that no member is removed from a
// store that the account does not own.
func TestVerificationKeepsMembersOfOtherStores(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		squatter := b.member(authz.Admin)
		viewer := b.member(authz.Viewer)
		var email string
		if err := b.db.Get(b.Context(), &email, `SELECT email FROM users WHERE id = $1`, squatter.UserID); err != nil {
			b.Fatal(err)
		}
		exec(b.T, b.db, `UPDATE users SET email_verified = $1 WHERE id = $2`, false, squatter.UserID)
		sendAll(b.T, b.Accounts)
		if err := b.ForgotPassword(b.Context(), email); err != nil {
			b.Fatal(err)
		}
		token := tokensIn(b.T, sendAll(b.T, b.Accounts), resetPassword)[0]
		if err := b.ResetPassword(b.Context(), token, keyring.NewSecret(otherPassword), Client{}); err != nil {
			b.Fatal(err)
		}
		if b.roleOf(b.owner) != authz.Owner || b.roleOf(viewer) != authz.Viewer || b.roleOf(squatter) != authz.Admin {
			b.Errorf("now %q, %q, %q", b.roleOf(b.owner), b.roleOf(viewer), b.roleOf(squatter))
		}
	})
}

// TestCreateKeyDuringVerification checks that a request that began before the
// verification creates nothing after it. Both wait for the user's row.
func TestCreateKeyDuringVerification(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		exec(b.T, b.db, `UPDATE users SET email_verified = $1`, false)
		sendAll(b.T, b.Accounts)
		if err := b.ForgotPassword(b.Context(), "owner@example.com"); err != nil {
			b.Fatal(err)
		}
		token := tokensIn(b.T, sendAll(b.T, b.Accounts), resetPassword)[0]
		errs := bothAtRows(b.T, b.db, `SELECT id FROM users`, func(i int) error {
			if i == 0 {
				return b.ResetPassword(b.Context(), token, keyring.NewSecret(otherPassword), Client{})
			}
			_, _, err := b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
			return err
		})
		if code := stoa.CodeOf(errs[1]); errs[0] != nil || code != stoa.EmailUnverified && code != stoa.SessionRevoked {
			b.Errorf("outcomes %v", errs)
		}
		// The session is revoked, although the address is now verified.
		_, _, err := b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
		wantCode(b.T, err, stoa.SessionRevoked)
		wantRows(b.T, b.db, map[string]int{"api_keys": 0})
	})
}

// TestMailsToUnverifiedAddresses checks that such mails contain no text of the person
// who registered the address, and state what the address's owner can do.
func TestMailsToUnverifiedAddresses(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		r := registration()
		r.FirstName, r.LastName = "Winner", "Claim Prize"
		if _, _, err := a.Register(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Login(t.Context(), r.Email, r.Password, Client{Address: "198.51.100.1", UserAgent: "Winner"}); err != nil {
			t.Fatal(err)
		}
		if err := a.ForgotPassword(t.Context(), r.Email); err != nil {
			t.Fatal(err)
		}
		box := sendAll(t, a)
		if len(box) != 2 {
			t.Fatalf("%d mails, want one to verify and one for a password: %+v", len(box), box)
		}
		for _, m := range box {
			if strings.Contains(m.To+m.Text, "Winner") || strings.Contains(m.To+m.Text, "Prize") {
				t.Errorf("a mail to an unproven address holds its name: %s\n%s", m.To, m.Text)
			}
			for purpose, want := range map[purpose][]string{
				verifyEmail:   {"do not confirm", "https://stoa.test/forgot"},
				resetPassword: {"may have been opened by somebody else", "API keys"},
			} {
				if len(tokensIn(t, box, purpose)) != 1 {
					t.Errorf("no link of %s", purpose)
				}
				for _, s := range want {
					if strings.Contains(m.Text, purpose.prefix()) && !strings.Contains(m.Text, s) {
						t.Errorf("%s lacks %q:\n%s", purpose, s, m.Text)
					}
				}
			}
		}
	})
}

func TestConfirmEmail(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		p := principal(t, a, register(t, a))
		for _, name := range []string{"OWNER@example.com", p.UserID.String()} {
			if user, err := ConfirmEmail(t.Context(), db, authz.Principal{}, name); err != nil || user.ID != p.UserID || !user.EmailVerified {
				t.Errorf("%s: %+v, %v", name, user, err)
			}
		}
		if _, err := ConfirmEmail(t.Context(), db, authz.Principal{}, "nobody@example.com"); stoa.CodeOf(err) != stoa.NotFound {
			t.Errorf("nobody: %v", err)
		}
		wantAudited(t, db, audit.EmailVerified, audit.Success, 1)
		if me, err := a.Me(t.Context(), p); !cmp.Equal(me.EmailVerified, true) || err != nil {
			t.Errorf("%+v, %v", me, err)
		}
	})
}
