package accounts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// another creates another store with its owner, whose address is verified.
func (b storeFixture) another(email string) storeFixture {
	b.Helper()
	r := registration()
	r.Email, r.StoreName = email, new("Another")
	session, store, err := b.Register(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	markVerified(b.T, b.Accounts, email)
	b.store, b.owner = store.ID, principal(b.T, b.Accounts, session)
	return b
}

// outcomes counts the codes of n invitations to the addresses of a pattern.
func (b storeFixture) outcomes(n int, pattern string) map[stoa.Code]int {
	b.Helper()
	got := map[stoa.Code]int{}
	for i := range n {
		email := pattern
		if strings.Contains(pattern, "%") {
			email = fmt.Sprintf(pattern, i)
		}
		// The minimum time between two mails to one address is not tested here.
		exec(b.T, b.db, `UPDATE invitations SET sent_at = $1`, time.Now().UTC().Add(-2*mailPause))
		_, err := b.Invite(b.Context(), b.owner, b.store, email, authz.Member)
		got[stoa.CodeOf(err)]++
		if wait := retryAfter(err); err != nil && (wait <= 0 || wait > 7*24*time.Hour) {
			b.Errorf("a refusal says to wait %s", wait)
		}
	}
	return got
}

func retryAfter(err error) time.Duration {
	if e, ok := err.(*stoa.Error); ok { //nolint:errorlint // Invite returns it without wrapping
		return e.RetryAfter
	}
	return 0
}

// TestInvitationLimits checks the limits of invitations. Without them, sixty mails to
// one person in half a second were possible.
func TestInvitationLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run  func(storeFixture) map[stoa.Code]int
		want int
	}{
		"one address, one store": {func(b storeFixture) map[stoa.Code]int { return b.outcomes(10, "victim@example.com") }, 3},
		"one address, many stores": {func(b storeFixture) map[stoa.Code]int {
			got := map[stoa.Code]int{}
			for i := range 10 {
				for code, n := range b.another(fmt.Sprintf("sender%d@example.com", i)).outcomes(1, "victim@example.com") {
					got[code] += n
				}
			}
			return got
		}, 4},
		"one address, many stores, acquainted": {func(b storeFixture) map[stoa.Code]int {
			guest := b.person("colleague@example.com")
			markVerified(b.T, b.Accounts, "colleague@example.com")
			err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error {
				return authz.Grant(b.Context(), tx, b.store, guest.UserID, authz.Viewer)
			})
			if err != nil {
				b.Fatal(err)
			}
			got := map[stoa.Code]int{}
			for i := range 10 {
				b.store = b.another(fmt.Sprintf("owner%d@example.com", i)).store
				if err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error {
					return authz.Grant(b.Context(), tx, b.store, b.owner.UserID, authz.Owner)
				}); err != nil {
					b.Fatal(err)
				}
				for code, n := range b.outcomes(1, "colleague@example.com") {
					got[code] += n
				}
			}
			return got
		}, 10},
		"one sender": {func(b storeFixture) map[stoa.Code]int { return b.outcomes(25, "guest%d@example.com") }, 20},
		"one sender, many open": {func(b storeFixture) map[stoa.Code]int {
			got := map[stoa.Code]int{}
			for i := range 11 { // hours
				exec(b.T, b.db, `DELETE FROM mail_allowances`)
				for code, n := range b.outcomes(10, fmt.Sprintf("guest%d-%%d@example.com", i)) {
					got[code] += n
				}
			}
			return got
		}, 100},
		"one store": {func(b storeFixture) map[stoa.Code]int {
			got := map[stoa.Code]int{}
			for i := range 6 {
				b.owner = b.member(authz.Owner)
				for code, n := range b.outcomes(10, fmt.Sprintf("guest%d-%%d@example.com", i)) {
					got[code] += n
				}
			}
			return got
		}, 50},
		"all together": {func(b storeFixture) map[stoa.Code]int {
			b.opts.InvitationsPerHour = 8
			got := b.outcomes(5, "guest%d@example.com")
			for code, n := range b.another("sender@example.com").outcomes(5, "other%d@example.com") {
				got[code] += n
			}
			return got
		}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachStoreFixture(t, func(b storeFixture) {
				got := c.run(b)
				if got[""] != c.want || got[""]+got[stoa.RateLimited] != sum(got) {
					b.Errorf("outcomes %v, want %d that pass", got, c.want)
				}
				var mails int
				if err := b.db.Get(b.Context(), &mails, `SELECT count(*) FROM river_job WHERE kind = $1`, MailInvitation{}.Kind()); err != nil || mails != c.want {
					b.Errorf("%d mails, %v", mails, err)
				}
			})
		})
	}
}

func sum(counts map[stoa.Code]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// TestConcurrentInvitationLimits checks that concurrent invitations are counted
// exactly.
func TestConcurrentInvitationLimits(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		errs := concurrently(30, func(i int) error {
			_, err := b.Invite(b.Context(), b.owner, b.store, fmt.Sprintf("guest%d@example.com", i), authz.Member)
			return err
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 20, stoa.RateLimited: 10}, codes(errs)); diff != "" {
			b.Errorf("outcomes (-want +got):\n%s", diff)
		}
	})
}

// TestAnsweredInvitation checks that a user who has accepted and left can be invited
// again.
func TestAnsweredInvitation(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		guest := b.person("guest@example.com")
		for range 4 {
			exec(b.T, b.db, `UPDATE invitations SET sent_at = $1`, time.Now().UTC().Add(-2*mailPause))
			if _, err := b.AcceptInvitation(b.Context(), guest, b.invite(authz.Member)); err != nil {
				b.Fatal(err)
			}
			if err := b.RemoveMember(b.Context(), guest, b.store, guest.UserID); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestInvitationMail checks that the mail names the inviter by their verified address,
// and that no text of a user becomes a link.
func TestInvitationMail(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		// Names that earlier releases accepted.
		exec(b.T, b.db, `UPDATE users SET first_name = 'Win at http://evil.test/pay', last_name = 'or www.evil.test' WHERE id = $1`, b.owner.UserID)
		exec(b.T, b.db, `UPDATE stores SET name = $1`, "Evil.com \u202etxt.exe\r\nBcc: me@evil.com")
		b.invite(authz.Member)
		m := sendAll(b.T, b.Accounts)[0]
		for _, want := range []string{"owner@example.com", "https://stoa.test", "only their address is confirmed", "do nothing", "Evil. com", "Win at"} {
			if !strings.Contains(m.Text, want) {
				b.Errorf("no %q in\n%s", want, m.Text)
			}
		}
		for _, bad := range []string{"evil.test", "http://", "Evil.com", "me@evil", "\u202e", "\nBcc"} {
			if strings.Contains(m.Text, bad) {
				b.Errorf("%q in\n%s", bad, m.Text)
			}
		}
	})
}

// TestForgottenPasswordFlood checks that after five links one is sent per hour, and
// that a valid link always exists.
func TestForgottenPasswordFlood(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		sendAll(t, a)
		links := func() int { return len(tokensIn(t, sendAll(t, a), resetPassword)) }
		ask := func(times int) {
			t.Helper()
			for range times {
				exec(t, db, `UPDATE one_time_tokens SET created_at = $1`, time.Now().UTC().Add(-2*mailPause))
				if err := a.ForgotPassword(t.Context(), "owner@example.com"); err != nil {
					t.Fatal(err)
				}
				sendAll(t, a)
			}
		}
		ask(20)
		if n := links(); n != 5 {
			t.Fatalf("%d mails, want 5", n)
		}
		// An hour passes.
		exec(t, db, `UPDATE mail_allowances SET full_at = full_at - 3600000000`)
		ask(3)
		if n := links(); n != 6 {
			t.Errorf("%d mails after an hour, want 6", n)
		}
		newest := tokensIn(t, sendAll(t, a), resetPassword)[0]
		if err := a.ResetPassword(t.Context(), newest, keyring.NewSecret(otherPassword), Client{}); err != nil {
			t.Errorf("the last link: %v", err)
		}
	})
}

// TestMailTriedAgainCountsOnce checks that a mail that is sent again, because the mail
// server refused it, counts once.
func TestMailTriedAgainCountsOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		var id requestID
		if err := db.Get(t.Context(), &id, `SELECT id FROM email_requests`); err != nil {
			t.Fatal(err)
		}
		for range 12 {
			if err := a.mailAccount(t.Context(), MailAccount{id}); err != nil {
				t.Fatal(err)
			}
		}
		wantRows(t, db, map[string]int{"one_time_tokens": 12, "mail_allowances": 1})
	})
}

// TestSignInNoticeFlood checks that an attacker with the password cannot flood the
// mailbox with notices.
func TestSignInNoticeFlood(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		markVerified(t, a, "owner@example.com")
		for i := range 15 {
			c := Client{Address: "198.51.100.1", UserAgent: fmt.Sprintf("Visit http://evil.test/%d", i)}
			if _, err := a.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), c); err != nil {
				t.Fatal(err)
			}
		}
		var notices int
		for _, m := range sendAll(t, a) {
			if strings.HasPrefix(m.ID, "signin") {
				notices++
				if strings.Contains(m.Text, "evil.test") || !strings.Contains(m.Text, "198.51.100.1") {
					t.Errorf("notice:\n%s", m.Text)
				}
			}
		}
		if notices != signInNotices.Burst {
			t.Errorf("%d notices, want %d", notices, signInNotices.Burst)
		}
	})
}
