package main

import (
	"context"
	"fmt"
	"net/url"
)

const sidePooler = "pooler"

// pooler measures the storefront beside what others run for a database per tenant: a bare
// handler that reaches all stores through PgBouncer, with as many connections to the server.
func (cmd peersCmd) pooler(ctx context.Context, stores int) (err error) {
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: stores, prepare: prepareTemplate, open: openCloned, settings: budget(cmd.Budget)})
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
	sides := []side{cmd.storefront(sidePooler, "bare, through PgBouncer", bareAddress, f.shops), cmd.storefront(sideStoa, "stoa", f.address, f.shops)}
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
	if err != nil {
		return err
	}
	r := newReport("peers: PgBouncer", sides, rounds)
	r.About = about(stores, zipf, cmd.Connections, cmd.Rounds, cmd.Duration) + fmt.Sprintf(", a budget of %d connections", cmd.Budget)
	r.tell("throughput, of bare through PgBouncer", r.throughput(sideStoa, sidePooler))
	r.tell("p99, to the same", r.p99(sideStoa, sidePooler))
	return r.finish(cmd.JSON)
}

func (cmd peersCmd) storefront(name, label, address string, shops []shop) side {
	return side{name, label, cmd.WarmUp, cmd.load(address, shops, zipf, cmd.Duration)}
}
