package main

import "context"

// What the store front is meant to reach over a thousand stores that share a
// hundred connections, beside a bare handler over the same stores that keeps
// within the same hundred.
const (
	zipfTarget    = 0.90 // of its throughput
	zipfTargetP99 = 2.0  // times its 99th percentile at most
)

// zipfCmd measures many stores of which few are busy, as on a real platform.
type zipfCmd struct{ budgetFlags }

func (cmd zipfCmd) Run(ctx context.Context) error { return cmd.run(ctx, zipfMeasurement) }

var zipfMeasurement = budgeted{
	name: "zipf", budget: 100, quick: 12, draw: zipf, single: true,
	judge: func(r *report) {
		r.atLeast("throughput, of bare over all stores in the same budget", r.throughput(sideStoa, sideCache), zipfTarget)
		r.atMost("p99, to the same", r.p99(sideStoa, sideCache), zipfTargetP99)
		r.tell("throughput, of bare over one store with all the connections it wants", r.throughput(sideStoa, sideBare))
		r.tell("throughput of bare in the budget, of the same: what the budget costs, whoever keeps it", r.throughput(sideCache, sideBare))
	},
}
