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
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	bare, bareAddress, err := startBare(ctx, f.shops[:1], cmd.Connections)
	if err != nil {
		return err
	}
	defer bare.stop()
	bareAll, bareAllAddress, err := startBare(ctx, f.shops, cmd.Connections)
	if err != nil {
		return err
	}
	defer bareAll.stop()
	if err := sameAnswer(ctx, f.shops[0], bareAddress, bareAllAddress, f.address); err != nil {
		return err
	}
	report, err := cmd.measure(ctx, []side{
		{sideBare, cmd.load(bareAddress, f.shops[:1])},
		{sideBareAll, cmd.load(bareAllAddress, f.shops)},
		{sideStoa, cmd.load(f.address, f.shops)},
	})
	if err != nil {
		return err
	}
	if err := report.print(os.Stdout, cmd.JSON); err != nil {
		return err
	}
	return report.errors()
}

// side is one of those that are compared. They differ in their address and
// in how many stores are behind it.
type side struct {
	name string
	job
}

const (
	sideBare    = "bare"
	sideBareAll = "bareAll"
	sideStoa    = "stoa"
)

func (cmd readsCmd) load(address string, shops []shop) job {
	j := job{Address: address, Connections: cmd.Connections, Duration: cmd.Duration, Uniform: cmd.Uniform}
	for _, s := range shops {
		j.Targets = append(j.Targets, s.target())
	}
	return j
}

// measure lets the sides take turns, so that whatever else the machine does
// falls on all, and changes each time who goes first.
func (cmd readsCmd) measure(ctx context.Context, sides []side) (*readsReport, error) {
	progress("warming up")
	for _, s := range sides {
		s.Duration = max(s.Duration/2, time.Second)
		if _, err := runLoad(ctx, s.job); err != nil {
			return nil, err
		}
	}
	report := &readsReport{Stores: cmd.Stores, Connections: cmd.Connections, Seconds: cmd.Duration.Seconds(), Uniform: cmd.Uniform, Target: readsTarget}
	for i := range cmd.Rounds {
		r := round{}
		for turn := range sides {
			s := sides[(i+turn)%len(sides)]
			var err error
			if r[s.name], err = runLoad(ctx, s.job); err != nil {
				return nil, err
			}
		}
		report.Rounds = append(report.Rounds, r)
		progress("round %d of %d: bare %.0f/s, over all stores %.0f/s, stoa %.0f/s", i+1, cmd.Rounds,
			r[sideBare].Throughput, r[sideBareAll].Throughput, r[sideStoa].Throughput)
	}
	report.summarise()
	return report, nil
}

// sameAnswer makes sure that all sides do the same work: for one store they
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
			return fmt.Errorf("the sides answer differently, so they cannot be compared (see bare.go):\n%s\n%s", first, body)
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
