package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) signInRoutes() []Route {
	return []Route{
		{Pattern: "GET /signin", RouteOptions: view(Optional), Handle: c.signIn},
		{Pattern: "POST /signin", RouteOptions: signInForm(Public), Handle: c.doSignIn},
		{Pattern: "GET /signin/code", RouteOptions: view(Public), Handle: c.signInCode},
		{Pattern: "POST /signin/code", RouteOptions: signInForm(Public), Handle: c.doSignInCode},
		{Pattern: "GET /signin/done", RouteOptions: view(Optional), Handle: c.signedIn},
		{Pattern: "POST /signout", RouteOptions: form(Optional), Handle: c.signOut},
	}
}

// signInView fills the sign-in page.
type signInView struct {
	Form   ui.Form
	Next   string // the path to go on to
	Reason string // why the page is shown, if not because it was asked for

	// Passkeys says that the platform has them. App and Passkey are the second factors
	// of the user; neither: not known here.
	Passkeys, App, Passkey bool

	// Resume is the form that was sent without a session: it can be sent again after
	// the sign-in.
	Resume *resumedForm
}

// resumedForm is a form that was sent after its session had ended.
type resumedForm struct {
	Action string
	Values url.Values // without secrets
}

func (c *Console) signIn(w http.ResponseWriter, r *Request) error {
	next := nextPath(r.URL.Query().Get("next"), "/stores")
	if r.SignedIn() {
		http.Redirect(w, r.Request, next, http.StatusSeeOther)
		return nil
	}
	if _, err := r.Request.Cookie(c.ownCookieName()); err == nil {
		return c.render(w, r, http.StatusOK, formFrame("The impersonation has ended"), impersonationOverPage())
	}
	return c.render(w, r, http.StatusOK, formFrame("Sign in"), c.signInPage(signInView{Next: next}))
}

// SignInFirst answers a request that needs a session and has none. A page is shown
// after the sign-in. A form is kept: after signing in, it can be sent again as it was.
func (c *Console) SignInFirst(w http.ResponseWriter, r *Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		http.Redirect(w, r.Request, "/signin?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		return nil
	}
	v := signInView{Next: "/stores", Reason: "Your session has ended. Sign in again: what you typed is kept, except passwords.",
		Resume: &resumedForm{Action: r.URL.RequestURI(), Values: typed(r.PostForm)}}
	return c.render(w, r, http.StatusUnauthorized, formFrame("Sign in again"), c.signInPage(v))
}

func (c *Console) doSignIn(w http.ResponseWriter, r *Request) error {
	next := nextPath(r.PostForm.Get("next"), "/stores")
	resume := resumedFormOf(r.PostForm)
	session, err := c.Accounts.Login(r.Context(), r.PostForm.Get("email"), keyring.NewSecret(r.PostForm.Get("password")), browser(r.Client))
	var second *accounts.SecondFactorRequired
	if errors.As(err, &second) {
		http.SetCookie(w, c.challengeCookie(second.Challenge.Reveal(), challengeLifetime))
		return c.render(w, r, http.StatusOK, formFrame("Second factor"), signInCodePage(signInView{Next: next, Resume: resume, App: second.App, Passkey: second.Passkey}))
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.render(w, r, form.Status(), formFrame("Sign in"), c.signInPage(signInView{Form: form, Next: next, Resume: resume}))
	}
	return c.enter(w, r, session, next, resume)
}

// enter begins the session of a browser and goes on.
func (c *Console) enter(w http.ResponseWriter, r *Request, session accounts.Session, next string, resume *resumedForm) error {
	if err := c.forgetOwnSession(w, r); err != nil {
		return err
	}
	http.SetCookie(w, c.challengeCookie("", expired))
	http.SetCookie(w, c.sessionCookie(session.Cookie.Reveal(), session.ExpiresIn))
	r.User = session.User
	if resume != nil {
		r.Principal.SessionID = stoa.NewID[stoa.SessionID]()
		return c.render(w, r, http.StatusOK, formFrame("Go on"), resumePage("You are signed in again", "Your form was not sent yet. Send it now, or leave it.", *resume))
	}
	http.Redirect(w, r.Request, "/signin/done?next="+url.QueryEscape(next), http.StatusSeeOther)
	return nil
}

// signedIn goes on after a sign-in, if the browser has kept the cookie.
func (c *Console) signedIn(w http.ResponseWriter, r *Request) error {
	if r.SignedIn() {
		http.Redirect(w, r.Request, nextPath(r.URL.Query().Get("next"), "/stores"), http.StatusSeeOther)
		return nil
	}
	return c.render(w, r, http.StatusBadRequest, formFrame("Cookies are off"), noCookiesPage())
}

// challengeLifetime is that of the challenge itself.
const challengeLifetime = 5 * time.Minute

func (c *Console) signInCode(w http.ResponseWriter, r *Request) error {
	if _, err := r.Request.Cookie(challengeName); err != nil {
		http.Redirect(w, r.Request, "/signin", http.StatusSeeOther)
		return nil
	}
	return c.render(w, r, http.StatusOK, formFrame("Second factor"), signInCodePage(signInView{Next: "/stores"}))
}

func (c *Console) doSignInCode(w http.ResponseWriter, r *Request) error {
	next, resume := nextPath(r.PostForm.Get("next"), "/stores"), resumedFormOf(r.PostForm)
	cookie, err := r.Request.Cookie(challengeName)
	if err != nil {
		v := signInView{Next: next, Resume: resume, Reason: "The first step of the sign-in has expired. Enter your password again."}
		return c.render(w, r, http.StatusUnauthorized, formFrame("Sign in"), c.signInPage(v))
	}
	session, err := c.Accounts.LoginSecondFactor(r.Context(), keyring.NewSecret(cookie.Value), r.PostForm.Get("code"), browser(r.Client))
	switch code := stoa.CodeOf(err); {
	case code == stoa.TokenInvalid || code == stoa.TokenExpired:
		http.SetCookie(w, c.challengeCookie("", expired))
		v := signInView{Next: next, Resume: resume, Reason: "The first step of the sign-in has expired. Enter your password again."}
		return c.render(w, r, http.StatusUnauthorized, formFrame("Sign in"), c.signInPage(v))
	case err != nil:
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.render(w, r, form.Status(), formFrame("Second factor"), signInCodePage(signInView{Form: form, Next: next, Resume: resume}))
	}
	return c.enter(w, r, session, next, resume)
}

func (c *Console) signOut(w http.ResponseWriter, r *Request) error {
	if r.SignedIn() {
		if err := c.Accounts.Logout(r.Context(), r.Principal); err != nil {
			return err
		}
	}
	if err := c.forgetOwnSession(w, r); err != nil {
		return err
	}
	http.SetCookie(w, c.sessionCookie("", expired))
	return redirect(w, r, "/signin", "You are signed out.")
}

// browser returns the client as one whose session has a cookie.
func browser(c accounts.Client) accounts.Client {
	c.Browser = true
	return c
}

// The names of the fields that carry a form through a sign-in.
const (
	resumeAction = "resume-action"
	resumePrefix = "resume."
)

// resumedFormOf returns the form that a sign-in carries, or nil.
func resumedFormOf(sent url.Values) *resumedForm {
	action := nextPath(sent.Get(resumeAction), "")
	if action == "" {
		return nil
	}
	f := &resumedForm{Action: action, Values: url.Values{}}
	for name, values := range sent {
		if plain, ok := strings.CutPrefix(name, resumePrefix); ok && !isSecretField(plain) {
			f.Values[plain] = values
		}
	}
	return f
}
