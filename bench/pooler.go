package main

import (
	"context"
	"fmt"
	"net/url"
	"time"
)

const sidePooler = "pooler"

// poolerCmd measures the storefront beside what others run for a database per tenant: a bare
// handler that reaches all stores through PgBouncer, with as many connections to the server.
type poolerCmd struct {
	common
	Stores   int           `default:"100" help:"Stores, each with a PostgreSQL database (8 MB) of its own."`
	Budget   int           `default:"100" help:"Connections to the server, for each side."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"5s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"20s" help:"Load on each side before it is measured, once each store was asked for."`
}

func (cmd poolerCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Budget, cmd.Rounds, cmd.Duration, cmd.WarmUp = 20, 12, 2, time.Second, time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: cmd.Stores, prepare: prepareTemplate, open: openCloned, settings: budget(cmd.Budget)})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	server, err := url.Parse(cmd.Postgres)
	if err != nil {
		return fmt.Errorf("--postgres is no URL")
	}
	pgbouncer, pooler, err := startPooler(ctx, f.folder, server, f.template.owner, cmd.Budget)
	if err != nil {
		return err
	}
	defer pgbouncer.stop()
	pooled, err := through(pooler, f.shops)
	if err != nil {
		return err
	}
	// Connections to PgBouncer are cheap: each store has more than one of those that wait.
	bare, bareAddress, err := startBare(ctx, pooled, bareJob{Connections: 4 * len(pooled)})
	if err != nil {
		return err
	}
	defer bare.stop()
	if err := sameAnswer(ctx, f.shops[0], bareAddress, f.address); err != nil {
		return err
	}
	sides := []side{cmd.side(sidePooler, "bare, through PgBouncer", bareAddress, f.shops), cmd.side(sideStoa, "stoa", f.address, f.shops)}
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
	if err != nil {
		return err
	}
	r := newReport("pooler", sides, rounds)
	r.About = about(cmd.Stores, zipf, cmd.Connections, cmd.Rounds, cmd.Duration) + fmt.Sprintf(", a budget of %d connections", cmd.Budget)
	r.tell("throughput, of bare through PgBouncer", r.throughput(sideStoa, sidePooler))
	r.tell("p99, to the same", r.p99(sideStoa, sidePooler))
	return r.finish(cmd.JSON)
}

func (cmd poolerCmd) side(name, label, address string, shops []shop) side {
	return side{name, label, cmd.WarmUp, cmd.load(address, shops, zipf, cmd.Duration)}
}
