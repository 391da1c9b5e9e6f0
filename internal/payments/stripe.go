package payments

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa/internal/keyring"
)

// stripeClient makes every call to Stripe. No call is made inside a transaction
// of the master database.
type stripeClient struct{ api *stripe.Client }

func newStripeClient(key keyring.Secret, url string, transport http.RoundTripper) *stripeClient {
	cfg := &stripe.BackendConfig{
		HTTPClient: &http.Client{Timeout: 12 * time.Second, Transport: transport},
		// There is only one retry, since a person may wait for the answer, and jobs are
		// retried anyway.
		MaxNetworkRetries: stripe.Int64(1),
		EnableTelemetry:   stripe.Bool(false),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull}, // errors are returned
	}
	if url != "" {
		cfg.URL = &url
	}
	return &stripeClient{stripe.NewClient(key.Reveal(), stripe.WithBackends(stripe.NewBackendsWithConfig(cfg)))}
}

// metadata returns the metadata that identifies the purchase at Stripe.
func (p Purchase) metadata() map[string]string {
	return map[string]string{"purchase_id": p.ID.String(), "store_id": p.StoreID.String()}
}

// key returns the idempotency key of the current attempt.
func (p purchase) key() *string { return stripe.String(fmt.Sprintf("purchase:%s:%d", p.ID, p.Attempt)) }

// returnURL returns an address to which Stripe sends the buyer: outcome is done, saved or
// cancelled, and id names the purchase or the store, for those who may see it.
func returnURL(baseURL, outcome, name, id string) *string {
	return stripe.String(baseURL + "/checkout/" + outcome + "?" + url.Values{name: {id}}.Encode())
}

// createCheckout creates the page where p is paid, once for each key of p.
func (c *stripeClient) createCheckout(ctx context.Context, p purchase, baseURL string) (*stripe.CheckoutSession, error) {
	params := &stripe.CheckoutSessionCreateParams{
		Mode:              stripe.String(string(stripe.CheckoutSessionModePayment)),
		ClientReferenceID: stripe.String(p.ID.String()),
		Metadata:          p.metadata(),
		PaymentIntentData: &stripe.CheckoutSessionCreatePaymentIntentDataParams{
			Description: stripe.String(p.title()), Metadata: p.metadata(),
		},
		LineItems: []*stripe.CheckoutSessionCreateLineItemParams{{
			Quantity: stripe.Int64(1),
			PriceData: &stripe.CheckoutSessionCreateLineItemPriceDataParams{
				Currency: stripe.String(strings.ToLower(p.Currency)), UnitAmount: stripe.Int64(p.AmountMinor),
				ProductData: &stripe.CheckoutSessionCreateLineItemPriceDataProductDataParams{Name: stripe.String(p.title())},
			},
		}},
		// Adaptive pricing, which the account may enable, would charge another
		// currency and amount than the purchase's.
		AdaptivePricing: &stripe.CheckoutSessionCreateAdaptivePricingParams{Enabled: stripe.Bool(false)},
		SuccessURL:      returnURL(baseURL, "done", "purchase", p.ID.String()),
		CancelURL:       returnURL(baseURL, "cancelled", "purchase", p.ID.String()),
	}
	params.IdempotencyKey = p.key()
	return c.api.V1CheckoutSessions.Create(ctx, params)
}

// readState reads the state of p: from its checkout if it has one, otherwise from
// the payment intent, with all refunds and disputes of the payment.
func (c *stripeClient) readState(ctx context.Context, p Purchase, checkout, intent string) (providerState, error) {
	if checkout == "" && p.ProviderRef != nil {
		checkout = *p.ProviderRef
	}
	if intent == "" && p.PaymentRef != nil {
		intent = *p.PaymentRef
	}
	var f providerState
	switch {
	case checkout != "":
		cs, err := c.session(ctx, checkout, "payment_intent")
		if err != nil {
			return f, err
		}
		if cs.ClientReferenceID != p.ID.String() {
			return f, refuse("checkout %s is not for purchase %s", checkout, p.ID)
		}
		f = sessionState(cs)
		if p.ProviderRef != nil && *p.ProviderRef != checkout {
			f.closed = false // another checkout has still to be paid
		}
	case intent != "":
		pi, err := c.intent(ctx, intent)
		if err != nil {
			return f, err
		}
		if pi.Metadata["purchase_id"] != p.ID.String() {
			return f, refuse("payment %s is not for purchase %s", intent, p.ID)
		}
		f = intentState(pi)
	}
	if f.payment == nil {
		return f, nil
	}
	var err error
	f.reversals, err = c.reversals(ctx, f.payment.intent)
	return f, err
}

func (c *stripeClient) session(ctx context.Context, id string, expand ...string) (*stripe.CheckoutSession, error) {
	cs, err := c.api.V1CheckoutSessions.Retrieve(ctx, id, &stripe.CheckoutSessionRetrieveParams{Expand: stripe.StringSlice(expand)})
	return cs, lookupError(err, id)
}

func (c *stripeClient) intent(ctx context.Context, id string) (*stripe.PaymentIntent, error) {
	pi, err := c.api.V1PaymentIntents.Retrieve(ctx, id, nil)
	return pi, lookupError(err, id)
}

// reversals lists the refunds and disputes of a payment.
func (c *stripeClient) reversals(ctx context.Context, intent string) ([]reversal, error) {
	var out []reversal
	for r, err := range c.api.V1Refunds.List(ctx, &stripe.RefundListParams{PaymentIntent: &intent}).All(ctx) {
		if err != nil {
			return nil, lookupError(err, intent)
		}
		out = append(out, refundReversal(r))
	}
	for d, err := range c.api.V1Disputes.List(ctx, &stripe.DisputeListParams{PaymentIntent: &intent}).All(ctx) {
		if err != nil {
			return nil, lookupError(err, intent)
		}
		out = append(out, disputeReversal(d))
	}
	return out, nil
}

// reads returns one call for each read permission that jobs need.
func (c *stripeClient) reads() []stripeRead {
	one := func(p *stripe.ListParams) { p.Limit, p.Single = stripe.Int64(1), true }
	return []stripeRead{
		{"Checkout Sessions", func(ctx context.Context) error {
			params := &stripe.CheckoutSessionListParams{}
			one(&params.ListParams)
			return c.api.V1CheckoutSessions.List(ctx, params).Err()
		}},
		{"Payment Intents", func(ctx context.Context) error {
			params := &stripe.PaymentIntentListParams{}
			one(&params.ListParams)
			return c.api.V1PaymentIntents.List(ctx, params).Err()
		}},
		{"Refunds", func(ctx context.Context) error {
			params := &stripe.RefundListParams{}
			one(&params.ListParams)
			return c.api.V1Refunds.List(ctx, params).Err()
		}},
		{"Disputes", func(ctx context.Context) error {
			params := &stripe.DisputeListParams{}
			one(&params.ListParams)
			return c.api.V1Disputes.List(ctx, params).Err()
		}},
		{"Events", func(ctx context.Context) error {
			params := &stripe.EventListParams{}
			one(&params.ListParams)
			return c.api.V1Events.List(ctx, params).Err()
		}},
	}
}

// stripeRead is a permission and the cheapest call that needs it.
type stripeRead struct {
	right string
	call  func(context.Context) error
}

// CheckStripe checks that Stripe accepts the key, and that the key has the permissions to
// read what jobs read. url replaces Stripe's address if it is not empty. The errors say
// what is wrong and never contain the key.
func CheckStripe(ctx context.Context, key keyring.Secret, url string) error {
	var lacks []string
	for _, read := range newStripeClient(key, url, http.DefaultTransport).reads() {
		err := read.call(ctx)
		e, answered := errors.AsType[*stripe.Error](err)
		switch {
		case err == nil:
		case isUnauthorized(err):
			return errors.New("the key is not accepted by Stripe")
		case answered && e.HTTPStatusCode == http.StatusForbidden:
			lacks = append(lacks, read.right)
		case answered:
			return fmt.Errorf("an answer with status %d from Stripe (request %s)", e.HTTPStatusCode, e.RequestID)
		default:
			return fmt.Errorf("no answer from Stripe: %w", err)
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("the key may not use %s", strings.Join(lacks, ", "))
	}
	return nil
}
