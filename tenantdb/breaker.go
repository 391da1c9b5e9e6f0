package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/stoahq/stoa"
)

// tripAfter is how many failures in a row open a breaker.
const tripAfter = 3

// breaker keeps callers off a database that does not answer: after some
// failures in a row it turns them away at once, and after a pause it lets one
// through to see. It outlives the pools of its store.
type breaker struct {
	circuit *gobreaker.TwoStepCircuitBreaker[struct{}]
	last    atomic.Pointer[failure] // the one met last
}

type failure struct{ error }

func newBreaker(cooldown time.Duration) *breaker {
	return &breaker{circuit: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     cooldown,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNoSignal) },
	})}
}

// errOpen: the database failed a moment ago and is left alone for a while.
var errOpen = errors.New("tenantdb: circuit breaker is open")

// isOpen reports whether a call made now would be turned away.
func (b *breaker) isOpen() bool { return b.circuit.State() == gobreaker.StateOpen }

// refusal is the answer to a call that is turned away. It names the failure
// that opened the breaker as its cause.
func (b *breaker) refusal() error {
	if last := b.last.Load(); last != nil {
		return unavailable(fmt.Errorf("%w after: %w", errOpen, last.error))
	}
	return unavailable(errOpen)
}

// isCalm reports whether there is nothing worth remembering.
func (b *breaker) isCalm() bool {
	return b.circuit.State() == gobreaker.StateClosed && b.circuit.Counts().ConsecutiveFailures == 0
}

// errNoSignal is the outcome of a call that says nothing about the database.
var errNoSignal = errors.New("tenantdb: no health signal")

// allow admits a call, which then reports its error to done.
func (b *breaker) allow() (done func(error), err error) {
	report, err := b.circuit.Allow()
	if err != nil {
		return nil, b.refusal()
	}
	return func(outcome error) {
		if outcome != nil && !errors.Is(outcome, errNoSignal) {
			b.last.Store(&failure{outcome})
		}
		report(outcome)
	}, nil
}

// healthSignal returns what err, of a call under ctx, says about the database's
// health: nil when the database answered, whatever the answer, and errNoSignal
// when err says nothing.
func healthSignal(ctx context.Context, err error) error {
	switch {
	case err == nil || stoa.CodeOf(err) != stoa.TenantUnavailable || isContent(err):
		return nil
	case errors.Is(err, errNoConnection), errors.Is(err, errNoMemory), ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow):
		return errNoSignal // the fault is this side's, or the caller gave up
	}
	return err
}

// errSlow is the cause of a deadline that the manager sets, not a caller.
var errSlow = errors.New("tenantdb: the database takes too long")
