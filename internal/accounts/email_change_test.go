package accounts

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

const newEmail = "new@example.com"

// changing is an account whose change of the address was requested and mailed.
type changing struct {
	storeFixture
	old, new keyring.Secret // the tokens of the two mails
}

func eachChange(t *testing.T, test func(changing)) {
	t.Helper()
	eachStoreFixture(t, func(b storeFixture) { test(b.change()) })
}

func (b storeFixture) change() changing {
	b.Helper()
	_, err := b.RequestEmailChange(b.Context(), b.owner, newEmail, keyring.NewSecret(goodPassword))
	testkit.Must(b.T, err)
	box := sendAll(b.T, b.Accounts)
	return changing{b, linkTo(b.T, box, "owner@example.com"), linkTo(b.T, box, newEmail)}
}

// linkTo returns the token of the newest change that was mailed to an address.
func linkTo(t *testing.T, box []mail.Written, email string) keyring.Secret {
	t.Helper()
	to := slices.DeleteFunc(slices.Clone(box), func(m mail.Written) bool { return !strings.Contains(m.To, email) })
	tokens := tokensIn(t, to, changeEmail)
	if len(tokens) == 0 {
		t.Fatalf("no link was mailed to %s", email)
	}
	return tokens[0]
}

func (c changing) confirm(token keyring.Secret) error {
	_, err := c.ConfirmEmailChange(c.Context(), c.owner, token, keyring.Secret{}, Client{})
	return err
}

func (c changing) email() string {
	c.Helper()
	user, err := c.Me(c.Context(), c.owner)
	testkit.Must(c.T, err)
	return user.Email
}

func TestEmailChange(t *testing.T) {
	t.Parallel()
	eachChange(t, func(c changing) {
		other := login(c.T, c.Accounts, Client{Address: "192.0.2.8"})
		testkit.Must(c.T, c.ForgotPassword(c.Context(), "owner@example.com"))
		reset := tokensIn(c.T, sendAll(c.T, c.Accounts), resetPassword)[0]

		testkit.Must(c.T, c.confirm(c.new))
		if got := c.email(); got != "owner@example.com" {
			c.Fatalf("one confirmation has changed the address to %s", got)
		}
		pending, err := c.PendingEmailChange(c.Context(), c.owner)
		testkit.Must(c.T, err)
		if pending == nil || pending.NewConfirmedAt == nil || pending.OldConfirmedAt != nil {
			c.Errorf("pending: %+v", pending)
		}
		testkit.Must(c.T, c.confirm(c.old))
		user, err := c.Me(c.Context(), c.owner)
		testkit.Must(c.T, err)
		if user.Email != newEmail || !user.EmailVerified {
			c.Errorf("after both: %+v", user)
		}
		for _, token := range []keyring.Secret{c.old, c.new} {
			if err := c.confirm(token); stoa.CodeOf(err) != stoa.TokenInvalid {
				c.Errorf("a link again: %v", err)
			}
		}
		if err := c.ResetPassword(c.Context(), reset, keyring.NewSecret(otherPassword), Client{}); stoa.CodeOf(err) != stoa.TokenInvalid {
			c.Errorf("a link of before: %v", err)
		}
		principal(c.T, c.Accounts, other) // the other session stays
		if _, err := c.Login(c.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{}); stoa.CodeOf(err) != stoa.InvalidCredentials {
			c.Errorf("sign-in with the old address: %v", err)
		}
		told := sendAll(c.T, c.Accounts)[0]
		if !strings.Contains(told.To, "owner@example.com") || !strings.Contains(told.Text, "is now "+newEmail) {
			c.Errorf("the old address is told: %+v", told)
		}
	})
}

func TestEmailChangeWithPassword(t *testing.T) {
	t.Parallel()
	eachChange(t, func(c changing) {
		stranger := c.person("stranger@example.com")
		impersonated := c.owner
		impersonated.Impersonator = stranger.UserID
		for name, call := range map[string]struct {
			p        authz.Principal
			password string
			want     stoa.Code
		}{
			"another person":           {p: stranger, want: stoa.Forbidden},
			"an operator as the owner": {p: impersonated, want: stoa.Forbidden},
			"nobody":                   {want: stoa.InvalidRequest},
			"a wrong password":         {password: otherPassword, want: stoa.InvalidCredentials},
			"a wrong link":             {p: c.owner, want: stoa.TokenInvalid},
		} {
			token := c.old
			if call.want == stoa.TokenInvalid {
				token = newToken(changeEmail.prefix())
			}
			_, err := c.ConfirmEmailChange(c.Context(), call.p, token, keyring.NewSecret(call.password), Client{})
			if stoa.CodeOf(err) != call.want {
				c.Errorf("%s: %v, want %s", name, err, call.want)
			}
		}
		for _, token := range []keyring.Secret{c.old, c.new} {
			_, err := c.ConfirmEmailChange(c.Context(), authz.Principal{}, token, keyring.NewSecret(goodPassword), Client{})
			testkit.Must(c.T, err)
		}
		if got := c.email(); got != newEmail {
			c.Errorf("the address is %s", got)
		}
	})
}

func TestEmailChangeEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		act  func(changing) error
		want stoa.Code
	}{
		"expiry": {func(c changing) error {
			exec(c.T, c.db, `UPDATE email_changes SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
			return nil
		}, stoa.TokenExpired},
		"withdrawal": {func(c changing) error { return c.WithdrawEmailChange(c.Context(), c.owner) }, stoa.TokenInvalid},
		"another request": {func(c changing) error {
			_, err := c.RequestEmailChange(c.Context(), c.owner, "third@example.com", keyring.NewSecret(goodPassword))
			return err
		}, stoa.TokenInvalid},
		"a new password": {func(c changing) error {
			return c.ChangePassword(c.Context(), c.owner, keyring.NewSecret(goodPassword), keyring.NewSecret(otherPassword))
		}, stoa.TokenInvalid},
		"deletion": {func(c changing) error {
			exec(c.T, c.db, `UPDATE stores SET status = 'deleted'`)
			return c.DeleteAccount(c.Context(), c.owner, keyring.NewSecret(goodPassword))
		}, stoa.TokenInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachChange(t, func(c changing) {
				testkit.Must(c.T, c.confirm(c.new))
				testkit.Must(c.T, end.act(c))
				if err := c.confirm(c.old); stoa.CodeOf(err) != end.want {
					c.Errorf("the link afterwards: %v, want %s", err, end.want)
				}
			})
		})
	}
}

func TestEmailChangeSideBySide(t *testing.T) {
	t.Parallel()
	eachChange(t, func(c changing) {
		both := bothAtRows(c.T, c.db, `SELECT id FROM users`, func(i int) error { return c.confirm([]keyring.Secret{c.old, c.new}[i]) })
		if diff := cmp.Diff(map[stoa.Code]int{"": 2}, codes(both)); diff != "" {
			c.Errorf("both links (-want +got):\n%s", diff)
		}
		if got := c.email(); got != newEmail {
			c.Errorf("the address is %s", got)
		}
	})
	eachChange(t, func(c changing) {
		same := bothAtRows(c.T, c.db, `SELECT id FROM users`, func(int) error { return c.confirm(c.old) })
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.TokenInvalid: 1}, codes(same)); diff != "" {
			c.Errorf("one link twice (-want +got):\n%s", diff)
		}
	})
}

// TestTakenAddressTellsNothing checks that the answer does not depend on whether the new
// address has an account, and that such an account keeps its address.
func TestTakenAddressTellsNothing(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		b.person("taken@example.com")
		sendAll(b.T, b.Accounts)
		change, err := b.RequestEmailChange(b.Context(), b.owner, "taken@example.com", keyring.NewSecret(goodPassword))
		testkit.Must(b.T, err)
		if change.NewEmail != "taken@example.com" {
			b.Errorf("change %+v", change)
		}
		box := sendAll(b.T, b.Accounts)
		i := slices.IndexFunc(box, func(m mail.Written) bool { return m.Subject == takenAddressMail.subject })
		if i < 0 || !strings.Contains(box[i].To, "taken@example.com") || strings.Contains(box[i].Text, "token=") {
			b.Errorf("mails: %+v", box)
		}
	})
	// The address was registered after the link was sent.
	eachChange(t, func(c changing) {
		testkit.Must(c.T, c.confirm(c.old))
		c.person(newEmail)
		if err := c.confirm(c.new); stoa.CodeOf(err) != stoa.EmailTaken {
			c.Errorf("an address that was taken meanwhile: %v", err)
		}
		if got := c.email(); got != "owner@example.com" {
			c.Errorf("the address is %s", got)
		}
	})
}

func TestEmailChangeRequests(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		impersonated, browser, key := b.owner, b.owner, b.owner
		impersonated.Impersonator = b.owner.UserID
		browser.Browser = true
		key.Key.ID = stoa.NewID[stoa.KeyID]()
		for name, call := range map[string]struct {
			p               authz.Principal
			email, password string
			want            stoa.Code
		}{
			"a wrong password":    {b.owner, newEmail, otherPassword, stoa.InvalidCredentials},
			"no password":         {b.owner, newEmail, "", stoa.InvalidRequest},
			"an old browser":      {browser, newEmail, "", stoa.ReauthenticationRequired},
			"an operator":         {impersonated, newEmail, goodPassword, stoa.Forbidden},
			"an API key":          {key, newEmail, goodPassword, stoa.Forbidden},
			"no address":          {b.owner, "new", goodPassword, stoa.InvalidRequest},
			"the present address": {b.owner, "Owner@Example.com", goodPassword, stoa.InvalidRequest},
		} {
			if _, err := b.RequestEmailChange(b.Context(), call.p, call.email, keyring.NewSecret(call.password)); stoa.CodeOf(err) != call.want {
				b.Errorf("%s: %v, want %s", name, err, call.want)
			}
		}
		wantRows(b.T, b.db, map[string]int{"email_changes": 0})
		browser.RecentlyAuthenticated = true
		got := map[stoa.Code]int{}
		for range 7 {
			_, err := b.RequestEmailChange(b.Context(), browser, newEmail, keyring.Secret{})
			got[stoa.CodeOf(err)]++
		}
		if got[""] < 5 || got[stoa.RateLimited] == 0 {
			b.Errorf("seven requests in a row: %v", got)
		}
	})
}

// TestUnverifiedAddressChanges checks that a mistyped address can be corrected: it need
// not confirm, and nothing is sent to it.
func TestUnverifiedAddressChanges(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		p := principal(t, a, register(t, a))
		sent := len(sendAll(t, a))
		_, err := a.RequestEmailChange(t.Context(), p, newEmail, keyring.NewSecret(goodPassword))
		testkit.Must(t, err)
		box := sendAll(t, a)
		change, err := a.ConfirmEmailChange(t.Context(), p, linkTo(t, box, newEmail), keyring.Secret{}, Client{})
		testkit.Must(t, err)
		user, err := a.Me(t.Context(), p)
		testkit.Must(t, err)
		if !change.Complete() || user.Email != newEmail || !user.EmailVerified {
			t.Errorf("%+v, %+v", change, user)
		}
		if n := len(sendAll(t, a)) - sent; n != 1 {
			t.Errorf("%d mails were sent, want that to the new address only", n)
		}
	})
}

func TestChangeName(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		user, err := b.ChangeName(b.Context(), b.owner, NameChange{FirstName: new("  Ölive ")})
		testkit.Must(b.T, err)
		if user.FirstName != "Ölive" || user.LastName != "Owner" {
			b.Errorf("%+v", user)
		}
		impersonated := b.owner
		impersonated.Impersonator = b.owner.UserID
		for name, call := range map[string]struct {
			p      authz.Principal
			change NameChange
			want   stoa.Code
		}{
			"an operator":  {impersonated, NameChange{FirstName: new("X")}, stoa.Forbidden},
			"too long":     {b.owner, NameChange{LastName: new(strings.Repeat("x", 5000))}, stoa.InvalidRequest},
			"a link":       {b.owner, NameChange{LastName: new("https://evil.example")}, stoa.InvalidRequest},
			"a line break": {b.owner, NameChange{FirstName: new("a\nb")}, stoa.InvalidRequest},
		} {
			if _, err := b.ChangeName(b.Context(), call.p, call.change); stoa.CodeOf(err) != call.want {
				b.Errorf("%s: %v, want %s", name, err, call.want)
			}
		}
	})
}
