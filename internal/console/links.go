package console

import (
	"net/http"
	"net/url"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

// The pages that links in mails lead to. Opening a link does not use it up, only
// sending the form does: mail scanners open links. The form has no action, so that it is
// sent to the address of its page: no page holds a token.

func (c *Console) linkRoutes() []Route {
	optional := RouteOptions{Kind: SignIn, Scope: Optional}
	return []Route{
		{Pattern: "GET /verify", RouteOptions: view(Optional), Handle: c.verify},
		{Pattern: "POST /verify", RouteOptions: optional, Handle: c.doVerify},
		{Pattern: "GET /account/email/confirm", RouteOptions: view(Optional), Handle: c.confirmEmail},
		{Pattern: "POST /account/email/confirm", RouteOptions: optional, Handle: c.doConfirmEmail},

		// Mails of earlier releases hold these.
		{Pattern: "GET /verify-email", RouteOptions: view(Public), Handle: moved("/verify")},
		{Pattern: "GET /forgot-password", RouteOptions: view(Public), Handle: moved("/forgot")},
		{Pattern: "GET /reset-password", RouteOptions: view(Public), Handle: moved("/reset")},
		{Pattern: "GET /accept-invitation", RouteOptions: view(Public), Handle: moved("/invitations/accept")},
	}
}

// moved redirects to the present address of a page.
func moved(path string) func(http.ResponseWriter, *Request) error {
	return func(w http.ResponseWriter, r *Request) error {
		to := path
		if token := r.URL.Query().Get("token"); token != "" {
			to += "?token=" + url.QueryEscape(token)
		}
		http.Redirect(w, r.Request, to, http.StatusSeeOther)
		return nil
	}
}

// linkView fills a page that a link leads to.
type linkView struct {
	Form  ui.Form
	Email string // of the session; empty: signed out
	// AskPassword: the caller has no session of the account, or not of this one.
	AskPassword bool
}

func (c *Console) linkView(r *Request) linkView {
	v := linkView{AskPassword: !r.SignedIn()}
	if r.SignedIn() {
		v.Email = r.User.Email
	}
	return v
}

// token returns the token of the link.
func token(r *Request) keyring.Secret { return keyring.NewSecret(r.URL.Query().Get("token")) }

// prover returns who uses a link: the session or, when a password was typed, nobody but
// who knows that.
func prover(r *Request) (authz.Principal, keyring.Secret) {
	password := keyring.NewSecret(r.PostForm.Get("password"))
	if !password.IsZero() {
		return authz.Principal{}, password
	}
	return r.Principal, password
}

// refusedLink answers a form of a link that was refused. A link that does not work any
// more has a page of its own, which says what to do.
func (c *Console) refusedLink(w http.ResponseWriter, r *Request, err error, dead deadLink, show func(linkView) error) error {
	v := c.linkView(r)
	switch code := stoa.CodeOf(err); {
	case code == stoa.TokenInvalid || code == stoa.TokenExpired:
		dead.Reason = messageOf(err)
		return c.render(w, r, http.StatusGone, formFrame("This link does not work any more"), deadLinkPage(dead))
	case code == stoa.Forbidden && r.SignedIn():
		v.AskPassword, v.Form = true, ui.Form{Fault: messageOf(err), Values: typed(r.PostForm), Code: http.StatusForbidden}
		return show(v)
	}
	if v.Form, err = refused(r, err); err != nil {
		return err
	}
	v.AskPassword = v.AskPassword || r.PostForm.Get("password") != ""
	return show(v)
}

// deadLink says what to do instead of following a link.
type deadLink struct {
	Reason string
	Advice string
	Label  string
	URL    string
}

func (c *Console) verify(w http.ResponseWriter, r *Request) error {
	return c.showVerify(w, r, c.linkView(r))
}

func (c *Console) showVerify(w http.ResponseWriter, r *Request, v linkView) error {
	return c.render(w, r, v.Form.Status(), formFrame("Confirm your e-mail address"), verifyPage(v))
}

func (c *Console) doVerify(w http.ResponseWriter, r *Request) error {
	p, password := prover(r)
	if err := c.Accounts.VerifyEmail(r.Context(), p, token(r), password, r.Client); err != nil {
		dead := deadLink{Advice: "If your address is not confirmed yet, have another link sent.", Label: "Go to your account", URL: "/account"}
		return c.refusedLink(w, r, err, dead, func(v linkView) error { return c.showVerify(w, r, v) })
	}
	return redirect(w, r, afterLink(r, "/stores"), "Your e-mail address is confirmed.")
}

// afterLink is where a link leads in the end.
func afterLink(r *Request, signedIn string) string {
	if r.SignedIn() {
		return signedIn
	}
	return "/signin"
}

func (c *Console) confirmEmail(w http.ResponseWriter, r *Request) error {
	return c.showConfirmEmail(w, r, c.linkView(r))
}

func (c *Console) showConfirmEmail(w http.ResponseWriter, r *Request, v linkView) error {
	return c.render(w, r, v.Form.Status(), formFrame("Confirm the change of your address"), confirmEmailPage(v))
}

func (c *Console) doConfirmEmail(w http.ResponseWriter, r *Request) error {
	p, password := prover(r)
	change, err := c.Accounts.ConfirmEmailChange(r.Context(), p, token(r), password, r.Client)
	if err != nil {
		dead := deadLink{Advice: "If your address is still the old one, start the change again.", Label: "Go to your account", URL: "/account"}
		return c.refusedLink(w, r, err, dead, func(v linkView) error { return c.showConfirmEmail(w, r, v) })
	}
	if !change.Complete() {
		return redirect(w, r, afterLink(r, "/account"), "Confirmed here. Now follow the link that was sent to the other address.")
	}
	return redirect(w, r, afterLink(r, "/account"), "Your address is now "+change.NewEmail+".")
}
