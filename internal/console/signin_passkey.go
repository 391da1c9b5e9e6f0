package console

import (
	"net/http"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

const askTitle = "Sign in with a passkey"

// passkeySignInRoutes are the sign-in with a passkey, alone and after the password.
func (c *Console) passkeySignInRoutes() []Route {
	return []Route{
		{Pattern: "POST /signin/passkey/begin", RouteOptions: signInForm(Public), Handle: c.beginPasskeySignIn},
		{Pattern: "POST /signin/passkey", RouteOptions: signInForm(Public), Handle: c.doPasskeySignIn},
		{Pattern: "POST /signin/code/passkey/begin", RouteOptions: signInForm(Public), Handle: c.beginPasskeyFactor},
		{Pattern: "POST /signin/code/passkey", RouteOptions: signInForm(Public), Handle: c.doPasskeyFactor},
	}
}

// signInPage is the sign-in page with what this platform offers.
func (c *Console) signInPage(v signInView) templ.Component {
	v.Passkeys = c.Accounts.PasskeysAvailable()
	return signInPage(v)
}

// signInViewOf returns where a sign-in form leads.
func signInViewOf(r *Request) signInView {
	return signInView{Next: nextPath(r.PostForm.Get("next"), "/stores"), Resume: resumedFormOf(r.PostForm)}
}

// askPasskey shows the page on which the browser asks an authenticator to sign.
func (c *Console) askPasskey(w http.ResponseWriter, r *Request, v passkeyAskView, challenge accounts.PasskeyChallenge) error {
	v.Text = "Your device asks you to confirm that it is you."
	v.Options, v.Token = string(challenge.Options), challenge.Token.Reveal() // of the caller's own challenge
	return c.render(w, r, http.StatusOK, formFrame(v.Title), passkeyAskPage(v))
}

func (c *Console) beginPasskeySignIn(w http.ResponseWriter, r *Request) error {
	challenge, err := c.Accounts.BeginPasskeyLogin(r.Context())
	if err != nil {
		return err
	}
	return c.askPasskey(w, r, passkeyAskView{Title: askTitle, Action: "/signin/passkey", Cancel: "/signin", Next: signInViewOf(r)}, challenge)
}

func (c *Console) doPasskeySignIn(w http.ResponseWriter, r *Request) error {
	v := signInViewOf(r)
	session, err := c.Accounts.FinishPasskeyLogin(r.Context(), passkeyAnswer(r), browser(r.Client))
	if err != nil {
		if v.Form, err = refusedPasskey(r, err); err != nil {
			return err
		}
		return c.render(w, r, v.Form.Status(), formFrame("Sign in"), c.signInPage(v))
	}
	return c.enter(w, r, session, v.Next, v.Resume)
}

// firstStep returns the proof of a correct password that the browser holds.
func firstStep(r *Request) keyring.Secret {
	cookie, err := r.Request.Cookie(challengeName)
	if err != nil {
		return keyring.Secret{}
	}
	return keyring.NewSecret(cookie.Value)
}

func (c *Console) beginPasskeyFactor(w http.ResponseWriter, r *Request) error {
	v := signInViewOf(r)
	challenge, err := c.Accounts.BeginPasskeySecondFactor(r.Context(), firstStep(r))
	switch code := stoa.CodeOf(err); {
	case code == stoa.TokenInvalid || code == stoa.TokenExpired:
		return c.restartSignIn(w, r, v)
	case code == stoa.NotFound:
		v.Form = ui.Form{Code: http.StatusUnprocessableEntity, Fault: "Your account has no passkey. Enter a code."}
		return c.render(w, r, v.Form.Status(), formFrame("Second factor"), signInCodePage(v))
	case err != nil:
		return err
	}
	return c.askPasskey(w, r, passkeyAskView{Title: askTitle, Action: "/signin/code/passkey", Cancel: "/signin/code", Next: v}, challenge)
}

func (c *Console) doPasskeyFactor(w http.ResponseWriter, r *Request) error {
	v := signInViewOf(r)
	session, err := c.Accounts.FinishPasskeySecondFactor(r.Context(), firstStep(r), passkeyAnswer(r), browser(r.Client))
	if err != nil {
		// Either challenge may be too old: the next attempt says so of the first.
		if v.Form, err = refusedPasskey(r, err); err != nil {
			return err
		}
		return c.render(w, r, v.Form.Status(), formFrame("Second factor"), signInCodePage(v))
	}
	return c.enter(w, r, session, v.Next, v.Resume)
}

// restartSignIn asks for the password again.
func (c *Console) restartSignIn(w http.ResponseWriter, r *Request, v signInView) error {
	http.SetCookie(w, c.challengeCookie("", -1))
	v.Reason = "The first step of the sign-in has expired. Enter your password again."
	return c.render(w, r, http.StatusUnauthorized, formFrame("Sign in"), c.signInPage(v))
}
