package accounts

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// sendAll runs all pending jobs in order and empties the queue. It returns all mails
// written so far.
func sendAll(t *testing.T, a *Accounts) []mail.Written {
	t.Helper()
	var waiting []struct{ Kind, Args string }
	if err := a.db.Select(t.Context(), &waiting, `SELECT kind, CAST(args AS text) AS args FROM river_job ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	exec(t, a.db, `DELETE FROM river_job`)
	for _, job := range waiting {
		id := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindString(job.Args)
		if len(job.Args) > 70 || id == "" {
			t.Errorf("%s has arguments beside an id: %s", job.Kind, job.Args)
		}
		var err error
		switch job.Kind {
		case MailAccount{}.Kind():
			err = a.mailAccount(t.Context(), MailAccount{parse[requestID](t, id)})
		case MailSignIn{}.Kind():
			err = a.mailSignIn(t.Context(), MailSignIn{parse[stoa.SessionID](t, id)})
		case MailInvitation{}.Kind():
			err = a.mailInvitation(t.Context(), MailInvitation{parse[stoa.InvitationID](t, id)})
		case MailNewAddress{}.Kind():
			err = a.mailNewAddress(t.Context(), MailNewAddress{parse[changeID](t, id)})
		case MailOldAddress{}.Kind():
			err = a.mailOldAddress(t.Context(), MailOldAddress{parse[changeID](t, id)})
		case MailEmailChanged{}.Kind():
			err = a.mailEmailChanged(t.Context(), MailEmailChanged{parse[changeID](t, id)})
		case MailAccountDeleted{}.Kind():
			err = a.mailAccountDeleted(t.Context(), MailAccountDeleted{parse[deletionID](t, id)})
		}
		if err != nil {
			t.Fatalf("%s: %v", job.Kind, err)
		}
	}
	box, err := a.opts.Mail.Box()
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func parse[T ~[16]byte](t *testing.T, s string) T {
	t.Helper()
	id, err := stoa.ParseID[T](s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// tokensIn returns the tokens of a purpose in the mails, newest first.
func tokensIn(t *testing.T, box []mail.Written, p purpose) []keyring.Secret {
	t.Helper()
	var out []keyring.Secret
	for _, m := range box {
		if link := regexp.MustCompile(`token=(` + p.prefix() + `\S+)`).FindStringSubmatch(m.Text); link != nil {
			token, err := url.QueryUnescape(link[1])
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, keyring.NewSecret(token))
		}
	}
	return out
}

func TestVerifyEmail(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		p := principal(t, a, register(t, a))
		box := sendAll(t, a)
		tokens := tokensIn(t, box, verifyEmail)
		if len(box) != 1 || len(tokens) != 1 || !strings.Contains(box[0].To, "owner@example.com") || !strings.Contains(box[0].Text, "https://stoa.test/verify?token=") {
			t.Fatalf("mails %+v", box)
		}
		if dump := dumpTables(t, db, "one_time_tokens", "email_requests", "river_job"); strings.Contains(dump, tokens[0].Reveal()) || !strings.Contains(dump, tokens[0].Hash()) {
			t.Errorf("not the hash alone is kept:\n%s", dump)
		}
		errs := concurrently(4, func(int) error { return a.VerifyEmail(t.Context(), p, tokens[0], keyring.Secret{}, Client{}) })
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.TokenInvalid: 3}, codes(errs)); diff != "" {
			t.Errorf("four at once (-want +got):\n%s", diff)
		}
		if me, err := a.Me(t.Context(), p); err != nil || !me.EmailVerified {
			t.Errorf("verified %t, %v", me.EmailVerified, err)
		}
		wantAudited(t, db, audit.EmailVerified, audit.Success, 1)
		// A verified address gets no further mail.
		if err := a.ResendVerification(t.Context(), p); err != nil || len(sendAll(t, a)) != 1 {
			t.Errorf("a mail to a verified address, %v", err)
		}
	})
}

func TestOneTimeTokenSideBySide(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		token := tokensIn(t, sendAll(t, a), verifyEmail)[0]
		errs := bothAtRows(t, db, `SELECT hash FROM one_time_tokens`, func(int) error {
			return a.VerifyEmail(t.Context(), authz.Principal{}, token, keyring.NewSecret(goodPassword), Client{})
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.TokenInvalid: 1}, codes(errs)); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
	})
}

// bothAtRows makes both calls reach the rows before either may continue.
func bothAtRows(t *testing.T, db *masterdb.DB, rows string, call func(i int) error) []error {
	t.Helper()
	results := make(chan []error, 1)
	err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		var held []string
		if err := tx.Select(t.Context(), &held, rows+tx.ForUpdate()); err != nil {
			return err
		}
		go func() { results <- concurrently(2, call) }()
		waitForBlocked(t, db, 2)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return <-results
}

// waitForBlocked returns when n connections wait for a lock. On SQLite it returns
// immediately: the open transaction keeps every other one from starting.
func waitForBlocked(t *testing.T, db *masterdb.DB, n int) {
	t.Helper()
	if db.Engine == masterdb.SQLite {
		return
	}
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		var blocked int
		err := db.Get(t.Context(), &blocked, `
			SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		if err != nil {
			t.Fatal(err)
		}
		if blocked >= n {
			return
		}
	}
	t.Fatalf("%d connections never came to wait", n)
}

func TestOneTimeTokenRefusals(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		token := tokensIn(t, sendAll(t, a), verifyEmail)[0]
		for name, wrong := range map[string]string{
			"empty": "", "of another purpose": resetPassword.prefix() + strings.TrimPrefix(token.Reveal(), verifyEmail.prefix()),
			"never issued": newToken(verifyEmail.prefix()).Reveal(), "its hash": token.Hash(), "longer": token.Reveal() + "A",
		} {
			if err := a.VerifyEmail(t.Context(), authz.Principal{}, keyring.NewSecret(wrong), keyring.NewSecret(goodPassword), Client{}); stoa.CodeOf(err) != stoa.TokenInvalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		// A token is valid for its own purpose only.
		err := a.ResetPassword(t.Context(), token, keyring.NewSecret("another good one"), Client{})
		wantCode(t, err, stoa.TokenInvalid)
		exec(t, db, `UPDATE one_time_tokens SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
		wantCode(t, a.VerifyEmail(t.Context(), authz.Principal{}, token, keyring.NewSecret(goodPassword), Client{}), stoa.TokenExpired)
	})
}

// TestMailSentAgain checks that a job that runs again sends another token, since the
// first is not stored. Both tokens are valid, and using one invalidates both.
func TestMailSentAgain(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		var id requestID
		if err := db.Get(t.Context(), &id, `SELECT id FROM email_requests`); err != nil {
			t.Fatal(err)
		}
		first := tokensIn(t, sendAll(t, a), verifyEmail)[0]
		if err := a.mailAccount(t.Context(), MailAccount{id}); err != nil {
			t.Fatal(err)
		}
		second := tokensIn(t, sendAll(t, a), verifyEmail)[0]
		if first.Reveal() == second.Reveal() {
			t.Fatal("the same token")
		}
		if err := a.VerifyEmail(t.Context(), authz.Principal{}, first, keyring.NewSecret(goodPassword), Client{}); err != nil {
			t.Errorf("the first: %v", err)
		}
		wantCode(t, a.VerifyEmail(t.Context(), authz.Principal{}, second, keyring.NewSecret(goodPassword), Client{}), stoa.TokenInvalid)
	})
}

func TestResetPassword(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		if err := a.ForgotPassword(t.Context(), "OWNER@Example.com"); err != nil {
			t.Fatal(err)
		}
		token := tokensIn(t, sendAll(t, a), resetPassword)[0]
		err := a.ResetPassword(t.Context(), token, keyring.NewSecret("short"), Client{})
		if diff := cmp.Diff([]string{"password"}, faultyFields(err)); diff != "" {
			t.Errorf("a bad password: %v\n%s", err, diff)
		}
		const next = "quite another one"
		errs := concurrently(4, func(int) error { return a.ResetPassword(t.Context(), token, keyring.NewSecret(next), Client{}) })
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.TokenInvalid: 3}, codes(errs)); diff != "" {
			t.Errorf("four at once (-want +got):\n%s", diff)
		}
		wantEnded(t, a, session)
		_, err = a.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{})
		wantCode(t, err, stoa.InvalidCredentials)
		fresh, err := a.Login(t.Context(), "owner@example.com", keyring.NewSecret(next), Client{})
		if err != nil || !fresh.User.EmailVerified {
			t.Errorf("with the new one: %v, verified %t", err, fresh.User.EmailVerified)
		}
		wantAudited(t, db, audit.PasswordReset, audit.Success, 1)
	})
}

// TestForgotPasswordTellsNothing checks that every address causes the same rows and the
// same result. Only the job reads whether the address has an account.
func TestForgotPasswordTellsNothing(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		sendAll(t, a)
		exec(t, db, `DELETE FROM email_requests`)
		for i, email := range []string{"owner@example.com", "nobody@example.com"} {
			if err := a.ForgotPassword(t.Context(), email); err != nil {
				t.Errorf("%s: %v", email, err)
			}
			wantRows(t, db, map[string]int{"email_requests": i + 1, "river_job": i + 1, "one_time_tokens": 0})
		}
		if box := sendAll(t, a); len(tokensIn(t, box, resetPassword)) != 1 || len(box) != 2 {
			t.Errorf("%d mails, want one more than before: %+v", len(box), box)
		}
		wantCode(t, a.ForgotPassword(t.Context(), "no address"), stoa.InvalidRequest)
	})
}

// TestMailPause checks that repeated calls send one mail only.
func TestMailPause(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		for range 5 {
			if err := a.ForgotPassword(t.Context(), "owner@example.com"); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(tokensIn(t, sendAll(t, a), resetPassword)); n != 1 {
			t.Errorf("%d mails at once, want 1", n)
		}
		exec(t, db, `UPDATE one_time_tokens SET created_at = $1`, time.Now().UTC().Add(-2*mailPause))
		if err := a.ForgotPassword(t.Context(), "owner@example.com"); err != nil {
			t.Fatal(err)
		}
		if n := len(tokensIn(t, sendAll(t, a), resetPassword)); n != 2 {
			t.Errorf("%d mails after the pause, want 2", n)
		}
	})
}

func TestSignInNotice(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		markVerified(t, a, "owner@example.com")
		before := len(sendAll(t, a))
		notices := func(c Client) int {
			t.Helper()
			if _, err := a.Login(t.Context(), "owner@example.com", keyring.NewSecret(goodPassword), c); err != nil {
				t.Fatal(err)
			}
			return len(sendAll(t, a)) - before
		}
		known := registration().Client
		if n := notices(known); n != 0 {
			t.Errorf("%d notices of the place of registration", n)
		}
		elsewhere := Client{Address: "198.51.100.1", UserAgent: "Evil\r\nBcc: all@example.com"}
		if n := notices(elsewhere); n != 1 {
			t.Errorf("%d notices of another place, want 1", n)
		}
		if n := notices(elsewhere); n != 1 {
			t.Errorf("%d notices once it is known, want 1", n)
		}
		for _, m := range sendAll(t, a) {
			if strings.HasPrefix(m.ID, "signin") && !strings.Contains(m.Text, "198.51.100.1") {
				t.Errorf("the notice lacks the address: %s", m.Text)
			}
		}
	})
}

func TestPurge(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		session := register(t, a)
		sendAll(t, a)
		if _, err := a.Refresh(t.Context(), session.RefreshToken, Client{}); err != nil {
			t.Fatal(err)
		}
		rows := func(sessions, refreshes, tokens int) {
			t.Helper()
			if err := a.PurgeExpired(t.Context(), Purge{}); err != nil {
				t.Fatal(err)
			}
			wantRows(t, db, map[string]int{"users": 1, "sessions": sessions, "refresh_tokens": refreshes, "one_time_tokens": tokens})
		}
		rows(1, 2, 1)
		old := func(d time.Duration) time.Time { return time.Now().UTC().Add(-d) }
		exec(t, db, `UPDATE refresh_tokens SET spent_at = $1 WHERE spent_at IS NOT NULL`, old(31*24*time.Hour))
		exec(t, db, `UPDATE one_time_tokens SET expires_at = $1`, old(tokenRetention-time.Hour))
		rows(1, 1, 1)
		exec(t, db, `UPDATE one_time_tokens SET expires_at = $1`, old(tokenRetention+time.Hour))
		exec(t, db, `UPDATE sessions SET expires_at = $1`, old(tokenRetention-time.Hour))
		rows(1, 1, 0)
		exec(t, db, `UPDATE sessions SET expires_at = $1`, old(tokenRetention+time.Hour))
		rows(0, 0, 0)
	})
}
