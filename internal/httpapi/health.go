package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
)

func (a *api) healthRoutes() {
	tags := []string{"Operations"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateHealth, scope: scopePublic, maxBody: noBody},
		huma.Operation{OperationID: "health.live", Method: http.MethodGet, Path: "/healthz", Tags: tags,
			Summary: "Is the process alive?", Description: "200 as long as the process answers. It asks nothing else."}, a.healthz)
	route(a, routeOptions{timeout: requestTimeout, rate: rateHealth, scope: scopePublic, maxBody: noBody},
		huma.Operation{OperationID: "health.ready", Method: http.MethodGet, Path: "/readyz", Tags: tags,
			Summary: "Can it serve? Checks the master database.", Description: "503 when the master database does not answer or the process is stopping.", Errors: []int{503}}, a.readyz)
}

// readiness caches the result of the last check of the master database, so that
// it is pinged at most once per readinessAge. It is safe for concurrent use.
type readiness struct {
	mu        sync.Mutex
	checkedAt time.Time
	err       error
}

const (
	readinessAge     = time.Second
	readinessTimeout = 2 * time.Second
)

// check returns the error of ping, or that of its last call within readinessAge.
func (r *readiness) check(ctx context.Context, ping func(context.Context) error) error {
	r.mu.Lock() // callers that arrive during a ping wait for its result
	defer r.mu.Unlock()
	if time.Since(r.checkedAt) < readinessAge {
		return r.err
	}
	// The ping does not end with the caller, because its result is shared.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readinessTimeout)
	defer cancel()
	r.err = ping(ctx)
	r.checkedAt = time.Now()
	return r.err
}

type healthOutput struct {
	Body struct {
		Status  string `json:"status" enum:"ok"`
		Version string `json:"version,omitempty" doc:"In development only"`
	}
}

func (a *api) healthz(context.Context, *struct{}) (*healthOutput, error) {
	out := &healthOutput{}
	out.Body.Status = "ok"
	if a.Development { // in production only the private listener tells the version
		out.Body.Version = stoa.Version
	}
	return out, nil
}

func (a *api) readyz(ctx context.Context, in *struct{}) (*healthOutput, error) {
	if isClosed(a.Draining) {
		return nil, errStopping(ctx)
	}
	if err := a.readiness.check(ctx, a.Master.Ping); err != nil {
		a.Log.WarnContext(ctx, "master database unreachable", "err", err)
		p := newProblem(ctx, http.StatusServiceUnavailable, stoa.PlatformUnavailable, "The master database cannot serve at the moment.")
		p.header.Set("Retry-After", "5")
		return nil, p
	}
	return a.healthz(ctx, in)
}
