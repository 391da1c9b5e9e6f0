package console

import (
	"net/http"
	"net/url"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
)

func (c *Console) invitationRoutes() []Route {
	return []Route{
		{Pattern: "GET /invitations/accept", RouteOptions: view(Optional), Handle: c.invitation},
		{Pattern: "POST /invitations/accept", RouteOptions: form(Person), Handle: c.acceptInvitation},
	}
}

// invitationView fills the page of an invitation.
type invitationView struct {
	accounts.Offer
	Email  string // of the session; empty: signed out
	SignIn string
	SignUp string
}

// Mine reports whether the session's account is the invited one.
func (v invitationView) Mine() bool { return v.Email == v.Offer.Email }

func (c *Console) invitation(w http.ResponseWriter, r *Request) error {
	offer, err := c.Accounts.ReadOffer(r.Context(), token(r))
	if err != nil {
		return c.refusedInvitation(w, r, err)
	}
	here := "/invitations/accept?token=" + url.QueryEscape(r.URL.Query().Get("token"))
	v := invitationView{
		Offer:  offer,
		SignIn: "/signin?next=" + url.QueryEscape(here),
		SignUp: "/signup?email=" + url.QueryEscape(offer.Email) + "&next=" + url.QueryEscape(here),
	}
	if r.SignedIn() {
		v.Email = r.User.Email
	}
	return c.render(w, r, http.StatusOK, formFrame("Invitation"), invitationPage(v))
}

func (c *Console) acceptInvitation(w http.ResponseWriter, r *Request) error {
	id, err := c.Accounts.AcceptInvitation(r.Context(), r.Principal, token(r))
	if err != nil {
		return c.refusedInvitation(w, r, err)
	}
	store, err := c.Stores.Get(r.Context(), r.Principal, id)
	if err != nil {
		return err
	}
	return redirect(w, r, "/stores/"+store.Slug, "You belong to "+store.Name+" now.")
}

// refusedInvitation answers with a page for an invitation that cannot be accepted any
// more: the code would send others to the sign-in.
func (c *Console) refusedInvitation(w http.ResponseWriter, r *Request, err error) error {
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are returned
	case stoa.TokenInvalid, stoa.TokenExpired:
		dead := deadLink{Reason: messageOf(err), Advice: "Ask who invited you for another one. If you have accepted it before, you find the store among yours.",
			Label: "Your stores", URL: "/stores"}
		return c.render(w, r, http.StatusGone, formFrame("This link does not work any more"), deadLinkPage(dead))
	case stoa.Forbidden:
		dead := deadLink{Reason: messageOf(err), Advice: "You are signed in as " + r.User.Email + ".", Label: "Your stores", URL: "/stores"}
		return c.render(w, r, http.StatusForbidden, formFrame("Not your invitation"), deadLinkPage(dead))
	}
	return err
}
