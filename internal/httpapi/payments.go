package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/storedata"
)

func (a *api) paymentRoutes() {
	tags := []string{"Credits"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.PurchaseCredits), maxBody: maxJSON, key: keyLedger},
		huma.Operation{OperationID: "purchases.create", Method: http.MethodPost, Path: "/api/credits/purchase", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary:     "Buy credits",
			Description: "Answers with a checkout page to send the buyer to. The credits are granted when the payment is confirmed, exactly once.",
			Errors:      []int{400, 401, 403, 404, 409, 413, 422, 503}}, a.purchase)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadCredits), maxBody: noBody},
		huma.Operation{OperationID: "purchases.list", Method: http.MethodGet, Path: "/api/credits/purchases", Tags: tags,
			Summary: "The store's purchases, newest first", Description: "With those that were not paid.", Errors: []int{401, 404, 422}}, a.purchases)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadCredits), maxBody: noBody},
		huma.Operation{OperationID: "purchases.get", Method: http.MethodGet, Path: "/api/credits/purchases/{id}", Tags: tags,
			Summary: "A purchase", Description: "Its state: whether it waits for the payment, is paid or has failed.", Errors: []int{401, 404, 422}}, a.getPurchase)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: maxWebhook},
		huma.Operation{OperationID: "stripe.webhook", Method: http.MethodPost, Path: "/api/webhooks/stripe", Tags: tags, DefaultStatus: http.StatusOK,
			Summary: "Payment events", Description: "For the payment provider: the signature is checked on the raw body, the event stored once, acknowledged, then applied.",
			SkipValidateBody: true, BodyReadTimeout: bodyTimeout, Errors: []int{400, 413, 422}}, a.webhook)
}

type purchaseView struct {
	ID          stoa.PurchaseID  `json:"id" format:"uuid"`
	Status      payments.Status  `json:"status" enum:"pending,paid,expired,refunded,mismatched" doc:"mismatched: another amount or currency was paid; no credits were granted, and the platform's operator gives the money back, after which it is refunded"`
	Credits     credits.Amount   `json:"credits" example:"100"`
	Amount      storedata.Money  `json:"amount"`
	Paid        *storedata.Money `json:"paid" doc:"What was paid when that is not amount; else null"`
	CheckoutURL string           `json:"checkoutUrl" doc:"Where the buyer pays; empty for an automatic recharge and for a purchase that never came so far"`
	Provider    string           `json:"provider" enum:"stripe,sandbox"`
	Automatic   bool             `json:"automatic" doc:"Made by an automatic recharge"`
	Reversed    storedata.Money  `json:"reversed" doc:"The part of the money that has gone back, by refunds and disputes"`
	ClawedBack  credits.Amount   `json:"clawedBack" example:"0" doc:"The credits that went with it"`
	CreatedAt   time.Time        `json:"createdAt"`
	PaidAt      *time.Time       `json:"paidAt"`
}

func newPurchaseView(p payments.Purchase) purchaseView {
	v := purchaseView{
		ID: p.ID, Status: p.Status, Credits: p.Credits, CheckoutURL: p.CheckoutURL, Provider: string(p.Provider), CreatedAt: p.CreatedAt,
		Amount:    storedata.Money{Value: p.AmountDecimal(), Currency: p.Currency},
		Automatic: p.Automatic, Reversed: storedata.Money{Value: p.ReversedDecimal(), Currency: p.MoneyCurrency()}, ClawedBack: p.ClawedBack, PaidAt: p.PaidAt,
	}
	if p.PaidMinor != nil {
		v.Paid = &storedata.Money{Value: p.PaidDecimal(), Currency: p.MoneyCurrency()}
	}
	return v
}

type purchaseInput struct {
	StoreChoice
	Body struct {
		Credits amountInput `json:"credits" doc:"Whole credits"`
	}
}

type createdPurchaseOutput struct {
	ReplayedHeader
	Location string `header:"Location"`
	Body     purchaseView
}

func (a *api) purchase(ctx context.Context, in *purchaseInput) (*createdPurchaseOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	amount, err := in.Body.Credits.parse("credits")
	if err != nil {
		return nil, err
	}
	p, err := a.Payments.Purchase(ctx, principal(ctx), id, payments.PurchaseRequest{
		Credits: amount, IdempotencyKey: idempotencyKey(ctx),
	})
	if err != nil {
		return nil, err
	}
	if p.Replayed {
		p.Purchase = p.AsMade()
	}
	return &createdPurchaseOutput{replayedIf(p.Replayed), "/api/credits/purchases/" + p.ID.String(), newPurchaseView(p.Purchase)}, nil
}

type purchasesInput struct {
	StoreChoice
	PageInput
}

type purchasesOutput struct {
	Body struct {
		Data       []purchaseView `json:"data"`
		NextCursor *string        `json:"nextCursor"`
	}
}

func (a *api) purchases(ctx context.Context, in *purchasesInput) (*purchasesOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	page, err := a.Payments.List(ctx, principal(ctx), id, in.Limit, in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &purchasesOutput{}
	out.Body.Data, out.Body.NextCursor = make([]purchaseView, len(page.Purchases)), page.NextCursor
	for i, p := range page.Purchases {
		out.Body.Data[i] = newPurchaseView(p)
	}
	return out, nil
}

type getPurchaseInput struct {
	StoreChoice
	ID string `path:"id"`
}

func (a *api) getPurchase(ctx context.Context, in *getPurchaseInput) (*struct{ Body purchaseView }, error) {
	store, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	id, _ := stoa.ParseID[stoa.PurchaseID](in.ID) // an invalid id becomes the zero id, which no purchase has
	p, err := a.Payments.Get(ctx, principal(ctx), store, id)
	if err != nil {
		return nil, err
	}
	return &struct{ Body purchaseView }{newPurchaseView(p)}, nil
}

type webhookInput struct {
	Signature string `header:"Stripe-Signature"`
	RawBody   []byte `contentType:"application/json"`
}

type webhookOutput struct {
	Body struct {
		Received bool `json:"received"`
	}
}

func (a *api) webhook(ctx context.Context, in *webhookInput) (*webhookOutput, error) {
	if err := a.Payments.Receive(ctx, in.RawBody, in.Signature); err != nil {
		return nil, err
	}
	out := &webhookOutput{}
	out.Body.Received = true
	return out, nil
}
