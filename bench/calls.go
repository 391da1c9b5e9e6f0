package main

import (
	"context"
	"fmt"
	"maps"
	"time"
)

const balancePath = "/api/credits/balance"

// These are the targets for signed-in users' calls: a balance, as a share of a bare handler
// with one query, and spends, as a multiple of those of an earlier binary.
const (
	balanceTarget = 0.7
	spendsTarget  = 3.0
)

const (
	sideBalanceBare, sideBalance, sideBalanceBase = "balanceBare", "balance", "balanceBase"
	sideSpends, sideSpendsBase                    = "spends", "spendsBase"
)

// callsCmd measures calls that check a session: the balance of a store, and spends of one
// credit over HTTP. An earlier binary may serve the same master beside.
type callsCmd struct {
	common
	Base     string        `help:"An earlier binary of stoa; unless told, its sides are left out." placeholder:"FILE" type:"existingfile"`
	Sessions int           `default:"32" help:"Sessions of the user, which take turns."`
	Callers  int           `default:"64" help:"Connections of load, each with one request under way."`
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"4s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"4s" help:"Load on each side before it is measured."`
}

func (cmd callsCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Sessions, cmd.Rounds, cmd.Duration, cmd.WarmUp = 4, 2, time.Second, time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: 1, open: openEmbedded})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	if err := enrich(ctx, f, f.shops[0]); err != nil {
		return err
	}
	tokens, err := cmd.signIn(ctx, f)
	if err != nil {
		return err
	}
	bare, bareAddress, err := startBare(ctx, nil, bareJob{Connections: cmd.Connections, Master: f.master})
	if err != nil {
		return err
	}
	defer bare.stop()
	read := target{Host: "localhost", Path: balancePath + "?storeId=" + f.shops[0].id, Marker: `"balance":`}
	spend := target{Host: "localhost", Path: "/api/credits/spend?storeId=" + f.shops[0].id, Body: `{"amount":"1"}`, Marker: `"transaction"`}
	reads := []side{
		cmd.side(sideBalanceBare, "balance, bare", bareAddress, read, nil),
		cmd.side(sideBalance, "balance", f.address, read, tokens),
	}
	spends := []side{cmd.side(sideSpends, "spends", f.address, spend, tokens)}
	if cmd.Base != "" {
		// A master that this release has made refuses earlier ones, for the sake of webhooks.
		if err := execMaster(ctx, f, `UPDATE schema_compatibility SET oldest_binary = 1`); err != nil {
			return err
		}
		base, err := beside(ctx, f.platform, "base", cmd.Base, nil)
		if err != nil {
			return err
		}
		defer base.process.stop()
		reads = append(reads, cmd.side(sideBalanceBase, "balance, earlier binary", base.address, read, tokens))
		spends = append(spends, cmd.side(sideSpendsBase, "spends, earlier binary", base.address, spend, tokens))
	}
	// All reads come first: what follows spends would run beside the reads after them.
	var rounds []round
	for _, sides := range [][]side{reads, spends} {
		if err := warmUp(ctx, sides); err != nil {
			return err
		}
		more, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
		if err != nil {
			return err
		}
		rounds = join(rounds, more)
	}
	r := newReport("calls", append(reads, spends...), rounds)
	r.About = fmt.Sprintf("one store, %d sessions, %d connections of load, %d rounds of %gs, medians", cmd.Sessions, cmd.Callers, cmd.Rounds, cmd.Duration.Seconds())
	r.atLeast("balance, of a bare handler with one query", r.throughput(sideBalance, sideBalanceBare), balanceTarget)
	if cmd.Base != "" {
		r.tell("balance, of the earlier binary", r.throughput(sideBalance, sideBalanceBase))
		r.atLeast("spends, of the earlier binary", r.throughput(sideSpends, sideSpendsBase), spendsTarget)
	}
	return r.finish(cmd.JSON)
}

// join adds the sides of more rounds to rounds.
func join(rounds, more []round) []round {
	if rounds == nil {
		return more
	}
	for i := range rounds {
		maps.Copy(rounds[i], more[i])
	}
	return rounds
}

// signIn returns the access tokens of several sessions of the fleet's owner.
func (cmd callsCmd) signIn(ctx context.Context, f *fleet) ([]string, error) {
	tokens := make([]string, cmd.Sessions)
	for i := range tokens {
		var session struct{ AccessToken string }
		err := f.owner.call(ctx, "POST", "/api/auth/login", object{"email": "owner@bench.example", "password": "many-shops-under-1-roof"}, &session)
		if err != nil {
			return nil, err
		}
		tokens[i] = session.AccessToken
	}
	return tokens, nil
}

// side sends the request with each of the tokens in turn.
func (cmd callsCmd) side(name, label, address string, t target, tokens []string) side {
	j := job{Address: address, Connections: cmd.Callers, Duration: cmd.Duration, Draw: goRound}
	if len(tokens) == 0 {
		j.Targets = []target{t}
	}
	for _, token := range tokens {
		with := t
		with.Token = token
		j.Targets = append(j.Targets, with)
	}
	return side{name, label, cmd.WarmUp, j}
}
