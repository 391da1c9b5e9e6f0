package console

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) operatorRunRoutes() []Route {
	return []Route{
		{Pattern: "GET /operator/runs", RouteOptions: view(Operator), Handle: c.operatorRuns},
		{Pattern: "GET /operator/runs/live", RouteOptions: stream(Operator), Handle: c.followRuns},
		{Pattern: "GET /operator/migrations", RouteOptions: view(Operator), Handle: c.operatorMigrations},
		{Pattern: "GET /operator/migrations/live", RouteOptions: stream(Operator), Handle: c.followMigrations},
		{Pattern: "POST /operator/migrations", RouteOptions: form(Operator), Handle: c.startMigrations},
	}
}

// operatorRunsView fills the list of the provisioning runs of all stores.
type operatorRunsView struct {
	State provisioning.State // "": every state
	Runs  []provisioning.StoreRun
	pager
	Live string // the address of the live part; "" on a later page, which does not change
}

func (c *Console) readRuns(ctx context.Context, r *Request) (operatorRunsView, error) {
	v := operatorRunsView{State: provisioning.State(r.URL.Query().Get("state"))}
	cursor := r.URL.Query().Get("cursor")
	page, err := c.Provisioning.RunsForOperator(ctx, r.Principal, v.State, 0, cursor)
	v.Runs = page.Runs
	v.pager = newPager(r, page.NextCursor)
	if cursor == "" {
		v.Live = runsURL("/operator/runs/live", v.State)
	}
	return v, err
}

func runsURL(path string, state provisioning.State) string {
	return path + "?state=" + url.QueryEscape(string(state))
}

func (c *Console) operatorRuns(w http.ResponseWriter, r *Request) error {
	v, err := c.readRuns(r.Context(), r)
	if err != nil {
		return err
	}
	return c.render(w, r, http.StatusOK, operatorFrame("runs", "Provisioning runs"), operatorRunsPage(v))
}

func (c *Console) followRuns(w http.ResponseWriter, r *Request) error {
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readRuns(ctx, r)
		return operatorRunsPart(v), false, err
	})
}

// migrationsView fills the page of the stores' schemas.
type migrationsView struct {
	stores.Counts
	Stores, Current, Ahead int // databases in use
	fleet.FailedPage
	pager
	Live bool // a later page does not change
}

// oldCount is the age from which the page says when the stores were counted. Those of a
// small fleet are counted whenever the page is shown.
const oldCount = 10 * time.Second

func (c *Console) readMigrations(ctx context.Context, r *Request) (v migrationsView, err error) {
	if v.Counts, err = c.Stores.Counts(ctx, r.Principal); err != nil {
		return v, err
	}
	for _, version := range v.Versions {
		v.Stores += version.Stores
		switch {
		case isBehind(version.Schema, v.Expected):
		case version.Schema == v.Expected:
			v.Current += version.Stores
		default:
			v.Ahead += version.Stores
		}
	}
	cursor := r.URL.Query().Get("cursor")
	v.FailedPage, err = c.Operations.FailedMigrations(ctx, r.Principal, 0, cursor)
	v.pager, v.Live = newPager(r, v.NextCursor), cursor == ""
	return v, err
}

func (c *Console) operatorMigrations(w http.ResponseWriter, r *Request) error {
	v, err := c.readMigrations(r.Context(), r)
	if err != nil {
		return err
	}
	return c.render(w, r, http.StatusOK, operatorFrame("migrations", "Migrations"), migrationsPage(v, c.Master.Now()))
}

func (c *Console) followMigrations(w http.ResponseWriter, r *Request) error {
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readMigrations(ctx, r)
		return migrationsPart(v, c.Master.Now()), false, err
	})
}

func (c *Console) startMigrations(w http.ResponseWriter, r *Request) error {
	if err := c.Operations.Migrate(r.Context(), r.Principal); err != nil {
		return err
	}
	return redirect(w, r, "/operator/migrations", "The migration has been started. This page shows its progress.")
}
