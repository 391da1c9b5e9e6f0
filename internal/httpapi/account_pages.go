package httpapi

import (
	"errors"
	"net/http"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/web"
)

// accountPageRoutes registers the pages that links in mails lead to. Opening a link
// does not use up its token, only sending the form does: mail scanners open links.
func (a *api) accountPageRoutes() {
	password := console.FieldView{Name: "password", Label: "New password", Type: "password", Autocomplete: "new-password"}
	current := console.FieldView{Name: "password", Label: "Password", Type: "password", Autocomplete: "current-password"}
	a.form("/verify-email", "Your address is confirmed",
		console.FormView{Title: "Confirm your e-mail address",
			Text: "With the password that you chose when you opened the account. If you have opened none, do not confirm: " +
				"at /forgot-password you set a password of your own, which ends what others made in it.",
			Fields: []console.FieldView{current}, Button: "Confirm"},
		func(r *http.Request, token keyring.Secret) error {
			return a.Accounts.VerifyEmail(r.Context(), authz.Principal{}, token, keyring.NewSecret(r.PostForm.Get("password")), requestOf(r.Context()).client)
		})
	a.form("/forgot-password", "Look into your mailbox",
		console.FormView{Title: "Ask for a new password", Text: "If the address has an account, a link is sent to it.",
			Fields: []console.FieldView{{Name: "email", Label: "E-mail address", Type: "email", Autocomplete: "username"}}, Button: "Send the link"},
		func(r *http.Request, _ keyring.Secret) error {
			return a.Accounts.ForgotPassword(r.Context(), r.PostForm.Get("email"))
		})
	a.form("/reset-password", "Your password is set",
		console.FormView{Title: "Set a new password", Text: "At least 10 characters. All your sessions end. If the address was not confirmed before, " +
			"all else that was made in the account ends too, but for its stores.", Fields: []console.FieldView{password}, Button: "Set the password"},
		func(r *http.Request, token keyring.Secret) error {
			return a.Accounts.ResetPassword(r.Context(), token, keyring.NewSecret(r.PostForm.Get("password")), requestOf(r.Context()).client)
		})
	a.form("/accept-invitation", "You belong to the store",
		console.FormView{Title: "Accept the invitation", Text: "Sign in with the address that was invited. Without an account, open one first: POST /api/auth/register.",
			Fields: []console.FieldView{
				{Name: "email", Label: "E-mail address", Type: "email", Autocomplete: "username"},
				{Name: "password", Label: "Password", Type: "password", Autocomplete: "current-password"},
				{Name: "code", Label: "Code of your second factor, if you have one", Type: "text", Autocomplete: "one-time-code", Optional: true},
			}, Button: "Accept"},
		func(r *http.Request, token keyring.Secret) error {
			return a.Accounts.SignInAndAccept(r.Context(), token, r.PostForm.Get("email"), keyring.NewSecret(r.PostForm.Get("password")),
				r.PostForm.Get("code"), requestOf(r.Context()).client)
		})
	if a.Development {
		a.page("GET /dev/mailbox", routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: noBody}, a.mailbox)
	}
}

// form registers a page with a form and the action of its POST. done is the title
// of the page that confirms it.
func (a *api) form(path, done string, view console.FormView, act func(*http.Request, keyring.Secret) error) {
	view.Action = path
	a.page("GET "+path, routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: noBody}, func(w http.ResponseWriter, r *http.Request) {
		view := view
		view.Token = r.URL.Query().Get("token")
		web.Serve(w, r, http.StatusOK, console.FormPage(view))
	})
	a.page("POST "+path, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePublic, maxBody: maxForm}, func(w http.ResponseWriter, r *http.Request) {
		if err := readForm(w, r); err != nil {
			a.errorPage(w, r, stoa.Errorf(stoa.InvalidRequest, "The form cannot be read."))
			return
		}
		view := view
		view.Token = r.PostForm.Get("token")
		err := a.takeAuth(r.Context())
		if err == nil {
			err = act(r, keyring.NewSecret(view.Token))
		}
		if err == nil {
			web.Serve(w, r, http.StatusOK, console.FormPage(console.FormView{Title: done, Text: "You can close this page."}))
			return
		}
		var known *stoa.Error
		if !errors.As(err, &known) {
			a.errorPage(w, r, err)
			return
		}
		if known.RetryAfter > 0 {
			w.Header().Set("Retry-After", retryAfter(known.RetryAfter))
		}
		view.Fault = known.Message
		web.Serve(w, r, statuses[known.Code], console.FormPage(view))
	})
}

// readForm parses a form within bodyTimeout. It clears the deadline afterwards:
// one that passes later would end the request.
func readForm(w http.ResponseWriter, r *http.Request) error {
	setReadDeadline(w, bodyTimeout)
	defer http.NewResponseController(w).SetReadDeadline(time.Time{}) //nolint:errcheck // a writer without a connection has no deadline
	return r.ParseForm()
}

func (a *api) mailbox(w http.ResponseWriter, r *http.Request) {
	box, err := a.Mail.Box()
	if err != nil {
		a.errorPage(w, r, err)
		return
	}
	views := make([]console.MailView, len(box))
	for i, m := range box {
		views[i] = console.MailView{To: m.To, Subject: m.Subject, At: m.At.Format(time.RFC3339), Text: m.Text}
	}
	web.Serve(w, r, http.StatusOK, console.MailboxPage(views))
}
