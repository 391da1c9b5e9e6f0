package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// round is one turn of each side.
type round struct {
	Bare  result  `json:"bare"`
	Stoa  result  `json:"stoa"`
	Ratio float64 `json:"ratio"` // of throughput, stoa to bare
}

// readsReport is the outcome of the whole measurement. Bare and Stoa hold
// medians over the rounds, and sums of requests and errors.
type readsReport struct {
	Stores      int     `json:"stores"`
	Connections int     `json:"connections"`
	Seconds     float64 `json:"secondsPerRound"`
	Uniform     bool    `json:"uniform"`
	Bare        result  `json:"bare"`
	Stoa        result  `json:"stoa"`
	Ratio       spread  `json:"ratio"`
	Target      float64 `json:"target"`
	Reached     bool    `json:"reached"`
	Rounds      []round `json:"rounds"`
}

type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (r *readsReport) summarise() {
	var bare, stoa []result
	var ratios []float64
	for _, turn := range r.Rounds {
		bare, stoa = append(bare, turn.Bare), append(stoa, turn.Stoa)
		ratios = append(ratios, turn.Ratio)
	}
	r.Bare, r.Stoa = medians(bare), medians(stoa)
	r.Ratio = spread{Median: median(ratios), Min: slices.Min(ratios), Max: slices.Max(ratios)}
	r.Reached = r.Ratio.Median >= r.Target
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

func (r *readsReport) firstError() string {
	if r.Bare.FirstError != "" {
		return "bare: " + r.Bare.FirstError
	}
	return "stoa: " + r.Stoa.FirstError
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
	for _, side := range []struct {
		name string
		result
	}{{"bare", r.Bare}, {"stoa", r.Stoa}} {
		fmt.Fprintf(table, "%s\t%.0f/s\t%s\t%s\t%d\t%d\t\n", side.name, side.Throughput,
			milliseconds(side.P50), milliseconds(side.P99), side.Requests, side.Errors)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	verdict := "not reached"
	if r.Reached {
		verdict = "reached"
	}
	_, err := fmt.Fprintf(w, "\nstoa/bare %.3f of the throughput (%.3f–%.3f over the rounds); target %.2f %s\n",
		r.Ratio.Median, r.Ratio.Min, r.Ratio.Max, r.Target, verdict)
	return err
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
