package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// readsTarget is the share of the bare handler's throughput that the store
// front is meant to reach.
const readsTarget = 0.85

const storefrontPath = "/api/storefront/store"

type readsCmd struct {
	Postgres    string        `required:"" env:"STOA_TEST_POSTGRES_URL" help:"A PostgreSQL where this may make databases and roles; they are dropped at the end." placeholder:"URL"`
	Stores      int           `default:"100" help:"Stores, each with a database of its own."`
	Connections int           `default:"16" help:"Keep-alive connections, each with one request under way."`
	Rounds      int           `default:"5" help:"How often each side is measured, in turns."`
	Duration    time.Duration `default:"4s" help:"Length of one round of one side."`
	Uniform     bool          `help:"Draw each request's store at random instead of going round."`
	Quick       bool          `help:"10 stores, 3 rounds of 1 s: to see that it works."`
	JSON        bool          `help:"Print JSON."`
}

func (cmd readsCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Rounds, cmd.Duration = 10, 3, time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, cmd.Stores)
	if f != nil {
		defer func() { err = f.stop(err) }()
	}
	if err != nil {
		return err
	}
	bare, bareAddress, err := startBare(ctx, f.shops[0].databaseURL, cmd.Connections)
	if err != nil {
		return err
	}
	defer bare.stop()
	if err := sameAnswer(ctx, f.shops[0], bareAddress, f.address); err != nil {
		return err
	}
	bareJob, stoaJob := cmd.jobs(f, bareAddress)
	report, err := cmd.measure(ctx, bareJob, stoaJob)
	if err != nil {
		return err
	}
	if err := report.print(os.Stdout, cmd.JSON); err != nil {
		return err
	}
	if n := report.Bare.Errors + report.Stoa.Errors; n > 0 {
		return fmt.Errorf("%d answers were wrong, first: %s", n, report.firstError())
	}
	return nil
}

// jobs are the two loads that are compared: they differ in the address and in
// how many stores are behind it.
func (cmd readsCmd) jobs(f *fleet, bareAddress string) (bare, stoa job) {
	bare = job{Address: bareAddress, Connections: cmd.Connections, Duration: cmd.Duration, Uniform: cmd.Uniform}
	stoa = bare
	stoa.Address = f.address
	for _, s := range f.shops {
		stoa.Targets = append(stoa.Targets, s.target())
	}
	bare.Targets = stoa.Targets[:1]
	return bare, stoa
}

// measure alternates the sides, so that whatever else the machine does falls
// on both, and changes each time who goes first.
func (cmd readsCmd) measure(ctx context.Context, bare, stoa job) (*readsReport, error) {
	progress("warming up")
	for _, side := range []job{bare, stoa} {
		side.Duration = max(side.Duration/2, time.Second)
		if _, err := runLoad(ctx, side); err != nil {
			return nil, err
		}
	}
	report := &readsReport{Stores: cmd.Stores, Connections: cmd.Connections, Seconds: cmd.Duration.Seconds(), Uniform: cmd.Uniform, Target: readsTarget}
	for i := range cmd.Rounds {
		order := []*job{&bare, &stoa}
		if i%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		var r round
		for _, side := range order {
			result, err := runLoad(ctx, *side)
			if err != nil {
				return nil, err
			}
			if side == &bare {
				r.Bare = result
			} else {
				r.Stoa = result
			}
		}
		r.Ratio = r.Stoa.Throughput / r.Bare.Throughput
		report.Rounds = append(report.Rounds, r)
		progress("round %d of %d: bare %.0f/s, stoa %.0f/s, ratio %.3f", i+1, cmd.Rounds, r.Bare.Throughput, r.Stoa.Throughput, r.Ratio)
	}
	report.summarise()
	return report, nil
}

// sameAnswer makes sure that both sides do the same work: for one store they
// must give the same body, byte for byte.
func sameAnswer(ctx context.Context, s shop, addresses ...string) error {
	var first []byte
	for i, address := range addresses {
		body, err := fetch(ctx, address, s.host)
		if err != nil {
			return err
		}
		if i == 0 {
			first = body
		} else if !bytes.Equal(first, body) {
			return fmt.Errorf("the two sides answer differently, so they cannot be compared (see bare.go):\n%s\n%s", first, body)
		}
	}
	return nil
}

func fetch(ctx context.Context, address, host string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+storefrontPath, nil)
	if err != nil {
		return nil, err
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// progress goes to the standard error stream: standard output is for results.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
