package main

import (
	"context"
	"time"
)

// readsTarget is the target for the storefront's throughput, as a share of the bare
// handler's.
const readsTarget = 0.85

const (
	sideBare    = "bare"
	sideBareAll = "bareAll"
	sideStoa    = "stoa"
)

// readsCmd measures the storefront when every store has a connection. It shows the cost of
// the platform itself.
type readsCmd struct {
	common
	Stores   int           `default:"100" help:"Stores, each with a database of its own."`
	Budget   int           `default:"200" help:"STOA_CONNECTIONS_PER_SERVER of the platform: all stores have room."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"4s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"10s" help:"Load on each side before it is measured, once each store was asked for."`
	Uniform  bool          `help:"Draw each request's store at random instead of going round."`
}

func (cmd readsCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Rounds, cmd.Duration, cmd.WarmUp = 10, 3, time.Second, time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: cmd.Stores, open: openOwn, settings: budget(cmd.Budget)})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	bare, bareAddress, err := startBare(ctx, f.shops[:1], bareJob{Connections: cmd.Connections})
	if err != nil {
		return err
	}
	defer bare.stop()
	bareAll, bareAllAddress, err := startBare(ctx, f.shops, bareJob{Connections: cmd.Connections})
	if err != nil {
		return err
	}
	defer bareAll.stop()
	if err := sameAnswer(ctx, f.shops[0], bareAddress, bareAllAddress, f.address); err != nil {
		return err
	}
	d := goRound
	if cmd.Uniform {
		d = uniform
	}
	return cmd.measure(ctx, d, []side{
		{sideBare, "bare, one store", cmd.WarmUp, cmd.load(bareAddress, f.shops[:1], d, cmd.Duration)},
		{sideBareAll, "bare, all stores", cmd.WarmUp, cmd.load(bareAllAddress, f.shops, d, cmd.Duration)},
		{sideStoa, "stoa, all stores", cmd.WarmUp, cmd.load(f.address, f.shops, d, cmd.Duration)},
	})
}

func (cmd readsCmd) measure(ctx context.Context, d draw, sides []side) error {
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
	if err != nil {
		return err
	}
	r := newReport("reads", sides, rounds)
	r.About = about(cmd.Stores, d, cmd.Connections, cmd.Rounds, cmd.Duration)
	r.atLeast("throughput, of bare over one store", r.throughput(sideStoa, sideBare), readsTarget)
	r.tell("throughput, of bare over all stores: what the platform itself costs", r.throughput(sideStoa, sideBareAll))
	return r.finish(cmd.JSON)
}
