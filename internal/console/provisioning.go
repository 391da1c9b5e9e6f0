package console

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) provisioningRoutes() []Route {
	return []Route{
		{Pattern: "GET /stores/{slug}/provisioning", RouteOptions: view(scopeOf(authz.ReadStore)), Handle: c.provisioning},
		{Pattern: "GET /stores/{slug}/provisioning/live", RouteOptions: stream(scopeOf(authz.ReadStore)), Handle: c.followProvisioning},
		{Pattern: "POST /stores/{slug}/provisioning/retry", RouteOptions: databaseForm(scopeOf(authz.ConnectDatabase)), Handle: c.retryProvisioning},
	}
}

// provisioningView fills the page of a store's provisioning runs.
type provisioningView struct {
	Store    stores.Store
	Run      *provisioning.Run // the last one; nil before the first
	Hostname string
	URL      string // of the store's page
	Earlier  []provisioning.Run
	pager
	May bool // retry and connect
}

const earlierRuns = 10

func (c *Console) provisioning(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	v, err := c.readRun(r.Context(), r, store)
	if err != nil {
		return err
	}
	page, err := c.Provisioning.Runs(r.Context(), r.Principal, store.ID, earlierRuns, r.URL.Query().Get("cursor"))
	if err != nil {
		return err
	}
	for _, run := range page.Runs {
		if v.Run == nil || run.ID != v.Run.ID {
			v.Earlier = append(v.Earlier, run)
		}
	}
	v.pager = newPager(r, page.NextCursor)
	return c.render(w, r, http.StatusOK, storeFrame(store, "database", "Setting up the database"), provisioningPage(v))
}

// readRun reads the store's last run and its state after it.
func (c *Console) readRun(ctx context.Context, r *Request, store stores.Store) (provisioningView, error) {
	v := provisioningView{Store: store, May: store.Role.Can(authz.ConnectDatabase)}
	run, err := c.Provisioning.Latest(ctx, r.Principal, store.ID)
	switch {
	case stoa.CodeOf(err) == stoa.NotFound:
		return v, nil
	case err != nil:
		return v, err
	}
	v.Run = &run
	if run.State == provisioning.Succeeded && v.Hostname == "" {
		// The run has given the store its hostname after the store was read.
		if v.Store, err = c.Stores.GetBySlug(ctx, r.Principal, store.Slug); err != nil {
			return v, err
		}
		if v.Hostname = primaryHostname(v.Store); v.Hostname != "" {
			v.URL = c.storeURL(v.Hostname)
		}
	}
	return v, nil
}

// followProvisioning sends the run's part of the page whenever it changes.
func (c *Console) followProvisioning(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	var woken <-chan struct{}
	if run, err := c.Provisioning.Latest(r.Context(), r.Principal, store.ID); err == nil {
		joined, leave := c.Provisioning.JoinEvents(run.ID)
		defer leave()
		woken = joined
	}
	return c.serveLive(w, r, woken, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readRun(ctx, r, store)
		return runPart(v), v.Run != nil && v.Run.Done(), err
	})
}

func (c *Console) retryProvisioning(w http.ResponseWriter, r *Request) error {
	store, err := c.store(r)
	if err != nil {
		return err
	}
	path := "/stores/" + store.Slug + "/provisioning"
	if _, err := c.Provisioning.Retry(r.Context(), r.Principal, store.ID); err != nil {
		if !correctable(stoa.CodeOf(err)) {
			return err
		}
		return redirect(w, r, path, "Not retried: "+messageOf(err))
	}
	return redirect(w, r, path, "")
}

// stepWords describe the steps of a run.
var stepWords = map[string]string{
	"project":      "Prepare the Supabase project",
	"connect":      "Connect to the server",
	"inspect":      "Check what is in the database",
	"migrate":      "Create the tables",
	"seed":         "Fill in the first entries",
	"store_record": "Enter the store",
	"owner_record": "Enter the owner",
	"hostname":     "Give the store its address",
	"activate":     "Open the store",
}

func stepName(name string) string {
	if words, ok := stepWords[name]; ok {
		return words
	}
	return sentence(name)
}

// runState returns a run's or step's state in the console's vocabulary.
func runState(s provisioning.State) ui.State {
	switch s {
	case provisioning.Succeeded:
		return ui.State{Word: "Done", Kind: ui.Success, Icon: "check"}
	case provisioning.Failed:
		return ui.State{Word: "Failed", Kind: ui.Danger, Icon: "alert"}
	case provisioning.Running:
		return ui.State{Word: "Running", Kind: ui.Info, Icon: "play"}
	case provisioning.Queued, provisioning.Pending:
	}
	return ui.State{Word: "Waiting", Kind: ui.Info, Icon: "clock"}
}

// duration formats how long a step or run took; empty while it runs.
func duration(from, to *time.Time) string {
	if from == nil || to == nil {
		return ""
	}
	d := to.Sub(*from)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(d.Milliseconds(), 1))
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
