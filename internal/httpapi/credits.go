package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
)

func (a *api) creditRoutes() {
	tags := []string{"Credits"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadCredits), maxBody: noBody},
		huma.Operation{OperationID: "credits.balance", Method: http.MethodGet, Path: "/api/credits/balance", Tags: tags,
			Summary: "The store's balance", Description: "What the store has, what open holds have set aside, and what can be spent.", Errors: []int{401, 404, 422}}, a.balance)
	a.transactionRoutes(tags)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.SpendCredits), maxBody: maxJSON, key: keyLedger},
		huma.Operation{OperationID: "credits.spend", Method: http.MethodPost, Path: "/api/credits/spend", Tags: tags,
			Summary:     "Spend credits",
			Description: "Either amount, or serviceKey and quantity at the price list's price. Deducts and records, or changes nothing. " + exactPrices,
			Errors:      []int{400, 401, 402, 403, 404, 409, 413, 422}}, a.spend)
	a.holdRoutes(tags)
	a.creditSettingsRoutes(tags)
	a.creditStatisticsRoutes(tags)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopeCaller, maxBody: noBody},
		huma.Operation{OperationID: "credits.prices", Method: http.MethodGet, Path: "/api/credits/prices", Tags: tags,
			Summary: "What services cost", Description: "The prices in force now. " + exactPrices, Errors: []int{401}}, a.prices)
}

// exactPrices documents that prices are never rounded.
const exactPrices = "A unit price has at most 4 decimals and a quantity is a whole number: the product is exact, and nothing is ever rounded."

// StoreChoice names the store of a credits call.
type StoreChoice struct {
	Header string `header:"X-Store-Id" doc:"The store; may be left out by a caller with one store, and with an API key"`
	Query  string `query:"storeId" doc:"The same, as a parameter"`
}

// chosenStore returns the named store, or the caller's only one, and records that the request
// is about it.
func (a *api) chosenStore(ctx context.Context, c StoreChoice) (stoa.StoreID, error) {
	store, err := a.findStore(ctx, c)
	if err == nil {
		about(ctx, store)
	}
	return store, err
}

func (a *api) findStore(ctx context.Context, c StoreChoice) (stoa.StoreID, error) {
	var faults stoa.Invalid
	name := c.Header
	if name == "" {
		name = c.Query
	}
	if c.Query != "" && c.Query != name {
		faults.Add("storeId", "names another store than X-Store-Id")
		return stoa.StoreID{}, faults.Err()
	}
	if name != "" {
		return storeID(name)
	}
	if p := principal(ctx); p.IsKey() {
		return p.Key.StoreID, nil
	}
	mine, err := authz.Memberships(ctx, a.Master, principal(ctx).UserID)
	switch {
	case err != nil:
		return stoa.StoreID{}, err
	case len(mine) == 0:
		return stoa.StoreID{}, stoa.Errorf(stoa.StoreNotFound, "You have no store yet. Create one first.")
	case len(mine) > 1:
		faults.Add("storeId", "is required, as a parameter or as X-Store-Id: you have %d stores", len(mine))
		return stoa.StoreID{}, faults.Err()
	}
	return mine[0].StoreID, nil
}

// amountInput accepts "12.5" and 12.5. A JSON number is parsed from its decimal
// text, never through a float.
type amountInput struct{ text string }

// Schema implements huma.SchemaProvider.
func (amountInput) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Description: "Credits, at most 4 decimals, as a string or a number",
		OneOf:       []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeNumber}},
		Examples:    []any{"12.5"},
	}
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *amountInput) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &a.text)
	}
	a.text = string(b)
	return nil
}

// parse returns the amount, or a validation error that names the field.
func (a amountInput) parse(field string) (credits.Amount, error) {
	amount, err := credits.ParseAmount(a.text)
	if err != nil {
		var faults stoa.Invalid
		faults.Add(field, "%v", err)
		return 0, faults.Err()
	}
	return amount, nil
}

type balanceView struct {
	StoreID           stoa.StoreID   `json:"storeId" format:"uuid"`
	Balance           credits.Amount `json:"balance" example:"100"`
	Reserved          credits.Amount `json:"reserved" example:"0" doc:"Held for work under way"`
	Available         credits.Amount `json:"available" example:"100" doc:"balance − reserved"`
	Debt              credits.Amount `json:"debt" example:"0" doc:"Owed after a payment was reversed; the next credits repay it, and until then nothing can be spent"`
	LifetimePurchased credits.Amount `json:"lifetimePurchased" example:"100"`
	LifetimeSpent     credits.Amount `json:"lifetimeSpent" example:"0"`
	UpdatedAt         time.Time      `json:"updatedAt"`
	ExpiresSoon       *expiringView  `json:"expiresSoon,omitempty" doc:"What expires within 30 days, if anything does; only in the answer to a question for the balance"`
}

type expiringView struct {
	Amount credits.Amount `json:"amount" example:"10"`
	Next   time.Time      `json:"next" doc:"When the first of them expire"`
}

func newBalanceView(b credits.Balance) balanceView {
	return balanceView{
		StoreID: b.StoreID, Balance: b.Balance, Reserved: b.Reserved, Available: b.Available(), Debt: b.Debt,
		LifetimePurchased: b.LifetimePurchased, LifetimeSpent: b.LifetimeSpent, UpdatedAt: b.UpdatedAt, ExpiresSoon: (*expiringView)(b.ExpiresSoon),
	}
}

func (a *api) balance(ctx context.Context, in *StoreChoice) (*struct{ Body balanceView }, error) {
	id, err := a.chosenStore(ctx, *in)
	if err != nil {
		return nil, err
	}
	b, err := a.Credits.Balance(ctx, principal(ctx), id)
	if err != nil {
		return nil, err
	}
	return &struct{ Body balanceView }{newBalanceView(b)}, nil
}

// optionalTime returns nil for a zero time, which is a parameter that was not given.
func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

type spendInput struct {
	StoreChoice
	Body SpendBody
}

// SpendBody says what to pay for. It is exported because huma reads only exported
// embedded structs.
type SpendBody struct {
	Amount      *amountInput `json:"amount,omitempty"`
	ServiceKey  string       `json:"serviceKey,omitempty" maxLength:"100" example:"product_import"`
	Quantity    *int64       `json:"quantity,omitempty" minimum:"1" doc:"1 unless told"`
	Description string       `json:"description,omitempty" maxLength:"500"`
}

func (b SpendBody) request(key string) (credits.SpendRequest, error) {
	req := credits.SpendRequest{ServiceKey: b.ServiceKey, Quantity: b.Quantity, Description: b.Description, IdempotencyKey: key}
	if b.Amount == nil {
		return req, nil
	}
	var err error
	req.Amount, err = b.Amount.parse("amount")
	return req, err
}

type spendOutput struct {
	ReplayedHeader
	Body struct {
		Transaction transactionView `json:"transaction"`
		Balance     balanceView     `json:"balance"`
	}
}

func (a *api) spend(ctx context.Context, in *spendInput) (*spendOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	req, err := in.Body.request(idempotencyKey(ctx))
	if err != nil {
		return nil, err
	}
	spent, err := a.Credits.Spend(ctx, principal(ctx), id, req)
	if err != nil {
		return nil, err
	}
	out := &spendOutput{ReplayedHeader: replayedIf(spent.Replayed)}
	out.Body.Transaction, out.Body.Balance = newTransactionView(spent.Transaction), newBalanceView(spent.Balance)
	return out, nil
}

type priceView struct {
	ServiceKey    string         `json:"serviceKey" example:"product_import"`
	UnitPrice     credits.Amount `json:"unitPrice" example:"0.1"`
	Unit          string         `json:"unit" example:"item"`
	Description   string         `json:"description"`
	EffectiveFrom time.Time      `json:"effectiveFrom"`
}

type pricesOutput struct {
	Body struct {
		Data       []priceView `json:"data"`
		NextCursor *string     `json:"nextCursor"`
	}
}

func (a *api) prices(ctx context.Context, _ *struct{}) (*pricesOutput, error) {
	list, err := a.Credits.Prices(ctx, a.Master.Now())
	if err != nil {
		return nil, err
	}
	out := &pricesOutput{}
	out.Body.Data = make([]priceView, len(list))
	for i, p := range list {
		out.Body.Data[i] = priceView(p)
	}
	return out, nil
}
