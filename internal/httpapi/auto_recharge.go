package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/payments"
)

func (a *api) autoRechargeRoutes() {
	tags := []string{"Credits"}
	const path = "/api/credits/auto-recharge"
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.PurchaseCredits), maxBody: noBody},
		huma.Operation{OperationID: "autoRecharge.get", Method: http.MethodGet, Path: path, Tags: tags,
			Summary: "Automatic recharges", Description: "Whether credits are bought when they run low, when, how many, and with which card.", Errors: []int{401, 403, 404, 422}}, a.getAutoRecharge)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.PurchaseCredits), maxBody: maxJSON},
		huma.Operation{OperationID: "autoRecharge.set", Method: http.MethodPut, Path: path, Tags: tags,
			Summary: "Buy credits automatically",
			Description: "While fewer credits than threshold are available, the saved card is charged for more, one purchase at a time and at most monthlyCap " +
				"credits in a calendar month (UTC). A declined card, a dispute or a refund of such a purchase switches it off: see stopped. Nothing is charged while credits are owed.",
			Errors: []int{400, 401, 403, 404, 412, 413, 422, 503}}, a.setAutoRecharge)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.PurchaseCredits), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "autoRecharge.saveCard", Method: http.MethodPost, Path: path + "/card", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary:     "Save a card",
			Description: "Answers with a page of the payment provider where a card is given; it replaces the one before. No money moves.",
			Errors:      []int{400, 401, 403, 404, 413, 422, 503}}, a.saveCard)
}

type autoRechargeView struct {
	Enabled       bool           `json:"enabled"`
	Threshold     credits.Amount `json:"threshold" example:"100"`
	Credits       credits.Amount `json:"credits" example:"500" doc:"Bought each time"`
	MonthlyCap    credits.Amount `json:"monthlyCap" example:"2000"`
	UsedThisMonth credits.Amount `json:"usedThisMonth" example:"500"`
	Card          *cardView      `json:"card" doc:"null until one is saved"`
	Stopped       *stoppedView   `json:"stopped" doc:"null unless the platform has switched it off"`
}

type cardView struct {
	Brand   string `json:"brand" example:"visa"`
	Last4   string `json:"last4" example:"4242"`
	Expires string `json:"expires" example:"2030-04"`
}

type stoppedView struct {
	Reason string    `json:"reason" enum:"declined,authentication_required,refused,disputed,refunded,mismatched,not_permitted"`
	At     time.Time `json:"at"`
}

func newAutoRechargeView(r payments.AutoRecharge) autoRechargeView {
	v := autoRechargeView{
		Enabled: r.Enabled, Threshold: r.Threshold, Credits: r.Credits, MonthlyCap: r.MonthlyCap, UsedThisMonth: r.UsedThisMonth,
	}
	if r.Card != nil {
		v.Card = &cardView{Brand: r.Card.Brand, Last4: r.Card.Last4, Expires: r.Card.Expires}
	}
	if r.StoppedReason != nil && r.StoppedAt != nil { // they are set and cleared together
		v.Stopped = &stoppedView{Reason: *r.StoppedReason, At: *r.StoppedAt}
	}
	return v
}

type autoRechargeOutput struct {
	ETag string `header:"ETag"`
	Body autoRechargeView
}

func (a *api) getAutoRecharge(ctx context.Context, in *StoreChoice) (*autoRechargeOutput, error) {
	id, err := a.chosenStore(ctx, *in)
	if err != nil {
		return nil, err
	}
	r, err := a.Payments.AutoRecharge(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return &autoRechargeOutput{quote(r.Version()), newAutoRechargeView(r)}, nil
}

type setAutoRechargeInput struct {
	StoreChoice
	MatchInput
	Body struct {
		Enabled    bool        `json:"enabled"`
		Threshold  amountInput `json:"threshold" doc:"Recharge while fewer credits are available"`
		Credits    amountInput `json:"credits" doc:"Whole credits to buy each time"`
		MonthlyCap amountInput `json:"monthlyCap" doc:"Credits to buy in a calendar month (UTC) at most"`
	}
}

func (a *api) setAutoRecharge(ctx context.Context, in *setAutoRechargeInput) (*autoRechargeOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	match, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	req := payments.AutoRechargeRequest{Enabled: in.Body.Enabled, Match: match}
	for _, f := range []struct {
		name string
		from amountInput
		to   *credits.Amount
	}{
		{"threshold", in.Body.Threshold, &req.Threshold}, {"credits", in.Body.Credits, &req.Credits}, {"monthlyCap", in.Body.MonthlyCap, &req.MonthlyCap},
	} {
		if *f.to, err = f.from.parse(f.name); err != nil {
			return nil, err
		}
	}
	r, err := a.Payments.SetAutoRecharge(ctx, principal(ctx), id, req)
	if err != nil {
		return nil, err
	}
	return &autoRechargeOutput{quote(r.Version()), newAutoRechargeView(r)}, nil
}

type saveCardOutput struct {
	Body struct {
		CheckoutURL string `json:"checkoutUrl" doc:"Where the card is given"`
	}
}

func (a *api) saveCard(ctx context.Context, in *StoreChoice) (*saveCardOutput, error) {
	id, err := a.chosenStore(ctx, *in)
	if err != nil {
		return nil, err
	}
	out := &saveCardOutput{}
	out.Body.CheckoutURL, err = a.Payments.SaveCard(ctx, principal(ctx), id, idempotencyKey(ctx))
	if err != nil {
		return nil, err
	}
	return out, nil
}
