package console

import (
	"net/http"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) accountRoutes() []Route {
	return []Route{
		{Pattern: "GET /account", RouteOptions: view(Person), Handle: c.account},
		{Pattern: "POST /account/name", RouteOptions: form(Person), Handle: c.changeName},
		{Pattern: "POST /account/email", RouteOptions: RouteOptions{Kind: SignIn, Scope: Person}, Handle: c.changeEmail},
		{Pattern: "POST /account/email/withdraw", RouteOptions: form(Person), Handle: c.withdrawEmail},
		{Pattern: "POST /account/email/resend", RouteOptions: RouteOptions{Kind: SignIn, Scope: Person}, Handle: c.resendVerification},
	}
}

// accountView fills the page of the account. Of its two forms, at most one was sent.
type accountView struct {
	User      accounts.User
	Change    *accounts.EmailChange // waits for confirmations; nil: none
	NameForm  ui.Form
	EmailForm ui.Form
}

func (c *Console) account(w http.ResponseWriter, r *Request) error {
	return c.showAccount(w, r, accountView{})
}

func (c *Console) showAccount(w http.ResponseWriter, r *Request, v accountView) error {
	var err error
	if v.Change, err = c.Accounts.PendingEmailChange(r.Context(), r.Principal); err != nil {
		return err
	}
	v.User = r.User
	return c.render(w, r, max(v.NameForm.Status(), v.EmailForm.Status()), accountFrame("account", "Account"), accountPage(v))
}

func (c *Console) changeName(w http.ResponseWriter, r *Request) error {
	first, last := r.PostForm.Get("firstName"), r.PostForm.Get("lastName")
	_, err := c.Accounts.ChangeName(r.Context(), r.Principal, accounts.NameChange{FirstName: &first, LastName: &last})
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showAccount(w, r, accountView{NameForm: form})
	}
	return redirect(w, r, "/account", "Your name is saved.")
}

func (c *Console) changeEmail(w http.ResponseWriter, r *Request) error {
	change, err := c.Accounts.RequestEmailChange(r.Context(), r.Principal, r.PostForm.Get("email"), keyring.Secret{})
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showAccount(w, r, accountView{EmailForm: form})
	}
	if change.OldConfirmedAt != nil {
		return redirect(w, r, "/account", "A link was sent to "+change.NewEmail+". Follow it to change your address.")
	}
	return redirect(w, r, "/account", "Links were sent to "+change.NewEmail+" and to "+r.User.Email+". Follow both to change your address.")
}

func (c *Console) withdrawEmail(w http.ResponseWriter, r *Request) error {
	err := c.Accounts.WithdrawEmailChange(r.Context(), r.Principal)
	if isGone(err) {
		return redirect(w, r, "/account", "No change of your address was waiting any more.")
	}
	if err != nil {
		return err
	}
	return redirect(w, r, "/account", "The change of your address is withdrawn. Its links do not work any more.")
}

func (c *Console) resendVerification(w http.ResponseWriter, r *Request) error {
	if err := c.Accounts.ResendVerification(r.Context(), r.Principal); err != nil {
		return err
	}
	return redirect(w, r, "/account", "A link is on its way to "+r.User.Email+", unless one was sent a moment ago.")
}
