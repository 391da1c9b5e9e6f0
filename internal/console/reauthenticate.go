package console

import (
	"net/http"
	"net/url"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) reauthenticateRoutes() []Route {
	return []Route{
		{Pattern: "GET /reauthenticate", RouteOptions: view(Person), Handle: c.reauthenticate},
		{Pattern: "POST /reauthenticate", RouteOptions: signInForm(Person), Handle: c.doReauthenticate},
		{Pattern: "POST /reauthenticate/passkey/begin", RouteOptions: signInForm(Person), Handle: c.beginPasskeyReauthentication},
		{Pattern: "POST /reauthenticate/passkey", RouteOptions: signInForm(Person), Handle: c.doPasskeyReauthentication},
	}
}

// reauthenticateView fills the page that asks for the password again.
type reauthenticateView struct {
	Form      ui.Form
	Next      string
	HasFactor bool
	Passkey   bool // the person has one
	Resume    *resumedForm
}

func (c *Console) reauthenticate(w http.ResponseWriter, r *Request) error {
	return c.showReauthenticate(w, r, reauthenticateView{Next: nextPath(r.URL.Query().Get("next"), "/stores")})
}

func (c *Console) showReauthenticate(w http.ResponseWriter, r *Request, v reauthenticateView) error {
	var err error
	if v.HasFactor, _, err = c.Accounts.HasFactor(r.Context(), r.Principal); err != nil {
		return err
	}
	if c.Accounts.PasskeysAvailable() {
		passkeys, err := c.Accounts.Passkeys(r.Context(), r.Principal)
		if err != nil {
			return err
		}
		v.Passkey = len(passkeys) > 0
	}
	return c.render(w, r, v.Form.Status(), formFrame("Confirm that it is you"), reauthenticatePage(v))
}

// ReauthenticateFirst answers a request for what needs a recent password or second
// factor. A form is kept, and can be sent again as it was.
func (c *Console) ReauthenticateFirst(w http.ResponseWriter, r *Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		http.Redirect(w, r.Request, "/reauthenticate?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		return nil
	}
	return c.showReauthenticate(w, r, reauthenticateView{
		Form: ui.Form{Code: http.StatusForbidden}, Next: "/stores", Resume: &resumedForm{Action: r.URL.RequestURI(), Values: typed(r.PostForm)},
	})
}

// reauthenticateViewOf returns where the form leads.
func reauthenticateViewOf(r *Request) reauthenticateView {
	return reauthenticateView{Next: nextPath(r.PostForm.Get("next"), "/stores"), Resume: resumedFormOf(r.PostForm)}
}

func (c *Console) doReauthenticate(w http.ResponseWriter, r *Request) error {
	v := reauthenticateViewOf(r)
	err := c.Accounts.Reauthenticate(r.Context(), r.Principal, keyring.NewSecret(r.PostForm.Get("password")), r.PostForm.Get("code"))
	if err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
		return c.showReauthenticate(w, r, v)
	}
	return c.goOn(w, r, v)
}

// goOn leads on after the person has confirmed that it is them.
func (c *Console) goOn(w http.ResponseWriter, r *Request, v reauthenticateView) error {
	if v.Resume != nil {
		return c.render(w, r, http.StatusOK, formFrame("Go on"), resumePage("Confirmed", "Now send your form, or leave it.", *v.Resume))
	}
	http.Redirect(w, r.Request, v.Next, http.StatusSeeOther)
	return nil
}

func (c *Console) beginPasskeyReauthentication(w http.ResponseWriter, r *Request) error {
	v := reauthenticateViewOf(r)
	challenge, err := c.Accounts.BeginPasskeyReauthentication(r.Context(), r.Principal)
	if err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
		return c.showReauthenticate(w, r, v)
	}
	return c.askPasskey(w, r, passkeyAskView{
		Title: "Confirm that it is you", Action: "/reauthenticate/passkey", Next: signInView{Next: v.Next, Resume: v.Resume},
		Cancel: "/reauthenticate?next=" + url.QueryEscape(v.Next),
	}, challenge)
}

func (c *Console) doPasskeyReauthentication(w http.ResponseWriter, r *Request) error {
	v := reauthenticateViewOf(r)
	if err := c.Accounts.ReauthenticateByPasskey(r.Context(), r.Principal, passkeyAnswer(r)); err != nil {
		if v.Form, err = refusedPasskey(r, err); err != nil {
			return err
		}
		return c.showReauthenticate(w, r, v)
	}
	return c.goOn(w, r, v)
}
