package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/supabase/link"
)

// supabaseRoutes registers the connection of a store to its owner's Supabase
// account, and the choice of the project that holds the store's database.
func (a *api) supabaseRoutes() {
	tags := []string{"Supabase"}
	list := []int{401, 403, 404, 409, 422, 429, 503}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ConnectDatabase), maxBody: noBody},
		huma.Operation{OperationID: "supabase.authorize", Method: http.MethodGet, Path: "/api/supabase/authorize", Tags: tags,
			Summary: "Begin to connect a Supabase account to a store",
			Description: "Send the owner's browser to `url`. Supabase asks whether this platform may in, and the browser comes back here, where a page says " +
				"what has become of it. The address is good for ten minutes and one use. The browser that makes this call gets a cookie; when another one comes " +
				"back, its owner is asked first whether they want the connection.",
			Errors: []int{401, 403, 404, 422, 503}}, a.supabaseAuthorize)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadStore), maxBody: noBody},
		huma.Operation{OperationID: "supabase.connection", Method: http.MethodGet, Path: "/api/stores/{id}/supabase/connection", Tags: tags,
			Summary: "How the store stands with Supabase", Description: "When it is `reconnect`, its owner has to consent again; a store with a database goes on without.",
			Errors: []int{401, 404}}, a.supabaseConnection)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ConnectDatabase), maxBody: noBody},
		huma.Operation{OperationID: "supabase.disconnect", Method: http.MethodDelete, Path: "/api/stores/{id}/supabase/connection", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "End the store's connection to Supabase", Description: "What lets the platform in is destroyed here and revoked there. A store that has its database keeps it.",
			Errors: []int{401, 403, 404}}, a.supabaseDisconnect)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ConnectDatabase), maxBody: noBody},
		huma.Operation{OperationID: "supabase.organizations", Method: http.MethodGet, Path: "/api/stores/{id}/supabase/organizations", Tags: tags,
			Summary: "The connected account's organisations", Description: "In one of them a project can be made.", Errors: list}, a.supabaseOrganizations)
	route(a, routeOptions{timeout: waitTimeout, rate: rateCaller, scope: scope(authz.ConnectDatabase), maxBody: noBody},
		huma.Operation{OperationID: "supabase.projects", Method: http.MethodGet, Path: "/api/stores/{id}/supabase/projects", Tags: tags,
			Summary: "The connected account's projects", Description: "One of them can hold the store's database.", Errors: list}, a.supabaseProjects)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ConnectDatabase), maxBody: noBody},
		huma.Operation{OperationID: "supabase.regions", Method: http.MethodGet, Path: "/api/stores/{id}/supabase/regions", Tags: tags,
			Summary: "Where a project can be made", Description: "With a name for people.", Errors: list}, a.supabaseRegions)
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabase, scope: scope(authz.ConnectDatabase), maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "supabase.createProject", Method: http.MethodPost, Path: "/api/stores/{id}/supabase/projects", Tags: tags,
			Summary: "Make a Supabase project and give the store its database there",
			Description: "Begins a provisioning run whose first step, `project`, makes the project and waits until it is healthy, which takes some minutes: " +
				"follow `Location`. Waits and answers like connect-database. Whatever is cut off goes on by `provisioning/retry`; a project that an earlier try " +
				"has made is found and used.",
			Responses: a.connectResponses(),
			Errors:    append([]int{400, 413}, list...)}, a.supabaseCreate)
}

type authorizeOutput struct {
	Cookie string `header:"Set-Cookie"`
	Body   struct {
		URL       string    `json:"url" doc:"At Supabase, for the owner's browser"`
		ExpiresAt time.Time `json:"expiresAt"`
	}
}

func (a *api) supabaseAuthorize(ctx context.Context, in *StoreChoice) (*authorizeOutput, error) {
	store, err := a.chosenStore(ctx, *in)
	if err != nil {
		return nil, err
	}
	c, err := a.Cloud.Authorize(ctx, principal(ctx), store)
	if err != nil {
		return nil, err
	}
	out := &authorizeOutput{Cookie: console.SupabaseCookie(a.BaseURL, c).String()}
	out.Body.URL, out.Body.ExpiresAt = c.URL, c.Expires
	return out, nil
}

type connectionOutput struct {
	Body struct {
		Status      link.State   `json:"status" enum:"none,connected,reconnect"`
		Reason      *link.Reason `json:"reason" enum:"refused,answer_lost" doc:"Why the owner has to consent again: access was revoked or has expired, or new tokens got lost on the way; null otherwise"`
		ConnectedAt *time.Time   `json:"connectedAt"`
		ProjectRef  *string      `json:"projectRef" doc:"Of the project that the store's database is in; null when it is in none"`
	}
}

func (a *api) supabaseConnection(ctx context.Context, in *StorePath) (*connectionOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	c, err := a.Cloud.Connection(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	out := &connectionOutput{}
	out.Body.Status, out.Body.ConnectedAt = c.State, c.ConnectedAt
	if c.Reason != "" {
		out.Body.Reason = &c.Reason
	}
	if c.ProjectRef != "" {
		out.Body.ProjectRef = &c.ProjectRef
	}
	return out, nil
}

func (a *api) supabaseDisconnect(ctx context.Context, in *StorePath) (*struct{}, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	return nil, a.Cloud.Disconnect(ctx, principal(ctx), id)
}

// listOf is a list without pages.
type listOf[T any] struct {
	Body struct {
		Data       []T     `json:"data"`
		NextCursor *string `json:"nextCursor" doc:"Always null: the list is whole"`
	}
}

func newListOf[D, T any](all []D, show func(D) T) *listOf[T] {
	out := &listOf[T]{}
	out.Body.Data = make([]T, len(all))
	for i, d := range all {
		out.Body.Data[i] = show(d)
	}
	return out
}

type organizationView struct {
	Slug string `json:"slug"`
	Name string `json:"name"`
}

func (a *api) supabaseOrganizations(ctx context.Context, in *StorePath) (*listOf[organizationView], error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	all, err := a.Cloud.Organizations(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return newListOf(all, func(o supabase.Organization) organizationView { return organizationView{Slug: o.Slug, Name: o.Name} }), nil
}

type projectsInput struct {
	StorePath
	Organization string `query:"organization" maxLength:"100" doc:"Slug: only this organisation's projects"`
}

type projectView struct {
	Ref          string          `json:"ref"`
	Name         string          `json:"name"`
	Organization string          `json:"organization"`
	Region       string          `json:"region"`
	Status       supabase.Status `json:"status" doc:"Supabase's own word, such as ACTIVE_HEALTHY or INACTIVE (paused)"`
}

func (a *api) supabaseProjects(ctx context.Context, in *projectsInput) (*listOf[projectView], error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	all, err := a.Cloud.Projects(ctx, principal(ctx), id, in.Organization)
	if err != nil {
		return nil, err
	}
	return newListOf(all, func(p supabase.Project) projectView {
		return projectView{Ref: p.Ref, Name: p.Name, Organization: p.Organization, Region: p.Region, Status: p.Status}
	}), nil
}

type regionView struct {
	Code string `json:"code"`
	Name string `json:"name"`
	Area bool   `json:"area" doc:"Supabase picks a region within this area"`
}

func (a *api) supabaseRegions(ctx context.Context, in *StorePath) (*listOf[regionView], error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	all, err := a.Cloud.Regions(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return newListOf(all, func(r supabase.Region) regionView { return regionView(r) }), nil
}

type createProjectInput struct {
	StorePath
	Prefer string `header:"Prefer" maxLength:"200" doc:"wait=N: how many seconds to wait for the outcome"`
	Body   struct {
		Organization string `json:"organization" maxLength:"100" doc:"Slug of one of the account's organisations"`
		Region       string `json:"region" maxLength:"100" example:"eu-central-1"`
		Name         string `json:"name,omitempty" maxLength:"60" doc:"Begins the project's name, which ends in a mark of the store; the store's slug unless told"`
	}
}

func (a *api) supabaseCreate(ctx context.Context, in *createProjectInput) (*connectOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	run, err := a.Provisioning.ConnectProject(ctx, principal(ctx), id, link.Choice{
		Organization: in.Body.Organization, Region: in.Body.Region, Name: in.Body.Name,
	})
	if err != nil {
		return nil, err
	}
	return a.awaitRun(ctx, run, in.Prefer)
}
