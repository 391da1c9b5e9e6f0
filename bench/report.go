package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// round is one turn of each side, by its name.
type round map[string]result

// readsReport is the outcome of the whole measurement.
type readsReport struct {
	Stores      int     `json:"stores"`
	Connections int     `json:"connections"`
	Seconds     float64 `json:"secondsPerRound"`
	Uniform     bool    `json:"uniform"`
	Medians     round   `json:"medians"`  // over the rounds; requests and errors are sums
	Ratio       spread  `json:"ratio"`    // of throughput, stoa to the bare handler over one store
	RatioAll    spread  `json:"ratioAll"` // …to the bare handler over the same stores
	Target      float64 `json:"target"`   // for Ratio
	Reached     bool    `json:"reached"`
	Rounds      []round `json:"rounds"`
}

type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (r *readsReport) summarise() {
	r.Medians = round{}
	for _, name := range []string{sideBare, sideBareAll, sideStoa} {
		var results []result
		for _, turn := range r.Rounds {
			results = append(results, turn[name])
		}
		r.Medians[name] = medians(results)
	}
	r.Ratio, r.RatioAll = r.stoaTo(sideBare), r.stoaTo(sideBareAll)
	r.Reached = r.Ratio.Median >= r.Target
}

// stoaTo compares within each round: what is between rounds does not count.
func (r *readsReport) stoaTo(yardstick string) spread {
	var ratios []float64
	for _, turn := range r.Rounds {
		ratios = append(ratios, turn[sideStoa].Throughput/turn[yardstick].Throughput)
	}
	return spread{Median: median(ratios), Min: slices.Min(ratios), Max: slices.Max(ratios)}
}

func medians(results []result) result {
	var out result
	var throughput []float64
	var p50, p99 []time.Duration
	for _, r := range results {
		out.Requests += r.Requests
		out.Errors += r.Errors
		if out.FirstError == "" {
			out.FirstError = r.FirstError
		}
		throughput, p50, p99 = append(throughput, r.Throughput), append(p50, r.P50), append(p99, r.P99)
	}
	out.Throughput, out.P50, out.P99 = median(throughput), median(p50), median(p99)
	return out
}

// median of an even number of values is the mean of the middle two.
func median[T time.Duration | float64](values []T) T {
	values = slices.Sorted(slices.Values(values))
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}

// errors reports answers that were wrong, on any side.
func (r *readsReport) errors() error {
	var errs []error
	for name, m := range r.Medians {
		if m.Errors > 0 {
			errs = append(errs, fmt.Errorf("%s: %d wrong answers, the first: %s", name, m.Errors, m.FirstError))
		}
	}
	return errors.Join(errs...)
}

func (r *readsReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	pattern := "going round"
	if r.Uniform {
		pattern = "at random"
	}
	fmt.Fprintf(w, "\nGET %s over %d stores (%s), %d connections, %d rounds of %gs, medians\n\n",
		storefrontPath, r.Stores, pattern, r.Connections, len(r.Rounds), r.Seconds)
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tthroughput\tp50\tp99\trequests\terrors\t")
	for _, row := range []struct{ name, label string }{
		{sideBare, "bare, one store"}, {sideBareAll, "bare, all stores"}, {sideStoa, "stoa, all stores"},
	} {
		m := r.Medians[row.name]
		fmt.Fprintf(table, "%s\t%.0f/s\t%s\t%s\t%d\t%d\t\n", row.label, m.Throughput,
			milliseconds(m.P50), milliseconds(m.P99), m.Requests, m.Errors)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	verdict := "not reached"
	if r.Reached {
		verdict = "reached"
	}
	_, err := fmt.Fprintf(w, "\nOf the throughput of the bare handler, Stoa has\n"+
		"  over one store   %s; target %.2f %s\n"+
		"  over all stores  %s: what the platform itself costs\n", r.Ratio, r.Target, verdict, r.RatioAll)
	return err
}

func (s spread) String() string {
	return fmt.Sprintf("%.3f (%.3f–%.3f over the rounds)", s.Median, s.Min, s.Max)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
