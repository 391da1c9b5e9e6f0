package httpapi

import (
	"context"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
)

type principalKey struct{}

// principal returns the authenticated caller. It is zero for public routes.
func principal(ctx context.Context) authz.Principal {
	p, _ := ctx.Value(principalKey{}).(authz.Principal)
	return p
}

// authenticate authenticates the caller, as the middleware of routes that require it.
// It also counts the request against the caller's rate limits.
func (a *api) authenticate(ctx huma.Context, next func(huma.Context)) {
	p, err := a.principal(ctx)
	if err == nil {
		identify(ctx.Context(), p)
		err = a.limitPrincipal(ctx.Context(), p)
	}
	if err != nil {
		a.writeHumaProblem(ctx, err)
		return
	}
	next(huma.WithValue(ctx, principalKey{}, p))
}

// authenticateOptional authenticates the caller of a request that sends a token.
func (a *api) authenticateOptional(ctx huma.Context, next func(huma.Context)) {
	if ctx.Header("Authorization") == "" {
		next(ctx)
		return
	}
	a.authenticate(ctx, next)
}

// errTokenMissing is the error of a request that sends no token.
var errTokenMissing = stoa.Errorf(stoa.TokenInvalid, "This call needs an access token or an API key: Authorization: Bearer …")

// principal authenticates the request's access token or API key.
func (a *api) principal(ctx huma.Context) (authz.Principal, error) {
	scheme, token, _ := strings.Cut(ctx.Header("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return authz.Principal{}, errTokenMissing
	}
	p, err := a.Accounts.Authenticate(ctx.Context(), strings.TrimSpace(token))
	client := requestOf(ctx.Context()).client
	p.Origin = audit.Origin{Address: client.Address, RequestID: client.RequestID, ClientRequestID: client.ClientRequestID}
	return p, err
}

// writeHumaProblem answers from a huma middleware.
func (a *api) writeHumaProblem(ctx huma.Context, err error) {
	_, w := humago.Unwrap(ctx)
	writeProblem(w, a.problem(ctx.Context(), err))
}
