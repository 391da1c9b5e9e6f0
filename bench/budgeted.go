package main

import (
	"context"
	"fmt"
	"time"
)

// budgetFlags are the options of the measurements with many more stores than connections.
type budgetFlags struct {
	common
	Stores   int           `default:"1000" help:"Stores, each with a PostgreSQL database (8 MB) of its own."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"10s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"60s" help:"Load on the platform before it is measured, once each store was asked for."`
}

// fleetCmd creates the stores once for both measurements.
type fleetCmd struct{ budgetFlags }

func (cmd fleetCmd) Run(ctx context.Context) error {
	return cmd.run(ctx, zipfMeasurement, uniformMeasurement)
}

// budgeted is one of these measurements.
type budgeted struct {
	name   string
	budget int // number of connections, for the platform and for the baseline
	quick  int // number of connections for the few stores of a quick run
	draw   draw
	single bool // also compare with a bare handler for one store
	judge  func(*report)
}

const (
	sideCache = "bareBudget"

	// These are the application_names of their connections at the server.
	stoaApplication  = "stoa"
	cacheApplication = "bench-cache"
)

func (flags budgetFlags) run(ctx context.Context, all ...budgeted) (err error) {
	if flags.Quick {
		flags.Stores, flags.Connections, flags.Rounds, flags.Duration, flags.WarmUp = 40, 8, 2, 2*time.Second, 2*time.Second
		for i := range all {
			all[i].budget = all[i].quick
		}
	}
	f, err := startFleet(ctx, flags.Postgres, fleetPlan{
		stores: flags.Stores, prepare: prepareTemplate, open: openCloned, settings: budget(all[0].budget),
	})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	for _, m := range all {
		if err == nil {
			err = flags.measure(ctx, f, m)
		}
	}
	return err
}

func (flags budgetFlags) measure(ctx context.Context, f *fleet, m budgeted) error {
	progress("%s: a budget of %d connections", m.name, m.budget)
	private, err := f.listenPrivately(ctx)
	if err != nil {
		return err
	}
	if err := f.restart(ctx, append(budget(m.budget), private)); err != nil {
		return err
	}
	cache, cacheAddress, err := startBare(ctx, f.shops, bareJob{Cached: m.budget})
	if err != nil {
		return err
	}
	defer cache.stop()
	sides := []side{flags.side(sideCache, fmt.Sprintf("bare, LRU of %d connections", m.budget), flags.load(cacheAddress, f.shops, m.draw, flags.Duration))}
	if m.single {
		bare, bareAddress, err := startBare(ctx, f.shops[:1], bareJob{Connections: flags.Connections})
		if err != nil {
			return err
		}
		defer bare.stop()
		if err := sameAnswer(ctx, f.shops[0], bareAddress, f.address); err != nil {
			return err
		}
		sides = append(sides, flags.side(sideBare, "bare, one store", flags.load(bareAddress, f.shops[:1], m.draw, flags.Duration)))
	}
	if err := sameAnswer(ctx, f.shops[0], cacheAddress, f.address); err != nil {
		return err
	}
	stoa := flags.side(sideStoa, "stoa", flags.load(f.address, f.shops, m.draw, flags.Duration))
	stoa.warm = flags.WarmUp
	counters := map[string]connectCounter{sideCache: cacheConnects(cacheAddress), sideStoa: f.connects}
	return flags.report(ctx, f, m, append(sides, stoa), counters)
}

// side returns a side whose turns begin with a time that does not count. In it the platform
// reloads what has expired during the other sides' turns: a hostname is looked up again
// after five seconds.
func (flags budgetFlags) side(name, label string, j job) side {
	j.Settle = flags.Duration / 5
	return side{name: name, label: label, job: j, warm: min(flags.WarmUp, 10*time.Second)}
}

func (flags budgetFlags) report(ctx context.Context, f *fleet, m budgeted, sides []side, counters map[string]connectCounter) error {
	stop := watch(ctx, f.databases.connections)
	defer stop() //nolint:errcheck // an earlier error is returned
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	rounds, err := takeTurns(ctx, flags.Rounds, sides, func(ctx context.Context, s side) (result, error) {
		return countConnects(ctx, s, counters[s.name])
	})
	if err != nil {
		return err
	}
	connections, err := stop()
	if err != nil {
		return err
	}
	r := newReport(m.name, sides, rounds)
	r.About = about(flags.Stores, m.draw, flags.Connections, flags.Rounds, flags.Duration) + fmt.Sprintf(", a budget of %d connections", m.budget)
	m.judge(r)
	r.tell("hit rate, the best possible: the busiest stores keep a connection each", figure{Value: m.draw.share(m.budget, flags.Stores)})
	r.tell("hit rate of stoa: requests for which no connection was made", r.hitRate(sideStoa))
	r.tell("hit rate of the bare LRU", r.hitRate(sideCache))
	r.atMost("connections of stoa, as the server saw them", figure{Value: float64(connections[stoaApplication])}, float64(m.budget)).Must = true
	r.tell("connections of the bare LRU", figure{Value: float64(connections[cacheApplication])})
	return r.finish(flags.JSON)
}
