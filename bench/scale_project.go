package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// assumptions describe the platform that is computed from what was measured.
type assumptions struct {
	Stores          float64 `default:"1000000" help:"Stores of the platform."`
	ActivePerSecond float64 `default:"500" help:"Different stores that shoppers ask for within a second."`
	Spends          float64 `default:"50" help:"Spends per second, of all stores together."`
	Changes         float64 `default:"0.1" help:"Changes of one store in a day that servers must hear of: name, state, hostnames, credentials."`
	SignIns         float64 `default:"0.2" help:"Sign-ins in one day, per store."`
	NewStores       float64 `default:"2000" help:"New stores in a day."`
	Hours           float64 `default:"6" help:"Hours of a day in which a store has shoppers, on average."`
	AuditPerDay     float64 `default:"0.5" help:"Entries in the audit log in a day, per store."`
	LedgerYears     float64 `default:"1" help:"Age of the ledger, which is never deleted."`
	AuditDays       float64 `default:"400" help:"STOA_AUDIT_RETENTION in days."`
	Archives        float64 `default:"17" help:"Archives that are kept of a store; the default schedule makes one a day and keeps 17."`
	ArchivesPerDay  float64 `default:"1" help:"Archives that are made of a store in a day."`

	Replicas             float64 `default:"4" help:"Servers ('stoa serve')."`
	ConnectionsPerServer float64 `default:"90" help:"STOA_CONNECTIONS_PER_SERVER."`
	StoresPerServer      float64 `default:"5000" help:"Stores on one tenant database server."`
	IdleTimeout          float64 `default:"300" help:"Seconds after which an unused connection to a store is closed."`
	EmbeddedShare        float64 `default:"0.6" help:"Share of the stores that are SQLite files."`
	SQLiteRate           float64 `name:"sqlite-rate" help:"SQLite stores that one process migrates in a second; 0 measures it."`
	PostgreSQLRate       float64 `name:"postgresql-rate" help:"PostgreSQL stores that one process migrates in a second; 0 measures it."`
}

// rowsPerStore returns how many rows of the tables one store has on the assumed platform,
// where that differs from the generated stores.
func (a assumptions) rowsPerStore() map[string]float64 {
	spends := a.Spends * day / a.Stores // of one store in a day
	return map[string]float64{
		"credit_transactions": spends * 365 * a.LedgerYears,
		"event_ranges":        spends * 30, // each spend alone: a busy store's have one together
		"events":              a.Changes * 30,
		"audit_events":        a.AuditPerDay * a.AuditDays,
		"store_traffic":       a.Hours * 30,
		"backups":             a.Archives,
		"refresh_tokens":      a.SignIns * 30,
		"sessions":            a.SignIns * 30,
		"change_log":          a.Changes * 600 / day,                   // kept for ten minutes
		"river_job":           spends + a.Changes + a.ArchivesPerDay*3, // jobs are kept for a day; an archive is made, checked and an older one deleted
	}
}

const day = 24 * 60 * 60 // seconds

// sweepEvery is the interval of each periodic job.
var sweepEvery = map[string]time.Duration{
	"credits.sweep_feed": time.Minute, "credits.sweep": time.Minute, "credits.summarize": 2 * time.Minute, "stores.count": 2 * time.Minute,
	"backups.due": 5 * time.Minute, "webhooks.sweep": 5 * time.Minute, "fleet.migrations": 10 * time.Minute, "stoa.supabase_revoke": 10 * time.Minute,
	"stoa.delete_expired": time.Hour, "stores.check_hostnames": time.Hour,
}

// line is a straight line fitted to measurements: value = Base + PerStore × stores.
type line struct {
	Base     float64 `json:"base"`
	PerStore float64 `json:"perStore"`
}

func (l line) at(stores float64) float64 { return max(l.Base+l.PerStore*stores, 0) }

// fit returns the line with the least squares of relative errors, so that the small sizes
// count as well as the large ones.
func fit(stores, values []float64) line {
	var w, wx, wy, wxx, wxy float64
	for i, x := range stores {
		y := values[i]
		weight := 1 / math.Max(y*y, 1e-12)
		w, wx, wy = w+weight, wx+weight*x, wy+weight*y
		wxx, wxy = wxx+weight*x*x, wxy+weight*x*y
	}
	slope := 0.0
	if d := w*wxx - wx*wx; d != 0 {
		slope = (w*wxy - wx*wy) / d
	}
	return line{Base: (wy - slope*wx) / w, PerStore: slope}
}

// superlinear reports whether values grow faster between the two largest sizes than between
// the sizes before, by more than half. Differences below noise do not count.
func superlinear(stores, values []float64, noise float64) bool {
	n := len(values)
	if n < 3 {
		return false
	}
	late := (values[n-1] - values[n-2]) / (stores[n-1] - stores[n-2])
	early := (values[n-2] - values[n-3]) / (stores[n-2] - stores[n-3])
	return values[n-1]-values[n-2] > noise && late > 1.5*math.Max(early, 0) && values[n-1]/values[n-2] > 1.5*stores[n-1]/stores[n-2]
}

// projected is one line of the projection.
type projected struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// tableProjection is a table of the assumed platform.
type tableProjection struct {
	Name         string  `json:"name"`
	BytesPerRow  float64 `json:"bytesPerRow"`
	RowsPerStore float64 `json:"rowsPerStore"`
	Bytes        float64 `json:"bytes"`
	Inserts      float64 `json:"insertsPerSecond"`
	Updates      float64 `json:"updatesPerSecond"`
	Deletes      float64 `json:"deletesPerSecond"`
}

// rates returns how often each operation happens in a second.
func (a assumptions) rates() map[string]float64 {
	return map[string]float64{
		opSpend: a.Spends, opChange: a.Changes * a.Stores / day, opStore: a.NewStores / day, opSignIn: a.SignIns * a.Stores / day,
	}
}

// tables computes the size of each table and its writes, the largest first.
func (a assumptions) tables(largest *scaleSize) []tableProjection {
	assumed := a.rowsPerStore()
	var out []tableProjection
	for _, t := range largest.Tables {
		if t.Rows < float64(largest.Stores)/20 { // does not grow with stores
			continue
		}
		p := tableProjection{Name: t.Name, BytesPerRow: t.Bytes / t.Rows, RowsPerStore: t.Rows / float64(largest.Stores)}
		if n, ok := assumed[t.Name]; ok {
			p.RowsPerStore = n
		}
		p.Bytes = p.BytesPerRow * p.RowsPerStore * a.Stores
		out = append(out, p)
	}
	a.addWrites(out, largest)
	slices.SortFunc(out, func(x, y tableProjection) int { return int(math.Copysign(1, y.Bytes-x.Bytes)) })
	return out
}

func (a assumptions) addWrites(tables []tableProjection, largest *scaleSize) {
	for i := range tables {
		t := &tables[i]
		for op, rate := range a.rates() {
			if c := largest.Costs[op]; c != nil {
				w := c.Writes[t.Name]
				t.Inserts, t.Updates, t.Deletes = t.Inserts+rate*w.Inserts, t.Updates+rate*w.Updates, t.Deletes+rate*w.Deletes
			}
		}
		switch t.Name {
		case "store_traffic": // a row for each store and hour with shoppers
			t.Inserts += a.Hours * a.Stores / day
			t.Deletes += a.Hours * a.Stores / day
		case "backups":
			t.Inserts += a.ArchivesPerDay * a.Stores / day
			t.Deletes += a.ArchivesPerDay * a.Stores / day
		}
	}
}

// project computes the platform.
func (a assumptions) project(sizes []*scaleSize, tables []tableProjection) (out []projected) {
	add := func(what string, value float64, unit string) {
		out = append(out, projected{what, value, unit})
	}
	largest := sizes[len(sizes)-1]
	size := 0.0
	for _, t := range tables {
		size += t.Bytes
	}
	add("size of the master", size/1e9, "GB")
	registry, ledger := 0.0, a.rowsPerStore()
	for _, t := range tables {
		if _, grows := ledger[t.Name]; !grows {
			registry += t.Bytes
		}
	}
	add("of these, rows that stores have whatever they do", registry/1e9, "GB")
	notifications, bytes, jobs := 0.0, 0.0, 0.0
	for op, rate := range a.rates() {
		c := largest.Costs[op]
		notifications, bytes, jobs = notifications+rate*c.Notifications, bytes+rate*c.Bytes, jobs+rate*c.Writes["river_job"].Inserts
	}
	add("notifications to each server", notifications, "/s")
	add("bytes of these", bytes/1e3, "kB/s")
	add("jobs of spends, changes and new stores", jobs, "/s")
	add("jobs of archives", 3*a.ArchivesPerDay*a.Stores/day, "/s")
	add("archives to be made", a.ArchivesPerDay*a.Stores/day, "/s")
	add("connections to the master", a.Replicas*float64(sum(largest.Connections)), "")
	out = append(out, a.databases()...)
	busy := 0.0
	for kind, every := range sweepEvery {
		busy += fitOf(sizes, func(s *scaleSize) float64 { return s.Sweeps[kind] }).at(a.Stores) / inMS(every)
	}
	add("time of one worker in periodic jobs", busy*100, "%")
	return out
}

// databases computes what the stores' databases need.
func (a assumptions) databases() []projected {
	own := a.Stores * (1 - a.EmbeddedShare)
	servers := max(math.Ceil(own/a.StoresPerServer), 1)
	open := a.ActivePerSecond * (1 - a.EmbeddedShare) * a.IdleTimeout / servers // at most: every second other stores
	return []projected{
		{"tenant database servers", servers, ""},
		{"connections to each of them, of all servers", min(open, a.Replicas*a.ConnectionsPerServer), ""},
		{"these if nothing limited them", min(open, a.StoresPerServer), ""},
		{fmt.Sprintf("fleet migration, one process: SQLite at %.0f/s", a.SQLiteRate), a.Stores * a.EmbeddedShare / a.SQLiteRate / 3600, "h"},
		{fmt.Sprintf("fleet migration, one process: PostgreSQL at %.0f/s", a.PostgreSQLRate), own / a.PostgreSQLRate / 3600, "h"},
	}
}

func fitOf(sizes []*scaleSize, value func(*scaleSize) float64) line {
	stores, values := column(sizes, value)
	return fit(stores, values)
}

func column(sizes []*scaleSize, value func(*scaleSize) float64) (stores, values []float64) {
	for _, s := range sizes {
		stores, values = append(stores, float64(s.Stores)), append(values, value(s))
	}
	return stores, values
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
