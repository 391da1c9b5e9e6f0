package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/stores"
)

// operatorRoutes registers what operators of the platform may do beyond the stores'
// own routes, which admit them too.
func (a *api) operatorRoutes() {
	tags := []string{"Operator"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopeOperator, maxBody: noBody},
		huma.Operation{Method: http.MethodGet, Path: "/api/operator/stores", Tags: tags,
			Summary: "Every store", Description: "Newest first, without profiles. The stores' own routes let an operator in, but for their credits and keys; " +
				"all of it is written to the store's audit log.", Errors: []int{401, 403, 422}}, a.listAnyStores)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopeOperator, maxBody: maxJSON},
		huma.Operation{Method: http.MethodPost, Path: "/api/operator/impersonations", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Act as a user",
			Description: "The access token is good for 15 minutes, has no refresh token, and reaches neither the user's password nor their other keys. " +
				"The reason is written to the audit log, and every act with who acted. The user's address must be proven (403 email_unverified).", Errors: []int{400, 401, 403, 404, 413, 422}}, a.impersonate)
}

type listAnyInput struct {
	PageInput
	Status string `query:"status" enum:"pending_database,provisioning,active,suspended,deleting,deleted"`
}

func (a *api) listAnyStores(ctx context.Context, in *listAnyInput) (*listStoresOutput, error) {
	page, err := a.Stores.ListForOperator(ctx, principal(ctx), stores.Status(in.Status), in.Limit, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &listStoresOutput{}
	out.Body.Data, out.Body.NextCursor = a.storeViews(page.Stores), page.NextCursor
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
