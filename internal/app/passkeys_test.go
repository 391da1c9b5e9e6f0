package app_test

import (
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/descope/virtualwebauthn"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// askedOf returns what a page asks an authenticator, and the token of the answer.
func askedOf(t *testing.T, page pageAnswer) (options, token string) {
	t.Helper()
	asked := regexp.MustCompile(`data-options="([^"]+)"`).FindStringSubmatch(page.Body)
	sent := regexp.MustCompile(`name="passkey-token" value="([^"]+)"`).FindStringSubmatch(page.Body)
	if page.Status != http.StatusOK || asked == nil || sent == nil {
		t.Fatalf("%d, want a page that asks the device\n%s", page.Status, page.Body)
	}
	return html.UnescapeString(asked[1]), sent[1]
}

// proveEmail verifies an address, as the link in the mail would.
func proveEmail(t *testing.T, s *server, email string) {
	t.Helper()
	_, err := accounts.ConfirmEmail(t.Context(), s.Master, authz.Principal{}, email)
	testkit.Must(t, err)
}

// TestPasskeyPages adds a passkey in the console, signs in with it alone and after the
// password, renames and removes it, and tries what others must not.
func TestPasskeyPages(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	b := signUpInBrowser(t, s, "ada@example.com")
	if got := b.get("/account/passkeys"); got.Status != http.StatusOK || !strings.Contains(got.Body, "Confirm your e-mail address first") {
		t.Errorf("unverified: %d\n%s", got.Status, got.Body)
	}
	proveEmail(t, s, "ada@example.com")

	party := virtualwebauthn.RelyingParty{ID: "localhost", Name: "Stoa", Origin: s.URL}
	credential := testkit.NewPasskey()
	const hostile = `"><script>alert(1)</script>`
	options, token := askedOf(t, b.post("/account/passkeys/begin", url.Values{"name": {hostile}}))
	creation, err := virtualwebauthn.ParseAttestationOptions(options)
	testkit.Must(t, err)
	device := virtualwebauthn.NewAuthenticatorWithOptions(virtualwebauthn.AuthenticatorOptions{})
	form := url.Values{"name": {hostile}, "passkey-token": {token}, "credential": {virtualwebauthn.CreateAttestationResponse(party, device, credential, *creation)}}
	added := b.post("/account/passkeys", form)
	if added.Status != http.StatusOK || !strings.Contains(added.Body, "Recovery codes") || strings.Contains(added.Body, "<script>alert") {
		t.Fatalf("added: %d\n%s", added.Status, added.Body)
	}
	if again := b.post("/account/passkeys", form); again.Status != http.StatusUnprocessableEntity {
		t.Errorf("sent twice: %d, want 422", again.Status)
	}
	list := b.get("/account/passkeys")
	found := regexp.MustCompile(`/account/passkeys/[0-9a-f-]{36}`).FindString(list.Body)
	if found == "" || strings.Contains(list.Body, "<script>alert") {
		t.Fatalf("the list:\n%s", list.Body)
	}
	eve := signUpInBrowser(t, s, "eve@example.com")
	for name, got := range map[string]pageAnswer{"reads": eve.get(found), "renames": eve.post(found, url.Values{"name": {"Eve's"}})} {
		if got.Status != http.StatusNotFound {
			t.Errorf("another user %s: %d, want 404", name, got.Status)
		}
	}
	if got := newBrowserClient(t, s).get("/account/passkeys"); got.Status != http.StatusSeeOther {
		t.Errorf("signed out: %d, want the sign-in", got.Status)
	}

	// The library takes the user handle from the authenticator; it is in the options.
	handle := regexp.MustCompile(`"user":\{[^}]*"id":"([^"]+)"`).FindStringSubmatch(options)
	if handle == nil {
		t.Fatal(options)
	}
	device.Options.UserHandle, err = base64.RawURLEncoding.DecodeString(handle[1])
	testkit.Must(t, err)
	sign := func(page pageAnswer) url.Values {
		options, token := askedOf(t, page)
		assertion, err := virtualwebauthn.ParseAssertionOptions(options)
		testkit.Must(t, err)
		return url.Values{"passkey-token": {token}, "next": {"/account"},
			"credential": {virtualwebauthn.CreateAssertionResponse(party, device, credential, *assertion)}}
	}
	alone := newBrowserClient(t, s)
	if got := alone.post("/signin/passkey", sign(alone.post("/signin/passkey/begin", url.Values{}))); got.Location != "/signin/done?next=%2Faccount" {
		t.Errorf("sign-in with the passkey: %d to %q\n%s", got.Status, got.Location, got.Body)
	}
	if got := alone.get("/account"); got.Status != http.StatusOK {
		t.Errorf("signed in with the passkey: %d", got.Status)
	}
	both := newBrowserClient(t, s)
	second := both.post("/signin", url.Values{"email": {"ada@example.com"}, "password": {browserPassword}})
	if second.Status != http.StatusOK || !strings.Contains(second.Body, "Use a passkey") {
		t.Fatalf("the second factor: %d\n%s", second.Status, second.Body)
	}
	if got := both.post("/signin/code/passkey", sign(both.post("/signin/code/passkey/begin", url.Values{}))); got.Location != "/signin/done?next=%2Faccount" {
		t.Errorf("the passkey after the password: %d to %q\n%s", got.Status, got.Location, got.Body)
	}
	if got := alone.get("/reauthenticate?next=/account"); !strings.Contains(got.Body, "Use a passkey") {
		t.Errorf("the page that asks again: %d\n%s", got.Status, got.Body)
	}
	again := sign(alone.post("/reauthenticate/passkey/begin", url.Values{"next": {"/account"}}))
	if got := alone.post("/reauthenticate/passkey", again); got.Location != "/account" {
		t.Errorf("confirmed with the passkey: %d to %q\n%s", got.Status, got.Location, got.Body)
	}
	if got := alone.post("/reauthenticate/passkey", again); got.Status != http.StatusUnprocessableEntity {
		t.Errorf("confirmed twice with one answer: %d", got.Status)
	}
	if got := eve.post("/reauthenticate/passkey/begin", url.Values{}); got.Status != http.StatusUnprocessableEntity && got.Status != http.StatusNotFound {
		t.Errorf("a person without a passkey: %d\n%s", got.Status, got.Body)
	}
	bad := sign(alone.post("/signin/passkey/begin", url.Values{}))
	bad.Set("credential", `{"id":"AAAA"}`)
	if got := newBrowserClient(t, s).post("/signin/passkey", bad); got.Status != http.StatusUnprocessableEntity || !strings.Contains(got.Body, "was not accepted") {
		t.Errorf("a malformed answer: %d\n%s", got.Status, got.Body)
	}
	if got := b.post(found, url.Values{"name": {"Laptop"}}); got.Location != "/account/passkeys" {
		t.Errorf("rename: %d\n%s", got.Status, got.Body)
	}
	for range 2 {
		if got := b.post(found+"/remove", url.Values{}); got.Location != "/account/passkeys" {
			t.Errorf("remove: %d\n%s", got.Status, got.Body)
		}
	}
}

// TestPasskeyInChromium adds a passkey and signs in with it in a browser, whose
// authenticator is virtual.
func TestPasskeyInChromium(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	c := startChromium(t, s)
	call(c, webauthn.Enable, webauthn.EnableParams{})
	call(c, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: "ctap2", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	c.open("/signup")
	for name, value := range map[string]string{"firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.com", "password": browserPassword} {
		c.fill(name, value)
	}
	c.press("Create the account")
	proveEmail(t, s, "ada@example.com")
	c.open("/account/passkeys")
	c.fill("name", "Laptop")
	c.click("Add a passkey")
	c.await("the recovery codes", `document.querySelector("#recovery-codes")`)
	c.noFaults("adding a passkey")

	call(c, network.ClearBrowserCookies, cdp.Empty{})
	c.open("/signin?next=/account/passkeys")
	c.click("Sign in with a passkey")
	c.await("the list", `location.pathname === "/account/passkeys" && document.querySelector("table")`)
	c.noFaults("signing in with a passkey")
	c.open("/reauthenticate?next=/account")
	c.click("Use a passkey")
	c.await("the account", `location.pathname === "/account"`)
	c.noFaults("confirming with a passkey")
}
