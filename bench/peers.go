package main

import (
	"context"
	"time"
)

// peersCmd measures the platform beside what others run, on the same work.
type peersCmd struct {
	common
	Stores   []int         `default:"100,1000" help:"Stores behind PgBouncer, each with a PostgreSQL database (8 MB) of its own."`
	Budget   int           `default:"100" help:"Connections to the server, for PgBouncer and for the platform."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"4s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"15s" help:"Load on each side before it is measured."`
	Only     string        `default:"" enum:",pgbouncer,pocketbase" help:"Only the one or the other." placeholder:"PEER"`
}

func (cmd peersCmd) Run(ctx context.Context) error {
	if cmd.Quick {
		cmd.Stores, cmd.Budget, cmd.Rounds, cmd.Duration, cmd.WarmUp = []int{20}, 12, 2, time.Second, time.Second
	}
	if cmd.Only != "pocketbase" {
		for _, stores := range cmd.Stores {
			if err := cmd.pooler(ctx, stores); err != nil {
				return err
			}
		}
	}
	if cmd.Only == "pgbouncer" {
		return nil
	}
	return cmd.pocketbase(ctx)
}
