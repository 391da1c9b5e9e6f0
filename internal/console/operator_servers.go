package console

import (
	"net/http"
	"time"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
)

func (c *Console) operatorServerRoutes() []Route {
	return []Route{{Pattern: "GET /operator/servers", RouteOptions: view(Operator), Handle: c.operatorServers}}
}

// serversView fills the page of the database servers.
type serversView struct {
	Rows    []serverRow
	Stats   tenantdb.Stats
	Limits  tenantdb.Limits
	Counted time.Time
}

// serverRow is one server with what this process has open there.
type serverRow struct {
	stores.ServerCount
	Connections, Waiting int
}

// chartServers is the number of servers in the chart, those with the most connections.
const chartServers = 12

func (c *Console) operatorServers(w http.ResponseWriter, r *Request) error {
	counts, err := c.Stores.Counts(r.Context(), r.Principal)
	if err != nil {
		return err
	}
	v := serversView{Counted: counts.At}
	if v.Stats, v.Limits, err = c.Stores.TenantStats(r.Context(), r.Principal); err != nil {
		return err
	}
	open := map[string]limit.Server{}
	for _, s := range v.Stats.Servers {
		open[s.Server] = s
	}
	for _, s := range counts.Servers {
		row := serverRow{ServerCount: s, Connections: open[s.Name()].Open, Waiting: open[s.Name()].Waiting}
		if s.Host == "" {
			row.Connections = v.Stats.Embedded
		}
		v.Rows = append(v.Rows, row)
	}
	return c.render(w, r, http.StatusOK, operatorFrame("servers", "Servers"), operatorServersPage(v))
}

// connections is the chart of the connections of this process to each server.
func (v serversView) connections() ui.Chart {
	chart := ui.Chart{Title: "Connections of this process by server", Unit: "connections", Columns: true}
	open, waiting := ui.Series{Name: "Open"}, ui.Series{Name: "Callers that wait"}
	for _, s := range v.Stats.Servers[:min(len(v.Stats.Servers), chartServers)] {
		chart.Labels = append(chart.Labels, s.Server)
		open.Values = append(open.Values, float64(s.Open))
		waiting.Values = append(waiting.Values, float64(s.Waiting))
	}
	chart.Series = []ui.Series{open, waiting}
	return chart
}

// pools is the chart of the open databases of this process.
func (v serversView) pools() ui.Chart {
	s := v.Stats
	return ui.Chart{Title: "Open databases of this process", Unit: "databases", Columns: true,
		Labels: []string{"Open", "In use", "Embedded", "Draining"},
		Series: []ui.Series{{Name: "Databases", Values: []float64{float64(s.Open), float64(s.Leased), float64(s.Embedded), float64(s.Draining)}}},
	}
}
