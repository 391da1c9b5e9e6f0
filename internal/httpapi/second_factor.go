package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/keyring"
)

// secondFactorRoutes registers enrolment and use of a second factor.
func (a *api) secondFactorRoutes() {
	tags := []string{"Auth"}
	const path = "/api/auth/second-factor"
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePublic, maxBody: maxJSON},
		huma.Operation{OperationID: "auth.loginSecondFactor", Method: http.MethodPost, Path: "/api/auth/login/second-factor", Tags: tags,
			Summary: "Finish a sign-in with a code", Description: "The code of the app, or a recovery code. Each is good once.",
			Errors: []int{400, 401, 413, 422, 429}}, a.loginSecondFactor)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "secondFactor.get", Method: http.MethodGet, Path: path, Tags: tags,
			Summary: "Whether the caller has a second factor", Description: "And how many recovery codes are left.", Errors: []int{401, 403}}, a.getFactor)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "secondFactor.enroll", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Enrol an authenticator app",
			Description: "TOTP (RFC 6238): 6 digits, 30 seconds, SHA-1. Show url as a QR code. It counts once it is confirmed. " +
				"The caller's address must be proven (403 email_unverified).",
			Errors: []int{400, 401, 403, 413, 422}}, a.enrolFactor)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: maxJSON, key: keyKept},
		huma.Operation{OperationID: "secondFactor.confirm", Method: http.MethodPost, Path: path + "/confirm", Tags: tags,
			Summary: "Confirm the app with its first code", Description: "Answers with recovery codes, which are shown this once.",
			Errors: []int{400, 401, 403, 404, 413, 422, 429}}, a.confirmFactor)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePerson, maxBody: maxJSON},
		huma.Operation{OperationID: "secondFactor.disable", Method: http.MethodPost, Path: path + "/disable", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Do without a second factor", Description: "Needs the password.", Errors: []int{400, 401, 403, 413, 422}}, a.disableFactor)
}

type secondFactorInput struct {
	Body struct {
		ChallengeToken keyring.Secret `json:"challengeToken"`
		Code           string         `json:"code" maxLength:"40" example:"123456"`
	}
}

func (a *api) loginSecondFactor(ctx context.Context, in *secondFactorInput) (*sessionOutput, error) {
	session, err := a.Accounts.LoginSecondFactor(ctx, in.Body.ChallengeToken, in.Body.Code, requestOf(ctx).client)
	if err != nil {
		return nil, err
	}
	return &sessionOutput{newSessionView(ctx, session)}, nil
}

type factorOutput struct {
	Body struct {
		Enabled           bool `json:"enabled"`
		RecoveryCodesLeft int  `json:"recoveryCodesLeft"`
	}
}

func (a *api) getFactor(ctx context.Context, _ *struct{}) (*factorOutput, error) {
	out := &factorOutput{}
	var err error
	out.Body.Enabled, out.Body.RecoveryCodesLeft, err = a.Accounts.HasFactor(ctx, principal(ctx))
	if err != nil {
		return nil, err
	}
	return out, nil
}

// PasswordInput is the body of a call that needs the password again.
type PasswordInput struct {
	Body struct {
		Password keyring.Secret `json:"password"`
	}
}

type enrolOutput struct {
	Body struct {
		Secret string `json:"secret" doc:"Base32, to be typed in where no QR code can be read"`
		URL    string `json:"url" doc:"otpauth://…"`
	}
}

func (a *api) enrolFactor(ctx context.Context, in *PasswordInput) (*enrolOutput, error) {
	e, err := a.Accounts.EnrolFactor(ctx, principal(ctx), in.Body.Password)
	if err != nil {
		return nil, err
	}
	out := &enrolOutput{}
	out.Body.Secret, out.Body.URL = e.Secret.Reveal(), e.URL.Reveal() // the caller's own secret
	return out, nil
}

type confirmInput struct {
	Body struct {
		Code string `json:"code" maxLength:"40" example:"123456"`
	}
}

type recoveryOutput struct {
	Body struct {
		RecoveryCodes []string `json:"recoveryCodes"`
	}
}

func (a *api) confirmFactor(ctx context.Context, in *confirmInput) (*recoveryOutput, error) {
	codes, err := a.Accounts.ConfirmFactor(ctx, principal(ctx), in.Body.Code)
	if err != nil {
		return nil, err
	}
	out := &recoveryOutput{}
	for _, c := range codes {
		out.Body.RecoveryCodes = append(out.Body.RecoveryCodes, c.Reveal())
	}
	return out, nil
}

func (a *api) disableFactor(ctx context.Context, in *PasswordInput) (*struct{}, error) {
	return nil, a.Accounts.DisableFactor(ctx, principal(ctx), in.Body.Password)
}
