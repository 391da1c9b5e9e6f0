package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// These are the limits for the time from the connect-database call to an active store,
// while other stores are connected concurrently.
const (
	provisionTargetSQLite   = 50  // ms
	provisionTargetPostgres = 400 // ms
)

const (
	sideSQLite   = "sqlite"
	sidePostgres = "postgresql"
	sideSchema   = "schemaAlone"
)

// provisionCmd measures how long connect-database takes: on a file of the platform's own
// and on an empty PostgreSQL database. The baseline is the time that the server needs for
// the schema alone: one connection of the bare driver sends all migrations in one text,
// with the same concurrency.
type provisionCmd struct {
	common
	Stores  int `default:"40" help:"Stores that each side opens in one round."`
	AtATime int `default:"8" help:"How many of them at a time."`
	Rounds  int `default:"5" help:"How often each side is measured, in turns."`

	schema string
}

func (cmd provisionCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Rounds = 8, 2
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	sides := []side{
		{name: sideSQLite, label: "stoa, SQLite"},
		{name: sidePostgres, label: "stoa, PostgreSQL"},
		{name: sideSchema, label: "bare driver, PostgreSQL, the schema alone"},
	}
	if cmd.schema, err = readSchema(ctx); err != nil {
		return err
	}
	progress("warming up")
	for _, s := range sides {
		if _, err := cmd.turn(ctx, f, s, cmd.AtATime); err != nil {
			return err
		}
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, func(ctx context.Context, s side) (result, error) {
		return cmd.turn(ctx, f, s, cmd.Stores)
	})
	if err != nil {
		return err
	}
	r := newReport("provision", sides, rounds)
	r.About = fmt.Sprintf("POST connect-database until the store is active, %d stores a turn, %d at a time, %d rounds, medians",
		cmd.Stores, cmd.AtATime, cmd.Rounds)
	for _, s := range []struct {
		name   string
		target float64
	}{{sideSQLite, provisionTargetSQLite}, {sidePostgres, provisionTargetPostgres}} {
		r.atMost("from the call to active, "+s.name, figure{Value: inMilliseconds(r.Medians[s.name].P50), Unit: " ms"}, s.target)
	}
	r.tell("from the call to active, postgresql, to the schema alone", r.compare(sidePostgres, sideSchema, func(x result) float64 { return float64(x.P50) }))
	return r.finish(cmd.JSON)
}

// turn creates the stores and databases that the side needs, and measures how long each
// takes to become active, or to have its schema.
func (cmd provisionCmd) turn(ctx context.Context, f *fleet, s side, stores int) (result, error) {
	open := make([]func(context.Context) error, stores)
	err := inParallel(ctx, stores, func(ctx context.Context, i int) (err error) {
		open[i], err = cmd.prepare(ctx, f, s)
		return err
	})
	if err != nil {
		return result{}, err
	}
	took := make([]time.Duration, stores)
	begin := time.Now()
	err = atATime(ctx, cmd.AtATime, stores, func(ctx context.Context, i int) error {
		start := time.Now()
		err := open[i](ctx)
		took[i] = time.Since(start)
		return err
	})
	if err != nil {
		return result{}, err
	}
	whole := time.Since(begin)
	slices.Sort(took)
	return result{
		Requests: stores, Throughput: float64(stores) / whole.Seconds(),
		P50: median(took), P99: took[stores*99/100], Slowest: took[stores-1],
	}, nil
}

// prepare creates one store or database of the side. It returns the function to measure.
func (cmd provisionCmd) prepare(ctx context.Context, f *fleet, s side) (open func(context.Context) error, err error) {
	name, databaseURL := fmt.Sprintf("p%04d", f.opened.Add(1)), ""
	if s.name != sideSQLite {
		if databaseURL, err = f.databases.create(ctx, name); err != nil {
			return nil, err
		}
	}
	if s.name == sideSchema {
		return func(ctx context.Context) error { return runAlone(ctx, databaseURL, cmd.schema) }, nil
	}
	id, err := f.owner.create(ctx, "bench-"+name)
	database := managed()
	if databaseURL != "" {
		database = postgresAt(databaseURL)
	}
	return func(ctx context.Context) error { return f.owner.connect(ctx, id, database) }, err
}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
