package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
)

func (a *api) creditStatisticsRoutes(tags []string) {
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scope(authz.ReadCredits), maxBody: noBody},
		huma.Operation{OperationID: "credits.statistics", Method: http.MethodGet, Path: "/api/stores/{id}/credits/statistics", Tags: tags,
			Summary: "The store's credits over the last days",
			Description: "Days are those of UTC, today included. A store with a very long history is added up in several calls: until then complete " +
				"is false, and the newest transactions are not included.",
			Errors: []int{401, 404, 422}}, a.creditStatistics)
}

type creditStatisticsInput struct {
	StorePath
	Days int `query:"days" minimum:"1" maximum:"90" default:"30" doc:"How many days, today included"`
}

type creditStatisticsView struct {
	Days     []creditDayView    `json:"days" doc:"Without gaps, oldest first"`
	Services []serviceSpendView `json:"services" doc:"What was spent in these days by service, the most first; a long tail is one entry with others"`
	Complete bool               `json:"complete" doc:"false while transactions are still being added up; ask again"`
}

type creditDayView struct {
	Date      string         `json:"date" format:"date" example:"2026-01-31"`
	Balance   credits.Amount `json:"balance" example:"100" doc:"At the end of the day; of today: now"`
	Purchased credits.Amount `json:"purchased" example:"0"`
	Spent     credits.Amount `json:"spent" example:"12.5"`
}

type serviceSpendView struct {
	ServiceKey *string        `json:"serviceKey" example:"product_import" doc:"null: spent without a service, or others"`
	Spent      credits.Amount `json:"spent" example:"12.5"`
	Quantity   int64          `json:"quantity" example:"125" doc:"In the service's unit"`
	Others     bool           `json:"others" doc:"All further services together"`
}

func newCreditStatisticsView(s credits.Statistics) creditStatisticsView {
	v := creditStatisticsView{Days: make([]creditDayView, len(s.Days)), Services: make([]serviceSpendView, len(s.Services)), Complete: s.Complete}
	for i, d := range s.Days {
		v.Days[i] = creditDayView{Date: d.Date.Format(time.DateOnly), Balance: d.Balance, Purchased: d.Purchased, Spent: d.Spent}
	}
	for i, spend := range s.Services {
		v.Services[i] = serviceSpendView{Spent: spend.Spent, Quantity: spend.Quantity, Others: spend.Others}
		if spend.ServiceKey != "" {
			v.Services[i].ServiceKey = &spend.ServiceKey
		}
	}
	return v
}

func (a *api) creditStatistics(ctx context.Context, in *creditStatisticsInput) (*struct{ Body creditStatisticsView }, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	s, err := a.Credits.Statistics(ctx, principal(ctx), id, in.Days)
	if err != nil {
		return nil, err
	}
	return &struct{ Body creditStatisticsView }{newCreditStatisticsView(s)}, nil
}
