package tenantdb

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// guard stands between the callers of one store and its database, so that a
// slow or dead one costs its own shoppers little and nobody else anything.
type guard struct {
	breaker   *breaker
	gate      *gate
	wait      time.Duration       // for a connection
	statement time.Duration       // for a statement, or a whole transaction
	waited    prometheus.Observer // seconds of each wait for a connection
	account   account             // where bytes of the store's database are counted
}

// errInterrupted is the verdict while a call is under way.
var errInterrupted = errors.New("tenantdb: call did not return")

// run calls op with a connection to spare and a deadline. An error is op's
// own or tenant_unavailable.
func (g *guard) run(ctx context.Context, op func(context.Context) error) error {
	if g.breaker.isOpen() {
		return g.breaker.refusal()
	}
	if err := g.enter(ctx); err != nil {
		return unavailable(err)
	}
	defer g.gate.leave()
	done, err := g.breaker.allow()
	if err != nil {
		return err
	}
	outcome := errInterrupted
	defer func() { done(outcome) }()

	inner, cancel := context.WithTimeout(ctx, g.statement)
	defer cancel()
	err = op(inner)
	outcome = verdict(ctx, err)
	return err
}

// enter is gate.enter, without a timer for who need not wait.
func (g *guard) enter(ctx context.Context) error {
	if g.gate.tryEnter() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.wait)
	defer cancel()
	begin := time.Now()
	defer func() { g.waited.Observe(time.Since(begin).Seconds()) }()
	return g.gate.enter(ctx)
}
