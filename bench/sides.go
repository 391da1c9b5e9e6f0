package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const storefrontPath = "/api/storefront/store"

// common are the options of every measurement.
type common struct {
	Postgres    string `required:"" env:"STOA_TEST_POSTGRES_URL" help:"A PostgreSQL where this may make databases and roles; they are dropped at the end." placeholder:"URL"`
	Connections int    `default:"16" help:"Keep-alive connections of load, each with one request under way."`
	Quick       bool   `help:"Few stores and short rounds: to see that it works."`
	JSON        bool   `help:"Print JSON."`
}

// side is one of the systems to compare.
type side struct {
	name  string // in JSON
	label string // in the table
	warm  time.Duration
	job
}

func (c common) load(address string, shops []shop, d draw, duration time.Duration) job {
	j := job{Address: address, Connections: c.Connections, Duration: duration, Draw: d}
	for _, s := range shops {
		j.Targets = append(j.Targets, s.target())
	}
	return j
}

// warmUp sends each side one request for each of its stores, and then the measured load, so
// that the measurement shows the steady state. It stops at a wrong answer.
func warmUp(ctx context.Context, sides []side) error {
	for _, s := range sides {
		progress("warming up: %s", s.label)
		once := s.job
		once.Draw, once.Requests, once.Settle, once.Duration = goRound, len(s.Targets), 0, 10*time.Minute
		usual := s.job
		usual.Duration, usual.Settle = s.warm, 0
		for _, j := range []job{once, usual} {
			res, err := runLoad(ctx, j)
			if err != nil {
				return err
			}
			if res.Errors > 0 {
				return fmt.Errorf("%s, while warming up: %d wrong answers, the first: %s", s.label, res.Errors, res.FirstError)
			}
		}
	}
	return nil
}

// takeTurns runs each side in every round, so that other load on the machine affects all
// sides. It changes the order of the sides from round to round.
func takeTurns(ctx context.Context, rounds int, sides []side, run func(context.Context, side) (result, error)) ([]round, error) {
	var out []round
	for i := range rounds {
		r := round{}
		for turn := range sides {
			s := sides[(i+turn)%len(sides)]
			var err error
			if r[s.name], err = run(ctx, s); err != nil {
				return nil, err
			}
		}
		out = append(out, r)
		var line []string
		for _, s := range sides {
			line = append(line, fmt.Sprintf("%s %.0f/s", s.label, r[s.name].Throughput))
		}
		progress("round %d of %d: %s", i+1, rounds, strings.Join(line, "; "))
	}
	return out, nil
}

func runSide(ctx context.Context, s side) (result, error) { return runLoad(ctx, s.job) }

// sameAnswer checks that all sides do the same work: for one store they must return the
// same body, byte for byte.
func sameAnswer(ctx context.Context, s shop, addresses ...string) error {
	var first []byte
	for i, address := range addresses {
		_, body, err := fetch(ctx, address, s.host)
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

func fetch(ctx context.Context, address, host string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+storefrontPath, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// progress prints to standard error, because standard output is for results.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
