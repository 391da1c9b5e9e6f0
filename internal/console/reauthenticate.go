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
		{Pattern: "POST /reauthenticate", RouteOptions: RouteOptions{Kind: SignIn, Scope: Person}, Handle: c.doReauthenticate},
	}
}

// reauthenticateView fills the page that asks for the password again.
type reauthenticateView struct {
	Form      ui.Form
	Next      string
	HasFactor bool
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

func (c *Console) doReauthenticate(w http.ResponseWriter, r *Request) error {
	next, resume := nextPath(r.PostForm.Get("next"), "/stores"), resumedFormOf(r.PostForm)
	err := c.Accounts.Reauthenticate(r.Context(), r.Principal, keyring.NewSecret(r.PostForm.Get("password")), r.PostForm.Get("code"))
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showReauthenticate(w, r, reauthenticateView{Form: form, Next: next, Resume: resume})
	}
	if resume != nil {
		return c.render(w, r, http.StatusOK, formFrame("Go on"), resumePage("Confirmed", "Now send your form, or leave it.", *resume))
	}
	http.Redirect(w, r.Request, next, http.StatusSeeOther)
	return nil
}
