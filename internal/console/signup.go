package console

import (
	"net/http"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) signUpRoutes() []Route {
	return []Route{
		{Pattern: "GET /signup", RouteOptions: view(Optional), Handle: c.signUp},
		{Pattern: "POST /signup", RouteOptions: signInForm(Public), Handle: c.doSignUp},
	}
}

// signUpView fills the sign-up page.
type signUpView struct {
	Form  ui.Form
	Next  string
	Email string // initial: an invitation names it
}

func (c *Console) signUp(w http.ResponseWriter, r *Request) error {
	next := nextPath(r.URL.Query().Get("next"), "/stores/new")
	if r.SignedIn() {
		http.Redirect(w, r.Request, next, http.StatusSeeOther)
		return nil
	}
	v := signUpView{Next: next, Email: r.URL.Query().Get("email")}
	return c.render(w, r, http.StatusOK, formFrame("Create an account"), signUpPage(v))
}

func (c *Console) doSignUp(w http.ResponseWriter, r *Request) error {
	next := nextPath(r.PostForm.Get("next"), "/stores/new")
	session, _, err := c.Accounts.Register(r.Context(), accounts.Registration{
		Email: r.PostForm.Get("email"), Password: keyring.NewSecret(r.PostForm.Get("password")),
		FirstName: r.PostForm.Get("firstName"), LastName: r.PostForm.Get("lastName"), Client: browser(r.Client),
	})
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.render(w, r, form.Status(), formFrame("Create an account"), signUpPage(signUpView{Form: form, Next: next}))
	}
	return c.enter(w, r, session, next, nil)
}
