package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/provisioning"
)

// A server stops in two phases. While it drains, it serves requests as before,
// /readyz answers 503 so that a load balancer sends new requests elsewhere, and
// each response closes its connection. When it stops, requests that wait for a
// provisioning run are answered at once, and event streams end.

// reconnectDelay is how long the client of an event stream waits before it
// reconnects when the server stops.
const reconnectDelay = 500 * time.Millisecond

// isClosed reports whether a channel has been closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// errStopping returns the error of /readyz while the server drains and stops.
func errStopping(ctx context.Context) error {
	p := newProblem(ctx, http.StatusServiceUnavailable, stoa.PlatformUnavailable, "This server is stopping. Ask another one.")
	p.header.Set("Retry-After", "1")
	return p
}

// waitForRun returns the run when it has ended, or its current state when the
// timeout has passed or the server stops. Without a timeout it returns the run
// as it is given.
func (a *api) waitForRun(ctx context.Context, run provisioning.Run, timeout time.Duration) (provisioning.Run, error) {
	if timeout == 0 {
		return run, nil // the same answer however fast the run is
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		run provisioning.Run
		err error
	}
	ended := make(chan result, 1)
	go func() {
		run, err := a.Provisioning.Wait(waiting, run.ID, timeout)
		ended <- result{run, err}
	}()
	select {
	case r := <-ended:
		return r.run, r.err
	case <-a.Stopping:
		return run, nil // without a query: the master database may be why the server stops
	}
}
