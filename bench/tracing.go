package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The targets for the storefront's throughput with tracing, as a share of that without.
const (
	offTarget     = 0.99
	sampledTarget = 0.97
)

const (
	sideWithout = "without"
	sideOff     = "off"
	sideSampled = "sampled"
	sideTraced  = "traced"
)

// tracingCmd measures what traces cost: processes of the platform that differ in this setting
// only serve the same stores.
type tracingCmd struct {
	common
	Base     string        `help:"A binary of stoa that was built without tracing, such as the release before; unless told, the side is left out." placeholder:"FILE" type:"existingfile"`
	Stores   int           `default:"20" help:"Stores, each with a database of its own."`
	Rounds   int           `default:"9" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"4s" help:"Length of one round of one side."`
	WarmUp   time.Duration `default:"5s" help:"Load on each side before it is measured, once each store was asked for."`
}

func (cmd tracingCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Rounds, cmd.Duration, cmd.WarmUp = 5, 3, time.Second, time.Second
	}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer collector.Close()
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: cmd.Stores, open: openOwn})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	sides := []side{cmd.side(sideOff, "off by configuration", f.platform, f.shops)}
	for _, s := range []struct {
		name, label, binary string
		settings            []string
	}{
		{sideWithout, "built without", cmd.Base, nil},
		{sideSampled, "1 % recorded", f.binary, traced(collector.URL, "0.01")},
		{sideTraced, "all recorded", f.binary, traced(collector.URL, "1")},
	} {
		if s.binary == "" {
			continue
		}
		p, err := beside(ctx, f.platform, s.name, s.binary, s.settings)
		if err != nil {
			return err
		}
		defer p.process.stop()
		sides = append(sides, cmd.side(s.name, s.label, p, f.shops))
	}
	return cmd.measure(ctx, sides)
}

func (cmd tracingCmd) side(name, label string, p *platform, shops []shop) side {
	return side{name, label, cmd.WarmUp, cmd.load(p.address, shops, goRound, cmd.Duration)}
}

func traced(url, share string) []string {
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + url, "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + share}
}

// beside starts another process on the data of p.
func beside(ctx context.Context, p *platform, name, binary string, settings []string) (*platform, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	other := &platform{binary: binary, folder: filepath.Join(p.folder, name), master: p.master}
	if other.port, err = freePort(ctx); err != nil {
		return nil, err
	}
	other.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(other.port))
	if err := os.Mkdir(other.folder, 0o700); err != nil {
		return nil, err
	}
	// The keys of the first process are in its data directory.
	if err := other.start(ctx, append([]string{"STOA_DATA_DIR=" + p.data()}, settings...)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return other, nil
}

func (cmd tracingCmd) measure(ctx context.Context, sides []side) error {
	if err := warmUp(ctx, sides); err != nil {
		return err
	}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, runSide)
	if err != nil {
		return err
	}
	r := newReport("tracing", sides, rounds)
	r.About = about(cmd.Stores, goRound, cmd.Connections, cmd.Rounds, cmd.Duration)
	base := sideOff
	if cmd.Base != "" {
		base = sideWithout
		r.atLeast("throughput, off by configuration, of that built without", r.throughput(sideOff, base), offTarget)
	}
	r.atLeast("throughput, 1 % recorded, of none", r.throughput(sideSampled, base), sampledTarget)
	r.tell("throughput, all recorded, of none", r.throughput(sideTraced, base))
	r.tell("p99, all recorded, to none", r.p99(sideTraced, base))
	return r.finish(cmd.JSON)
}
