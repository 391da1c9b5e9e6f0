package console

import (
	"net/http"
	"strconv"
	"time"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
)

func (c *Console) operatorFleetRoutes() []Route {
	return []Route{{Pattern: "GET /operator", RouteOptions: view(Operator), Handle: c.operatorFleet}}
}

// fleetView fills the operator's first page.
type fleetView struct {
	Stores stores.Counts
	Total  int
	Alerts []nextStep
	jobsNow
	FailedRuns int // of the last day
	Breakers   tenantdb.BreakerStats
	Actions    []fleet.BulkAction
}

const (
	fleetServers = 5
	fleetActions = 5
)

func (c *Console) operatorFleet(w http.ResponseWriter, r *Request) error {
	ctx := r.Context()
	counts, err := c.Stores.Counts(ctx, r.Principal)
	if err != nil {
		return err
	}
	v := fleetView{Stores: counts}
	for _, s := range counts.Statuses {
		v.Total += s.Stores
	}
	if v.FailedRuns, err = c.Provisioning.CountFailed(ctx, r.Principal, c.Master.Now().Add(-24*time.Hour)); err != nil {
		return err
	}
	if v.jobsNow, err = c.readJobsNow(ctx, r); err != nil {
		return err
	}
	stats, _, err := c.Stores.TenantStats(ctx, r.Principal)
	if err != nil {
		return err
	}
	v.Breakers = stats.Breakers
	if v.Actions, err = c.Bulk.Latest(ctx, r.Principal, fleetActions); err != nil {
		return err
	}
	v.Alerts = v.alerts()
	return c.render(w, r, http.StatusOK, operatorFrame("fleet", "Fleet"), operatorFleetPage(v))
}

// alerts says what needs an operator, the most urgent first.
func (v fleetView) alerts() (list []nextStep) {
	add := func(n int, one, many, url, label string, kind ui.Kind) {
		if n == 1 {
			list = append(list, nextStep{Text: "1 " + one, URL: url, Label: label, Kind: kind})
		} else if n > 1 {
			list = append(list, nextStep{Text: strconv.Itoa(n) + " " + many, URL: url, Label: label, Kind: kind})
		}
	}
	for _, queue := range v.Queues {
		if isStuck(queue, v.Now) {
			list = append(list, nextStep{Text: stuckWords(queue, v.Now), URL: "/operator/jobs?state=available", Label: "See which", Kind: ui.Danger})
		}
	}
	discarded, _ := jobs.Total(v.Counts, "discarded")
	add(v.Stores.Unreachable, "store's database could not be used.", "stores' databases could not be used.", "/operator/stores?health=unreachable", "See which", ui.Danger)
	add(v.Stores.Failing, "store had failing requests in the last two hours.", "stores had failing requests in the last two hours.", "/operator/stores?health=failing", "See which", ui.Danger)
	add(v.Stores.FailedMigrations, "store's migration failed.", "stores' migrations failed.", "/operator/migrations", "See why", ui.Danger)
	add(int(discarded), "job has failed for good.", "jobs have failed for good.", "/operator/jobs", "See which", ui.Danger)
	add(v.FailedRuns, "provisioning run failed in the last day.", "provisioning runs failed in the last day.", "/operator/runs", "See why", ui.Warning)
	add(v.Stores.Slow, "store was slow in the last two hours.", "stores were slow in the last two hours.", "/operator/stores?health=slow", "See which", ui.Warning)
	add(v.Breakers.Open, "database is left alone by this process, because it does not answer.", "databases are left alone by this process, because they do not answer.", "/operator/servers", "See the servers", ui.Warning)
	add(v.Stores.Behind, "store has an older schema than this release.", "stores have an older schema than this release.", "/operator/stores?behind=on", "See which", ui.Info)
	return list
}

// waiting, running and retried count jobs in words.
func (v fleetView) waiting() string { return countWords(jobs.Total(v.Counts, "available", "pending")) }
func (v fleetView) running() string { return countWords(jobs.Total(v.Counts, "running")) }
func (v fleetView) retried() string { return countWords(jobs.Total(v.Counts, "retryable")) }

// oldest is when the job became due that waits for the longest time, or nil.
func (v fleetView) oldest() (at *time.Time) {
	for _, queue := range v.Queues {
		if queue.Oldest != nil && (at == nil || queue.Oldest.Before(*at)) {
			at = queue.Oldest
		}
	}
	return at
}

// servers are the servers with the most databases.
func (v fleetView) servers() []stores.ServerCount {
	return v.Stores.Servers[:min(len(v.Stores.Servers), fleetServers)]
}

// statusState returns a state of stores in the console's vocabulary.
func statusState(s stores.Status) ui.State {
	if s == stores.Deleted {
		return ui.State{Word: "Deleted", Kind: ui.Info, Icon: "trash"}
	}
	return storeState(stores.Store{Status: s})
}

// schemaWords names a schema by its versions.
func schemaWords(s tenantdb.Schema) string {
	words := strconv.FormatInt(s.Version, 10)
	if s.Own > 0 {
		words += ", custom migrations " + strconv.FormatInt(s.Own, 10)
	}
	return words
}

func isBehind(s, expected tenantdb.Schema) bool {
	return s.Version < expected.Version || s.Own < expected.Own
}
