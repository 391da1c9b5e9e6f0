package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// operatorRoutes registers what operators of the platform may do beyond the stores'
// own routes, which admit them too.
func (a *api) operatorRoutes() {
	tags := []string{"Operator"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopeOperator, maxBody: noBody},
		huma.Operation{OperationID: "operator.stores", Method: http.MethodGet, Path: "/api/operator/stores", Tags: tags,
			Summary: "Every store", Description: "Newest first unless sort says otherwise, without profiles. A page may have fewer stores than limit and a cursor all the same: " +
				"one call compares a bounded number of stores with the filters. The stores' own routes let an operator in, but for their credits and keys; " +
				"all of it is written to the store's audit log.", Errors: []int{401, 403, 422}}, a.listAnyStores)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopeOperator, maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "operator.impersonate", Method: http.MethodPost, Path: "/api/operator/impersonations", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Act as a user",
			Description: "The access token is good for 15 minutes, has no refresh token, and reaches neither the user's password nor their other keys. " +
				"The reason is written to the audit log, and every act with who acted. The user's address must be proven (403 email_unverified).", Errors: []int{400, 401, 403, 404, 413, 422}}, a.impersonate)
}

type listAnyInput struct {
	PageInput
	Status string `query:"status" enum:"pending_database,provisioning,active,suspended,deleting,deleted"`
	Search string `query:"search" maxLength:"254" doc:"A store's id, a hostname, an owner's e-mail address, or the beginning of a slug or name. What is found by its beginning is sorted by slug."`
	Engine string `query:"engine" enum:"sqlite,postgresql,mysql"`
	Health string `query:"health" enum:"ok,unreachable,unknown,slow,failing" doc:"slow and failing are by the requests of shoppers in this hour and the one before"`
	Schema int64  `query:"schemaVersion" minimum:"0"`
	Behind bool   `query:"behind" doc:"Stores whose database has an older schema than this server"`
	Server string `query:"server" maxLength:"300" doc:"host:port of the database server, or embedded"`
	Sort   string `query:"sort" enum:"newest,slug" default:"newest"`
}

func (a *api) listAnyStores(ctx context.Context, in *listAnyInput) (*listStoresOutput, error) {
	page, err := a.Stores.ListForOperator(ctx, principal(ctx), stores.ListFilter{
		Search: in.Search, Status: stores.Status(in.Status), Engine: credential.EngineName(in.Engine), Health: stores.Health(in.Health),
		Schema: in.Schema, Behind: in.Behind, Server: in.Server, Order: stores.ListOrder(in.Sort), Limit: in.Limit, Cursor: in.Cursor,
	})
	if err != nil {
		return nil, err
	}
	out := &listStoresOutput{}
	out.Body.Data, out.Body.NextCursor = a.storeViews(page.Stores), page.Older
	return out, nil
}

type impersonateInput struct {
	Body struct {
		UserID stoa.UserID `json:"userId" format:"uuid"`
		Reason string      `json:"reason" minLength:"10" maxLength:"500" example:"Ticket 4711: cannot see the orders of yesterday"`
	}
}

type impersonateOutput struct {
	Body struct {
		User        userView `json:"user"`
		AccessToken string   `json:"accessToken"`
		TokenType   string   `json:"tokenType" enum:"Bearer"`
		ExpiresIn   int      `json:"expiresIn" example:"900" doc:"Seconds"`
	}
}

func (a *api) impersonate(ctx context.Context, in *impersonateInput) (*impersonateOutput, error) {
	s, err := a.Accounts.Impersonate(ctx, principal(ctx), in.Body.UserID, in.Body.Reason, requestOf(ctx).client)
	if err != nil {
		return nil, err
	}
	out := &impersonateOutput{}
	out.Body.User, out.Body.AccessToken = userView(s.User), s.AccessToken.Reveal()
	out.Body.TokenType, out.Body.ExpiresIn = "Bearer", int(s.ExpiresIn.Seconds())
	return out, nil
}
