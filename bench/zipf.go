package main

import "context"

// These are the targets for the storefront over a thousand stores that share a hundred
// connections, compared with a bare handler for the same stores and the same limit.
const (
	zipfTarget    = 1.1 // multiple of the bare handler's throughput
	zipfTargetP99 = 2.0 // maximum multiple of the bare handler's 99th percentile
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
