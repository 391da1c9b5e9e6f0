package console

import (
	"math"
	"net/http"
	"time"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/traffic"
)

func (c *Console) operatorStoreRoutes() []Route {
	return []Route{{Pattern: "GET /operator/stores/{slug}", RouteOptions: view(Operator), Handle: c.operatorStore}}
}

// operatorStoreView fills a store's page for operators.
type operatorStoreView struct {
	Store     stores.Store
	State     ui.State
	Hostname  string
	Migration *fleet.Store // nil: the database is not in use
	Behind    bool
	Day       []traffic.Hour
	Runs      []provisioning.Run
	Members   []authz.StoreMember
	Events    []audit.Entry
	Reasons   []nextStep // why the store is not well
}

const (
	operatorRuns   = 5
	operatorEvents = 10
	// recentHours is the time that counts for the health of a store, as in its filter.
	recentHours = 2
	slowMS      = 500
)

func (c *Console) operatorStore(w http.ResponseWriter, r *Request) error {
	store, err := c.Stores.GetForOperator(r.Context(), r.Principal, r.PathValue("slug"))
	if err != nil {
		return err
	}
	r.StoreID = store.ID
	v := operatorStoreView{Store: store, State: operatorState(store), Hostname: primaryHostname(store)}
	if err := c.readOperatorStore(r, &v); err != nil {
		return err
	}
	v.Reasons = v.reasons()
	return c.render(w, r, http.StatusOK, operatorFrame("stores", store.Name), operatorStorePage(v))
}

// readOperatorStore reads what belongs to the store.
func (c *Console) readOperatorStore(r *Request, v *operatorStoreView) error {
	ctx, id := r.Context(), v.Store.ID
	migration, ok, err := c.Bulk.Migration(ctx, r.Principal, id)
	if err != nil {
		return err
	}
	if ok {
		v.Migration, v.Behind = &migration, c.Bulk.IsBehind(migration)
	}
	if v.Day, err = c.Traffic.Day(ctx, r.Principal, id); err != nil {
		return err
	}
	runs, err := c.Provisioning.Runs(ctx, r.Principal, id, operatorRuns, "")
	if err != nil {
		return err
	}
	v.Runs = runs.Runs
	if v.Members, err = c.Accounts.Members(ctx, r.Principal, id); err != nil {
		return err
	}
	log, err := authz.ReadAuditLog(ctx, c.Master, r.Principal, id, audit.Filter{Limit: operatorEvents})
	v.Events = log.Entries
	return err
}

// reasons says why the store is not well, the most urgent first.
func (v operatorStoreView) reasons() (list []nextStep) {
	base := "/stores/" + v.Store.Slug
	add := func(kind ui.Kind, text, url, label string) {
		list = append(list, nextStep{Kind: kind, Text: text, URL: url, Label: label})
	}
	if d := v.Store.Database; d != nil && d.Status == tenantdb.StatusFailed {
		add(ui.Danger, "Its database cannot be used ("+string(d.LastError)+"): "+faultWords(d.LastError), base+"/database", "Database")
	}
	if m := v.Migration; m != nil && m.Code != "" {
		add(ui.Danger, "Its last migration failed ("+string(m.Code)+"): "+m.Message, "/operator/bulk?action=migrate&store="+v.Store.ID.String(), "Migrate again")
	} else if v.Behind {
		add(ui.Info, "Its schema is older than that of this release.", "/operator/bulk?action=migrate&store="+v.Store.ID.String(), "Migrate")
	}
	recent := v.recent()
	if recent.Errors > 0 {
		add(ui.Danger, ui.Thousands(recent.Errors)+" of "+ui.Thousands(recent.Requests)+" requests of shoppers failed in this hour and the one before.", "", "")
	}
	if recent.Requests > 0 && recent.MeanMS() >= slowMS {
		add(ui.Warning, "Requests of shoppers took half a second or more on average in this hour and the one before.", "", "")
	}
	if len(v.Runs) > 0 && v.Runs[0].State == provisioning.Failed && v.Runs[0].Fault != nil {
		add(ui.Danger, "Its last provisioning run failed at the step "+v.Runs[0].Step+": "+v.Runs[0].Fault.Message, base+"/provisioning", "The run")
	}
	switch {
	case v.Store.Status == stores.Suspended && v.Store.SuspendedByOperator:
		add(ui.Warning, "An operator has suspended it: its owner cannot open it.", base+"/settings", "Settings")
	case v.Store.Status == stores.Suspended:
		add(ui.Info, "Its owner has suspended it.", base+"/settings", "Settings")
	case v.Store.Status == stores.Deleting:
		add(ui.Warning, "It is being deleted.", base+"/settings", "Settings")
	}
	return list
}

// recent adds up the hours that count for the health of the store.
func (v operatorStoreView) recent() (sum traffic.Hour) {
	for _, h := range v.Day[max(len(v.Day)-recentHours, 0):] {
		sum.Requests, sum.Errors, sum.TotalMS = sum.Requests+h.Requests, sum.Errors+h.Errors, sum.TotalMS+h.TotalMS
		sum.SlowestMS = max(sum.SlowestMS, h.SlowestMS)
	}
	return sum
}

// requestsChart draws the requests of a day.
func requestsChart(day []traffic.Hour) ui.Chart {
	good, failed := ui.Series{Name: "Answered"}, ui.Series{Name: "Failed"}
	chart := ui.Chart{Title: "Requests of shoppers by hour (UTC)", Unit: "requests", Columns: true}
	for _, h := range day {
		chart.Labels = append(chart.Labels, h.Start.Format("15:04"))
		good.Values = append(good.Values, float64(h.Requests-h.Errors))
		failed.Values = append(failed.Values, float64(h.Errors))
	}
	chart.Series = []ui.Series{good, failed}
	return chart
}

// latencyChart draws how long the requests of a day took. Hours without requests leave a
// gap.
func latencyChart(day []traffic.Hour) ui.Chart {
	mean, slowest := ui.Series{Name: "Mean"}, ui.Series{Name: "Slowest"}
	chart := ui.Chart{Title: "Duration of requests by hour (UTC)", Unit: "ms"}
	for _, h := range day {
		chart.Labels = append(chart.Labels, h.Start.Format("15:04"))
		mean.Values = append(mean.Values, valueOrGap(h, h.MeanMS()))
		slowest.Values = append(slowest.Values, valueOrGap(h, float64(h.SlowestMS)))
	}
	chart.Series = []ui.Series{mean, slowest}
	return chart
}

// valueOrGap returns a value that an hour without requests does not have.
func valueOrGap(h traffic.Hour, value float64) float64 {
	if h.Requests == 0 {
		return math.NaN()
	}
	return value
}

// hasTraffic reports whether there was a request.
func hasTraffic(day []traffic.Hour) bool {
	for _, h := range day {
		if h.Requests > 0 {
			return true
		}
	}
	return false
}

// migratedAt is when the last migration ended.
func (v operatorStoreView) migratedAt() *time.Time {
	if v.Migration == nil {
		return nil
	}
	return v.Migration.At
}
