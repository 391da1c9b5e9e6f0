package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// victimTargetP99 is the limit for the slowdown of the other stores, at the 99th
// percentile, while one store's database accepts connections and never answers.
const victimTargetP99 = 1.25

const (
	sideCalm        = "othersCalm"
	sideFault       = "othersFault"
	sideVictimCalm  = "victimCalm"
	sideVictimFault = "victimFault"
)

// victimCmd measures how much the other stores slow down while one store's database hangs.
type victimCmd struct {
	common
	Stores   int           `default:"100" help:"Stores, each with a database of its own; the first is the victim."`
	Budget   int           `default:"200" help:"STOA_CONNECTIONS_PER_SERVER of the platform: all stores have room."`
	Rounds   int           `default:"4" help:"How often both are measured, in turns."`
	Duration time.Duration `default:"20s" help:"Length of one turn. A hanging store is noticed within ten seconds or so; a turn should last longer."`
	WarmUp   time.Duration `default:"5s" help:"Load on each side before it is measured, once each store was asked for."`
}

// The victim receives requests at a fixed rate, whatever it answers. The other stores thus
// have the same load from it when its requests fail as when they succeed.
const (
	victimConnections = 4
	victimPace        = 20 * time.Millisecond
)

func (cmd victimCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Stores, cmd.Rounds, cmd.Duration, cmd.WarmUp = 10, 2, 3*time.Second, time.Second
	}
	h := &hanging{}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{
		stores: cmd.Stores, prepare: prepareTemplate, settings: budget(cmd.Budget),
		open: func(ctx context.Context, f *fleet, name string) (shop, error) {
			if name != "001" {
				return openCloned(ctx, f, name)
			}
			return h.openBehind(ctx, f, name)
		},
	})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	defer h.proxy.Stop()
	return cmd.measure(ctx, f, h)
}

func (cmd victimCmd) measure(ctx context.Context, f *fleet, h *hanging) error {
	victim := cmd.load(f.address, f.shops[:1], goRound, cmd.Duration)
	victim.Connections, victim.Pace, victim.Unavailable = victimConnections, victimPace, "tenant_unavailable"
	calm := cmd.load(f.address, f.shops[1:], goRound, cmd.Duration)
	others := []side{
		{sideCalm, "others, all well", cmd.WarmUp, calm},
		{sideFault, "others, one store hangs", 0, calm},
	}
	if err := warmUp(ctx, append(others[:1:1], side{sideVictimCalm, "the victim, while well", time.Second, victim})); err != nil {
		return err
	}
	answers := map[string][]result{} // results of the victim, by the side of the other stores
	var recoveries []time.Duration
	rounds, err := takeTurns(ctx, cmd.Rounds, others, func(ctx context.Context, s side) (result, error) {
		if s.name == sideFault {
			if err := h.begin(); err != nil {
				return result{}, err
			}
		}
		res, answer, err := together(ctx, s.job, victim)
		answers[s.name] = append(answers[s.name], answer)
		if s.name == sideFault && err == nil {
			var took time.Duration
			took, err = h.end(ctx, f.address, f.shops[0])
			recoveries = append(recoveries, took)
		}
		return res, err
	})
	if err != nil {
		return err
	}
	for i, r := range rounds {
		r[sideVictimCalm], r[sideVictimFault] = answers[sideCalm][i], answers[sideFault][i]
	}
	r := newReport("victim", append(others, side{sideVictimCalm, "victim, while well", 0, victim}, side{sideVictimFault, "victim, while it hangs", 0, victim}), rounds)
	r.About = about(cmd.Stores, goRound, cmd.Connections, cmd.Rounds, cmd.Duration) +
		fmt.Sprintf("; one store is asked by itself, %d times a second at most", victimConnections*int(time.Second/victimPace))
	cmd.judge(r, recoveries)
	return r.finish(cmd.JSON)
}

func (cmd victimCmd) judge(r *report, recoveries []time.Duration) {
	r.atMost("p99 of the others, to all being well", r.p99(sideFault, sideCalm), victimTargetP99)
	r.tell("throughput of the others, of all being well", r.throughput(sideFault, sideCalm))
	hung := r.Medians[sideVictimFault]
	r.tell("answers 503 tenant_unavailable for the victim, of all it had", figure{Value: float64(hung.Unavailable) / float64(max(hung.Requests, 1))})
	r.tell("slowest answer for the victim", figure{Value: hung.Slowest.Seconds(), Unit: " s"})
	r.tell("until the victim is served again, once its database answers", figure{Value: median(recoveries).Seconds(), Unit: " s"})
}

// together runs two jobs at once, each in its own process.
func together(ctx context.Context, a, b job) (result, result, error) {
	type outcome struct {
		result
		err error
	}
	other := make(chan outcome, 1)
	go func() {
		r, err := runLoad(ctx, b)
		other <- outcome{r, err}
	}()
	r, err := runLoad(ctx, a)
	o := <-other
	return r, o.result, errors.Join(err, o.err)
}

// hanging is a proxy in front of one store's database that can accept connections and never
// answer.
type hanging struct {
	proxy *toxiproxy.Proxy
}

// openBehind opens the store whose database the platform reaches through the proxy.
func (h *hanging) openBehind(ctx context.Context, f *fleet, name string) (shop, error) {
	databaseURL, err := f.databases.createFrom(ctx, f.template, name)
	if err != nil {
		return shop{}, err
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		return shop{}, errors.New("the store's database has no proper address")
	}
	if err := h.listen("127.0.0.1:0", u.Host); err != nil {
		return shop{}, err
	}
	u.Host = h.proxy.Listen
	return f.openAt(ctx, name, u.String(), databaseURL)
}

func (h *hanging) listen(address, upstream string) error {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	h.proxy = toxiproxy.NewProxy(server, "victim", address, upstream)
	return h.proxy.Start()
}

func (h *hanging) begin() error {
	_, err := h.proxy.Toxics.AddToxicJson(strings.NewReader(`{"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`))
	return err
}

// end replaces the proxy by a healthy one, which closes the hanging connections, and waits
// until the store is served again. It returns how long that took.
func (h *hanging) end(ctx context.Context, platform string, victim shop) (time.Duration, error) {
	h.proxy.Stop()
	if err := h.listen(h.proxy.Listen, h.proxy.Upstream); err != nil {
		return 0, err
	}
	start := time.Now()
	for {
		status, body, err := fetch(ctx, platform, victim.host)
		if err != nil {
			return 0, err
		}
		took := time.Since(start)
		if status == http.StatusOK {
			return took, nil
		}
		if took > time.Minute {
			return took, fmt.Errorf("the victim did not recover: %s", body)
		}
		select {
		case <-ctx.Done():
			return took, ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}
