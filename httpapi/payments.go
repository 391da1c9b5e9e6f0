package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/payments"
	"github.com/stoahq/stoa/web"
)

func (a *api) paymentRoutes() {
	tags := []string{"Credits"}
	route(a, a.private(huma.Operation{Method: http.MethodPost, Path: "/api/credits/purchase", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Buy credits",
		Description: "Answers with a checkout page to send the buyer to. The credits are granted when the payment is confirmed, exactly once.",
		Errors:      []int{400, 401, 403, 404, 409, 413, 422, 503}}), a.purchase)
	route(a, huma.Operation{Method: http.MethodPost, Path: "/api/webhooks/stripe", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Payment events", Description: "For the payment provider: the signature is checked on the raw body, the event stored once, acknowledged, then applied.",
		SkipValidateBody: true, Errors: []int{400, 413, 422}}, a.webhook)
	if a.Sandbox {
		a.mux.HandleFunc("GET /sandbox/checkout/{ref}", a.sandboxCheckout)
		a.mux.HandleFunc("POST /sandbox/checkout/{ref}/pay", a.sandboxPay)
	}
}

type purchaseView struct {
	ID          stoa.PurchaseID `json:"id" format:"uuid"`
	Status      payments.Status `json:"status" enum:"pending,paid,expired,refunded"`
	Credits     credits.Amount  `json:"credits" example:"100"`
	Amount      moneyView       `json:"amount"`
	CheckoutURL string          `json:"checkoutUrl" doc:"Where the buyer pays"`
	Provider    string          `json:"provider" enum:"stripe,sandbox"`
	CreatedAt   time.Time       `json:"createdAt"`
}

type moneyView struct {
	Value    string `json:"value" example:"10.00" doc:"Decimal"`
	Currency string `json:"currency" example:"USD" doc:"ISO 4217"`
}

func newPurchaseView(p payments.Purchase) purchaseView {
	return purchaseView{
		ID: p.ID, Status: p.Status, Credits: p.Credits, CheckoutURL: p.CheckoutURL, Provider: string(p.Provider), CreatedAt: p.CreatedAt,
		Amount: moneyView{Value: p.AmountDecimal(), Currency: p.Currency},
	}
}

type purchaseInput struct {
	StoreChoice
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"The same key with the same body makes one purchase, however often it is sent"`
	Body           struct {
		Credits amountInput `json:"credits" doc:"Whole credits"`
	}
}

func (a *api) purchase(ctx context.Context, in *purchaseInput) (*struct{ Body purchaseView }, error) {
	id, err := a.chosen(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	amount, err := in.Body.Credits.parse("credits")
	if err != nil {
		return nil, err
	}
	p, err := a.Payments.Purchase(ctx, principal(ctx), id, payments.PurchaseRequest{
		Credits: amount, IdempotencyKey: in.IdempotencyKey,
	})
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

// sandboxCheckout is the page that stands where Stripe's would.
func (a *api) sandboxCheckout(w http.ResponseWriter, r *http.Request) {
	p, err := a.Payments.Checkout(r.Context(), r.PathValue("ref"))
	if err != nil {
		a.errorPage(w, r, err)
		return
	}
	web.Serve(w, r, http.StatusOK, web.CheckoutPage(web.CheckoutView{
		PurchaseID: p.ID.String(), Credits: p.Credits.String(), Amount: p.AmountDecimal(), Currency: p.Currency,
		Status: string(p.Status), Paid: p.Status == payments.Paid, PayURL: r.URL.Path + "/pay",
	}))
}

// sandboxPay signs the event that Stripe would send and goes the webhook's
// way. The page that follows reads the outcome.
func (a *api) sandboxPay(w http.ResponseWriter, r *http.Request) {
	if err := a.Payments.Pay(r.Context(), r.PathValue("ref")); err != nil {
		a.errorPage(w, r, err)
		return
	}
	http.Redirect(w, r, "/sandbox/checkout/"+url.PathEscape(r.PathValue("ref")), http.StatusSeeOther)
}
