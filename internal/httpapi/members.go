package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
)

// memberRoutes registers the members of a store and invitations to it.
func (a *api) memberRoutes() {
	tags := []string{"People"}
	const members, invitations = "/api/stores/{id}/members", "/api/stores/{id}/invitations"
	op := func(id, method, path string, status int, summary, description string, errors ...int) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Tags: tags, DefaultStatus: status, Summary: summary, Description: description, Errors: errors}
	}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadMembers), maxBody: noBody},
		op("members.list", http.MethodGet, members, 200, "Who belongs to the store", "Oldest first, without pages.", 401, 403, 404), a.listMembers)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageMembers), maxBody: maxJSON},
		op("members.update", http.MethodPatch, members+"/{userId}", 204, "Change a member's role",
			"Only owners make and unmake owners. The last owner stays one: 403.", 400, 401, 403, 404, 413, 422), a.changeRole)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageMembers), maxBody: noBody},
		op("members.delete", http.MethodDelete, members+"/{userId}", 204, "Remove a member, or leave",
			"With the keys that the member made. Everybody may leave, but for the last owner: 403.", 401, 403, 404), a.removeMember)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageOwners), maxBody: maxJSON, key: keyKept},
		op("stores.transferOwnership", http.MethodPost, "/api/stores/{id}/transfer-ownership", 204, "Hand the store over",
			"The member becomes an owner, the caller an admin.", 400, 401, 403, 404, 413, 422), a.transferOwnership)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageMembers), maxBody: noBody},
		op("invitations.list", http.MethodGet, invitations, 200, "Open invitations", "Newest first, without pages.", 401, 403, 404), a.listInvitations)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scope(authz.ManageMembers), maxBody: maxJSON, key: keyKept},
		op("invitations.create", http.MethodPost, invitations, 201, "Invite somebody by mail",
			"To invite an address again renews the invitation, with the role given now. The mail's token is good for a week. "+
				"The caller's address must be proven (403 email_unverified). 429 rate_limited bounds them: 3 of one store to one address without an answer, "+
				"then one a week; 4 of all stores to an address that shares none with the caller, then one a day; 20 of one caller, then one in three minutes, "+
				"and 100 that are open; 50 of one store, then one in half an hour.",
			400, 401, 403, 404, 413, 422, 429), a.invite)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ManageMembers), maxBody: noBody},
		op("invitations.delete", http.MethodDelete, invitations+"/{invitationId}", 204, "Take an invitation back", "Its link does not work any more.", 401, 403, 404), a.revokeInvitation)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: maxJSON, key: keyKept},
		op("invitations.accept", http.MethodPost, "/api/invitations/accept", 200, "Accept an invitation",
			"The caller's address must be the one that was invited. Answers with the store.", 400, 401, 403, 413, 422), a.acceptInvitation)
}

type memberView struct {
	UserID    stoa.UserID `json:"userId" format:"uuid"`
	Email     string      `json:"email" format:"email"`
	FirstName string      `json:"firstName"`
	LastName  string      `json:"lastName"`
	Role      authz.Role  `json:"role" enum:"owner,admin,member,viewer"`
	Since     time.Time   `json:"since"`
}

type membersOutput struct {
	Body struct {
		Data       []memberView `json:"data"`
		NextCursor *string      `json:"nextCursor"`
	}
}

func (a *api) listMembers(ctx context.Context, in *StorePath) (*membersOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	list, err := a.Accounts.Members(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	out := &membersOutput{}
	out.Body.Data = make([]memberView, len(list))
	for i, m := range list {
		out.Body.Data[i] = memberView{UserID: m.UserID, Email: m.Email, FirstName: m.FirstName, LastName: m.LastName, Role: m.Role, Since: m.Since}
	}
	return out, nil
}

// MemberPath names a member of a store. It is exported because huma reads only
// exported embedded structs.
type MemberPath struct {
	StorePath
	UserID string `path:"userId" doc:"A UUID"`
}

// ids parses the path. An invalid user id becomes the zero id, which nobody has.
func (in MemberPath) ids() (stoa.StoreID, stoa.UserID, error) {
	store, err := storeID(in.ID)
	user, _ := stoa.ParseID[stoa.UserID](in.UserID)
	return store, user, err
}

type changeRoleInput struct {
	MemberPath
	Body struct {
		Role string `json:"role" enum:"owner,admin,member,viewer"`
	}
}

func (a *api) changeRole(ctx context.Context, in *changeRoleInput) (*struct{}, error) {
	store, user, err := in.ids()
	if err != nil {
		return nil, err
	}
	return nil, a.Accounts.ChangeRole(ctx, principal(ctx), store, user, authz.Role(in.Body.Role))
}

func (a *api) removeMember(ctx context.Context, in *MemberPath) (*struct{}, error) {
	store, user, err := in.ids()
	if err != nil {
		return nil, err
	}
	return nil, a.Accounts.RemoveMember(ctx, principal(ctx), store, user)
}

type transferInput struct {
	StorePath
	Body struct {
		UserID stoa.UserID `json:"userId" format:"uuid" doc:"A member"`
	}
}

func (a *api) transferOwnership(ctx context.Context, in *transferInput) (*struct{}, error) {
	store, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	return nil, a.Accounts.TransferOwnership(ctx, principal(ctx), store, in.Body.UserID)
}

type invitationView struct {
	ID        stoa.InvitationID `json:"id" format:"uuid"`
	Email     string            `json:"email" format:"email"`
	Role      authz.Role        `json:"role" enum:"owner,admin,member,viewer"`
	InvitedBy stoa.UserID       `json:"invitedBy" format:"uuid"`
	CreatedAt time.Time         `json:"createdAt"`
	ExpiresAt time.Time         `json:"expiresAt"`
}

type invitationsOutput struct {
	Body struct {
		Data       []invitationView `json:"data"`
		NextCursor *string          `json:"nextCursor"`
	}
}

func (a *api) listInvitations(ctx context.Context, in *StorePath) (*invitationsOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	list, err := a.Accounts.Invitations(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	out := &invitationsOutput{}
	out.Body.Data = make([]invitationView, len(list))
	for i, invited := range list {
		out.Body.Data[i] = invitationView(invited)
	}
	return out, nil
}

type inviteInput struct {
	StorePath
	Body struct {
		Email string `json:"email" format:"email" maxLength:"254"`
		Role  string `json:"role" enum:"owner,admin,member,viewer"`
	}
}

type createdInvitationOutput struct {
	Location string `header:"Location"`
	Body     invitationView
}

func (a *api) invite(ctx context.Context, in *inviteInput) (*createdInvitationOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	invited, err := a.Accounts.Invite(ctx, principal(ctx), id, in.Body.Email, authz.Role(in.Body.Role))
	if err != nil {
		return nil, err
	}
	return &createdInvitationOutput{storeAddress(id) + "/invitations/" + invited.ID.String(), invitationView(invited)}, nil
}

type invitationPath struct {
	StorePath
	InvitationID string `path:"invitationId" doc:"A UUID"`
}

func (a *api) revokeInvitation(ctx context.Context, in *invitationPath) (*struct{}, error) {
	store, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	id, _ := stoa.ParseID[stoa.InvitationID](in.InvitationID) // an invalid id becomes the zero id, which no invitation has
	return nil, a.Accounts.RevokeInvitation(ctx, principal(ctx), store, id)
}

func (a *api) acceptInvitation(ctx context.Context, in *acceptInput) (*storeOutput, error) {
	id, err := a.Accounts.AcceptInvitation(ctx, principal(ctx), in.Body.Token)
	if err != nil {
		return nil, err
	}
	return a.readStore(ctx, id)
}

type acceptInput struct {
	Body struct {
		Token keyring.Secret `json:"token"`
	}
}
