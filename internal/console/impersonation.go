package console

import (
	"net/http"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) impersonationRoutes() []Route {
	return []Route{
		{Pattern: "POST /impersonation/end", RouteOptions: form(Optional), Handle: c.endImpersonation},
	}
}

// ownCookieLifetime is how long the operator's own session waits in its cookie. The
// session itself may end earlier.
const ownCookieLifetime = 12 * time.Hour

// impersonate begins to act as a user. The browser's session is the impersonation from
// then on.
func (c *Console) impersonate(w http.ResponseWriter, r *Request) error {
	id, err := userID(r)
	if err != nil {
		return err
	}
	session, err := c.Accounts.Impersonate(r.Context(), r.Principal, id, r.PostForm.Get("purpose"), browser(r.Client))
	if err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		if fault := f.Faults["reason"]; fault != "" { // the page has two reasons
			f.Faults, f.Fault = map[string]string{"purpose": fault}, ""
		}
		return c.showUser(w, r, f.Status(), f)
	}
	http.SetCookie(w, c.ownCookie(r.Cookie, ownCookieLifetime))
	http.SetCookie(w, c.sessionCookie(session.Cookie.Reveal(), session.ExpiresIn))
	return redirect(w, r, "/stores", "You act as "+session.User.Email+" for 15 minutes.")
}

// endImpersonation ends acting as a user and goes on as the operator. It also serves a
// browser whose impersonation has expired.
func (c *Console) endImpersonation(w http.ResponseWriter, r *Request) error {
	own, err := r.Request.Cookie(c.ownCookieName())
	if err != nil && r.Principal.Impersonator.IsZero() {
		return redirect(w, r, "/stores", "You act as yourself.")
	}
	if !r.Principal.Impersonator.IsZero() {
		if err := c.Accounts.Logout(r.Context(), r.Principal); err != nil {
			return err
		}
	}
	http.SetCookie(w, c.ownCookie("", expired))
	http.SetCookie(w, c.sessionCookie("", expired))
	if err != nil {
		return redirect(w, r, "/signin", "The impersonation has ended. Sign in again.")
	}
	session, err := c.Accounts.AuthenticateCookie(r.Context(), keyring.NewSecret(own.Value), r.Client)
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are of another kind
	case stoa.TokenInvalid, stoa.TokenExpired, stoa.SessionRevoked, stoa.AccountSuspended:
		return redirect(w, r, "/signin", "The impersonation has ended. Sign in again.")
	}
	if err != nil {
		return err
	}
	http.SetCookie(w, c.sessionCookie(own.Value, time.Until(session.ExpiresAt)))
	next := "/operator/users"
	if !r.Principal.Impersonator.IsZero() {
		next += "/" + r.Principal.UserID.String()
	}
	return redirect(w, r, next, "The impersonation has ended. You act as yourself.")
}

// forgetOwnSession ends the session of an operator that waits behind an impersonation,
// when the browser signs out or somebody signs in.
func (c *Console) forgetOwnSession(w http.ResponseWriter, r *Request) error {
	own, err := r.Request.Cookie(c.ownCookieName())
	if err != nil {
		return nil //nolint:nilerr // there is none
	}
	http.SetCookie(w, c.ownCookie("", expired))
	session, err := c.Accounts.AuthenticateCookie(r.Context(), keyring.NewSecret(own.Value), r.Client)
	if err != nil {
		return nil //nolint:nilerr // it has ended
	}
	return c.Accounts.Logout(r.Context(), session.Principal)
}
