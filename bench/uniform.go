package main

import "context"

// uniformCmd measures the worst of cases: many stores, all as busy, and few
// connections. Hardly a request finds its store connected. What is asked is
// that all are answered and the server sees no connection too many.
type uniformCmd struct{ budgetFlags }

func (cmd uniformCmd) Run(ctx context.Context) error { return cmd.run(ctx, uniformMeasurement) }

var uniformMeasurement = budgeted{
	name: "uniform", budget: 50, quick: 10, draw: uniform,
	judge: func(r *report) {
		r.tell("throughput, of bare over all stores in the same budget", r.throughput(sideStoa, sideCache))
		r.tell("p99, to the same", r.p99(sideStoa, sideCache))
	},
}
