package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// round holds the result of each side in one round, by the side's name.
type round map[string]result

// report is the result of a whole measurement.
type report struct {
	Measurement string    `json:"measurement"`
	About       string    `json:"about"`
	Medians     round     `json:"medians"` // over the rounds; counts are sums
	Figures     []*figure `json:"figures"`
	Rounds      []round   `json:"rounds"`

	sides []side
}

// figure is a result of a measurement: a comparison of two sides, within each round, or a
// count.
type figure struct {
	What    string  `json:"what"`
	Value   float64 `json:"value"` // for a comparison, the median over the rounds
	Unit    string  `json:"unit,omitempty"`
	Spread  *spread `json:"spread,omitempty"`
	Target  float64 `json:"target,omitempty"` // 0 means none
	AtMost  bool    `json:"atMost,omitempty"` // the target is an upper limit
	Reached bool    `json:"reached,omitempty"`
	Must    bool    `json:"must,omitempty"` // missing the target is an error
}

type spread struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

func newReport(measurement string, sides []side, rounds []round) *report {
	r := &report{Measurement: measurement, Medians: round{}, Rounds: rounds, sides: sides}
	for _, s := range sides {
		var results []result
		for _, turn := range rounds {
			results = append(results, turn[s.name])
		}
		r.Medians[s.name] = medians(results)
	}
	return r
}

func about(stores int, d draw, connections, rounds int, each time.Duration) string {
	return fmt.Sprintf("GET %s over %d stores (%s), %d connections of load, %d rounds of %gs, medians",
		storefrontPath, stores, d, connections, rounds, each.Seconds())
}

// each returns the median of a value of one side over the rounds.
func (r *report) each(of string, value func(result) float64) figure {
	var values []float64
	for _, turn := range r.Rounds {
		values = append(values, value(turn[of]))
	}
	return figure{Value: median(values), Spread: &spread{Min: slices.Min(values), Max: slices.Max(values)}}
}

// compare compares two sides within each round. Differences between rounds do not count.
func (r *report) compare(of, to string, value func(result) float64) figure {
	var ratios []float64
	for _, turn := range r.Rounds {
		ratios = append(ratios, value(turn[of])/value(turn[to]))
	}
	return figure{Value: median(ratios), Spread: &spread{Min: slices.Min(ratios), Max: slices.Max(ratios)}}
}

func (r *report) throughput(of, to string) figure {
	return r.compare(of, to, func(x result) float64 { return x.Throughput })
}

func (r *report) p99(of, to string) figure {
	return r.compare(of, to, func(x result) float64 { return float64(x.P99) })
}

// tell adds a figure that has no target.
func (r *report) tell(what string, f figure) *figure {
	f.What = what
	r.Figures = append(r.Figures, &f)
	return &f
}

func (r *report) atLeast(what string, f figure, target float64) {
	f.Target, f.Reached = target, f.Value >= target
	r.tell(what, f)
}

func (r *report) atMost(what string, f figure, target float64) *figure {
	f.Target, f.AtMost, f.Reached = target, true, f.Value <= target
	return r.tell(what, f)
}

func medians(results []result) result {
	var out result
	var throughput []float64
	var p50, p95, p99 []time.Duration
	for _, r := range results {
		out.Requests += r.Requests
		out.Sent += r.Sent
		out.Connects += r.Connects
		out.Unavailable += r.Unavailable
		out.Errors += r.Errors
		if out.FirstError == "" {
			out.FirstError = r.FirstError
		}
		throughput, p50, p95, p99 = append(throughput, r.Throughput), append(p50, r.P50), append(p95, r.P95), append(p99, r.P99)
		out.Slowest = max(out.Slowest, r.Slowest)
	}
	out.Throughput, out.P50, out.P95, out.P99 = median(throughput), median(p50), median(p95), median(p99)
	return out
}

// median returns the median. For an even number of values it is the mean of the middle two.
func median[T time.Duration | float64](values []T) T {
	values = slices.Sorted(slices.Values(values))
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}

// finish prints the report. It returns an error for wrong answers of any side and for
// missed targets with Must. Other missed targets are not errors.
func (r *report) finish(asJSON bool) error {
	if err := r.print(os.Stdout, asJSON); err != nil {
		return err
	}
	var errs []error
	for _, s := range r.sides {
		if m := r.Medians[s.name]; m.Errors > 0 {
			errs = append(errs, fmt.Errorf("%s: %d wrong answers, the first: %s", s.label, m.Errors, m.FirstError))
		}
	}
	for _, f := range r.Figures {
		if f.Must && !f.Reached {
			errs = append(errs, fmt.Errorf("%s: %s", f.What, f))
		}
	}
	return errors.Join(errs...)
}

func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Fprintf(w, "\n%s: %s\n\n", r.Measurement, r.About)
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tthroughput\tp50\tp99\tslowest\trequests\tunavailable\terrors\t")
	for _, s := range r.sides {
		m := r.Medians[s.name]
		fmt.Fprintf(table, "%s\t%.0f/s\t%s\t%s\t%s\t%d\t%d\t%d\t\n", s.label, m.Throughput,
			milliseconds(m.P50), milliseconds(m.P99), milliseconds(m.Slowest), m.Requests, m.Unavailable, m.Errors)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, f := range r.Figures {
		fmt.Fprintf(w, "  %s: %s\n", f.What, f)
	}
	return nil
}

func (f *figure) String() string {
	s := fmt.Sprintf("%.3f", f.Value)
	if f.Spread == nil {
		s = fmt.Sprintf("%.4g", f.Value)
	}
	s += f.Unit
	if f.Spread != nil {
		s += fmt.Sprintf(" (%.3f–%.3f over the rounds)", f.Spread.Min, f.Spread.Max)
	}
	if f.Target == 0 {
		return s
	}
	bound, verdict := "at least", "not reached"
	if f.AtMost {
		bound = "at most"
	}
	if f.Reached {
		verdict = "reached"
	}
	return fmt.Sprintf("%s; target %s %g%s: %s", s, bound, f.Target, f.Unit, verdict)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
