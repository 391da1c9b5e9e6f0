package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
)

func (a *api) holdRoutes(tags []string) {
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.SpendCredits), maxBody: maxJSON, key: keyLedger},
		huma.Operation{OperationID: "holds.create", Method: http.MethodPost, Path: "/api/credits/holds", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Set credits aside",
			Description: "For work whose cost is known only at its end: nothing else spends held credits until they are captured, released, or the " +
				"hold expires. What to hold is said as for a spend. " + exactPrices,
			Errors: []int{400, 401, 402, 403, 404, 409, 413, 422}}, a.hold)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadCredits), maxBody: noBody},
		huma.Operation{OperationID: "holds.list", Method: http.MethodGet, Path: "/api/credits/holds", Tags: tags,
			Summary: "The store's holds, newest first", Description: "Filter by state. A hold whose time has passed is expired.", Errors: []int{401, 404, 422}}, a.holds)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.SpendCredits), maxBody: maxJSON, key: keyLedger},
		huma.Operation{OperationID: "holds.capture", Method: http.MethodPost, Path: "/api/credits/holds/{id}/capture", Tags: tags,
			Summary: "Spend a hold",
			Description: "All of it, or with amount, or with the quantity of the hold's service, a part; the rest is released. A hold is captured " +
				"once: 409 hold_not_open when it has ended.",
			Errors: []int{400, 401, 403, 404, 409, 413, 422}}, a.capture)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.SpendCredits), maxBody: noBody, key: keyLedger},
		huma.Operation{OperationID: "holds.release", Method: http.MethodPost, Path: "/api/credits/holds/{id}/release", Tags: tags,
			Summary: "Give a hold's credits back", Description: "All that is left of the hold can be spent again.", Errors: []int{401, 403, 404, 409, 422}}, a.release)
}

type holdView struct {
	ID          stoa.HoldID       `json:"id" format:"uuid"`
	StoreID     stoa.StoreID      `json:"storeId" format:"uuid"`
	State       credits.HoldState `json:"state" enum:"open,captured,released,expired"`
	Amount      credits.Amount    `json:"amount" example:"5" doc:"What was set aside"`
	Captured    credits.Amount    `json:"captured" example:"0" doc:"What was spent of it"`
	ServiceKey  *string           `json:"serviceKey" doc:"Name of the service in the price list; null: it is not for a service"`
	Quantity    *int64            `json:"quantity" doc:"How many units of the service; null: it is not for a service"`
	UnitPrice   *credits.Amount   `json:"unitPrice" doc:"The price when the hold was made, which its capture pays; null: it is not for a service"`
	Description string            `json:"description"`
	CreatedAt   time.Time         `json:"createdAt"`
	ExpiresAt   time.Time         `json:"expiresAt" doc:"When it ends by itself"`
	ResolvedAt  *time.Time        `json:"resolvedAt" doc:"When it was captured, released or expired; null before"`
}

func newHoldView(h credits.Hold) holdView {
	return holdView{
		ID: h.ID, StoreID: h.StoreID, State: h.State, Amount: h.Amount, Captured: h.Captured, ServiceKey: h.ServiceKey, Quantity: h.Quantity,
		UnitPrice: h.UnitPrice, Description: h.Description, CreatedAt: h.CreatedAt, ExpiresAt: h.ExpiresAt, ResolvedAt: h.ResolvedAt,
	}
}

type heldOutput struct {
	ReplayedHeader
	Body struct {
		Hold        holdView         `json:"hold"`
		Transaction *transactionView `json:"transaction" doc:"The entry of a capture in the ledger; null of every other call"`
		Balance     balanceView      `json:"balance"`
	}
}

func newHeldOutput(h credits.HoldResult, err error) (*heldOutput, error) {
	if err != nil {
		return nil, err
	}
	out := &heldOutput{ReplayedHeader: replayedIf(h.Replayed)}
	out.Body.Hold, out.Body.Balance = newHoldView(h.Hold), newBalanceView(h.Balance)
	if h.Transaction != nil {
		t := newTransactionView(*h.Transaction)
		out.Body.Transaction = &t
	}
	return out, nil
}

type holdInput struct {
	StoreChoice
	Body struct {
		SpendBody
		ExpiresIn int64 `json:"expiresIn,omitempty" minimum:"1" maximum:"2592000" doc:"Seconds until the hold ends by itself; 900 unless told"`
	}
}

func (a *api) hold(ctx context.Context, in *holdInput) (*heldOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	req := credits.HoldRequest{ExpiresIn: time.Duration(in.Body.ExpiresIn) * time.Second}
	if req.SpendRequest, err = in.Body.request(idempotencyKey(ctx)); err != nil {
		return nil, err
	}
	return newHeldOutput(a.Credits.Hold(ctx, principal(ctx), id, req))
}

// HoldPath names a hold. It is exported because huma reads only exported embedded
// structs.
type HoldPath struct {
	StoreChoice
	ID string `path:"id" doc:"The hold's id, a UUID"`
}

// holdID returns the id of the path, or the zero id, which no hold has.
func (p HoldPath) holdID() stoa.HoldID {
	id, err := stoa.ParseID[stoa.HoldID](p.ID)
	if err != nil {
		return stoa.HoldID{}
	}
	return id
}

type captureInput struct {
	HoldPath
	Body *struct {
		Amount   *amountInput `json:"amount,omitempty"`
		Quantity *int64       `json:"quantity,omitempty" minimum:"1" doc:"Of the hold's service, instead of an amount"`
	}
}

func (a *api) capture(ctx context.Context, in *captureInput) (*heldOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	req := credits.CaptureRequest{IdempotencyKey: idempotencyKey(ctx)}
	if in.Body != nil {
		req.Quantity = in.Body.Quantity
		if in.Body.Amount != nil {
			if req.Amount, err = in.Body.Amount.parse("amount"); err != nil {
				return nil, err
			}
			if req.Amount == 0 { // for the ledger zero means the whole hold
				var faults stoa.Invalid
				faults.Add("amount", "must be above 0; to spend nothing, release the hold")
				return nil, faults.Err()
			}
		}
	}
	return newHeldOutput(a.Credits.Capture(ctx, principal(ctx), id, in.holdID(), req))
}

func (a *api) release(ctx context.Context, in *HoldPath) (*heldOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	return newHeldOutput(a.Credits.Release(ctx, principal(ctx), id, in.holdID(), idempotencyKey(ctx)))
}

type holdsInput struct {
	StoreChoice
	PageInput
	State string `query:"state" enum:"open,captured,released,expired"`
}

type holdsOutput struct {
	Body struct {
		Data       []holdView `json:"data"`
		NextCursor *string    `json:"nextCursor"`
	}
}

func (a *api) holds(ctx context.Context, in *holdsInput) (*holdsOutput, error) {
	id, err := a.chosenStore(ctx, in.StoreChoice)
	if err != nil {
		return nil, err
	}
	page, err := a.Credits.Holds(ctx, principal(ctx), id, credits.HoldFilter{State: credits.HoldState(in.State), Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, err
	}
	out := &holdsOutput{}
	out.Body.Data, out.Body.NextCursor = make([]holdView, len(page.Holds)), page.NextCursor
	for i, h := range page.Holds {
		out.Body.Data[i] = newHoldView(h)
	}
	return out, nil
}
