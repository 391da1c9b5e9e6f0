package httpapi

import (
	"context"
	"iter"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/danielgtaylor/huma/v2/negotiation"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/web"
)

func (a *api) transactionRoutes(tags []string) {
	page := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[transactionPage](), true, "")
	route(a, routeOptions{timeout: requestTimeout, exportTimeout: csvTimeout, rate: rateCaller, scope: scope(authz.ReadCredits), maxBody: noBody},
		huma.Operation{OperationID: "transactions.list", Method: http.MethodGet, Path: "/api/credits/transactions", Tags: tags,
			Summary: "The store's ledger, newest first",
			Description: "With Accept: text/csv the answer is the whole filtered history as a file (RFC 4180, UTF-8, a header row, newest first): " +
				"limit and cursor have no part in it. So that no spreadsheet runs a text as a formula, serviceKey, description and reference begin " +
				"with an apostrophe there when they would begin with one of = + - @, a tab or a line break. A file that ends early was cut off: " +
				"its last chunk is missing.",
			Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
				jsonType: {Schema: page},
				csvType:  {Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{strings.Join(credits.ColumnNames, ",") + "\r\n"}}},
			}}}, Errors: []int{401, 404, 422}}, a.transactions)
}

const (
	jsonType = "application/json"
	csvType  = web.CSVType
)

type transactionView struct {
	ID           stoa.TransactionID `json:"id" format:"uuid"`
	Sequence     int64              `json:"sequence" doc:"1, 2, 3, … in each store"`
	Type         credits.Type       `json:"type" enum:"purchase,spend,capture,refund,dispute,adjustment,bonus,expiry"`
	Amount       credits.Amount     `json:"amount" example:"-1" doc:"Negative when credits went away"`
	BalanceAfter credits.Amount     `json:"balanceAfter" example:"99"`
	DebtChange   credits.Amount     `json:"debtChange" example:"0" doc:"What is owed more, or with a minus less"`
	ServiceKey   *string            `json:"serviceKey" doc:"Name of the service in the price list; null: it was not for a service"`
	Quantity     *int64             `json:"quantity" doc:"How many units of the service; null: it was not for a service"`
	UnitPrice    *credits.Amount    `json:"unitPrice" doc:"Credits for one unit, a decimal string; null: it was not for a service"`
	Description  string             `json:"description"`
	Reference    *string            `json:"reference" doc:"The caller's own name for the cause of the entry; null: there is none"`
	HoldID       *stoa.HoldID       `json:"holdId" format:"uuid" doc:"The hold of a capture; null of every other entry"`
	CreatedAt    time.Time          `json:"createdAt"`
}

func newTransactionView(t credits.Transaction) transactionView {
	return transactionView{
		ID: t.ID, Sequence: t.Sequence, Type: t.Type, Amount: t.Amount, BalanceAfter: t.BalanceAfter, DebtChange: t.DebtChange,
		ServiceKey: t.ServiceKey, Quantity: t.Quantity, UnitPrice: t.UnitPrice, Description: t.Description, Reference: t.Reference,
		HoldID: t.HoldID, CreatedAt: t.CreatedAt,
	}
}

type transactionsInput struct {
	StoreChoice
	PageInput
	Accept  string    `header:"Accept" maxLength:"2000" doc:"text/csv for the whole history as CSV"`
	Type    string    `query:"type" enum:"purchase,spend,capture,refund,dispute,adjustment,bonus,expiry"`
	Service string    `query:"service" maxLength:"100" doc:"A service key"`
	From    time.Time `query:"from" doc:"Not before this moment"`
	To      time.Time `query:"to" doc:"Before this moment"`
}

type transactionPage struct {
	Data       []transactionView `json:"data"`
	NextCursor *string           `json:"nextCursor"`
}

func (a *api) transactions(ctx context.Context, in *transactionsInput) (*huma.StreamResponse, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	filter := credits.Filter{Type: credits.Type(in.Type), ServiceKey: in.Service, From: optionalTime(in.From), To: optionalTime(in.To)}
	if negotiation.SelectQValue(in.Accept, []string{jsonType, csvType}) == csvType {
		rows, err := a.Credits.History(ctx, principal(ctx), id, filter)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			writeCSV(a, ctx, "credits-"+id.String(), credits.ColumnNames, transactionRow, rows)
		}}, nil
	}
	filter.Limit, filter.Cursor = in.Limit, in.Cursor
	page, err := a.Credits.Transactions(ctx, principal(ctx), id, filter)
	if err != nil {
		return nil, err
	}
	out := transactionPage{Data: make([]transactionView, len(page.Transactions)), NextCursor: page.NextCursor}
	for i, t := range page.Transactions {
		out.Data[i] = newTransactionView(t)
	}
	return a.jsonResponse(out), nil
}

// jsonResponse returns the JSON form of a response that has a CSV form too.
func (a *api) jsonResponse(out any) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", jsonType)
		ctx.SetHeader("Vary", "Accept")
		ctx.SetStatus(http.StatusOK)
		_ = a.huma.Marshal(ctx.BodyWriter(), jsonType, out) // the client may have gone
	}}
}

func transactionRow(t credits.Transaction) []string { return t.Columns(web.EscapeFormula) }

// writeCSV streams rows as web.ServeCSV does.
func writeCSV[T any](a *api, ctx huma.Context, name string, header []string, row func(T) []string, rows iter.Seq2[T, error]) {
	r, w := humago.Unwrap(ctx)
	web.ServeCSV(w, r, a.Log.With("request_id", requestID(ctx.Context())), name, header, row, rows)
}
