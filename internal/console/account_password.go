package console

import (
	"net/http"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) passwordRoutes() []Route {
	return []Route{
		{Pattern: "GET /account/password", RouteOptions: view(Person), Handle: c.password},
		{Pattern: "POST /account/password", RouteOptions: RouteOptions{Kind: SignIn, Scope: Person}, Handle: c.changePassword},
	}
}

func (c *Console) password(w http.ResponseWriter, r *Request) error {
	return c.showPassword(w, r, ui.Form{})
}

func (c *Console) showPassword(w http.ResponseWriter, r *Request, f ui.Form) error {
	return c.render(w, r, f.Status(), accountFrame("password", "Password"), passwordPage(f, r.User.Email))
}

func (c *Console) changePassword(w http.ResponseWriter, r *Request) error {
	err := c.Accounts.ChangePassword(r.Context(), r.Principal,
		keyring.NewSecret(r.PostForm.Get("oldPassword")), keyring.NewSecret(r.PostForm.Get("newPassword")))
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showPassword(w, r, form)
	}
	return redirect(w, r, "/account/password", "Your password is changed. All your other sessions have ended.")
}
