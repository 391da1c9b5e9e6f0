package console

import (
	"net/http"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) deleteAccountRoutes() []Route {
	return []Route{
		{Pattern: "GET /account/delete", RouteOptions: view(Person), Handle: c.deleteAccount},
		{Pattern: "POST /account/delete", RouteOptions: RouteOptions{Kind: SignIn, Scope: Person}, Handle: c.doDeleteAccount},
	}
}

// deleteAccountView fills the page that deletes the account.
type deleteAccountView struct {
	Form     ui.Form
	Email    string
	Operator bool
	Owned    []stores.Store // have no other owner
}

func (c *Console) deleteAccount(w http.ResponseWriter, r *Request) error {
	return c.showDeleteAccount(w, r, ui.Form{})
}

func (c *Console) showDeleteAccount(w http.ResponseWriter, r *Request, f ui.Form) error {
	owned, err := c.Stores.SolelyOwned(r.Context(), r.Principal)
	if err != nil {
		return err
	}
	v := deleteAccountView{Form: f, Email: r.User.Email, Operator: r.User.IsOperator(), Owned: owned}
	return c.render(w, r, f.Status(), accountFrame("delete", "Delete account"), deleteAccountPage(v))
}

func (c *Console) doDeleteAccount(w http.ResponseWriter, r *Request) error {
	if !strings.EqualFold(strings.TrimSpace(r.PostForm.Get("confirm")), r.User.Email) {
		var faults stoa.Invalid
		faults.Add("confirm", "must be your e-mail address")
		form, err := refused(r, faults.Err())
		if err != nil {
			return err
		}
		return c.showDeleteAccount(w, r, form)
	}
	err := c.Accounts.DeleteAccount(r.Context(), r.Principal, keyring.Secret{})
	if stoa.CodeOf(err) == stoa.Forbidden && r.Principal.Impersonator.IsZero() {
		// A store was created or an owner has left since the page was shown.
		return c.showDeleteAccount(w, r, ui.Form{Fault: messageOf(err), Values: typed(r.PostForm), Code: http.StatusForbidden})
	}
	if err != nil {
		return err
	}
	http.SetCookie(w, c.sessionCookie("", -time.Second))
	return redirect(w, r, "/signin", "Your account is deleted.")
}
