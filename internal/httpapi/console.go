package httpapi

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/keyring"
)

// consoleLimits are the options of the kinds of console pages; the scope is the
// page's own.
var consoleLimits = map[console.Kind]routeOptions{
	console.View:         {timeout: requestTimeout, rate: rateCaller, maxBody: noBody},
	console.Form:         {timeout: requestTimeout, rate: rateCaller, maxBody: maxForm},
	console.SignIn:       {timeout: requestTimeout, rate: rateAuth, maxBody: maxForm},
	console.DatabaseForm: {timeout: waitTimeout, rate: rateDatabaseWait, maxBody: max(maxForm, maxCredentials)},
	console.Stream:       {timeout: streamLifetime + requestTimeout, rate: rateCaller, maxBody: noBody},
	console.Download:     {timeout: csvTimeout, rate: rateCaller, maxBody: noBody},
	console.FileForm:     {timeout: transferTimeout, rate: rateDatabaseWait, maxBody: maxForm},
	console.Upload:       {timeout: transferTimeout, rate: rateDatabaseWait, maxBody: maxArchive, streamed: true},
}

// consoleRoutes registers the pages of the console.
func (a *api) consoleRoutes() {
	for _, r := range a.console.Routes() {
		o := consoleLimits[r.Kind]
		o.scope, o.console = scope(r.Scope), true
		if o.rate == rateCaller && !o.scope.needsAuthentication() {
			o.rate = rateAddress // a session that is recognised counts by user too
		}
		o.list = r.List
		a.page(r.Pattern, o, a.consolePage(r))
	}
}

func (a *api) newConsole() *console.Console {
	return console.New(console.Services{
		Master: a.Master, Accounts: a.Accounts, APIKeys: a.APIKeys, Stores: a.Stores, Hostnames: a.Hostnames, Tenants: a.Tenants,
		Credits: a.Credits, Payments: a.Payments, Provisioning: a.Provisioning, Backups: a.Backups, Moves: a.Moves, Cloud: a.Cloud, Mail: a.Mail, Operations: a.Operations,
		Traffic: a.Traffic, Webhooks: a.Webhooks, Bulk: a.Bulk, Doctor: a.Doctor,
	}, console.Config{
		BaseURL: a.BaseURL, BaseDomain: a.BaseDomain, Development: a.Development, Sandbox: a.Sandbox, Log: a.Log, Stopping: a.Stopping,
	})
}

// consolePage serves one route of the console and answers its errors.
func (a *api) consolePage(route console.Route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		req := &console.Request{Request: r, Client: requestOf(r.Context()).client, Secure: strings.HasPrefix(a.BaseURL, "https:")}
		release, err := a.admitPage(w, req, route)
		if err == nil {
			defer release()
			err = route.Handle(w, req)
		}
		about(r.Context(), req.StoreID)
		if caller := requestOf(r.Context()).caller; caller.UserID.IsZero() { // the page may have signed somebody in
			identify(r.Context(), authz.Principal{UserID: req.User.ID})
		}
		if err != nil {
			a.refusePage(w, req, err)
		}
	}
}

// readForm parses a form within bodyTimeout. It clears the deadline afterwards:
// one that passes later would end the request. The body of an upload is left to its page.
func readForm(w http.ResponseWriter, r *http.Request, route console.Route) error {
	if route.Kind == console.Upload {
		return nil
	}
	setReadDeadline(w, bodyTimeout)
	defer http.NewResponseController(w).SetReadDeadline(time.Time{}) //nolint:errcheck // a writer without a connection has no deadline
	return r.ParseForm()
}

// admitPage checks the origin of a form, reads it, authenticates the caller and counts
// the request against the limits of its route.
func (a *api) admitPage(w http.ResponseWriter, r *console.Request, route console.Route) (release func(), err error) {
	o := requestOf(r.Context()).options
	if r.Method == http.MethodPost {
		if err := a.crossOrigin.Check(r.Request); err != nil {
			return nil, stoa.Errorf(stoa.Forbidden, "This form was sent by another site. Open the page here and send it again.")
		}
		if err := readForm(w, r.Request, route); err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				return nil, formTooLarge(large.Limit)
			}
			return nil, stoa.Errorf(stoa.InvalidRequest, "The form cannot be read.")
		}
	}
	if o.rate == rateAuth {
		if err := a.takeAuth(r.Context()); err != nil {
			return nil, err
		}
	}
	if route.Scope != console.Public {
		err := a.signInByCookie(r)
		if err != nil && (o.scope.needsAuthentication() || !isSignedOut(err)) {
			return nil, err
		}
	}
	if route.Scope == console.Operator && (!r.User.IsOperator() || !r.Principal.Impersonator.IsZero()) {
		// The domain checks it too; this covers what a page does before it calls it.
		return nil, stoa.Errorf(stoa.Forbidden, "Only operators of the platform may see this page.")
	}
	if route.Kind == console.Stream {
		return a.streams.acquire(stoa.StoreID{}, r.Principal)
	}
	return a.admitAs(r.Context(), o.rate, r.Principal.UserID)
}

// formTooLarge refuses a form that has more than limit bytes. It was not read, so the
// page cannot show it again; the browser can.
func formTooLarge(limit int64) error {
	return stoa.Errorf(stoa.PayloadTooLarge, "What you sent is more than the %d KB that a form may have, and nothing was saved. "+
		"Use your browser's Back button: the form should still have what you typed. Shorten the longest text and send it again.", limit>>10)
}

// signInByCookie authenticates the session of the request's cookie.
func (a *api) signInByCookie(r *console.Request) error {
	cookie, err := r.Request.Cookie(console.SessionCookieName(a.BaseURL))
	if err != nil {
		return stoa.Errorf(stoa.TokenInvalid, "You are not signed in. Sign in first.")
	}
	session, err := a.Accounts.AuthenticateCookie(r.Context(), keyring.NewSecret(cookie.Value), r.Client)
	if err != nil {
		return err
	}
	identify(r.Context(), session.Principal)
	if err := a.limitPrincipal(r.Context(), session.Principal); err != nil {
		return err
	}
	r.Principal, r.User, r.Expires, r.Cookie = session.Principal, session.User, session.ExpiresAt, cookie.Value
	return nil
}

// isSignedOut reports whether an error means that the request has no valid session.
func isSignedOut(err error) bool {
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are of another kind
	case stoa.TokenInvalid, stoa.TokenExpired, stoa.SessionRevoked, stoa.AccountSuspended:
		return true
	}
	return false
}

// refusePage answers a request that failed: with the sign-in for a caller without a
// session where one is needed, with the question for the password for an action that
// needs it, and with the error otherwise. A page that needs no session may name a link
// or state that is not valid; a sign-in would not correct that.
func (a *api) refusePage(w http.ResponseWriter, r *console.Request, err error) {
	ask := error(nil)
	switch {
	case isSignedOut(err) && requestOf(r.Context()).options.scope.needsAuthentication():
		r.Principal = authz.Principal{}
		ask = a.console.SignInFirst(w, r)
	case stoa.CodeOf(err) == stoa.ReauthenticationRequired:
		ask = a.console.ReauthenticateFirst(w, r)
	default:
		ask = err
	}
	if ask != nil {
		a.consoleErrorPage(w, r, ask)
	}
}
