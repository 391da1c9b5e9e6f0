package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/keyring"
)

// passkeyRoutes registers the caller's passkeys and the sign-in with one.
func (a *api) passkeyRoutes() {
	tags := []string{"Auth"}
	const path = "/api/auth/passkeys"
	auth := func(s scope) routeOptions {
		return routeOptions{timeout: requestTimeout, rate: rateAuth, scope: s, maxBody: maxJSON}
	}
	route(a, auth(scopePerson),
		huma.Operation{OperationID: "passkeys.beginRegistration", Method: http.MethodPost, Path: path + "/registration/begin", Tags: tags,
			Summary: "Begin to add a passkey",
			Description: "Needs the password and a proven address (403 email_unverified). Pass options to navigator.credentials.create, and its answer to " +
				path + "/registration/finish within 5 minutes. At most 20 passkeys.",
			Errors: []int{400, 401, 403, 413, 422, 429}}, a.beginPasskey)
	route(a, auth(scopePerson),
		huma.Operation{OperationID: "passkeys.finishRegistration", Method: http.MethodPost, Path: path + "/registration/finish", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Add the passkey", Description: "With the first second factor it answers with recovery codes, which are shown this once.",
			Errors: []int{400, 401, 403, 413, 422}}, a.finishPasskey)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "passkeys.list", Method: http.MethodGet, Path: path, Tags: tags,
			Summary: "The caller's passkeys", Description: "The oldest first, at most 20: the list has no pages.", Errors: []int{401, 403}}, a.listPasskeys)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: maxJSON},
		huma.Operation{OperationID: "passkeys.update", Method: http.MethodPatch, Path: path + "/{passkeyId}", Tags: tags,
			Summary: "Rename a passkey", Description: "The name is for the person alone.", Errors: []int{400, 401, 403, 404, 413, 422}}, a.renamePasskey)
	route(a, auth(scopePerson),
		huma.Operation{OperationID: "passkeys.delete", Method: http.MethodDelete, Path: path + "/{passkeyId}", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Remove a passkey", Description: "Needs the password. Sessions stay.", Errors: []int{400, 401, 403, 404, 413, 422, 429}}, a.removePasskey)
	route(a, auth(scopePublic),
		huma.Operation{OperationID: "passkeys.beginLogin", Method: http.MethodPost, Path: path + "/login/begin", Tags: tags,
			Summary: "Begin a sign-in with a passkey",
			Description: "Pass options to navigator.credentials.get, and its answer to " + path + "/login/finish within 5 minutes. With the challengeToken of " +
				"second_factor_required, the passkey is the second factor after the password; without it, it replaces both.",
			Errors: []int{400, 401, 404, 413, 422}}, a.beginPasskeyLogin)
	route(a, auth(scopePublic),
		huma.Operation{OperationID: "passkeys.finishLogin", Method: http.MethodPost, Path: path + "/login/finish", Tags: tags,
			Summary: "Open a session with a passkey", Description: "With the answer of the browser's navigator.credentials.get().", Errors: []int{400, 401, 413, 422}}, a.finishPasskeyLogin)
}

type passkeyChallengeOutput struct {
	Body struct {
		PasskeyToken string          `json:"passkeyToken" doc:"Send it back with the answer"`
		Options      json.RawMessage `json:"options" doc:"The argument of navigator.credentials.create or get, with bytes in base64url"`
	}
}

func newPasskeyChallenge(c accounts.PasskeyChallenge, err error) (*passkeyChallengeOutput, error) {
	if err != nil {
		return nil, err
	}
	out := &passkeyChallengeOutput{}
	out.Body.PasskeyToken, out.Body.Options = c.Token.Reveal(), c.Options // of the caller's own challenge
	return out, nil
}

type passkeyView struct {
	ID           accounts.PasskeyID `json:"id" format:"uuid"`
	Name         string             `json:"name"`
	CreatedAt    time.Time          `json:"createdAt"`
	LastUsedAt   *time.Time         `json:"lastUsedAt" doc:"null until it is used"`
	Passwordless bool               `json:"passwordless" doc:"false after a reset of the password: it is a second factor only. Remove it and add it again"`
}

func (a *api) beginPasskey(ctx context.Context, in *PasswordInput) (*passkeyChallengeOutput, error) {
	return newPasskeyChallenge(a.Accounts.BeginPasskeyRegistration(ctx, principal(ctx), in.Body.Password))
}

type finishPasskeyInput struct {
	Body struct {
		PasskeyToken keyring.Secret  `json:"passkeyToken"`
		Credential   json.RawMessage `json:"credential" doc:"The PublicKeyCredential as JSON"`
		Name         string          `json:"name" maxLength:"100" example:"Laptop"`
	}
}

type finishPasskeyOutput struct {
	Location string `header:"Location"`
	Body     struct {
		Passkey       passkeyView `json:"passkey"`
		RecoveryCodes []string    `json:"recoveryCodes" doc:"Empty unless this is the first second factor"`
	}
}

func (a *api) finishPasskey(ctx context.Context, in *finishPasskeyInput) (*finishPasskeyOutput, error) {
	answer := accounts.PasskeyAnswer{Token: in.Body.PasskeyToken, Response: in.Body.Credential}
	passkey, codes, err := a.Accounts.FinishPasskeyRegistration(ctx, principal(ctx), answer, in.Body.Name)
	if err != nil {
		return nil, err
	}
	out := &finishPasskeyOutput{Location: "/api/auth/passkeys/" + passkey.ID.String()}
	out.Body.Passkey, out.Body.RecoveryCodes = passkeyView(passkey), []string{}
	for _, c := range codes {
		out.Body.RecoveryCodes = append(out.Body.RecoveryCodes, c.Reveal())
	}
	return out, nil
}

type passkeysOutput struct {
	Body struct {
		Data       []passkeyView `json:"data"`
		NextCursor *string       `json:"nextCursor"`
	}
}

func (a *api) listPasskeys(ctx context.Context, _ *struct{}) (*passkeysOutput, error) {
	list, err := a.Accounts.Passkeys(ctx, principal(ctx))
	if err != nil {
		return nil, err
	}
	out := &passkeysOutput{}
	out.Body.Data = make([]passkeyView, len(list))
	for i, p := range list {
		out.Body.Data[i] = passkeyView(p)
	}
	return out, nil
}

// PasskeyPath is exported because huma fills no fields of an unexported embedded type.
type PasskeyPath struct {
	PasskeyID string `path:"passkeyId" doc:"A UUID"`
}

// id returns the zero id, which no passkey has, for a malformed one.
func (p PasskeyPath) id() accounts.PasskeyID {
	id, err := stoa.ParseID[accounts.PasskeyID](p.PasskeyID)
	if err != nil {
		return accounts.PasskeyID{}
	}
	return id
}

type renamePasskeyInput struct {
	PasskeyPath
	Body struct {
		Name string `json:"name" maxLength:"100" example:"Laptop"`
	}
}

type passkeyOutput struct{ Body passkeyView }

func (a *api) renamePasskey(ctx context.Context, in *renamePasskeyInput) (*passkeyOutput, error) {
	passkey, err := a.Accounts.RenamePasskey(ctx, principal(ctx), in.id(), in.Body.Name)
	if err != nil {
		return nil, err
	}
	return &passkeyOutput{passkeyView(passkey)}, nil
}

type removePasskeyInput struct {
	PasskeyPath
	PasswordInput
}

func (a *api) removePasskey(ctx context.Context, in *removePasskeyInput) (*struct{}, error) {
	return nil, a.Accounts.RemovePasskey(ctx, principal(ctx), in.id(), in.Body.Password)
}

type beginPasskeyLoginInput struct {
	Body struct {
		ChallengeToken keyring.Secret `json:"challengeToken,omitempty" doc:"Of second_factor_required"`
	}
}

func (a *api) beginPasskeyLogin(ctx context.Context, in *beginPasskeyLoginInput) (*passkeyChallengeOutput, error) {
	if !in.Body.ChallengeToken.IsZero() {
		return newPasskeyChallenge(a.Accounts.BeginPasskeySecondFactor(ctx, in.Body.ChallengeToken))
	}
	return newPasskeyChallenge(a.Accounts.BeginPasskeyLogin(ctx))
}

type finishPasskeyLoginInput struct {
	Body struct {
		PasskeyToken   keyring.Secret  `json:"passkeyToken"`
		ChallengeToken keyring.Secret  `json:"challengeToken,omitempty" doc:"Of second_factor_required"`
		Credential     json.RawMessage `json:"credential" doc:"The PublicKeyCredential as JSON"`
	}
}

func (a *api) finishPasskeyLogin(ctx context.Context, in *finishPasskeyLoginInput) (*sessionOutput, error) {
	answer, client := accounts.PasskeyAnswer{Token: in.Body.PasskeyToken, Response: in.Body.Credential}, requestOf(ctx).client
	var session accounts.Session
	var err error
	if in.Body.ChallengeToken.IsZero() {
		session, err = a.Accounts.FinishPasskeyLogin(ctx, answer, client)
	} else {
		session, err = a.Accounts.FinishPasskeySecondFactor(ctx, in.Body.ChallengeToken, answer, client)
	}
	if err != nil {
		return nil, err
	}
	return &sessionOutput{newSessionView(ctx, session)}, nil
}
