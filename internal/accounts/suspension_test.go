package accounts

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/testkit"
)

const testReason = "ticket 17: spam from this account"

// operator returns a user who is an operator of the platform.
func (b storeFixture) operator() authz.Principal {
	b.Helper()
	p := b.person("operator@example.com")
	markVerified(b.T, b.Accounts, "operator@example.com")
	_, err := SetPlatformRole(b.Context(), b.db, authz.Principal{}, "operator@example.com", "admin")
	testkit.Must(b.T, err)
	return p
}

// TestSuspendedUser tries every way into a suspended account.
func TestSuspendedUser(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		ctx, op, owner := b.Context(), b.operator(), b.owner.UserID
		password := keyring.NewSecret(goodPassword)
		tokens := login(b.T, b.Accounts, Client{})
		browser, err := b.Login(ctx, registration().Email, password, inBrowser)
		testkit.Must(b.T, err)
		_, key := b.key(b.owner, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
		as, err := b.Impersonate(ctx, op, owner, testReason, inBrowser)
		testkit.Must(b.T, err)
		testkit.Must(b.T, b.ForgotPassword(ctx, registration().Email))
		reset := tokensIn(b.T, sendAll(b.T, b.Accounts), resetPassword)[0]
		invited := b.person("guest@example.com")
		invitation := b.invite(authz.Member)

		for range 2 {
			testkit.Must(b.T, b.SuspendUser(ctx, op, owner, testReason))
		}
		testkit.Must(b.T, b.SuspendUser(ctx, op, invited.UserID, testReason))
		testkit.Must(b.T, b.ResetPassword(ctx, reset, password, Client{}))
		ways := map[string]func() error{
			"access token":  func() error { _, err := b.Authenticate(ctx, tokens.AccessToken.Reveal()); return err },
			"refresh token": func() error { _, err := b.Refresh(ctx, tokens.RefreshToken, Client{}); return err },
			"cookie":        func() error { _, err := b.AuthenticateCookie(ctx, browser.Cookie, inBrowser); return err },
			"API key":       func() error { _, err := b.Authenticate(ctx, key.Reveal()); return err },
			"impersonation that is open": func() error {
				_, err := b.AuthenticateCookie(ctx, as.Cookie, inBrowser)
				return err
			},
			"new impersonation": func() error { _, err := b.Impersonate(ctx, op, owner, testReason, inBrowser); return err },
			"password":          func() error { _, err := b.Login(ctx, registration().Email, password, Client{}); return err },
			"request under way": func() error { _, err := authz.Check(ctx, b.db, b.owner, b.store, authz.ReadStore); return err },
			"invitation":        func() error { _, err := b.AcceptInvitation(ctx, invited, invitation); return err },
			"API key under way": func() error {
				_, _, err := b.keys().Create(ctx, b.owner, b.store, apikeys.NewKey{Name: "L", Scopes: []string{"store:read"}})
				return err
			},
			"an operator's role": func() error {
				_, err := SetPlatformRole(ctx, b.db, authz.Principal{}, registration().Email, "admin")
				return err
			},
		}
		for name, way := range ways {
			want := []stoa.Code{stoa.AccountSuspended}
			if name == "invitation" {
				want = append(want, stoa.SessionRevoked)
			}
			if err := way(); !slices.Contains(want, stoa.CodeOf(err)) {
				b.Errorf("%s: %v, want account_suspended", name, err)
			}
		}
		_, err = b.Login(ctx, registration().Email, keyring.NewSecret("wrong password"), Client{})
		wantCode(b.T, err, stoa.InvalidCredentials)
		wantAudited(b.T, b.db, audit.UserSuspended, audit.Success, 2)
		mails := sendAll(b.T, b.Accounts)
		if !slices.ContainsFunc(mails, func(m mail.Written) bool {
			return strings.HasPrefix(m.ID, "suspension-"+owner.String()) && strings.Contains(m.Text, testReason)
		}) {
			b.Errorf("no mail with the reason")
		}

		for range 2 {
			testkit.Must(b.T, b.ResumeUser(ctx, op, owner, "the person has written"))
		}
		login(b.T, b.Accounts, Client{})
		b.auth(key, "")
		_, err = b.AuthenticateCookie(ctx, browser.Cookie, inBrowser)
		wantCode(b.T, err, stoa.SessionRevoked)
		wantAudited(b.T, b.db, audit.UserResumed, audit.Success, 1)
	})
}

// TestSuspendedSecondFactor checks the second step of a sign-in, and the first one of a
// user who has a second factor.
func TestSuspendedSecondFactor(t *testing.T) {
	t.Parallel()
	eachFactorFixture(t, func(b factorFixture) {
		challenge := b.challengeFor()
		exec(b.T, b.db, `UPDATE users SET suspended_at = created_at WHERE id = $1`, b.p.UserID)
		wantCode(b.T, b.second(challenge, b.code(0)), stoa.AccountSuspended)
		_, err := b.Login(b.Context(), registration().Email, keyring.NewSecret(goodPassword), Client{})
		wantCode(b.T, err, stoa.AccountSuspended)
	})
}

func TestSuspendRefusals(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		op, member := b.operator(), b.member(authz.Member)
		for name, c := range map[string]struct {
			by     authz.Principal
			user   stoa.UserID
			reason string
			want   stoa.Code
		}{
			"an owner":       {b.owner, member.UserID, testReason, stoa.Forbidden},
			"own account":    {op, op.UserID, testReason, stoa.Forbidden},
			"unknown":        {op, stoa.NewID[stoa.UserID](), testReason, stoa.NotFound},
			"no reason":      {op, member.UserID, " ", stoa.InvalidRequest},
			"several lines":  {op, member.UserID, "ticket 17:\nspam and more", stoa.InvalidRequest},
			"nobody":         {authz.Principal{}, member.UserID, testReason, stoa.Forbidden},
			"acting as them": {authz.Principal{UserID: op.UserID, Impersonator: op.UserID}, member.UserID, testReason, stoa.Forbidden},
		} {
			if err := b.SuspendUser(b.Context(), c.by, c.user, c.reason); stoa.CodeOf(err) != c.want {
				b.Errorf("%s: %v, want %s", name, err, c.want)
			}
			if err := b.ResumeUser(b.Context(), c.by, c.user, c.reason); name != "own account" && stoa.CodeOf(err) != c.want {
				b.Errorf("resume, %s: %v, want %s", name, err, c.want)
			}
		}
		wantAudited(b.T, b.db, audit.UserSuspended, audit.Success, 0)
	})
}

func TestSearchUsers(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		op := b.operator()
		for i := range 5 {
			b.person(fmt.Sprintf("ann-%d@example.com", i))
		}
		_ = b.person("anna@example.com")
		suspended := b.person("zed@example.com")
		testkit.Must(b.T, b.SuspendUser(b.Context(), op, suspended.UserID, testReason))
		all := func(f UserFilter) (emails []string) {
			b.Helper()
			for {
				page, err := b.SearchUsers(b.Context(), op, f)
				testkit.Must(b.T, err)
				for _, u := range page.Users {
					emails = append(emails, strings.TrimSuffix(u.Email, "@example.com"))
				}
				if page.NextCursor == nil {
					return emails
				}
				f.Cursor = *page.NextCursor
			}
		}
		for name, c := range map[string]struct {
			f    UserFilter
			want string
		}{
			"all":       {UserFilter{}, "zed anna ann-4 ann-3 ann-2 ann-1 ann-0 operator owner"},
			"prefix":    {UserFilter{Search: "ANN-"}, "ann-0 ann-1 ann-2 ann-3 ann-4"},
			"longer":    {UserFilter{Search: "anna@"}, "anna"},
			"id":        {UserFilter{Search: suspended.UserID.String()}, "zed"},
			"wildcard":  {UserFilter{Search: "%"}, ""},
			"operators": {UserFilter{Only: OnlyOperators}, "operator"},
			"suspended": {UserFilter{Only: OnlySuspended}, "zed"},
		} {
			for _, limit := range []int{0, 1, 2} {
				c.f.Limit = limit
				if got := strings.Join(all(c.f), " "); got != c.want {
					b.Errorf("%s, %d at a time: %q, want %q", name, limit, got, c.want)
				}
			}
		}
		for name, f := range map[string]UserFilter{"limit": {Limit: 101}, "cursor": {Search: "a", Cursor: "%"}, "only": {Only: "x"},
			"long": {Search: strings.Repeat("a", 300)}, "bytes": {Search: "a\x00"}, "id cursor": {Cursor: "x"}} {
			_, err := b.SearchUsers(b.Context(), op, f)
			if stoa.CodeOf(err) != stoa.InvalidRequest {
				b.Errorf("%s: %v, want invalid_request", name, err)
			}
		}
		_, err := b.SearchUsers(b.Context(), b.owner, UserFilter{})
		wantCode(b.T, err, stoa.Forbidden)
		_, err = b.UserForOperator(b.Context(), b.owner, b.owner.UserID)
		wantCode(b.T, err, stoa.Forbidden)
		got, err := b.UserForOperator(b.Context(), op, b.owner.UserID)
		testkit.Must(b.T, err)
		if len(got.Stores) != 1 || got.Stores[0].Role != authz.Owner || got.Sessions != 1 || got.LastUsedAt == nil {
			b.Errorf("%+v", got)
		}
		got, err = b.UserForOperator(b.Context(), op, suspended.UserID)
		if err != nil || got.SuspendedBy == nil || *got.SuspendedBy != "operator@example.com" || got.SuspensionReason != testReason {
			b.Errorf("%+v, %v", got, err)
		}
	})
}
