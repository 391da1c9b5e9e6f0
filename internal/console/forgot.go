package console

import (
	"net/http"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) forgotRoutes() []Route {
	return []Route{
		{Pattern: "GET /forgot", RouteOptions: view(Optional), Handle: c.forgot},
		{Pattern: "POST /forgot", RouteOptions: RouteOptions{Kind: SignIn, Scope: Optional}, Handle: c.doForgot},
		{Pattern: "GET /reset", RouteOptions: view(Optional), Handle: c.reset},
		{Pattern: "POST /reset", RouteOptions: RouteOptions{Kind: SignIn, Scope: Optional}, Handle: c.doReset},
	}
}

func (c *Console) forgot(w http.ResponseWriter, r *Request) error {
	return c.showForgot(w, r, ui.Form{})
}

func (c *Console) showForgot(w http.ResponseWriter, r *Request, f ui.Form) error {
	return c.render(w, r, f.Status(), formFrame("Ask for a new password"), forgotPage(f, r.User.Email))
}

// doForgot answers the same for every address, whether or not it has an account.
func (c *Console) doForgot(w http.ResponseWriter, r *Request) error {
	if err := c.Accounts.ForgotPassword(r.Context(), r.PostForm.Get("email")); err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showForgot(w, r, form)
	}
	return c.render(w, r, http.StatusOK, formFrame("Look into your mailbox"), forgotSentPage(c.Development))
}

func (c *Console) reset(w http.ResponseWriter, r *Request) error {
	return c.showReset(w, r, c.linkView(r))
}

func (c *Console) showReset(w http.ResponseWriter, r *Request, v linkView) error {
	return c.render(w, r, v.Form.Status(), formFrame("Set a new password"), resetPage(v))
}

func (c *Console) doReset(w http.ResponseWriter, r *Request) error {
	err := c.Accounts.ResetPassword(r.Context(), token(r), keyring.NewSecret(r.PostForm.Get("password")), r.Client)
	if err != nil {
		dead := deadLink{Advice: "A link is good for an hour and for one use.", Label: "Have another link sent", URL: "/forgot"}
		return c.refusedLink(w, r, err, dead, func(v linkView) error { return c.showReset(w, r, v) })
	}
	return redirect(w, r, "/signin", "Your password is set. Sign in with it.")
}
