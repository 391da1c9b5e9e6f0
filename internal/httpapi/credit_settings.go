package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
)

func (a *api) creditSettingsRoutes(tags []string) {
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadCredits), maxBody: noBody},
		huma.Operation{OperationID: "creditSettings.get", Method: http.MethodGet, Path: "/api/credits/settings", Tags: tags,
			Summary: "When the store's owners are told that credits run low", Description: "The owners get a mail when the available credits fall below the threshold.", Errors: []int{401, 404, 422}}, a.creditSettings)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.PurchaseCredits), maxBody: maxJSON},
		huma.Operation{OperationID: "creditSettings.set", Method: http.MethodPut, Path: "/api/credits/settings", Tags: tags,
			Summary: "Choose when the store's owners are told that credits run low",
			Description: "Each time that what is available falls from at least lowBalanceThreshold to less, every owner gets one mail. " +
				"A threshold above what is available now causes none: the next fall below it does. null turns the mails off.",
			Errors: []int{400, 401, 403, 404, 412, 413, 422}}, a.setCreditSettings)
}

type creditSettingsOutput struct {
	ETag string `header:"ETag"`
	Body struct {
		LowBalanceThreshold *credits.Amount `json:"lowBalanceThreshold" nullable:"true" example:"100"`
	}
}

func (a *api) creditSettings(ctx context.Context, in *StoreChoice) (*creditSettingsOutput, error) {
	id, err := a.chosenStore(ctx, *in)
	if err != nil {
		return nil, err
	}
	s, err := a.Credits.Settings(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	out := &creditSettingsOutput{ETag: quote(s.Version())}
	out.Body.LowBalanceThreshold = s.LowBalance
	return out, nil
}

// optionalAmount accepts what amountInput does, and null.
type optionalAmount struct{ amountInput }

// Schema implements huma.SchemaProvider.
func (o optionalAmount) Schema(r huma.Registry) *huma.Schema {
	s := o.amountInput.Schema(r)
	s.OneOf[0].Nullable = true
	return s
}

type setCreditSettingsInput struct {
	StoreChoice
	MatchInput
	Body struct {
		LowBalanceThreshold optionalAmount `json:"lowBalanceThreshold"`
	}
}

func (a *api) setCreditSettings(ctx context.Context, in *setCreditSettingsInput) (*creditSettingsOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	var s credits.Settings
	if in.Body.LowBalanceThreshold.text != "null" {
		amount, err := in.Body.LowBalanceThreshold.parse("lowBalanceThreshold")
		if err != nil {
			return nil, err
		}
		s.LowBalance = &amount
	}
	if err := a.Credits.SetSettings(ctx, principal(ctx), id, s, match); err != nil {
		return nil, err
	}
	// The settings are not read again: an API key that may set them may lack credits:read.
	out := &creditSettingsOutput{ETag: quote(s.Version())}
	out.Body.LowBalanceThreshold = s.LowBalance
	return out, nil
}
