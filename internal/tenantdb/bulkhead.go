package tenantdb

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
)

// bulkhead limits the calls to one store's database. It limits how much a slow
// or unreachable database delays the callers of its own store, and it isolates
// the callers of other stores from that database.
type bulkhead struct {
	breaker   *breaker
	limiter   *limit.Concurrency
	conns     *limit.Connections  // notified when a connection may have become idle; nil: no notification
	server    string              // the server's name in conns
	wait      time.Duration       // maximum wait for a connection
	statement time.Duration       // maximum duration of a statement or a whole transaction
	waited    prometheus.Observer // seconds of each wait for a connection
	account   account             // counts the bytes of the store's answers
}

// errInterrupted is the initial result of a call. It remains the result if the
// call does not return.
var errInterrupted = errors.New("tenantdb: call did not return")

// run calls op with a free connection and a deadline. It returns op's error or
// tenant_unavailable.
func (b *bulkhead) run(ctx context.Context, op func(context.Context) error) error {
	if b.breaker.isOpen() {
		return b.breaker.refusal()
	}
	if err := b.acquire(ctx); err != nil {
		return unavailable(err)
	}
	defer b.release()
	done, err := b.breaker.allow()
	if err != nil {
		return err
	}
	result := errInterrupted
	defer func() { done(result) }()

	inner, cancel := context.WithTimeout(ctx, b.statement)
	defer cancel()
	err = op(inner)
	result = healthSignal(ctx, err)
	return err
}

// acquire waits for a slot. It starts no timer when a slot is free.
func (b *bulkhead) acquire(ctx context.Context) error {
	if b.limiter.TryAcquire() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.wait)
	defer cancel()
	begin := time.Now()
	defer func() { b.waited.Observe(time.Since(begin).Seconds()) }()
	return b.limiter.Acquire(ctx)
}

// release returns the slot. The connection of the call is idle by then.
func (b *bulkhead) release() {
	b.limiter.Release()
	if b.conns != nil {
		b.conns.Idle(b.server)
	}
}
