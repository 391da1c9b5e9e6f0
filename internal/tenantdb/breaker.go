package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// tripAfter is the number of consecutive failures that open a breaker.
const tripAfter = 3

// breaker refuses calls to a database that does not answer. After tripAfter
// consecutive failures it opens and refuses calls at once; after the cooldown it
// admits one trial call. It outlives the pools of its store.
type breaker struct {
	circuit *gobreaker.TwoStepCircuitBreaker[struct{}]
	last    atomic.Pointer[failure] // the last failure
}

type failure struct{ error }

func newBreaker(cooldown time.Duration) *breaker {
	return &breaker{circuit: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     cooldown,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNoSignal) },
	})}
}

// errOpen means that the database failed recently and calls are refused for a while.
var errOpen = errors.New("tenantdb: circuit breaker is open")

// isOpen reports whether a call would be refused now.
func (b *breaker) isOpen() bool { return b.circuit.State() == gobreaker.StateOpen }

// refusal returns the error of a refused call. Its cause names the last failure.
func (b *breaker) refusal() error {
	if last := b.last.Load(); last != nil {
		return unavailable(fmt.Errorf("%w after: %w", errOpen, last.error))
	}
	return unavailable(errOpen)
}

// isHealthy reports whether the breaker is closed and has counted no failure.
func (b *breaker) isHealthy() bool {
	return b.circuit.State() == gobreaker.StateClosed && b.circuit.Counts().ConsecutiveFailures == 0
}

// errNoSignal is the result of a call that says nothing about the database.
var errNoSignal = errors.New("tenantdb: no health signal")

// allow admits a call or returns refusal. An admitted call must pass its error to
// done.
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

// healthSignal returns what err, the result of a call under ctx, says about the
// database's health. It returns nil if the database answered, whatever the
// answer was, and errNoSignal if err says nothing about the database.
func healthSignal(ctx context.Context, err error) error {
	switch {
	case err == nil || stoa.CodeOf(err) != stoa.TenantUnavailable || isContent(err):
		return nil
	case isOverloaded(err), errors.Is(err, errOutOfMemory), ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout):
		return errNoSignal // the fault is Stoa's, or the caller cancelled
	}
	return err
}

// isOverloaded reports whether Stoa, and not the database, lacks what a connection takes.
func isOverloaded(err error) bool {
	return errors.Is(err, limit.ErrNoConnection) || errors.Is(err, screen.ErrHashing)
}

// errTimeout is the cause of a deadline that the manager, not the caller, has
// set.
var errTimeout = errors.New("tenantdb: the database takes too long")
