package console

import (
	"net/http"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) peopleRoutes() []Route {
	read, manage, owners := scopeOf(authz.ReadMembers), scopeOf(authz.ManageMembers), scopeOf(authz.ManageOwners)
	return []Route{
		{Pattern: "GET /stores/{slug}/people", RouteOptions: view(read), Handle: c.people},
		{Pattern: "POST /stores/{slug}/people/invite", RouteOptions: signInForm(manage), Handle: c.invite},
		{Pattern: "POST /stores/{slug}/people/invitations/{invitation}/resend", RouteOptions: signInForm(manage), Handle: c.resendInvitation},
		{Pattern: "POST /stores/{slug}/people/invitations/{invitation}/revoke", RouteOptions: form(manage), Handle: c.revokeInvitation},
		{Pattern: "POST /stores/{slug}/people/{user}/role", RouteOptions: form(manage), Handle: c.changeRole},
		{Pattern: "GET /stores/{slug}/people/{user}/remove", RouteOptions: view(manage), Handle: c.confirmMemberRemoval},
		{Pattern: "POST /stores/{slug}/people/{user}/remove", RouteOptions: form(manage), Handle: c.removeMember},
		{Pattern: "GET /stores/{slug}/leave", RouteOptions: view(read), Handle: c.confirmLeaving},
		{Pattern: "POST /stores/{slug}/leave", RouteOptions: form(read), Handle: c.leave},
		{Pattern: "GET /stores/{slug}/transfer", RouteOptions: view(owners), Handle: c.confirmTransfer},
		{Pattern: "POST /stores/{slug}/transfer", RouteOptions: form(owners), Handle: c.transfer},
	}
}

// peopleView fills the page of a store's members.
type peopleView struct {
	Form        ui.Form // of an invitation; its fault may be of another form of the page
	Store       stores.Store
	Members     []memberRow
	Invitations []invitationRow
	Manage      bool        // the caller invites, changes and removes members
	Transfer    bool        // the caller may hand the store over
	Leave       bool        // the caller is a member
	Roles       []ui.Option // those that the caller may give
}

// memberRow is one member.
type memberRow struct {
	authz.StoreMember
	Name   string
	You    bool
	Manage bool // the caller may change and remove them
	Path   string
}

// invitationRow is one open invitation.
type invitationRow struct {
	accounts.Invitation
	By      string
	Expired bool
	Path    string
}

// nameOf returns what to call a person.
func nameOf(p authz.Person) string {
	if name := strings.TrimSpace(p.FirstName + " " + p.LastName); name != "" {
		return name
	}
	return p.Email
}

// memberNames returns the names of the store's members.
func (c *Console) memberNames(r *Request, store stores.Store) (map[stoa.UserID]string, error) {
	members, err := c.Accounts.Members(r.Context(), r.Principal, store.ID)
	names := map[stoa.UserID]string{}
	for _, m := range members {
		names[m.UserID] = nameOf(m.Person)
	}
	return names, err
}

func (c *Console) people(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	return c.showPeople(w, r, store, ui.Form{})
}

func (c *Console) showPeople(w http.ResponseWriter, r *Request, store stores.Store, f ui.Form) error {
	members, err := c.Accounts.Members(r.Context(), r.Principal, store.ID)
	if err != nil {
		return err
	}
	base := "/stores/" + store.Slug + "/people/"
	ownersToo := may(r, store, authz.ManageOwners)
	v := peopleView{
		Form: f, Store: store, Manage: may(r, store, authz.ManageMembers), Roles: roleOptions(ownersToo),
		Transfer: ownersToo && store.Role == authz.Owner && len(members) > 1,
	}
	names := map[stoa.UserID]string{}
	for _, m := range members {
		row := memberRow{StoreMember: m, Name: nameOf(m.Person), You: m.UserID == r.Principal.UserID, Path: base + m.UserID.String()}
		row.Manage = v.Manage && (ownersToo || m.Role != authz.Owner)
		v.Leave = v.Leave || row.You
		names[m.UserID] = row.Name
		v.Members = append(v.Members, row)
	}
	if v.Manage {
		open, err := c.Accounts.Invitations(r.Context(), r.Principal, store.ID)
		if err != nil {
			return err
		}
		now := c.Master.Now()
		for _, i := range open {
			v.Invitations = append(v.Invitations, invitationRow{
				Invitation: i, By: names[i.InvitedBy], Expired: !now.Before(i.ExpiresAt), Path: base + "invitations/" + i.ID.String(),
			})
		}
	}
	return c.render(w, r, f.Status(), storeFrame(store, "people", "People"), peoplePage(v))
}

// roleOptions lists the roles to give, the least powerful first.
func roleOptions(ownersToo bool) []ui.Option {
	var out []ui.Option
	for i := len(authz.Roles) - 1; i >= 0; i-- {
		if role := authz.Roles[i]; role != authz.Owner || ownersToo {
			out = append(out, ui.Option{Value: string(role), Label: string(role)})
		}
	}
	return out
}

// changePeople makes a change and goes back to the list, which shows a refusal above it.
func (c *Console) changePeople(w http.ResponseWriter, r *Request, change func(stores.Store) (message string, err error)) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	message, err := change(store)
	if err != nil {
		f, err := refusedHere(r, err)
		if err != nil {
			return err
		}
		return c.showPeople(w, r, store, f)
	}
	return redirect(w, r, "/stores/"+store.Slug+"/people", message)
}

func (c *Console) invite(w http.ResponseWriter, r *Request) error {
	return c.changePeople(w, r, func(store stores.Store) (string, error) {
		i, err := c.Accounts.Invite(r.Context(), r.Principal, store.ID, r.PostForm.Get("email"), authz.Role(r.PostForm.Get("role")))
		return "An invitation was sent to " + i.Email + ". It is good for a week.", err
	})
}

// resendInvitation renews an invitation with its role and sends another mail.
func (c *Console) resendInvitation(w http.ResponseWriter, r *Request) error {
	return c.changePeople(w, r, func(store stores.Store) (string, error) {
		open, err := c.Accounts.Invitations(r.Context(), r.Principal, store.ID)
		if err != nil {
			return "", err
		}
		for _, i := range open {
			if i.ID.String() == r.PathValue("invitation") {
				_, err := c.Accounts.Invite(r.Context(), r.Principal, store.ID, i.Email, i.Role)
				return "Another mail was sent to " + i.Email + ". The link in the one before no longer works.", err
			}
		}
		return "", stoa.Errorf(stoa.NotFound, "There is no such invitation, or it is open no more.")
	})
}

func (c *Console) revokeInvitation(w http.ResponseWriter, r *Request) error {
	return c.changePeople(w, r, func(store stores.Store) (string, error) {
		id, _ := stoa.ParseID[stoa.InvitationID](r.PathValue("invitation")) // an invalid id becomes the zero id, which no invitation has
		return "The invitation was revoked: its link no longer works.", c.Accounts.RevokeInvitation(r.Context(), r.Principal, store.ID, id)
	})
}

// member returns the member that the path names.
func (c *Console) member(r *Request, store stores.Store) (authz.StoreMember, error) {
	members, err := c.Accounts.Members(r.Context(), r.Principal, store.ID)
	if err != nil {
		return authz.StoreMember{}, err
	}
	for _, m := range members {
		if m.UserID.String() == r.PathValue("user") {
			return m, nil
		}
	}
	return authz.StoreMember{}, stoa.Errorf(stoa.NotFound, "The store has no such member.")
}

func (c *Console) changeRole(w http.ResponseWriter, r *Request) error {
	return c.changePeople(w, r, func(store stores.Store) (string, error) {
		id, _ := stoa.ParseID[stoa.UserID](r.PathValue("user")) // an invalid id becomes the zero id, which nobody has
		role := authz.Role(r.PostForm.Get("role"))
		err := c.Accounts.ChangeRole(r.Context(), r.Principal, store.ID, id, role)
		if err != nil {
			return "", err
		}
		names, err := c.memberNames(r, store)
		return names[id] + " has the role " + string(role) + " now.", err
	})
}

func (c *Console) confirmMemberRemoval(w http.ResponseWriter, r *Request) error {
	return c.showMemberRemoval(w, r, ui.Form{})
}

func (c *Console) showMemberRemoval(w http.ResponseWriter, r *Request, f ui.Form) error {
	store, err := c.storeFor(r, authz.ManageMembers)
	if err != nil {
		return err
	}
	m, err := c.member(r, store)
	if err != nil {
		return err
	}
	base := "/stores/" + store.Slug + "/people"
	return c.showConfirm(w, r, storeFrame(store, "people", "Remove a member"), confirmView{
		Form: f, Title: "Remove " + nameOf(m.Person), Name: m.Email, Button: "Remove the member", Action: base + "/" + m.UserID.String() + "/remove", Back: base,
		Facts: []string{
			m.Email + " (" + string(m.Role) + ") loses access to the store at once.",
			"The API keys that they made for the store are revoked with it.",
			"They can be invited again.",
		},
	})
}

func (c *Console) removeMember(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageMembers)
	if err != nil {
		return err
	}
	m, err := c.member(r, store)
	if err != nil {
		return err
	}
	if f, ok := confirmed(r, m.Email); !ok {
		return c.showMemberRemoval(w, r, f)
	}
	if err := c.Accounts.RemoveMember(r.Context(), r.Principal, store.ID, m.UserID); err != nil {
		f, err := refusedHere(r, err)
		if err != nil {
			return err
		}
		return c.showMemberRemoval(w, r, f)
	}
	if m.UserID == r.Principal.UserID {
		return redirect(w, r, "/stores", "You have left "+store.Name+".")
	}
	return redirect(w, r, "/stores/"+store.Slug+"/people", nameOf(m.Person)+" was removed.")
}

func (c *Console) confirmLeaving(w http.ResponseWriter, r *Request) error {
	return c.showLeaving(w, r, ui.Form{})
}

func (c *Console) showLeaving(w http.ResponseWriter, r *Request, f ui.Form) error {
	store, err := c.storeFor(r, authz.ReadMembers)
	if err != nil {
		return err
	}
	return c.showConfirm(w, r, storeFrame(store, "people", "Leave the store"), confirmView{
		Form: f, Title: "Leave " + store.Name, Name: store.Name, Button: "Leave the store", Action: "/stores/" + store.Slug + "/leave", Back: "/stores/" + store.Slug + "/people",
		Facts: []string{"You lose access to the store at once.", "The API keys that you made for it are revoked.", "Only another invitation brings you back."},
	})
}

func (c *Console) leave(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	if f, ok := confirmed(r, store.Name); !ok {
		return c.showLeaving(w, r, f)
	}
	if err := c.Accounts.RemoveMember(r.Context(), r.Principal, store.ID, r.Principal.UserID); err != nil {
		f, err := refusedHere(r, err)
		if err != nil {
			return err
		}
		return c.showLeaving(w, r, f)
	}
	return redirect(w, r, "/stores", "You have left "+store.Name+".")
}

func (c *Console) confirmTransfer(w http.ResponseWriter, r *Request) error {
	return c.showTransfer(w, r, ui.Form{})
}

func (c *Console) showTransfer(w http.ResponseWriter, r *Request, f ui.Form) error {
	store, err := c.storeFor(r, authz.ManageOwners)
	if err != nil {
		return err
	}
	members, err := c.Accounts.Members(r.Context(), r.Principal, store.ID)
	if err != nil {
		return err
	}
	v := confirmView{
		Form: f, Title: "Hand over " + store.Name, Name: store.Name, Button: "Hand the store over", Choice: "New owner",
		Action: "/stores/" + store.Slug + "/transfer", Back: "/stores/" + store.Slug + "/people",
		Facts: []string{"The member becomes an owner of the store.", "You become an admin: you can no longer delete the store, nor make or unmake owners."},
	}
	for _, m := range members {
		if m.UserID != r.Principal.UserID {
			v.Choices = append(v.Choices, ui.Option{Value: m.UserID.String(), Label: nameOf(m.Person) + " (" + m.Email + ", " + string(m.Role) + ")"})
		}
	}
	if len(v.Choices) == 0 && f.Fault == "" {
		v.Form.Fault = "The store has no other member. Invite one first."
	}
	return c.showConfirm(w, r, storeFrame(store, "people", "Hand the store over"), v)
}

func (c *Console) transfer(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageOwners)
	if err != nil {
		return err
	}
	if f, ok := confirmed(r, store.Name); !ok {
		return c.showTransfer(w, r, f)
	}
	to, _ := stoa.ParseID[stoa.UserID](r.PostForm.Get("user")) // an invalid id becomes the zero id, which nobody has
	if err := c.Accounts.TransferOwnership(r.Context(), r.Principal, store.ID, to); err != nil {
		f, err := refusedHere(r, err)
		if err != nil {
			return err
		}
		return c.showTransfer(w, r, f)
	}
	names, err := c.memberNames(r, store)
	if err != nil {
		return err
	}
	return redirect(w, r, "/stores/"+store.Slug+"/people", names[to]+" is an owner of the store now, and you are an admin.")
}

func roleOf(o ui.Option) authz.Role { return authz.Role(o.Value) }
