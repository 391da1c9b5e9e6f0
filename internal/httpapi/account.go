package httpapi

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/web"
)

// accountRoutes registers changes of the account, its export and its deletion.
func (a *api) accountRoutes() {
	tags := []string{"Auth"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: maxJSON},
		huma.Operation{OperationID: "account.update", Method: http.MethodPatch, Path: "/api/auth/me", Tags: tags,
			Summary: "Change the caller's name", Description: "A field that is left out stays as it is.", Errors: []int{400, 401, 403, 412, 413, 422}}, a.changeName)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: maxJSON},
		huma.Operation{OperationID: "account.delete", Method: http.MethodDelete, Path: "/api/auth/me", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Delete the account",
			Description: "Needs the password. Refused (403) while stores have no other owner, which errors names: hand each over or delete it first. " +
				"An operator of the platform is to be demoted first. Sessions, API keys, memberships and open invitations end at once; purchases, the ledger and " +
				"the audit log stay, without the person's name and address. A mail confirms it.",
			Errors: []int{400, 401, 403, 413, 422}}, a.deleteAccount)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "emailChange.get", Method: http.MethodGet, Path: "/api/auth/email-change", Tags: tags,
			Summary: "The change of the address that waits", Description: "`change` is null when none waits.", Errors: []int{401, 403}}, a.getEmailChange)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "emailChange.start", Method: http.MethodPost, Path: "/api/auth/email-change", Tags: tags, DefaultStatus: http.StatusAccepted,
			Summary: "Ask for a change of the address",
			Description: "Needs the password. A link is sent to the new address and, if the present one is verified, one to it: the change takes effect when both are " +
				"confirmed within 24 hours. It takes the place of an earlier one. Whether the new address has an account the answer does not tell. " +
				"At most five in a row and then one in six hours.",
			Errors: []int{400, 401, 403, 413, 422}}, a.requestEmailChange)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "emailChange.cancel", Method: http.MethodDelete, Path: "/api/auth/email-change", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Withdraw the change of the address", Description: "Its links stop working.", Errors: []int{401, 403, 404}}, a.withdrawEmailChange)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopeOptional, maxBody: maxJSON},
		huma.Operation{OperationID: "emailChange.confirm", Method: http.MethodPost, Path: "/api/auth/email-change/confirm", Tags: tags,
			Summary:     "Confirm the change with the token of one of its mails",
			Description: "Of the person whose account it is: with an access token, or with the password. Sessions stay; other links that were sent for the account end.",
			Errors:      []int{400, 401, 403, 409, 413, 422}}, a.confirmEmailChange)
	route(a, routeOptions{timeout: csvTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "account.export", Method: http.MethodGet, Path: "/api/auth/export", Tags: tags,
			Summary: "Everything that is stored about the caller",
			Description: "One JSON object: profile, second factor, passkeys, sessions, stores created, memberships, invitations sent and received, API keys, changes of the address, " +
				"mails requested, connections and consents for Supabase, automatic recharges, purchases, and the audit entries of what the caller did. No secrets. " +
				"It is streamed: an answer that breaks off is incomplete. What the stores themselves hold, such as their ledger, is exported there.",
			Responses: map[string]*huma.Response{"200": {Description: "The export", Content: map[string]*huma.MediaType{jsonType: {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}}}},
			Errors:    []int{401, 403}}, a.exportAccount)
}

type changeNameInput struct {
	MatchInput
	Body struct {
		FirstName *string `json:"firstName,omitempty" maxLength:"100" example:"John"`
		LastName  *string `json:"lastName,omitempty" maxLength:"100" example:"Doe"`
	}
}

type userOutput struct {
	ETag string `header:"ETag"`
	Body userView
}

func (a *api) changeName(ctx context.Context, in *changeNameInput) (*userOutput, error) {
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	user, err := a.Accounts.ChangeName(ctx, principal(ctx), accounts.NameChange{FirstName: in.Body.FirstName, LastName: in.Body.LastName, Match: match})
	if err != nil {
		return nil, err
	}
	return &userOutput{quote(user.Version()), userView(user)}, nil
}

func (a *api) deleteAccount(ctx context.Context, in *PasswordInput) (*struct{}, error) {
	return nil, a.Accounts.DeleteAccount(ctx, principal(ctx), in.Body.Password)
}

type emailChangeView struct {
	NewEmail       string     `json:"newEmail" format:"email"`
	OldConfirmedAt *time.Time `json:"oldConfirmedAt" doc:"null until it is confirmed at the present address; set from the start if that was never verified"`
	NewConfirmedAt *time.Time `json:"newConfirmedAt" doc:"null until it is confirmed at the new address"`
	CreatedAt      time.Time  `json:"createdAt"`
	ExpiresAt      time.Time  `json:"expiresAt"`
}

type emailChangeOutput struct{ Body emailChangeView }

type pendingEmailChangeOutput struct {
	Body struct {
		Change *emailChangeView `json:"change" doc:"null when none waits"`
	}
}

func (a *api) getEmailChange(ctx context.Context, _ *struct{}) (*pendingEmailChangeOutput, error) {
	change, err := a.Accounts.PendingEmailChange(ctx, principal(ctx))
	if err != nil {
		return nil, err
	}
	out := &pendingEmailChangeOutput{}
	if change != nil {
		view := emailChangeView(*change)
		out.Body.Change = &view
	}
	return out, nil
}

type requestEmailChangeInput struct {
	Body struct {
		Email    string         `json:"email" format:"email" maxLength:"254" example:"new@example.com"`
		Password keyring.Secret `json:"password"`
	}
}

func (a *api) requestEmailChange(ctx context.Context, in *requestEmailChangeInput) (*emailChangeOutput, error) {
	change, err := a.Accounts.RequestEmailChange(ctx, principal(ctx), in.Body.Email, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return &emailChangeOutput{emailChangeView(change)}, nil
}

func (a *api) withdrawEmailChange(ctx context.Context, _ *struct{}) (*struct{}, error) {
	return nil, a.Accounts.WithdrawEmailChange(ctx, principal(ctx))
}

type confirmEmailChangeInput struct {
	Body struct {
		Token    keyring.Secret `json:"token"`
		Password keyring.Secret `json:"password,omitempty" doc:"The account's, when there is no access token"`
	}
}

func (a *api) confirmEmailChange(ctx context.Context, in *confirmEmailChangeInput) (*emailChangeOutput, error) {
	change, err := a.Accounts.ConfirmEmailChange(ctx, principal(ctx), in.Body.Token, in.Body.Password, requestOf(ctx).client)
	if err != nil {
		return nil, err
	}
	return &emailChangeOutput{emailChangeView(change)}, nil
}

func (a *api) exportAccount(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
	export, err := a.Accounts.Export(ctx, principal(ctx))
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		_, w := humago.Unwrap(ctx)
		_, err := web.Download(w, export.Name(), jsonType, func(out io.Writer) error { return export.Write(ctx.Context(), out) })
		if err != nil {
			a.Log.ErrorContext(ctx.Context(), "export of an account ended early", "request_id", requestID(ctx.Context()), "err", err)
			panic(http.ErrAbortHandler) // the client must not take a part for the whole
		}
	}}, nil
}
