package console

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/provisioning"
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
	fleet.Status
	At time.Time
}

// maxNamed is how many stores of one cause are named.
const maxNamed = 10

func (c *Console) readMigrations(ctx context.Context, r *Request) (migrationsView, error) {
	status, at, err := c.Operations.Schemas(ctx, r.Principal)
	return migrationsView{Status: status, At: at}, err
}

func (c *Console) operatorMigrations(w http.ResponseWriter, r *Request) error {
	v, err := c.readMigrations(r.Context(), r)
	if err != nil {
		return err
	}
	return c.render(w, r, http.StatusOK, operatorFrame("migrations", "Migrations"), migrationsPage(v))
}

func (c *Console) followMigrations(w http.ResponseWriter, r *Request) error {
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readMigrations(ctx, r)
		return migrationsPart(v), false, err
	})
}

func (c *Console) startMigrations(w http.ResponseWriter, r *Request) error {
	if err := c.Operations.Migrate(r.Context(), r.Principal); err != nil {
		return err
	}
	return redirect(w, r, "/operator/migrations", "The migration has been started. This page shows its progress.")
}
