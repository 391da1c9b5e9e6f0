package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/keyring"
)

// passwordRoutes registers changes of passwords and the verification of e-mail
// addresses.
func (a *api) passwordRoutes() {
	tags := []string{"Auth"}
	post := func(id, path, summary, description string, errors ...int) huma.Operation {
		return huma.Operation{OperationID: "auth." + id, Method: http.MethodPost, Path: "/api/auth/" + path, Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: summary, Description: description, Errors: errors}
	}
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: maxJSON},
		post("changePassword", "change-password", "Change the password", "Needs the old one. Ends all other sessions.", 400, 401, 403, 413, 422), a.changePassword)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePublic, maxBody: maxJSON},
		post("forgotPassword", "forgot-password", "Ask for a link that sets the password",
			"Whether there is such an account the answer does not tell. The link is good for an hour and for one use. "+
				"At most one a minute is sent and, after five, one an hour.", 400, 413, 422), a.forgotPassword)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePublic, maxBody: maxJSON},
		post("resetPassword", "reset-password", "Set the password with the link's token", "Ends all sessions. If the address was not proven before, it is now, and what was made in the account ends too: second factor, "+
			"API keys, invitations, other members of its stores, connections with Supabase. The stores stay.", 400, 401, 413, 422), a.resetPassword)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopeOptional, maxBody: maxJSON},
		post("verifyEmail", "verify-email", "Prove an address with the mail's token",
			"Of who has opened the account: with an access token, or with the password. Before it there are no second factor, API keys and invitations "+
				"(403 email_unverified). An address that is proven by a new password instead, with the link of forgot-password, voids what was made before, "+
				"but for the stores.", 400, 401, 403, 413, 422), a.verifyEmail)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: noBody},
		post("resendVerification", "verify-email/resend", "Ask for the mail again",
			"At most one a minute is sent and, after five, one in six hours.", 401, 403), a.resendVerification)
}

type changePasswordInput struct {
	Body struct {
		OldPassword keyring.Secret `json:"oldPassword"`
		NewPassword keyring.Secret `json:"newPassword" doc:"10 to 256 characters, not a common one"`
	}
}

func (a *api) changePassword(ctx context.Context, in *changePasswordInput) (*struct{}, error) {
	return nil, a.Accounts.ChangePassword(ctx, principal(ctx), in.Body.OldPassword, in.Body.NewPassword)
}

type forgotPasswordInput struct {
	Body struct {
		Email string `json:"email" format:"email" maxLength:"254" example:"owner@example.com"`
	}
}

func (a *api) forgotPassword(ctx context.Context, in *forgotPasswordInput) (*struct{}, error) {
	return nil, a.Accounts.ForgotPassword(ctx, in.Body.Email)
}

type resetPasswordInput struct {
	Body struct {
		Token    keyring.Secret `json:"token"`
		Password keyring.Secret `json:"password" doc:"10 to 256 characters, not a common one"`
	}
}

func (a *api) resetPassword(ctx context.Context, in *resetPasswordInput) (*struct{}, error) {
	return nil, a.Accounts.ResetPassword(ctx, in.Body.Token, in.Body.Password, requestOf(ctx).client)
}

type verifyEmailInput struct {
	Body struct {
		Token    keyring.Secret `json:"token"`
		Password keyring.Secret `json:"password,omitempty" doc:"The account's, when there is no access token"`
	}
}

func (a *api) verifyEmail(ctx context.Context, in *verifyEmailInput) (*struct{}, error) {
	return nil, a.Accounts.VerifyEmail(ctx, principal(ctx), in.Body.Token, in.Body.Password, requestOf(ctx).client)
}

func (a *api) resendVerification(ctx context.Context, _ *struct{}) (*struct{}, error) {
	return nil, a.Accounts.ResendVerification(ctx, principal(ctx))
}
