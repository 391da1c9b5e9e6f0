package app_test

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// want fails the test unless the page has the status and contains the texts.
func (a pageAnswer) want(t *testing.T, status int, texts ...string) pageAnswer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("status %d to %q, want %d\n%s", a.Status, a.Location, status, a.Body)
	}
	for _, text := range texts {
		if !strings.Contains(a.Body, text) {
			t.Errorf("%q is not in the page:\n%s", text, a.Body)
		}
	}
	return a
}

// accountServer starts a server for tests of the account's pages.
func accountServer(t *testing.T) *server {
	t.Helper()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	return startServer(t, cfg)
}

// execMaster changes the server's master database.
func execMaster(t *testing.T, s *server, statement string) {
	t.Helper()
	testkit.Must(t, s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), statement)
		return err
	}))
}

// verified signs a new user up whose address is verified.
func verified(t *testing.T, s *server, email string) *browserClient {
	t.Helper()
	b := signUpInBrowser(t, s, email)
	b.get("/verify?token=x").want(t, http.StatusOK)
	b.post(b.mailedTo(email, "/verify"), nil).want(t, http.StatusSeeOther)
	return b
}

// mailedTo returns the newest link to a page that was mailed to an address.
func (b *browserClient) mailedTo(email, page string) string {
	b.t.Helper()
	link := regexp.MustCompile(`href="[^"]*(` + page + `\?token=[^"]+)"`)
	var found string
	testkit.Eventually(b.t, testkit.Timeout, "a mail to "+email+" with a link to "+page, func() bool {
		for _, mail := range strings.Split(b.get("/dev/mailbox").Body, "<article")[1:] {
			head, _, _ := strings.Cut(mail, "<time")
			if m := link.FindStringSubmatch(mail); m != nil && strings.Contains(head, email) {
				found = html.UnescapeString(m[1])
				return true
			}
		}
		return false
	})
	return found
}

func TestAccountPage(t *testing.T) {
	t.Parallel()
	s := accountServer(t)
	b := signUpInBrowser(t, s, "ada@example.com")
	b.get("/account").want(t, http.StatusOK, "ada@example.com", "not confirmed")
	b.post("/account/email/resend", nil).want(t, http.StatusSeeOther)

	hostile := `<script>alert(1)</script>`
	b.post("/account/name", url.Values{"firstName": {hostile}, "lastName": {strings.Repeat("x", 5000)}}).
		want(t, http.StatusUnprocessableEntity, html.EscapeString(hostile), `aria-invalid="true"`)
	b.post("/account/name", url.Values{"firstName": {hostile}, "lastName": {"عادة 🎈"}}).want(t, http.StatusSeeOther)
	page := b.get("/account").want(t, http.StatusOK, html.EscapeString(hostile), "عادة 🎈", "Your name is saved.")
	if strings.Contains(page.Body, hostile) {
		t.Errorf("the name is not escaped:\n%s", page.Body)
	}
	for _, path := range []string{"/account", "/account/password", "/account/second-factor", "/account/sessions", "/account/export", "/account/export/download", "/account/delete"} {
		a := newBrowserClient(t, s).get(path)
		if a.Status != http.StatusSeeOther || a.Location != "/signin?next="+url.QueryEscape(path) {
			t.Errorf("%s, signed out: %d to %s", path, a.Status, a.Location)
		}
	}
}

// TestEmailChangeInABrowser changes an address by the links of both mails, one of them
// opened signed out.
func TestEmailChangeInABrowser(t *testing.T) {
	t.Parallel()
	s := accountServer(t)
	b := verified(t, s, "ada@example.com")
	b.post("/account/email", url.Values{"email": {"nonsense"}}).want(t, http.StatusUnprocessableEntity, "nonsense")
	b.post("/account/email", url.Values{"email": {"new@example.com"}}).want(t, http.StatusSeeOther)
	b.get("/account").want(t, http.StatusOK, "new@example.com", "Withdraw")
	first, second := b.mailedTo("ada@example.com", "/account/email/confirm"), b.mailedTo("new@example.com", "/account/email/confirm")

	stranger := signUpInBrowser(t, s, "eve@example.com")
	stranger.post(first, nil).want(t, http.StatusForbidden, `name="password"`)
	visitor := newBrowserClient(t, s)
	visitor.get(first).want(t, http.StatusOK, `name="password"`)
	visitor.post(first, url.Values{"password": {"wrong password"}}).want(t, http.StatusUnprocessableEntity)
	visitor.post(first, url.Values{"password": {browserPassword}}).want(t, http.StatusSeeOther)
	b.get("/account").want(t, http.StatusOK, "ada@example.com: confirmed")
	b.post(second, nil).want(t, http.StatusSeeOther)
	b.get("/account").want(t, http.StatusOK, "Your address is now new@example.com.")
	b.post(second, nil).want(t, http.StatusGone, "does not work any more")

	b.post("/account/email", url.Values{"email": {"third@example.com"}}).want(t, http.StatusSeeOther)
	b.post("/account/email/withdraw", nil).want(t, http.StatusSeeOther)
	b.post("/account/email/withdraw", nil).want(t, http.StatusSeeOther)
	if page := b.get("/account").want(t, http.StatusOK); strings.Contains(page.Body, "third@example.com") {
		t.Error("the withdrawn change is still shown")
	}
}

func TestPasswordAndSessionsInABrowser(t *testing.T) {
	t.Parallel()
	s := accountServer(t)
	b := signUpInBrowser(t, s, "ada@example.com")
	other := signIn(t, s, "ada@example.com", browserPassword)
	page := b.get("/account/sessions").want(t, http.StatusOK, "(this one)", "End all others")
	ends := regexp.MustCompile(`action="(/account/sessions/[0-9a-f-]{36}/end)"`).FindAllStringSubmatch(page.Body, -1)
	if len(ends) != 2 {
		t.Fatalf("%d sessions", len(ends))
	}
	signUpInBrowser(t, s, "eve@example.com").post(ends[0][1], nil).want(t, http.StatusSeeOther) // as one that has ended
	other.get("/account").want(t, http.StatusOK)
	b.get("/account").want(t, http.StatusOK)
	b.post("/account/sessions/nonsense/end", nil).want(t, http.StatusNotFound)

	b.post("/account/password", url.Values{"oldPassword": {"wrong password"}, "newPassword": {"another good one"}}).want(t, http.StatusUnprocessableEntity, "not your password")
	b.post("/account/password", url.Values{"oldPassword": {browserPassword}, "newPassword": {"short"}}).want(t, http.StatusUnprocessableEntity, `id="newPassword-fault"`)
	b.post("/account/password", url.Values{"oldPassword": {browserPassword}, "newPassword": {"another good one"}}).want(t, http.StatusSeeOther)
	other.get("/account").want(t, http.StatusSeeOther)
	third := signIn(t, s, "ada@example.com", "another good one")
	b.post("/account/sessions/end-others", nil).want(t, http.StatusSeeOther)
	third.get("/account").want(t, http.StatusSeeOther)
	b.get("/account").want(t, http.StatusOK)
}

func TestSecondFactorInABrowser(t *testing.T) {
	t.Parallel()
	s := accountServer(t)
	signUpInBrowser(t, s, "eve@example.com").get("/account/second-factor").want(t, http.StatusOK, "Confirm your e-mail address first")
	b := verified(t, s, "ada@example.com")
	b.post("/account/second-factor", url.Values{"password": {"wrong password"}}).want(t, http.StatusUnprocessableEntity)
	page := b.post("/account/second-factor", url.Values{"password": {browserPassword}}).want(t, http.StatusOK, `src="data:image/png;base64,`)
	secret := regexp.MustCompile(`<code id="factor-secret">([A-Z2-7 ]+)</code>`).FindStringSubmatch(page.Body)
	if secret == nil {
		t.Fatalf("no secret in the page:\n%s", page.Body)
	}
	if cached := page.Header.Get("Cache-Control"); !strings.Contains(cached, "no-store") {
		t.Errorf("the page may be stored: %q", cached)
	}
	b.post("/account/second-factor/confirm", url.Values{"code": {"000000"}}).want(t, http.StatusUnprocessableEntity, `name="code"`)
	code, err := totp.GenerateCode(strings.ReplaceAll(secret[1], " ", ""), time.Now())
	testkit.Must(t, err)
	page = b.post("/account/second-factor/confirm", url.Values{"code": {code}}).want(t, http.StatusOK, "shown this once")
	recovery := regexp.MustCompile(`[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}`).FindAllString(page.Body, -1)
	if len(recovery) != 10 {
		t.Fatalf("%d recovery codes", len(recovery))
	}
	b.post("/account/second-factor/confirm", url.Values{"code": {code}}).want(t, http.StatusSeeOther)
	b.get("/account/second-factor").want(t, http.StatusOK, "10 of your recovery codes")

	again := newBrowserClient(t, s)
	again.post("/signin", url.Values{"email": {"ada@example.com"}, "password": {browserPassword}}).want(t, http.StatusOK, `action="/signin/code"`)
	again.post("/signin/code", url.Values{"code": {recovery[0]}}).want(t, http.StatusSeeOther)
	again.get("/account/second-factor").want(t, http.StatusOK, "9 of your recovery codes")
	b.post("/account/second-factor/disable", url.Values{"password": {browserPassword}}).want(t, http.StatusSeeOther)
	b.get("/account/second-factor").want(t, http.StatusOK, "Set it up")
}

func TestExportAndDeletionInABrowser(t *testing.T) {
	t.Parallel()
	s := accountServer(t)
	b := verified(t, s, "ada@example.com")
	store := b.newStore(`Ada <b>Shop</b>`)
	b.get("/account/export").want(t, http.StatusOK)
	file := b.get("/account/export/download").want(t, http.StatusOK)
	var export map[string]any
	if err := json.Unmarshal([]byte(file.Body), &export); err != nil || !strings.Contains(file.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("the export: %v\n%.500s", err, file.Body)
	}

	b.get("/account/delete").want(t, http.StatusOK, `href="`+store+`/people"`, "Ada &lt;b&gt;Shop&lt;/b&gt;")
	b.post("/account/delete", url.Values{"confirm": {"ada@example.com"}}).want(t, http.StatusForbidden, "no other owner")
	execMaster(t, s, `UPDATE stores SET status = 'deleting'`)
	b.post("/account/delete", url.Values{"confirm": {"<eve@example.com>"}}).want(t, http.StatusUnprocessableEntity, "&lt;eve@example.com&gt;")

	execMaster(t, s, `UPDATE sessions SET authenticated_at = NULL`)
	b.get("/account/export/download").want(t, http.StatusSeeOther)
	b.post("/account/delete", url.Values{"confirm": {"ada@example.com"}}).want(t, http.StatusForbidden, "Confirm that it is you", `value="ada@example.com"`)
	b.post("/reauthenticate", url.Values{"password": {browserPassword}, "next": {"/account/delete"}}).want(t, http.StatusSeeOther)
	b.post("/account/delete", url.Values{"confirm": {" Ada@Example.com "}}).want(t, http.StatusSeeOther)
	b.get("/account").want(t, http.StatusSeeOther)
	newBrowserClient(t, s).post("/signin", url.Values{"email": {"ada@example.com"}, "password": {browserPassword}}).want(t, http.StatusUnprocessableEntity)
	signUpInBrowser(t, s, "ada@example.com")
}

func TestOldLinksLeadOn(t *testing.T) {
	t.Parallel()
	s := accountServer(t)
	b := newBrowserClient(t, s)
	for from, to := range map[string]string{
		"/verify-email?token=a%2Bb":      "/verify?token=a%2Bb",
		"/reset-password?token=x":        "/reset?token=x",
		"/accept-invitation?token=x&y=1": "/invitations/accept?token=x",
		"/forgot-password":               "/forgot",
	} {
		for range 2 {
			if a := b.get(from); a.Status != http.StatusSeeOther || a.Location != to {
				t.Errorf("%s: %d to %s, want %s", from, a.Status, a.Location, to)
			}
		}
	}
	b.post("/reset?token=x", url.Values{"password": {"another good one"}}).want(t, http.StatusGone, "/forgot")
	b.post("/forgot", url.Values{"email": {"<b>"}}).want(t, http.StatusUnprocessableEntity, "&lt;b&gt;")
	b.post("/forgot", url.Values{"email": {"nobody@example.com"}}).want(t, http.StatusOK, "Look into your mailbox")
}
