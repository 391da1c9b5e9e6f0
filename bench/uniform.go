package main

import "context"

// uniformCmd measures the worst case: many stores, all equally busy, and few connections.
// Few requests find their store connected. It checks that all requests are answered and
// that the server never has more connections than the limit.
type uniformCmd struct{ budgetFlags }

func (cmd uniformCmd) Run(ctx context.Context) error { return cmd.run(ctx, uniformMeasurement) }

var uniformMeasurement = budgeted{
	name: "uniform", budget: 50, quick: 10, draw: uniform,
	judge: func(r *report) {
		r.tell("throughput, of bare over all stores in the same budget", r.throughput(sideStoa, sideCache))
		r.tell("p99, to the same", r.p99(sideStoa, sideCache))
	},
}
