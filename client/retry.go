package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

const (
	firstPause   = 250 * time.Millisecond
	longestPause = 30 * time.Second
)

// repeatable reports whether a call that failed may be sent again: the reason is transient, and
// the call did nothing or may be done twice.
func (o outgoing) repeatable(err error) bool {
	if o.stream != nil {
		return false // what was read of it is gone
	}
	keyed := o.header.Get("Idempotency-Key") != ""
	safe := keyed || o.refresh || o.method != http.MethodPost && o.method != http.MethodPatch
	var e *Error
	if !errors.As(err, &e) { // no answer, or not the whole one
		return safe || notConnected(err)
	}
	switch e.Status {
	case http.StatusTooManyRequests:
		return true // it was refused before anything was done
	case http.StatusConflict:
		return keyed && e.RetryAfter > 0 // the first attempt with this key is still under way
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return safe
	}
	return false
}

// notConnected reports whether nothing was sent.
func notConnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// pause waits before the next attempt: as long as the answer says, or longer each time. It
// returns the error of the last attempt if the wait would be too long.
func pause(ctx context.Context, attempt int, err error) error {
	wait := min(firstPause<<min(attempt, 10), longestPause)
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // only spreads the attempts of many clients
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		if e.RetryAfter > longestPause {
			return err
		}
		wait = e.RetryAfter + rand.N(firstPause) //nolint:gosec // only spreads the attempts of many clients
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return errors.Join(err, context.DeadlineExceeded)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}
