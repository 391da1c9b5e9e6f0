package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/provisioning"
)

// A server stops in two steps. While it drains, it takes requests as before, but
// /readyz answers 503, so that a load balancer sends new ones elsewhere, and
// each answer closes its connection. When it stops, requests that wait for an
// outcome are answered at once, and streams of events end.

// reconnectAfter is how long the client of a stream waits before it connects
// again, to another server.
const reconnectAfter = 500 * time.Millisecond

// isClosed reports whether a channel has been closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// errStopping is what /readyz answers while the server drains and stops.
func errStopping(ctx context.Context) error {
	p := newProblem(ctx, http.StatusServiceUnavailable, stoa.PlatformUnavailable, "This server is stopping. Ask another one.")
	p.header.Set("Retry-After", "1")
	return p
}

// wait returns the run when it has ended, or as it stands when patience runs
// out or the server stops.
func (a *api) wait(ctx context.Context, run provisioning.Run, patience time.Duration) (provisioning.Run, error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		run provisioning.Run
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		run, err := a.Provisioning.Wait(waiting, run.ID, patience)
		ended <- outcome{run, err}
	}()
	select {
	case o := <-ended:
		return o.run, o.err
	case <-a.Stopping:
		return run, nil // without a look at the master, which may be what hangs
	}
}
