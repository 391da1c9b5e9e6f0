package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// These are the targets of webhooks: the latency that Convoy publishes for 200 events a second
// on PostgreSQL (frain-dev/convoy#2795), a rate that lasts, and what a dead endpoint may cost.
const (
	webhookP95Target  = 130.0 // ms
	webhookRateTarget = 1000.0
	deadTarget        = 1.25
)

const (
	sideSteady, sideFast         = "steady", "fast"
	sideAllAlive, sideOneIsDead  = "alive", "dead"
	webhookEndpoints             = 100
	shopOfOne, shopAlive, shopOf = 0, 1, 2 // the stores of the sides; shopOf has the dead endpoint
)

// webhooksCmd measures events from the time of their transaction to their arrival. The events
// are spends.
type webhooksCmd struct {
	common
	Rounds   int           `default:"5" help:"How often each side is measured, in turns."`
	Duration time.Duration `default:"6s" help:"Length of one round of one side."`
}

func (cmd webhooksCmd) Run(ctx context.Context) (err error) {
	if cmd.Quick {
		cmd.Rounds, cmd.Duration = 1, 2*time.Second
	}
	f, err := startFleet(ctx, cmd.Postgres, fleetPlan{stores: 3, open: openEmbedded, settings: []string{"STOA_QUOTA_WEBHOOKS=0"}, prepare: verifyEmails})
	if f != nil {
		defer func() { err = f.stop(ctx, err) }()
	}
	if err != nil {
		return err
	}
	arrivals, err := startArrivals(ctx)
	if err != nil {
		return err
	}
	defer arrivals.close()
	if err := arrivals.addEndpoints(ctx, f); err != nil {
		return err
	}
	sides := []side{{name: sideSteady, label: "200/s to one"}, {name: sideFast, label: "1,300/s to one"}, {name: sideAllAlive, label: "to 100"}, {name: sideOneIsDead, label: "to 100, one dead"}}
	rounds, err := takeTurns(ctx, cmd.Rounds, sides, func(ctx context.Context, s side) (result, error) {
		switch s.name {
		case sideSteady:
			return arrivals.measure(ctx, f, shopOfOne, 1, 200, cmd.Duration)
		case sideFast:
			return arrivals.measure(ctx, f, shopOfOne, 1, 1300, cmd.Duration)
		case sideAllAlive:
			return arrivals.measure(ctx, f, shopAlive, webhookEndpoints, 3, cmd.Duration)
		}
		return arrivals.measure(ctx, f, shopOf, webhookEndpoints-1, 3, cmd.Duration)
	})
	if err != nil {
		return err
	}
	r := newReport("webhooks", sides, rounds)
	r.About = fmt.Sprintf("events of spends from their transaction to their arrival, %d rounds of %gs, medians; load and endpoints share the machine", cmd.Rounds, cmd.Duration.Seconds())
	p95 := func(name string) figure { return figure{Value: inMilliseconds(r.Medians[name].P95), Unit: " ms"} }
	r.atMost("p95 at 200/s", p95(sideSteady), webhookP95Target)
	r.atLeast("deliveries, when 1,300/s are made", figure{Value: r.Medians[sideFast].Throughput, Unit: "/s"}, webhookRateTarget)
	r.tell("p95 at 1,300/s", p95(sideFast))
	r.tell("p95 to 100 endpoints", p95(sideAllAlive))
	r.atMost("p95 of 99 endpoints beside a dead one, of all alive", r.compare(sideOneIsDead, sideAllAlive, func(x result) float64 { return float64(x.P95) }), deadTarget)
	return r.finish(cmd.JSON)
}

// verifyEmails verifies the addresses of all users.
func verifyEmails(ctx context.Context, f *fleet) error {
	db, err := masterdb.Open(ctx, f.master)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE users SET email_verified = TRUE`)
		return err
	})
}

// arrivals is the server of all endpoints. It is safe for concurrent use.
type arrivals struct {
	server  *http.Server
	address string

	behindIsAlive atomic.Bool  // whether /behind takes events
	behind        atomic.Int64 // how many it has taken

	mu   sync.Mutex
	took []time.Duration
}

func startArrivals(ctx context.Context) (*arrivals, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &arrivals{address: l.Addr().String()}
	a.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now()
		switch {
		case r.URL.Path == "/dead":
			<-r.Context().Done()
			return
		case r.URL.Path == "/behind" && !a.behindIsAlive.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case r.URL.Path == "/behind":
			a.behind.Add(1)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		var event struct {
			Timestamp time.Time `json:"timestamp"`
		}
		if json.NewDecoder(r.Body).Decode(&event) == nil {
			a.mu.Lock()
			a.took = append(a.took, now.Sub(event.Timestamp))
			a.mu.Unlock()
		}
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() { _ = a.server.Serve(l) }()
	return a, nil
}

func (a *arrivals) close() { _ = a.server.Close() }

// addEndpoints gives each store its endpoints, and credits.
func (a *arrivals) addEndpoints(ctx context.Context, f *fleet) error {
	for i, n := range []int{shopOfOne: 1, shopAlive: webhookEndpoints, shopOf: webhookEndpoints} {
		if err := enrich(ctx, f, f.shops[i]); err != nil {
			return err
		}
		for e := range n {
			path := "/alive"
			if i == shopOf && e == 0 {
				path = "/dead"
			}
			if err := a.add(ctx, f, f.shops[i].id, path, "credits.spent"); err != nil {
				return err
			}
		}
	}
	return nil
}

// add gives a store an endpoint at path for events of one type.
func (a *arrivals) add(ctx context.Context, f *fleet, store, path, eventType string) error {
	return f.owner.call(ctx, http.MethodPost, "/api/stores/"+store+"/webhooks", object{"url": "http://" + a.address + path, "types": []string{eventType}}, nil)
}

// take returns what has arrived, and forgets it.
func (a *arrivals) take() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	took := a.took
	a.took = nil
	return took
}

func (a *arrivals) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.took)
}

// measure makes events at a rate and waits until each has arrived at each endpoint that lives.
func (a *arrivals) measure(ctx context.Context, f *fleet, shop, endpoints, rate int, duration time.Duration) (result, error) {
	a.take()
	events := int(duration.Seconds() * float64(rate))
	errs := make(chan error, events)
	begin := time.Now()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for range events {
		go func() { errs <- f.owner.spend(ctx, f.shops[shop].id) }()
		<-tick.C
	}
	for range events {
		if err := <-errs; err != nil {
			return result{}, err
		}
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.After(time.Minute); a.count() < events*endpoints; {
		select {
		case <-poll.C:
		case <-deadline:
			return result{}, fmt.Errorf("%d of %d events have arrived after a minute", a.count(), events*endpoints)
		}
	}
	elapsed := time.Since(begin)
	took := a.take()
	slices.Sort(took)
	n := len(took)
	return result{Requests: n, Throughput: float64(n) / elapsed.Seconds(), P50: took[n/2], P95: took[n*95/100], P99: took[n*99/100], Slowest: took[n-1]}, nil
}
