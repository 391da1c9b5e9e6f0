package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/supabase/link"
)

// SupabaseCallbackPath is where Supabase sends the browser after the consent.
const SupabaseCallbackPath = "/api/supabase/callback"

func (c *Console) supabaseRoutes() []Route {
	return []Route{
		{Pattern: "POST /stores/{slug}/connect/supabase", RouteOptions: form(scopeOf(authz.ConnectDatabase)), Handle: c.authorizeSupabase},
		{Pattern: "GET " + SupabaseCallbackPath, RouteOptions: view(Public), Handle: c.supabaseCallback},
		{Pattern: "POST " + SupabaseCallbackPath, RouteOptions: form(Public), Handle: c.confirmSupabase},
		{Pattern: "GET /supabase/{outcome}", RouteOptions: view(Public), Handle: c.supabaseReturned},
	}
}

// The cookies of a consent at Supabase: which browser began it, and for which store.
const (
	supabaseBrowserCookie = "stoa_supabase"
	supabaseStoreCookie   = "stoa_supabase_store"
	supabaseStorePath     = "/supabase/"
)

// SupabaseCookie returns the cookie by which the browser that began a consent is known
// when it returns.
func SupabaseCookie(baseURL string, consent link.Consent) *http.Cookie {
	return newCookie(isSecure(baseURL), supabaseBrowserCookie, consent.Browser.Reveal(), SupabaseCallbackPath, link.ConsentTTL)
}

// toMove is the value of the field "for" when the account is connected for a move.
const toMove = "move"

// authorizeSupabase sends the browser to Supabase, where its owner consents.
func (c *Console) authorizeSupabase(w http.ResponseWriter, r *Request) error {
	moving := r.PostForm.Get("for") == toMove
	action := authz.ConnectDatabase
	if moving {
		action = authz.MoveDatabase
	}
	store, err := c.storeFor(r, action)
	if err != nil {
		return err
	}
	consent, err := c.Cloud.Authorize(r.Context(), r.Principal, store.ID)
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		if moving && store.Database != nil {
			return c.showNewMove(w, r, newMoveView{Store: store, Form: form})
		}
		return c.showConnect(w, r, connectView{Store: store, Kind: supabaseProject, Form: form})
	}
	back := store.Slug
	if moving {
		back += "/" + toMove
	}
	http.SetCookie(w, SupabaseCookie(c.BaseURL, consent))
	http.SetCookie(w, newCookie(r.Secure, supabaseStoreCookie, back, supabaseStorePath, link.ConsentTTL))
	http.Redirect(w, r.Request, consent.URL, http.StatusSeeOther)
	return nil
}

// supabaseCallback handles the browser's return from Supabase. The state identifies the
// user who gave the consent. The redirect removes the code from the address bar.
func (c *Console) supabaseCallback(w http.ResponseWriter, r *Request) error {
	q := r.URL.Query()
	back := link.Return{State: keyring.NewSecret(q.Get("state")), Code: keyring.NewSecret(q.Get("code"))}
	if cookie, err := r.Request.Cookie(supabaseBrowserCookie); err == nil {
		back.Browser = keyring.NewSecret(cookie.Value)
	}
	if q.Get("error") != "" || back.Code.IsZero() {
		if err := c.Cloud.Decline(r.Context(), back.State); err != nil {
			return err
		}
		return redirect(w, r, "/supabase/declined", "")
	}
	return c.finishSupabase(w, r, back)
}

// confirmSupabase completes the connection after the owner of another browser has
// confirmed it.
func (c *Console) confirmSupabase(w http.ResponseWriter, r *Request) error {
	return c.finishSupabase(w, r, link.Return{
		State: keyring.NewSecret(r.PostForm.Get("state")), Code: keyring.NewSecret(r.PostForm.Get("code")), Confirmed: true,
	})
}

// supabaseConfirmView fills the page that asks whether to connect.
type supabaseConfirmView struct {
	Store, Email string
	State, Code  string
}

func (c *Console) finishSupabase(w http.ResponseWriter, r *Request, back link.Return) error {
	err := c.Cloud.Finish(r.Context(), back)
	var unconfirmed *link.Unconfirmed
	switch {
	case errors.As(err, &unconfirmed):
		v := supabaseConfirmView{Store: unconfirmed.Store, Email: unconfirmed.Email, State: back.State.Reveal(), Code: back.Code.Reveal()}
		return c.render(w, r, http.StatusOK, formFrame("Connect Supabase?"), supabaseConfirmPage(v))
	case err != nil:
		return err
	}
	return redirect(w, r, "/supabase/connected", "")
}

// supabaseReturned is where the browser arrives after the consent: at the store that it
// was given for, if it began here.
func (c *Console) supabaseReturned(w http.ResponseWriter, r *Request) error {
	title, text := "Supabase is connected", "Choose a project for the store now."
	switch r.PathValue("outcome") {
	case "connected":
	case "declined":
		title, text = "Supabase is not connected", "You have declined, and nothing has changed."
	default:
		return notFound()
	}
	if cookie, err := r.Request.Cookie(supabaseStoreCookie); err == nil {
		http.SetCookie(w, newCookie(r.Secure, supabaseStoreCookie, "", supabaseStorePath, expired))
		slug, purpose, _ := strings.Cut(cookie.Value, "/")
		page := "/connect"
		if purpose == toMove {
			page = "/moves/new"
		}
		return redirect(w, r, "/stores/"+url.PathEscape(slug)+page+"?kind="+supabaseProject, title+". "+text)
	}
	return c.render(w, r, http.StatusOK, formFrame(title), notePage(title, text+" You can close this page."))
}

// supabaseFrame is the frame of the page whose form leads to Supabase.
func (c *Console) supabaseFrame(f ui.Frame) ui.Frame {
	f.FormOrigin = c.Cloud.ConsentOrigin()
	return f
}
