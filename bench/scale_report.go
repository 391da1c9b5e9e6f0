package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
)

// scaleReport is the result of the measurement and of the projection.
type scaleReport struct {
	*report
	Assumed   assumptions       `json:"assumptions"`
	Sizes     []*scaleSize      `json:"sizes"`
	Growth    []growth          `json:"growth"`
	Tables    []tableProjection `json:"tables"`
	Projected []projected       `json:"projected"`
}

// growth is one measure over the sizes, and what the fitted line gives for the platform.
type growth struct {
	What   string    `json:"what"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
	line
	Projected   float64 `json:"projected"`
	Superlinear bool    `json:"superlinear,omitempty"` // grows faster than the stores
}

func (cmd scaleCmd) report(sizes []*scaleSize) *scaleReport {
	largest := sizes[len(sizes)-1]
	r := &scaleReport{report: &report{Measurement: "scale"}, Assumed: cmd.Assume, Sizes: sizes}
	r.About = fmt.Sprintf("the registry with %v stores, each list %d times, medians; then computed for %.0f stores", cmd.Sizes, cmd.Requests, cmd.Assume.Stores)
	r.grow(cmd.Assume.Stores)
	r.Tables = cmd.Assume.tables(largest)
	r.Projected = cmd.Assume.project(sizes, r.Tables)
	list, command := slowest(largest.Lists), slowest(largest.Commands[:listingCommands])
	r.atMost("slowest list, "+list.Name, figure{Value: list.MS, Unit: " ms"}, scaleListTarget)
	r.atMost("slowest command, "+command.Name, figure{Value: command.MS, Unit: " ms"}, scaleCLITarget)
	r.atMost("ready", figure{Value: largest.ReadyMS, Unit: " ms"}, scaleReadyTarget)
	r.atMost("ready when all stores lag", figure{Value: largest.LaggingReadyMS, Unit: " ms"}, scaleReadyTarget)
	return r
}

func slowest(list []timing) timing {
	return slices.MaxFunc(list, func(a, b timing) int { return cmp.Compare(a.MS, b.MS) })
}

// grow fits a line to each measure.
func (r *scaleReport) grow(stores float64) {
	add := func(what, unit string, noise float64, value func(*scaleSize) float64) {
		x, y := column(r.Sizes, value)
		l := fit(x, y)
		r.Growth = append(r.Growth, growth{What: what, Unit: unit, Values: y, line: l, Projected: l.at(stores), Superlinear: superlinear(x, y, noise)})
	}
	const mib = 1 << 20
	add("master as generated", "MiB", 10, func(s *scaleSize) float64 { return s.Bytes / mib })
	add("backup of the master", "s", 5, func(s *scaleSize) float64 { return s.BackupSeconds })
	add("size of the backup", "MiB", 5, func(s *scaleSize) float64 { return s.BackupBytes / mib })
	add("ready", "ms", 200, func(s *scaleSize) float64 { return s.ReadyMS })
	add("ready when all stores lag", "ms", 200, func(s *scaleSize) float64 { return s.LaggingReadyMS })
	add("memory after the start", "MiB", 20, func(s *scaleSize) float64 { return s.MemoryMiB })
	add("memory at its peak", "MiB", 20, func(s *scaleSize) float64 { return s.PeakMemoryMiB })
	add("idle: transactions in a minute", "", 500, func(s *scaleSize) float64 { return s.Transactions })
	add("idle: rows read in a minute", "", 1e6, func(s *scaleSize) float64 { return s.RowsRead })
	add("scrape of /metrics", "ms", 50, func(s *scaleSize) float64 { return s.ScrapeMS })
	for _, kind := range slices.Sorted(maps.Keys(sweepEvery)) {
		add("job "+kind, "ms", 50, func(s *scaleSize) float64 { return s.Sweeps[kind] })
	}
	for i, l := range r.Sizes[0].Lists {
		add(l.Name, "ms", 50, func(s *scaleSize) float64 { return s.Lists[i].MS })
	}
	for i, c := range r.Sizes[0].Commands {
		add(c.Name, "ms", 200, func(s *scaleSize) float64 { return s.Commands[i].MS })
		add(c.Name+", memory", "MiB", 20, func(s *scaleSize) float64 { return s.Commands[i].MemMiB })
	}
}

func (r *scaleReport) finish(asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	w := os.Stdout
	fmt.Fprintf(w, "\n%s: %s\n\n", r.Measurement, r.About)
	if err := r.printGrowth(w); err != nil {
		return err
	}
	if err := r.printCosts(w); err != nil {
		return err
	}
	if err := r.printTables(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nassumed: %+v\n\n", r.Assumed)
	for _, p := range r.Projected {
		fmt.Fprintf(w, "  %s: %.4g %s\n", p.What, p.Value, p.Unit)
	}
	fmt.Fprintln(w)
	for _, f := range r.Figures {
		fmt.Fprintf(w, "  %s: %s\n", f.What, f)
	}
	return nil
}

func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
}

func (r *scaleReport) printGrowth(w io.Writer) error {
	t := newTable(w)
	fmt.Fprint(t, "stores\t")
	for _, s := range r.Sizes {
		fmt.Fprintf(t, "%d\t", s.Stores)
	}
	fmt.Fprintf(t, "%.0f, fitted\t\t\n", r.Assumed.Stores)
	for _, g := range r.Growth {
		fmt.Fprintf(t, "%s\t", g.What)
		for _, v := range g.Values {
			fmt.Fprintf(t, "%.4g\t", v)
		}
		note := ""
		if g.Superlinear {
			note = "faster than stores"
		}
		fmt.Fprintf(t, "%.4g\t%s %s\t\n", g.Projected, g.Unit, note)
	}
	return t.Flush()
}

// printCosts prints the rows that one operation writes, at the largest size.
func (r *scaleReport) printCosts(w io.Writer) error {
	fmt.Fprintln(w, "\nwritten by one operation, with its background work:")
	t := newTable(w)
	fmt.Fprintln(t, "\ttable\tinserts\tupdates\tdeletes\t")
	costs := r.Sizes[len(r.Sizes)-1].Costs
	for _, op := range slices.Sorted(maps.Keys(costs)) {
		fmt.Fprintf(t, "%s\tnotifications: %.1f of %.0f bytes\t\t\t\t\n", op, costs[op].Notifications, costs[op].Bytes)
		for _, name := range slices.Sorted(maps.Keys(costs[op].Writes)) {
			if c := costs[op].Writes[name]; c.sum() >= 0.2 {
				fmt.Fprintf(t, "\t%s\t%.1f\t%.1f\t%.1f\t\n", name, c.Inserts, c.Updates, c.Deletes)
			}
		}
	}
	return t.Flush()
}

func (r *scaleReport) printTables(w io.Writer) error {
	fmt.Fprintf(w, "\ntables of %.0f stores:\n", r.Assumed.Stores)
	t := newTable(w)
	fmt.Fprintln(t, "\tbytes of a row\trows of a store\tGB\tinserts/s\tupdates/s\tdeletes/s\t")
	for _, p := range r.Tables {
		fmt.Fprintf(t, "%s\t%.0f\t%.3g\t%.3g\t%.3g\t%.3g\t%.3g\t\n", p.Name, p.BytesPerRow, p.RowsPerStore, p.Bytes/1e9, p.Inserts, p.Updates, p.Deletes)
	}
	return t.Flush()
}
